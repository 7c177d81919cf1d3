"""The runtime of a process: launcher, process group, consistency of ranks, run lock, stop signals, precision, memory."""
