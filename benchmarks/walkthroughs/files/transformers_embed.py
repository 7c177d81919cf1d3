"""Embeddings of a FASTA file by transformers: means over the residues."""

import h5py
import torch
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("proteinlm-mini-hf")
model = AutoModel.from_pretrained("proteinlm-mini-hf").eval()
with open("proteins.fasta") as stream:
    lines = stream.read().split()
proteins = list(zip(lines[::2], lines[1::2], strict=True))
with h5py.File("transformers_embeddings.h5", "w") as file, torch.no_grad():
    for start in range(0, len(proteins), 32):
        names, sequences = zip(*proteins[start : start + 32], strict=True)
        batch = tokenizer(list(sequences), padding=True, return_tensors="pt")
        for name, states, sequence in zip(names, model(**batch).last_hidden_state, sequences, strict=True):
            file[name[1:]] = states[1 : len(sequence) + 1].mean(0).numpy()
