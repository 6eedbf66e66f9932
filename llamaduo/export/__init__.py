"""What of a run goes out of its folder: its rows as a data set for the Hub."""
