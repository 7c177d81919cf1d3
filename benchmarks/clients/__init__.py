"""Other programs that read this project's files or write files for it, for ``benchmarks/interoperability.py``.

A client has two modules: its own, with what is compared, and a worker, which runs in the client's environment.
"""
