"""Comparisons with the tools that a user could use instead: transformers and tape-proteins 0.5.

A benchmark (``benchmarks/peers_*.py``) starts one worker process per tool and asks the workers in turn, so that a round
is: ours, peer A, peer B, ..., and drift of the machine affects all of them. While one worker measures, the others wait
for a line on their standard input and use no CPU time. Workers of peers run in an environment of their own
(:mod:`benchmarks.peers.environment`), in which this repository is not installed.
"""
