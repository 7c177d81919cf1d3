"""Evaluation of a split: metrics over every protein once, and the files in which they are kept."""
