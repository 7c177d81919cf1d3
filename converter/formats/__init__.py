"""Checkpoint formats: one package per format, each with its reader (source) and, where there is one, its writer."""
