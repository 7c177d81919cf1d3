"""Which package may import which, and which may use torch, torch.distributed and argparse.

Imports are read from the source with `ast`, those inside functions too: a lazy import is an import, too.
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

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tape", "pretrain", "converter", "proteinlm")

# Importable without torch: plain Python and numpy.
WITHOUT_TORCH = (
    "tape.cli",
    "tape.commands",
    "tape.compatibility.constructors",
    "tape.compatibility.names",
    "tape.compatibility.parsers",
    "tape.configs",
    "tape.errors",
    "tape.evaluation.config",
    "tape.finetuning.config",
    "tape.hub",
    "tape.inference.config",
    "tape.installation",
    "tape.interrupts",
    "tape.io",
    "tape.leakage.config",
    "tape.masking",
    "tape.runtime.cpu",
    "tape.runtime.launch",
    "tape.runtime.launcher_monitor",
    "tape.runtime.memory",
    "tape.runtime.precision_choice",
    "tape.runtime.process",
    "tape.runtime.process_identity",
    "tape.runtime.progress",
    "tape.runtime.rank_consistency",
    "tape.runtime.rendezvous",
    "tape.runtime.run_lock",
    "tape.runtime.stop_signals",
    "tape.similarity",
    "tape.tables",
    "tape.targets",
    "tape.tasks",
    "tape.tokenizers",
    "tape.version",
    "pretrain.checkpoint_paths",
    "pretrain.choices",
    "pretrain.config.flags",
    "pretrain.train.metrics_schema",
)
# Commands start in a fraction of a second: these libraries take 0.2 to 3 seconds to import.
SLOW_LIBRARIES = (
    "torch",
    "scipy",
    "sklearn",
    "pandas",
    "sympy",
    "boto3",
    "safetensors",
    "tensorboard",
    "transformers",
    "IPython",
)
COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
SCRIPTS_WITHOUT_TORCH = (
    "benchmarks/contact_memory.py",
    "benchmarks/continued_pretraining.py",
    "benchmarks/converter_memory.py",
    "benchmarks/cpu_operations.py",
    "benchmarks/fault_injection.py",
    "benchmarks/finetuning_precision.py",
    "benchmarks/gpu.py",
    "benchmarks/loss_compare.py",
    "benchmarks/own_data.py",
    "benchmarks/own_tables.py",
    "benchmarks/packing.py",
    "benchmarks/peers_finetuning.py",
    "benchmarks/peers_inference.py",
    "benchmarks/peers_pretraining.py",
    "benchmarks/preprocessing.py",
    "benchmarks/pretraining_throughput.py",
    "tape_train.py",
    "tape_eval.py",
    "scripts/compare.py",
    "scripts/compare_losses.py",
    "scripts/download_data.py",
    "scripts/measure_iterations.py",
    "scripts/model_card.py",
    "scripts/prepare_data.py",
    "scripts/quickstart.py",
    "scripts/reproduce.py",
    "scripts/report.py",
    "pretrain/pretrain_tape.py",
    "pretrain/tools/compare_layouts.py",
    "pretrain/tools/preprocess_data.py",
    "pretrain/tools/run_state.py",
    "pretrain/tools/verify_resume.py",
    "converter/megatron-converter.py",
)
_FILES = (
    "tape.compatibility.constructors",
    "tape.compatibility.names",
    "tape.errors",
    "tape.installation",
    "tape.interrupts",
    "tape.io",
    "tape.tokenizers",
    "tape.version",
)
_BASE = (*_FILES, "tape.configs", "tape.hub", "tape.masking", "tape.targets")
_DATA = (*_BASE, "tape.tasks", "tape.registry", "tape.runtime")
_LIBRARY = (*_DATA, "tape.similarity", "tape.tables", "tape.datasets", "tape.metrics", "tape.models")

# Package or module -> the packages and modules of this repository that it may import, besides itself. A name includes
# its submodules, unless they have an entry of their own. Imports go upward in this table only.
ALLOWED_IMPORTS: dict[str, tuple[str, ...]] = {
    "tape.version": (),
    "tape.installation": (),
    "tape.compatibility.names": (),  # refers to the modules of its names by name only
    "tape.interrupts": (),
    "tape.errors": ("tape.interrupts",),
    "tape.compatibility.constructors": ("tape.errors",),
    "tape.tasks": (),
    "tape.targets": ("tape.errors", "tape.tasks"),
    "tape.runtime.progress": (),
    "tape.cli.parser": ("tape.errors", "tape.version"),
    "tape.tokenizers": ("tape.errors", "tape.compatibility.names"),
    "tape.io": ("tape.errors", "tape.interrupts", "tape.tokenizers"),
    "tape.hub": (*_FILES, "tape.runtime.progress"),
    "tape.configs": (*_FILES, "tape.hub", "tape.targets"),
    "tape.masking": _FILES,
    "tape.report.line_charts": (),
    "tape.report.training_curves": (*_FILES, "tape.report.line_charts"),
    "tape.registry": (*_BASE, "tape.tasks"),
    "tape.models": _BASE,
    "tape.runtime": (*_BASE, "tape.models.low_precision"),
    "tape.similarity": ("tape.errors", "tape.interrupts", "tape.io", "tape.runtime.progress"),
    "tape.tables": (*_DATA, "tape.similarity"),
    "tape.datasets": (*_DATA, "tape.tables"),
    "tape.metrics": _DATA,
    "tape.leakage": (*_DATA, "tape.similarity", "tape.tables", "tape.datasets"),
    "tape.evaluation": (*_LIBRARY, "tape.leakage"),
    "tape.finetuning": (*_LIBRARY, "tape.evaluation", "tape.report.training_curves"),
    "tape.inference": (*_LIBRARY, "tape.leakage", "tape.evaluation"),
    "tape.loaded_model": (*_LIBRARY, "tape.leakage", "tape.evaluation", "tape.inference"),
    "tape.report": (*_LIBRARY, "tape.leakage", "tape.evaluation", "tape.finetuning", "tape.cli.parser"),
    "tape.cli": (*_LIBRARY, "tape.leakage", "tape.evaluation", "tape.finetuning", "tape.inference"),
    "tape.own_table": (*_LIBRARY, "tape.loaded_model", "tape.finetuning", "tape.cli"),
    "tape.compatibility": (*_LIBRARY, "tape.evaluation", "tape.finetuning", "tape.cli"),
    "tape": ("tape",),
    "pretrain.trace": (),
    "pretrain.choices": (),
    "pretrain.checkpoint_paths": ("tape.errors", "tape.io"),
    "pretrain.data": (*_BASE, "tape.models", "tape.runtime.stop_signals", "tape.runtime.run_lock"),
    "pretrain.parallel": (*_BASE, "tape.models", "tape.runtime", "pretrain.trace", "pretrain.choices"),
    "pretrain.monitor": ("tape.errors", "tape.io", "tape.runtime", "pretrain.trace", "pretrain.parallel"),
    "pretrain.optim": (*_BASE, "tape.models", "tape.runtime", "pretrain.choices", "pretrain.parallel"),
    "pretrain.checkpointing": (*_BASE, "tape.models", "pretrain.checkpoint_paths", "pretrain.parallel"),
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
        "tape.report.training_curves",
        "tape.runtime",
        "pretrain.checkpointing",
        "pretrain.data",
        "pretrain.optim",
        "pretrain.parallel",
        "pretrain.planning",
        "pretrain.trace",
    ),
    "pretrain": (*_BASE, "tape.models", "tape.runtime", "tape.cli.parser", "tape.cli.types", "pretrain"),
    "converter.safe_load": ("tape.errors", "tape.io", "tape.models.torch_files"),
    "converter.mapping": (*_BASE, "tape.models"),
    "converter.options": (*_BASE, "tape.models", "converter.mapping"),
    "converter.verify": (*_BASE, "tape.models"),
    "converter.formats": (
        *_BASE,
        "tape.models",
        "pretrain.checkpoint_paths",
        "pretrain.checkpointing",
        "converter.safe_load",
        "converter.options",
        "converter.mapping",
        "converter.verify",
    ),
    # the one door through which pretraining reads the checkpoints of others
    "pretrain.pretrained_model": (
        *_BASE,
        "tape.models",
        "converter.options",
        "converter.mapping",
        "converter.verify",
        "converter.formats",
    ),
    "converter": (*_BASE, "tape.models", "tape.runtime", "tape.cli.parser", "converter"),
    "proteinlm.own_packages": (),
    "proteinlm.data": (*_DATA, "tape.similarity", "tape.cli.parser", "pretrain.data"),
    "proteinlm.workflow": ("tape", "pretrain", "proteinlm.data"),
    # imports the functions that the sub-commands run
    "proteinlm": ("tape", "pretrain", "converter", "proteinlm"),
}
NEVER_IMPORTED = (
    "converter",
    "scripts",
    "tests",
    "benchmarks",
    "tape_train",
    "tape_eval",
    "setup",
    "proteinlm",
    "tape.commands",
    "tape.main",
    "pretrain.pretrain_tape",
    "pretrain.tools",
)
CONVERTER_READER = "pretrain.pretrained_model"
ENTRY_POINTS = {"tape.commands"}  # imports the functions that the commands run, such as those of tape.main

# The only users of torch.distributed: pretraining, and two modules for data-parallel finetuning.
DISTRIBUTED_PACKAGES = (
    "pretrain.parallel",
    "pretrain.checkpointing",
    "tape.runtime.distributed",
    "tape.runtime.elastic_launch",
)

# Only these parse command lines; all others receive configurations.
ARGUMENT_PACKAGES = (
    "tape.training",
    "tape.main",
    "tape.cli",
    "tape.compatibility.parsers",
    "tape.report.command",
    "tape.report.compare",
    "pretrain.config",
    "pretrain.pretrain_tape",
    "pretrain.tools",
    "pretrain.protein_tools",
    "converter.megatron-converter",
    "proteinlm",
)
# TAPE's import paths, which stay importable: thin modules over ours.
COMPATIBILITY = {"tape.optimization", "tape.training", "tape.utils", "tape.visualization"}
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


def is_under(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def package_of(module: str) -> str:
    return max((package for package in ALLOWED_IMPORTS if is_under(module, package)), key=len)


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
    return [module for module in MODULES if any(is_under(module, package) for package in WITHOUT_TORCH)]


def test_the_packages_of_the_table_exist() -> None:
    assert [package for package in (*ALLOWED_IMPORTS, *WITHOUT_TORCH) if package not in MODULES] == []


def test_the_table_has_no_downward_import() -> None:
    """The entries of a package are above it in the table, so no two packages can import each other."""
    order = list(ALLOWED_IMPORTS)
    back = [
        f"{package} -> {target}"
        for place, package in enumerate(order)
        for target in ALLOWED_IMPORTS[package]
        if target not in PACKAGES and package_of(target) in order[place + 1 :]
    ]
    assert back == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_package_imports_only_what_the_table_allows(module: str) -> None:
    package = package_of(module)
    violations = []
    for line, name in imported_names(MODULES[module], module):
        target = our_module(name)
        if target is None:
            continue
        allowed = (*ALLOWED_IMPORTS[package], package)
        if not any(is_under(target, entry) for entry in allowed):
            violations.append(f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}")
    assert not violations, "\n".join([*violations, f"{package} may import: {', '.join(ALLOWED_IMPORTS[package])}"])


@pytest.mark.parametrize("module", sorted(MODULES))
def test_converter_scripts_and_command_lines_are_not_imported(module: str) -> None:
    exempt = COMPATIBILITY | ENTRY_POINTS
    violations = []
    for line, name in imported_names(MODULES[module], module):
        target = our_module(name)
        for closed in NEVER_IMPORTED:
            if closed == "converter" and module == CONVERTER_READER:
                continue
            if target and is_under(target, closed) and not is_under(module, closed) and module not in exempt:
                violations.append(f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}")
    assert not violations, "\n".join(violations)


@pytest.mark.parametrize("module", sorted(modules_without_torch()))
def test_modules_without_torch_do_not_name_it(module: str) -> None:
    assert [name for _, name in imported_names(MODULES[module], module) if is_under(name, "torch")] == []


def test_importing_the_modules_without_torch_does_not_import_it() -> None:
    code = f"""
