"""Who may import whom, and who may use torch, torch.distributed and argparse.

Imports are read from the source with `ast`, those inside functions too: a lazy import must not open a hidden door.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tape", "pretrain", "converter")

# Importable where torch is not: plain Python and numpy.
WITHOUT_TORCH = (
    "tape.cli",
    "tape.configs",
    "tape.errors",
    "tape.evaluation.config",
    "tape.finetuning.config",
    "tape.hub",
    "tape.inference.config",
    "tape.io",
    "tape.masking",
    "tape.runtime.cpu",
    "tape.runtime.launch",
    "tape.runtime.memory",
    "tape.runtime.process",
    "tape.runtime.progress",
    "tape.tasks",
    "tape.tokenizers",
    "tape.version",
)
_FILES = ("tape.errors", "tape.io", "tape.tokenizers", "tape.version")
_BASE = (*_FILES, "tape.configs", "tape.hub", "tape.masking")
_DATA = (*_BASE, "tape.tasks", "tape.registry", "tape.runtime")
_LIBRARY = (*_DATA, "tape.datasets", "tape.metrics", "tape.models")

# Room -> what it may import of ours besides itself. The longest matching name decides; a name stands for all below it.
# Read from the top it is the order of the house: a room imports from rooms above it in this table, never back.
ROOMS: dict[str, tuple[str, ...]] = {
    "tape.version": (),
    "tape.errors": (),
    "tape.tasks": (),
    "tape.runtime.progress": (),
    "tape.tokenizers": ("tape.errors",),
    "tape.io": ("tape.errors", "tape.tokenizers"),
    "tape.hub": (*_FILES, "tape.runtime.progress"),
    "tape.configs": (*_FILES, "tape.hub"),
    "tape.masking": _FILES,
    "tape.registry": (*_BASE, "tape.tasks"),
    "tape.models": _BASE,
    "tape.runtime": (*_BASE, "tape.models.low_precision"),
    "tape.datasets": _DATA,
    "tape.metrics": _DATA,
    "tape.evaluation": _LIBRARY,
    "tape.finetuning": (*_LIBRARY, "tape.evaluation"),
    "tape.inference": (*_LIBRARY, "tape.evaluation"),
    "tape.report": (*_LIBRARY, "tape.evaluation", "tape.finetuning"),
    "tape.cli": (*_LIBRARY, "tape.evaluation", "tape.finetuning", "tape.inference"),
    "tape": ("tape",),
    "pretrain.trace": (),
    "pretrain.preemption": (),
    "pretrain.data": (*_BASE, "tape.models", "pretrain.preemption"),
    "pretrain.parallel": (*_BASE, "tape.models", "tape.runtime", "pretrain.trace"),
    "pretrain.monitor": ("tape.errors", "tape.runtime", "pretrain.trace", "pretrain.parallel"),
    "pretrain.optim": (*_BASE, "tape.models", "tape.runtime", "pretrain.parallel"),
    "pretrain.checkpointing": (*_BASE, "tape.models", "pretrain.parallel"),
    "pretrain.planning": (
        *_BASE,
        "tape.models",
        "tape.runtime",
        "pretrain.data",
        "pretrain.optim",
        "pretrain.parallel",
    ),
    "pretrain.train": (
        *_BASE,
        "tape.models",
        "tape.metrics.classes",
        "tape.runtime",
        "pretrain.checkpointing",
        "pretrain.data",
        "pretrain.optim",
        "pretrain.parallel",
        "pretrain.planning",
        "pretrain.preemption",
        "pretrain.trace",
    ),
    "pretrain": (*_BASE, "tape.models", "tape.runtime", "tape.cli.types", "pretrain"),
    "converter.pickle_names": (),
    "converter.safe_load": ("tape.errors", "converter.pickle_names"),
    "converter.options": ("tape.errors",),
    "converter.mapping": (*_BASE, "tape.models"),
    "converter.verify": (*_BASE, "tape.models"),
    "converter.formats": (
        *_BASE,
        "tape.models",
        "pretrain.checkpointing",
        "converter.safe_load",
        "converter.options",
        "converter.mapping",
        "converter.verify",
    ),
    "converter": (*_BASE, "tape.models", "tape.runtime", "converter"),
}
NEVER_IMPORTED = (
    "converter",
    "scripts",
    "tests",
    "benchmarks",
    "tape_train",
    "tape_eval",
    "setup",
    "tape.main",
    "pretrain.pretrain_tape",
    "pretrain.tools",
)

# torch.distributed is pretraining's; finetuning's data parallelism has one module of its own.
DISTRIBUTED_ROOMS = ("pretrain.parallel", "pretrain.checkpointing", "tape.runtime.distributed")

# Command lines are parsed here; everything else is given values.
ARGUMENT_ROOMS = (
    "tape.training",
    "tape.main",
    "tape.cli",
    "tape.report.command",
    "tape.report.compare",
    "pretrain.config",
    "pretrain.pretrain_tape",
    "pretrain.tools",
    "pretrain.protein_tools",
    "converter.megatron-converter",
)
# TAPE's import paths, which stay importable: thin modules over ours.
COMPATIBILITY = {"tape.optimization", "tape.training", "tape.utils"}
CATCH_ALL_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}


def module_files() -> dict[str, Path]:
    """Module name -> file, for our three packages."""
    files = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


MODULES = module_files()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def is_under(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def room_of(module: str) -> str:
    return max((room for room in ROOMS if is_under(module, room)), key=len)


def imported_names(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that a file imports, made absolute; `from a import b` gives a.b."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = absolute_source(node, path, module)
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((node.lineno, str(value.value)) for value in node.args[:1] if isinstance(value, ast.Constant))


def absolute_source(node: ast.ImportFrom, path: Path, module: str) -> str:
    if not node.level:
        return node.module or ""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join([*base, node.module] if node.module else base)


def our_module(name: str) -> str | None:
    """The module of ours that a dotted name belongs to: tape.errors.DataError -> tape.errors; None for others'."""
    if name.split(".")[0] not in {*PACKAGES, "scripts", "tests", "benchmarks", "tape_train", "tape_eval", "setup"}:
        return None
    parts = name.split(".")
    known = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((candidate for candidate in known if candidate in MODULES), name)


