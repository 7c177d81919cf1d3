"""Leakage: the highest sequence identity of each test protein to the proteins that a model was trained on."""
