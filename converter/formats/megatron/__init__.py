"""Megatron-LM's classic checkpoints."""
