"""The runtime of a process: launcher, process group, run lock, precision, progress bars, memory, CPU cores."""
