"""A table as biotrainer's FASTA: TARGET and SET in the headers, SET=pred without a label."""

import pandas as pd
from biotrainer.input_files import read_FASTA

sets = {"train": "train", "valid": "val", "test": "test"}
with open("my.fasta", "w") as stream:
    for row in pd.read_csv("my.csv").itertuples():
        stream.write(f">{row.id} TARGET={row.stability_kJ_mol} SET={sets[row.split]}\n{row.sequence}\n")
    for record in read_FASTA("new.fasta"):
        stream.write(f">{record.seq_id} SET=pred\n{record.seq}\n")
