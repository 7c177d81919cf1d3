"""trRosetta's data: bins, sampling, windows, and errors for invalid files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tape.datasets import TRRosettaDataset
from tape.datasets.trrosetta import bin_geometry
from tape.errors import DataError
from tape.metrics.geometry import measure_geometry, summarize_geometry

GEOMETRY = ("dist6d", "omega6d", "theta6d", "phi6d")


def write(directory: Path, split: str, name: str, **changes: Any) -> Path:
    """One protein of 6 residues and 40 sequences, listed as the split; returns the data directory."""
    rng = np.random.default_rng(0)
    fields: dict[str, Any] = {"msa": rng.integers(0, 21, (40, 6)).astype(np.uint8)}
    fields |= {field: rng.uniform(0, 3, (6, 6)) for field in GEOMETRY}
    fields |= changes
    folder = directory / "trrosetta"
    (folder / "npz").mkdir(parents=True, exist_ok=True)
    np.savez(folder / "npz" / f"{name}.npz", **{key: value for key, value in fields.items() if value is not None})
    (folder / f"{split}_files.txt").write_text(f"{name}\n")
    return directory


def test_bins_of_known_distances_and_angles() -> None:
    distance = np.array([[0.0, 1.5, 2.0], [2.5, 0.0, 19.9], [20.0, 0.0, 0.0]])
    angle = np.deg2rad(np.array([[0, -180, -165], [0, 0, 180], [0, 0, 0.0]]))
    planar = np.deg2rad(np.array([[0, 0, 15], [14.9, 0, 180], [0, 0, 0.0]]))
    dist, omega, theta, phi = bin_geometry(distance, angle, angle, planar)
    assert dist.tolist() == [[-1, 1, 1], [2, -1, 36], [0, 0, -1]]
    assert omega.tolist() == theta.tolist() == [[0, 1, 2], [13, 0, 24], [0, 0, 0]]
    assert phi.tolist() == [[0, 1, 2], [1, 0, 12], [0, 0, 0]]
    distance[0, 1] = np.nan
    assert bin_geometry(distance, angle, angle, planar)[0][0, 1] == -1


def test_training_examples_depend_on_seed_and_epoch_and_other_splits_are_complete(tmp_path: Path) -> None:
    train = TRRosettaDataset(write(tmp_path, "train", "a"), "train", max_seqlen=4)
    assert train.build_index().lengths.tolist() == [4]
    assert train.build_index().identifiers == ["a"]
    seen = []
    for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0), (3, 0)):
        train.set_epoch(seed, epoch)
        msa, dist, *_ = train[0]
        assert msa.shape[1] == 4
        assert dist.shape == (4, 4)
        seen.append((len(msa), msa.tobytes(), dist.tobytes()))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 4
    assert len({depth for depth, _, _ in seen}) > 1
    valid = TRRosettaDataset(write(tmp_path, "valid", "b"), "valid", max_seqlen=4)
    msa, dist, *_ = valid[0]
    assert msa.shape == (40, 6)
    assert dist.shape == (6, 6)
    assert msa.tobytes() == valid[0][0].tobytes()


def test_a_batch_is_padded_with_ignored_labels(tmp_path: Path) -> None:
    write(tmp_path, "valid", "long", msa=np.full((2, 6), 20))
    small = {field: np.full((3, 3), 1.0) for field in GEOMETRY}
    write(tmp_path, "valid", "short", msa=np.zeros((3, 3), int), **small)
    (tmp_path / "trrosetta" / "valid_files.txt").write_text("long.npz\nshort.npz\n")
    dataset = TRRosettaDataset(tmp_path, "valid")
    batch = dataset.collate_fn([dataset[0], dataset[1]])
    assert set(batch) == {"msa1hot", "dist", "omega", "theta", "phi"}
    assert batch["msa1hot"].shape == (2, 3, 6, 21)
    assert batch["msa1hot"].sum((2, 3)).tolist() == [[6, 6, 0], [3, 3, 3]]
    assert (batch["dist"][1, 3:] == -1).all()
    assert batch["omega"][1, 3:].abs().sum() == batch["phi"][1, :, 3:].abs().sum() == 0
    assert batch["dist"].dtype == torch.int64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phi6d": None}, "no field 'phi6d'"),
        ({"dist6d": np.zeros((6, 5))}, r"field 'dist6d' has shape \(6, 5\), not \(6, 6\)"),
        ({"msa": np.full((2, 6), 21)}, "'msa' has values from 21 to 21; allowed are 0 to 20"),
        ({"msa": np.zeros((2, 6))}, "'msa' must be integers"),
    ],
)
def test_an_invalid_record_is_refused_with_its_file(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    dataset = TRRosettaDataset(write(tmp_path, "valid", "bad", **changes), "valid")
    with pytest.raises(DataError, match=message) as error:
        dataset[0]
    assert "bad" in str(error.value)


def test_wrong_shapes_are_refused_with_the_index(tmp_path: Path) -> None:
    dataset = TRRosettaDataset(write(tmp_path, "valid", "a", theta6d=np.zeros((6, 5))), "valid")
    with pytest.raises(DataError, match=r"field 'theta6d' has shape \(6, 5\), not \(6, 6\)"):
        dataset.build_index()


def test_invalid_lists_of_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "valid", "a")
    with pytest.raises(DataError, match=r"test_files\.txt: no split 'test'; splits there: valid"):
        TRRosettaDataset(tmp_path, "test")
    (tmp_path / "trrosetta" / "valid_files.txt").write_text("a b c")
    with pytest.raises(DataError, match=r"2 of 3 files are not in .*npz: 'b\.npz'"):
        TRRosettaDataset(tmp_path, "valid")
    (tmp_path / "trrosetta" / "valid_files.txt").write_text("\n")
    with pytest.raises(DataError, match="lists no protein"):
        TRRosettaDataset(tmp_path, "valid")
    (tmp_path / "trrosetta" / "valid_files.txt").write_bytes(b"a\n\xe9\n")
    with pytest.raises(DataError, match=r"valid_files\.txt: not UTF-8 text \(.* at byte 2\)"):
        TRRosettaDataset(tmp_path, "valid")
    (tmp_path / "trrosetta" / "valid_files.txt").write_text("n" * 300)
    with pytest.raises(DataError, match="1 of 1 files are not in"):
        TRRosettaDataset(tmp_path, "valid")
    (tmp_path / "trrosetta" / "npz" / "a.npz").write_bytes(b"PK junk")
    (tmp_path / "trrosetta" / "valid_files.txt").write_text("a")
    with pytest.raises(DataError, match=r"a\.npz: truncated"):
        TRRosettaDataset(tmp_path, "valid").build_index()


def test_geometry_metrics_of_a_known_prediction() -> None:
    """8 residues: the pairs (0, 6), (0, 7), (1, 7) can be contacts."""
    target = {name: np.zeros((8, 8), dtype=np.int64) for name in ("dist", "omega", "theta", "phi")}
    np.fill_diagonal(target["dist"], -1)
    target["dist"][0, 6], target["dist"][1, 7] = 12, 13  # below 8 Angstrom, and above
    target["omega"][0, 6] = 5
    prediction = {f"p_{name}": np.zeros((8, 8, bins)) for name, bins in (("dist", 37), ("omega", 25), ("theta", 25))}
    prediction["p_phi"] = np.zeros((8, 8, 13))
    prediction["p_dist"][..., 0] = 0.5
    prediction["p_dist"][0, 6, 3] = 0.9
    prediction["p_omega"][0, 6, 5] = 1.0
    metrics = {metric.name: metric for metric in summarize_geometry([measure_geometry(prediction, target)])}
    assert metrics["accuracy_dist"].value == pytest.approx(54 / 56)
    assert (metrics["accuracy_omega"].value, metrics["accuracy_omega"].n) == (1.0, 1)
    assert metrics["accuracy_phi"].n == 0
    assert metrics["precision_at_l5"].value == 1.0
    assert metrics["precision_at_l"].value == pytest.approx(1 / 3)
