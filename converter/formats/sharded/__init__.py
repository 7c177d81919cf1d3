"""Sharded checkpoints of ``pretrain_tape.py``."""
