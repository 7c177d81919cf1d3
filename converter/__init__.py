"""Turns pretraining checkpoints into TAPE model directories and proves the result.

``sources`` says what can be read, ``mapping`` which tensor becomes which, ``verify`` that both compute the same,
``conversion`` does the three in order. ``megatron-converter.py`` is the command line. Nobody imports this package.
"""
