"""Converts models between the checkpoint formats of this project, Megatron-LM, TAPE and Hugging Face.

``formats`` reads and writes the formats; ``mapping`` has the rule tables between their keys and applies them tensor by
tensor in both directions; ``verify`` compares the reference forward passes of source and result; ``convert`` runs these
steps in order, and ``megatron-converter.py`` is the command line. No other package imports this one.
"""
