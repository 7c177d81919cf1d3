"""``tape.utils``: incremental .npz files and types of arguments."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from tape.utils import IncrementalNPZ, check_is_dir, check_is_file, int_or_str


def test_arrays_and_dictionaries_are_added_one_after_another(tmp_path: Path) -> None:
    """As in TAPE's ``run_embed``: one dictionary of arrays per protein."""
    with IncrementalNPZ(str(tmp_path / "out")) as file:
        for name, length in (("a", 3), ("b|c", 5)):
            file.savez(**{name: {"pooled": np.zeros(2), "seq": np.ones((length, 2))}})
        file.savez(plain=np.arange(4))
    with np.load(tmp_path / "out.npz", allow_pickle=True) as arrays:
        assert sorted(arrays.files) == ["a", "b|c", "plain"]
        assert arrays["b|c"].item()["seq"].shape == (5, 2)
        assert arrays["plain"].tolist() == [0, 1, 2, 3]


def test_types_of_arguments(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.touch()
    assert [int_or_str("3"), int_or_str("improvement")] == [3, "improvement"]
    assert check_is_file(str(file)) == str(file)
    assert check_is_dir(str(tmp_path)) == str(tmp_path)
    assert check_is_file(None) is check_is_dir(None) is None
    for check, path in ((check_is_file, tmp_path), (check_is_dir, file)):
        with pytest.raises(argparse.ArgumentTypeError, match="is not an existing"):
            check(str(path))
