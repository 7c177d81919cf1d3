"""Parts of benchmarks/fault_injection.py: the commands under test, and how they are run and interrupted."""
