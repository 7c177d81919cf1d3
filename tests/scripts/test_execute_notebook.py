"""The notebooks of the documentation run, and have stored outputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts import execute_notebook

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "docs" / "tutorials").glob("*.ipynb"))


def code_cells(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def outputs(cell: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The kind of each output, with the types of its data, or the stream that it was printed to."""
    return [(out["output_type"], sorted(out.get("data", [out.get("name", "")]))) for out in cell["outputs"]]


def save_notebook(path: Path, *sources: str) -> Path:
    cells = [
        {"cell_type": "code", "execution_count": None, "id": f"c{n}", "metadata": {}, "outputs": [], "source": source}
        for n, source in enumerate(sources)
    ]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_gives_its_stored_outputs(notebook: Path, tmp_path: Path) -> None:
    """Of each cell: outputs of the same kinds. Their numbers may differ in the last digits between processors."""
    pytest.importorskip("matplotlib")
    execute_notebook.execute(notebook, tmp_path / "executed.ipynb")
    executed, stored = code_cells(tmp_path / "executed.ipynb"), code_cells(notebook)
    assert [outputs(cell) for cell in executed] == [outputs(cell) for cell in stored]
    assert not [cell for cell in stored if any(out.get("name") == "stderr" for out in cell["outputs"])]


def test_outputs_are_stored(tmp_path: Path) -> None:
    notebook = save_notebook(tmp_path / "x.ipynb", "import os; print(sorted(os.listdir()))", "!proteinlm --version")
    execute_notebook.execute(notebook, tmp_path / "out.ipynb")
    first, second = code_cells(tmp_path / "out.ipynb")
    assert first["outputs"][0]["text"] == ["['bin']\n"]
    assert "proteinlm" in "".join(second["outputs"][0]["text"]).lower()


def test_a_failing_cell_is_one_error(tmp_path: Path, fails: Callable[..., str]) -> None:
    notebook = save_notebook(tmp_path / "x.ipynb", "1 / 0")
    before = notebook.read_text()
    assert "x.ipynb: a cell fails: ZeroDivisionError: division by zero" in fails(execute_notebook.main, notebook)
    assert notebook.read_text() == before
