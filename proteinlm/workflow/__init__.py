"""Workflows of many commands: the quickstart, and the reproduction of the table of results."""
