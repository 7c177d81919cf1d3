"""Inference without labels: embeddings, predictions, variant effects, contacts from attention maps."""
