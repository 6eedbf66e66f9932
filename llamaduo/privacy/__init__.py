"""Privacy: what may not leave the house is replaced before it does, and put back in what returns, locally."""
