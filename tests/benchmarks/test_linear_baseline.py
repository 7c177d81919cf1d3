"""The position-specific linear baseline."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks.linear_baseline import main
from tape.errors import ConfigError, DataError
from tape.io.lmdb_store import write_lmdb

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def variants(number: int, seed: int, mutations: int) -> list[dict[str, Any]]:
    """Variants of one protein, whose label is a sum of effects of the position alone."""
    chance = random.Random(seed)
    wild_type = random.Random(0).choices(RESIDUES, k=30)
    records = []
    for _ in range(number):
        residues = list(wild_type)
        places = chance.sample(range(30), mutations)
        for place in places:
            residues[place] = chance.choice(RESIDUES.replace(wild_type[place], ""))
        records.append({"primary": "".join(residues), "log_fluorescence": [4.0 - sum(places) / 30]})
    return records


def write_splits(data: Path, **splits: list[dict[str, Any]]) -> None:
    (data / "fluorescence").mkdir()
    for split, records in splits.items():
        write_lmdb(data / "fluorescence" / f"fluorescence_{split}.lmdb", records)


def test_additive_effects_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_splits(tmp_path, train=variants(400, 1, 2), valid=variants(100, 2, 2), test=variants(100, 3, 5))
    main([str(tmp_path), "--out", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["test"] > 0.9
    assert result["valid"][str(result["penalty"])] == max(result["valid"].values())
    assert f"Spearman's rho {result['test']:.4f} on test" in capsys.readouterr().out


def test_proteins_of_a_family_are_refused(tmp_path: Path) -> None:
    family = [{"primary": "ACDEF" * size, "log_fluorescence": [1.0]} for size in (4, 6)]
    write_splits(tmp_path, train=family, valid=family, test=family)
    with pytest.raises(DataError, match="20 to 30 residues; position-specific features are for variants"):
        main([str(tmp_path)])


def test_other_tasks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--task remote_homology: has no value per protein"):
        main([str(tmp_path), "--task", "remote_homology"])
