"""Finetuning: the trainer, its configuration, optimizer, checkpoints, resume, and the run directory."""
