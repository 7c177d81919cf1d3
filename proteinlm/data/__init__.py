"""Protein files and published data sets to training data."""
