"""Reading and writing files, without torch: atomic writes, checksums, text, JSON, LMDB, records, restricted pickles."""
