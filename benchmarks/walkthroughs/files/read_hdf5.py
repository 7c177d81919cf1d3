"""The embeddings of a file in biotrainer's layout, by the original ids."""

import h5py

with h5py.File("embeddings.h5") as file:
    embeddings = {entry.attrs["original_id"]: entry[:] for entry in file.values()}
print(len(embeddings), next(iter(embeddings.values())).shape)
