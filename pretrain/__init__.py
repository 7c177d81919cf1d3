"""Pretraining of the protein language model: corpus, packing, tensor and data parallel training, checkpoints."""
