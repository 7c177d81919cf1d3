"""A user's own table of proteins as a task: its reader, the kind of its target, and its splits. Imports no torch."""
