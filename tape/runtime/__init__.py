"""The runtime of a process: launcher, process group, rank consistency, run lock, stop signals, precision, memory."""
