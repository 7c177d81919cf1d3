"""What a person with own proteins types and writes, with this project and with others, for ``benchmarks/own_data.py``.

A program (:mod:`.programs`) has an environment and up to three jobs: values of a table, embeddings of a FASTA file,
contacts of structure files. Their scripts and configurations are in ``files/``; :mod:`.inputs` writes the data.
"""
