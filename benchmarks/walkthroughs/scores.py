"""The score of each walkthrough, read from the files that its program has written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tape.errors import ConfigError, import_extra
from tape.io.json_files import read_json_object
from tape.io.run_layout import resolve_model_directory

from .inputs import FASTA


@dataclass(frozen=True)
class Score:
    """A score on the test rows.

    Attributes:
        name: what it is.
        value: the value.
        interval: its 95 % interval; None if the program computes none.
        items: the number of rows, if the program states it.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    items: int | None = None

    def __str__(self) -> str:
        bounds = "" if self.interval is None else f" [{self.interval[0]:.2f}, {self.interval[1]:.2f}]"
        shown = f"{self.value:.3f}" if abs(self.value) > 1e-3 or not self.value else f"{self.value:.0e}"
        return f"{self.name} {shown}{bounds}"


def of_evaluation(run: Path, metric: str, name: str) -> Score:
    """A metric of ``eval_test.json`` of the best epoch of a run."""
    record = read_json_object(resolve_model_directory(run) / "eval_test.json")
    (found,) = [one for one in record["metrics"] if one["name"] == metric]
    low, high = found["interval"]
    return Score(name, found["value"], (low, high), record["proteins"])


def of_biotrainer(path: Path) -> Score:
    """Spearman's rho of ``out.yml``, with the interval of its bootstrap."""
    yaml: Any = import_extra("yaml", "the results of biotrainer need PyYAML", "dev")
    (result,) = yaml.safe_load(path.read_text(encoding="utf-8"))["test_results"].values()
    (bounds,) = [one for one in result["bootstrapping"]["results"] if one["name"] == _BIOTRAINER_RHO]
    items = result["bootstrapping"]["sample_size"]
    return Score("rho", result["metrics"][_BIOTRAINER_RHO], (bounds["lower"], bounds["upper"]), items)


_BIOTRAINER_RHO = "spearmans-corr-coeff"


def of_transformers(path: Path, metric: str, name: str) -> Score:
    """A metric of the file that ``Trainer.save_metrics`` writes; it has no interval."""
    return Score(name, read_json_object(path)[metric])


def of_embeddings(folder: Path, pattern: str) -> Score:
    """The largest difference of the embeddings of an HDF5 file from the means of the model's states.

    Args:
        folder: the folder of the walkthrough.
        pattern: of the file, below it.

    Raises:
        ConfigError: there is no such file.
    """
    paths = sorted(folder.glob(pattern))
    if len(paths) != 1:
        raise ConfigError(f"{folder}: {len(paths)} files {pattern}; expected one")
    expected, found = _expected(folder / FASTA), _read_embeddings(paths[0])
    name = "largest difference from the model's states"
    if set(found) != set(expected):
        raise ConfigError(f"{paths[0]}: {len(found)} embeddings, not those of the {len(expected)} proteins")
    return Score(name, max(_difference(found[key], value) for key, value in expected.items()), items=len(found))


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max()) if one.shape == other.shape else float("inf")


def _read_embeddings(path: Path) -> Mapping[str, np.ndarray]:
    h5py: Any = import_extra("h5py", "embeddings in HDF5 need h5py", "hdf5")
    with h5py.File(path) as file:
        return {str(entry.attrs.get("original_id", name)): entry[:] for name, entry in file.items()}


def _expected(fasta: Path) -> Mapping[str, np.ndarray]:
    """Means of the states of the bundled model over the residues, computed for each protein on its own."""
    import torch

    from tape.hub.bundled import default_model
    from tape.io.records import open_records
    from tape.models.modeling_bert import ProteinBertModel
    from tape.tokenizers import TAPETokenizer

    model, tokenizer = ProteinBertModel.from_pretrained(default_model("transformer")).eval(), TAPETokenizer("iupac")
    expected = {}
    with torch.no_grad():
        for record in open_records(fasta):
            states = model(torch.from_numpy(tokenizer.encode(record.residues))[None])[0]
            expected[record.identifier] = states[0, 1:-1].mean(0).numpy()
    return expected
