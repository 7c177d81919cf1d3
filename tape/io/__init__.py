"""Reading and writing files: atomic writes, checksums, text, sequences, JSON, LMDB, vocabularies. No torch."""
