"""biotrainer: it reads the HDF5 files of ``tape-embed`` by the FASTA file that they were computed from."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from tape.main import run_embed
from tape.models.modeling_bert import ProteinBertModel

from .client import TOLERANCE, Check, Client, largest_difference, random_model
from .inputs import SIZES, Outputs, single_proteins

FORMS = {"residues": ["--full_sequence_embed"], "proteins": [], "half": ["--dtype", "float16"]}
_ROUNDING = 2e-3  # of values of about 2 in float16


def prepare(folder: Path) -> None:
    """Embeddings in HDF5."""
    random_model("transformer", "embed", **SIZES).save_pretrained(folder / "model")
    for name, options in FORMS.items():
        words = ["transformer", str(folder / "proteins.fasta"), str(folder / f"{name}.h5"), str(folder / "model")]
        run_embed([*words, *options, "--no_cuda", "--num_workers", "0", "--log_level", "ERROR"])


@torch.no_grad()
def _embeddings(name: str, folder: Path, outputs: Outputs) -> float:
    """What biotrainer has read, against the states that the model computes for each protein."""
    model, found = ProteinBertModel.from_pretrained(folder / "model"), []
    for number, ids in enumerate(single_proteins(folder, "iupac")):
        states = model(torch.from_numpy(ids))[0][0, 1:-1].numpy()
        expected = states if name == "residues" else states.mean(0)
        found.append(largest_difference(expected, outputs[f"{name}_{number}"]))
    return max(found)


BIOTRAINER = Client(
    name="biotrainer 1.4.0",
    worker="benchmarks.clients.biotrainer_worker",
    requirements="clients_requirements.txt",
    prepare=prepare,
    checks=tuple(
        Check(f"`tape-embed OUT.h5{shown}`, read there", compared, partial(_embeddings, name), tolerance)
        for name, shown, compared, tolerance in (
            ("residues", " --full_sequence_embed", "L x H states of residues", TOLERANCE),
            ("proteins", "", "their mean (H)", TOLERANCE),
            ("half", " --dtype float16", "their mean (H)", _ROUNDING),
        )
    ),
)
