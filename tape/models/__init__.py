"""Models. Import classes from their modules, or from :mod:`tape`."""
