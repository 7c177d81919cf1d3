"""Clusters of related proteins, and splits that keep them together. Imports no torch."""
