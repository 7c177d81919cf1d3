"""The versions of dependencies, which several files state, agree."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
CONDA_FILES = sorted((ROOT / "conda_env").glob("*.yaml"))
PACKAGES = ("tape", "pretrain", "converter", "proteinlm")

# Names of modules that differ from those of their distributions.
DISTRIBUTION_OF = {
    "yaml": "pyyaml",
    "mpl_toolkits": "matplotlib",
    "botocore": "boto3",
    "Bio": "biopython",
    "sklearn": "scikit-learn",
}


def lines_of(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def pins_in(lines: list[str]) -> dict[str, str]:
    """Canonical name -> version; every line that is not an option must be an exact pin."""
    pins = {}
    for line in lines:
        if line.startswith("-"):
            continue
        match = re.fullmatch(r"([\w.-]+)==([\w.]+)", line)
        assert match, f"{line!r} is not an exact pin"
        pins[canonicalize_name(match[1])] = match[2]
    return pins


def pins_of(name: str) -> dict[str, str]:
    return pins_in(lines_of(REQUIREMENTS / name))


@cache
def metadata() -> dict[str, Any]:
    """The [project] table of pyproject.toml."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def required(*extras: str) -> dict[str, Requirement]:
    """Canonical name -> requirement of the package and of the named extras; an extra may include other extras."""
    found: dict[str, Requirement] = {}
    texts = [*metadata()["dependencies"]]
    for extra in extras:
        texts += metadata()["optional-dependencies"][extra]
    for requirement in map(Requirement, texts):
        name = canonicalize_name(requirement.name)
        found |= required(*requirement.extras) if name == metadata()["name"] else {name: requirement}
    return found


def test_each_required_package_is_pinned_within_its_range() -> None:
    run, test = pins_of("run.txt"), {**pins_of("run.txt"), **pins_of("test.txt")}
    assert set(required("plots")) | {"setuptools"} == set(run)
    assert set(required("dev")) | {"setuptools"} == set(test)
    outside = [str(item) for name, item in required("dev").items() if not item.specifier.contains(test[name])]
    assert outside == []


def test_every_file_uses_the_constraints_and_none_repeats_them() -> None:
    constraints = pins_of("constraints.txt")
    for name in ("run.txt", "test.txt"):
        assert "-c constraints.txt" in lines_of(REQUIREMENTS / name)
        assert set(pins_of(name)) & set(constraints) == set()
    assert "-r run.txt" in lines_of(REQUIREMENTS / "test.txt")
    assert set(pins_of("run.txt")) & set(pins_of("test.txt")) == set()


@pytest.mark.parametrize("path", CONDA_FILES, ids=lambda path: path.name)
def test_conda_environments_repeat_the_pins(path: Path) -> None:
    environment = yaml.safe_load(path.read_text(encoding="utf-8"))
    plain = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pins_in(pip) == pins_of("run.txt")
    assert not [entry for entry in plain if entry.count("=") > 1], "build hashes tie a file to one platform"
    (python,) = [entry.partition("=")[2] for entry in plain if entry.startswith("python=")]
    assert f"Programming Language :: Python :: {python}" in metadata()["classifiers"]


def test_both_conda_environments_exist() -> None:
    assert [path.name for path in CONDA_FILES] == ["base.yaml", "gpu.yaml"]


def test_pre_commit_runs_the_pinned_tools() -> None:
    settings = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    revisions = {repo["repo"].rsplit("/", 1)[-1]: repo.get("rev") for repo in settings["repos"]}
    pins = pins_of("test.txt")
    assert revisions == {
        "ruff-pre-commit": f"v{pins['ruff']}",
        "codespell": f"v{pins['codespell']}",
        "local": None,
    }
    hooks = {hook["id"] for repo in settings["repos"] for hook in repo["hooks"]}
    assert hooks == {"ruff-check", "ruff-format", "codespell", "mypy"}


def test_the_python_versions_agree() -> None:
    assert metadata()["requires-python"] == ">=3.10"
    tools = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'target-version = "py310"' in tools
    assert 'python_version = "3.10"' in tools


def imported_at(tree: ast.Module, *, everywhere: bool) -> set[str]:
    """Top-level names of absolute imports: of the entire file, or only of the code that runs on import."""
    # Imports inside a `try`, an `if` or a `def` are optional or lazy.
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - set(PACKAGES) - {"__future__"}


def distributions(names: set[str]) -> set[str]:
    return {canonicalize_name(DISTRIBUTION_OF.get(name, name)) for name in names}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_code_imports_only_what_it_declares(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        on_import = distributions(imported_at(tree, everywhere=False))
        anywhere = distributions(imported_at(tree, everywhere=True))
        assert on_import <= set(required()), f"{path} needs an extra to be imported at all"
        assert anywhere <= set(
            required(
                "s3", "hf", "plots", "zstd", "lora", "hdf5", "parquet", "leakage", "structures", "completion", "wandb"
            )
        ), f"{path} imports packages that pyproject.toml does not name"


def test_the_project_environment_has_the_pinned_versions() -> None:
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("runs on another environment than this repository's .venv")
    pins = {**pins_of("run.txt"), **pins_of("test.txt")}
    installed = {name: importlib.metadata.version(name).partition("+")[0] for name in pins}
    assert installed == pins
