"""What public code imports from tape-proteins 0.5 and this library does not need itself.

TAPE's import paths (``tape.training``, ``tape.utils``, ``tape.visualization``, ...) are thin modules over this package.
"""
