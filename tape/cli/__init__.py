"""Command lines: the options of each command, parsed once into the configuration of what it runs."""
