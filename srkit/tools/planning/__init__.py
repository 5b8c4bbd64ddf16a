"""What `srkit plan` does in turn: look at a folder, guess groups, fit patch and batch to the machine, write option files."""
