"""What the train stage is made of: which rows go together, their loss, checkpoints, devices, a process of its own."""
