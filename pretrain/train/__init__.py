"""The training loop: the trainer, the masked-LM objective, metrics logging, evaluation, non-finite steps."""
