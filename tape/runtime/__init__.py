"""What a process runs on: processes and process groups, precision, progress bars, memory, cores."""