import importlib, sys
for name in {modules_without_torch()!r}:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(name + " imports torch")
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", ["import tape", *sorted(COMMANDS), *SCRIPTS_WITHOUT_TORCH])
def test_help_imports_neither_torch_nor_other_slow_libraries(command: str) -> None:
    if command == "import tape":
        run, slow = command, (*SLOW_LIBRARIES, "numpy")
    elif command in COMMANDS:
        module, _, function = COMMANDS[command].partition(":")
        run, slow = f"from {module} import {function}; {function}()", SLOW_LIBRARIES
    else:
        run, slow = f"import runpy; runpy.run_path({str(ROOT / command)!r}, run_name='__main__')", SLOW_LIBRARIES
    code = f"""
import sys
sys.argv = [{command!r}, "--help"]
try:
    {run}
except SystemExit as end:
    assert not end.code, end.code
print("imported:", *(name for name in {slow!r} if name in sys.modules))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "imported:"
    assert command == "import tape" or result.stdout.startswith("usage:")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_some_packages_use_torch_distributed(module: str) -> None:
    if any(is_under(module, package) for package in DISTRIBUTED_PACKAGES):
        return
    assert mentions_torch_distributed(MODULES[module], module) == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_composition_roots_read_the_command_line(module: str) -> None:
    if any(is_under(module, package) for package in ARGUMENT_PACKAGES):
        return
    parsing = {"argv", "ArgumentParser", "parse_args", "parse_known_args"}
    nodes = ast.walk(tree_of(MODULES[module]))
    assert [node.lineno for node in nodes if isinstance(node, ast.Attribute) and node.attr in parsing] == []


def test_there_are_no_catch_all_modules() -> None:
    ours = [name for name in MODULES if not any(is_under(name, module) for module in COMPATIBILITY)]
    named = [name for name in ours if CATCH_ALL_NAMES & set(name.split("."))]
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
def test_every_form_of_import_is_found(tmp_path: Path, source: str, expected: list[str]) -> None:
    path = tmp_path / "modeling.py"
    path.write_text(source, encoding="utf-8")
    assert [name for _, name in imported_names(path, "tape.models.modeling")] == expected
