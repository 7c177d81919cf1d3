"""TAPE model directories."""
