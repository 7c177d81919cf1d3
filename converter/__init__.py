"""Converts a model from any of its forms (ours, Megatron-LM's, TAPE's, Hugging Face's) into another, and proves it.

``sources`` says what can be read and ``targets`` what is written; ``tables`` have the keys of each form, ``mapping``
and ``transforms`` apply them in either direction, tensor by tensor. ``verify`` compares what both sides compute, each
by an evaluation of its own files; ``conversion`` does it all in order. ``megatron-converter.py`` is the command line.
Nobody imports this package.
"""
