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

# The base room: plain Python and numpy, importable where torch is not.
BASE = (
    "tape.atomic_files",
    "tape.configs",
    "tape.downloads",
    "tape.errors",
    "tape.file_hashes",
    "tape.json_files",
    "tape.lmdb_store",
    "tape.masking",
    "tape.model_cache",
    "tape.object_store",
    "tape.perplexity",
    "tape.process_memory",
    "tape.processor_cores",
    "tape.progress",
    "tape.published_models",
    "tape.sequence_files",
    "tape.text_files",
    "tape.tokenizers",
    "tape.version",
    "tape.vocabulary_files",
)
ANY_TAPE = ("tape",)

# Room -> what it may import of ours besides itself. The longest matching name decides; a name stands for all below it.
ROOMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(BASE, BASE),
    "tape": ANY_TAPE,
    "tape.models": BASE,
    "tape.tasks": BASE,
    "tape.registry": (*BASE, "tape.tasks"),
    "tape.datasets": (*BASE, "tape.tasks", "tape.registry"),
    "tape.metrics": (*BASE, "tape.tasks", "tape.registry"),
    "pretrain": (*BASE, "tape.models"),
    "converter": (*BASE, "tape.models", "pretrain.checkpointing"),
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
    "tape.zero_shot",
    "pretrain.pretrain_tape",
    "pretrain.tools",
)

# torch.distributed is pretraining's; finetuning's data parallelism has one module of its own.
DISTRIBUTED_ROOMS = ("pretrain.parallel", "pretrain.checkpointing", "tape.distributed")

# Command lines are parsed here; everything else is given values.
ARGUMENT_ROOMS = (
    "tape.main",
    "tape.zero_shot",
    "tape.arguments",
    "pretrain.arguments",
    "pretrain.command_line",
    "pretrain.flags",
    "pretrain.schedule_flags",
    "pretrain.pretrain_tape",
    "pretrain.tools",
    "pretrain.protein_tools",
    "converter.megatron-converter",
)
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


def test_the_base_room_is_complete() -> None:
    assert [module for module in BASE if module not in MODULES] == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_only_what_it_may(module: str) -> None:
    room = room_of(module)
    offences = []
    for line, name in imported_names(MODULES[module], module):
        target = our_module(name)
        if target is None:
            continue
        # A base module is a room of its own; the others may import their own parts.
        allowed = ROOMS[room] if room in BASE else (*ROOMS[room], room)
        if not any(is_under(target, entry) for entry in allowed):
            offences.append(f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}")
    assert not offences, "\n".join([*offences, f"{room} may import: {', '.join(ROOMS[room])}"])


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nobody_imports_the_converter_the_scripts_or_the_command_lines(module: str) -> None:
    offences = []
    for line, name in imported_names(MODULES[module], module):
        target = our_module(name)
        for closed in NEVER_IMPORTED:
            if target and is_under(target, closed) and not is_under(module, closed):
                offences.append(f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}")
    assert not offences, "\n".join(offences)


@pytest.mark.parametrize("module", BASE)
def test_a_base_module_names_no_torch(module: str) -> None:
    assert [name for _, name in imported_names(MODULES[module], module) if is_under(name, "torch")] == []


def test_importing_the_base_room_leaves_torch_out() -> None:
    code = f"""
import importlib, sys
for name in {BASE!r}:
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
    named = [name for name in MODULES if CATCH_ALL_NAMES & set(name.split("."))]
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
