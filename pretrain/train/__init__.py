"""The training loop: the trainer, the masked-LM objective, metrics logging, non-finite steps, resume."""
