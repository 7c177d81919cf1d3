"""Reading and writing files, without torch: atomic writes, checksums, text, sequences, JSON, LMDB, vocabularies."""
