"""Embeddings of a FASTA file by biotrainer."""

from pathlib import Path

import torch
from biotrainer.embedders import get_embedding_service
from biotrainer.protocols import Protocol

Path("embeddings").mkdir()
service = get_embedding_service("proteinlm-mini-hf", custom_tokenizer_config=None, device=torch.device("cpu"))
print(service.compute_embeddings("proteins.fasta", Path("embeddings"), Protocol.sequence_to_value))
