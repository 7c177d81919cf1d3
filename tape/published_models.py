"""Names of published models, as tape-proteins 0.5 knows them, and where their files lie."""

from __future__ import annotations

from dataclasses import dataclass

_BASE = "https://s3.amazonaws.com/songlabdata/proteindata/pytorch-models/"


@dataclass(frozen=True)
class PublishedModel:
    """Addresses of a model's configuration and weights."""

    config: str
    weights: str


def _published(stem: str) -> PublishedModel:
    return PublishedModel(f"{_BASE}{stem}-config.json", f"{_BASE}{stem}-pytorch_model.bin")


# model name -> files, family by family
TRANSFORMERS = {"bert-base": _published("bert-base")}
UNIREPS = {"babbler-1900": _published("unirep-base")}
TRROSETTAS = {name: _published(f"trRosetta-{name}") for name in ("xaa", "xab", "xac", "xad", "xae")}

PUBLISHED_MODELS: dict[str, PublishedModel] = {**TRANSFORMERS, **UNIREPS, **TRROSETTAS}
