"""The commands, a file each: `main(arguments)` carries one out and returns the exit code."""
