"""The runtime of a process: launcher, process group, precision, progress bars, memory, CPU cores."""