def mentions_torch_distributed(path: Path, module: str) -> list[int]:
    """Lines that import torch.distributed or reach it as an attribute of torch."""
    lines = [line for line, name in imported_names(path, module) if is_under(name, "torch.distributed")]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and node.attr == "distributed" and ast.unparse(node.value) == "torch":
            lines.append(node.lineno)
    return sorted(lines)


def modules_without_torch() -> list[str]:
    return [module for module in MODULES if any(is_under(module, room) for room in WITHOUT_TORCH)]


def test_the_rooms_exist() -> None:
    assert [room for room in (*ROOMS, *WITHOUT_TORCH) if room not in MODULES] == []


def test_no_room_may_import_back_up() -> None:
    """A room's list names only rooms before it in the table, so that no two rooms can import each other."""
    order = list(ROOMS)
    back = [
        f"{room} -> {target}"
        for place, room in enumerate(order)
        for target in ROOMS[room]
        if target not in {"tape", "pretrain", "converter"} and room_of(target) in order[place + 1 :]
    ]
    assert back == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_only_what_it_may(module: str) -> None:
    room = room_of(module)
    offences = []
    for line, name in imported_names(MODULES[module], module):
        target = our_module(name)
        if target is None:
            continue
        allowed = (*ROOMS[room], room)
        if not any(is_under(target, entry) for entry in allowed):
            offences.append(f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}")
    assert not offences, "\n".join([*offences, f"{room} may import: {', '.join(ROOMS[room])}"])


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nobody_imports_the_converter_the_scripts_or_the_command_lines(module: str) -> None:
    offences = []
    for line, name in imported_names(MODULES[module], module):
        target = our_module(name)
        for closed in NEVER_IMPORTED:
            if target and is_under(target, closed) and not is_under(module, closed) and module not in COMPATIBILITY:
                offences.append(f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}")
    assert not offences, "\n".join(offences)


@pytest.mark.parametrize("module", sorted(modules_without_torch()))
def test_a_module_without_torch_names_no_torch(module: str) -> None:
    assert [name for _, name in imported_names(MODULES[module], module) if is_under(name, "torch")] == []


def test_importing_the_modules_without_torch_leaves_torch_out() -> None:
    code = f"""
import importlib, sys
for name in {modules_without_torch()!r}:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(name + " brings torch in")
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("module", sorted(MODULES))
def test_torch_distributed_stays_in_its_rooms(module: str) -> None:
    if any(is_under(module, room) for room in DISTRIBUTED_ROOMS):
        return
    assert mentions_torch_distributed(MODULES[module], module) == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_composition_roots_read_the_command_line(module: str) -> None:
    if any(is_under(module, room) for room in ARGUMENT_ROOMS):
        return
    parsing = {"argv", "ArgumentParser", "parse_args", "parse_known_args"}
    nodes = ast.walk(tree_of(MODULES[module]))
    assert [node.lineno for node in nodes if isinstance(node, ast.Attribute) and node.attr in parsing] == []


def test_no_catch_all_modules() -> None:
    named = [name for name in MODULES if CATCH_ALL_NAMES & set(name.split(".")) and name not in COMPATIBILITY]
    scripts = [path for path in (ROOT / "scripts").rglob("*.py") if path.stem in CATCH_ALL_NAMES]
    assert (named, scripts) == ([], [])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import tape.errors", ["tape.errors"]),
        ("def f():\n    from tape import models", ["tape.models"]),
        ("from . import heads", ["tape.models.heads"]),
        ("from ..errors import DataError", ["tape.errors.DataError"]),
        ("import importlib\nimportlib.import_module('converter')", ["importlib", "converter"]),
    ],
)
def test_the_reader_sees_every_form_of_import(tmp_path: Path, source: str, expected: list[str]) -> None:
    path = tmp_path / "modeling.py"
    path.write_text(source, encoding="utf-8")
    assert [name for _, name in imported_names(path, "tape.models.modeling")] == expected
