"""Tokenized corpora, and the training batches made from their proteins."""
