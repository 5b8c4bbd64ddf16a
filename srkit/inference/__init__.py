"""What was trained, applied: pictures, folders and volumes from the command line, arrays from Python."""
