"""Checks of the repository as a whole: file sizes, safety, packaging, and documents that match the files."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tape.version import __version__

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tape", "pretrain", "converter", "proteinlm")
LONGEST_FILE = 500
LARGEST_SAMPLE = 2 * 1024 * 1024


def repository_files() -> list[Path]:
    """All files of the repository: as listed by git, or, in an unpacked archive, those of its folders."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listing = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        paths = [ROOT / name for name in listing.split("\0") if name]
    else:
        folders = [*PACKAGES, "scripts", "tests", "benchmarks", "conda_env", "docs", "requirements"]
        paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
        paths += [*ROOT.glob("*"), ROOT / ".ci" / "run"]
    return sorted(path for path in paths if path.is_file())


FILES = repository_files()
PYTHON_FILES = [path for path in FILES if path.suffix == ".py"]
LIBRARY_FILES = [path for path in PYTHON_FILES if path.relative_to(ROOT).parts[0] != "tests"]
SHELL_FILES = [path for path in FILES if path.suffix == ".sh" or path == ROOT / ".ci" / "run"]


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Every call in a file, with the dotted name of the function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def keyword_value(call: ast.Call, name: str) -> object:
    """The literal value of a keyword argument; None if it is absent or computed."""
    for keyword in call.keywords:
        if keyword.arg == name and isinstance(keyword.value, ast.Constant):
            return keyword.value.value
    return None


def is_unsafe(call: ast.Call, name: str) -> bool:
    """Whether a call could run code from an input file."""
    if name in {"eval", "exec", "os.system"} or keyword_value(call, "shell") is True:
        return True
    if name == "torch.load":
        return keyword_value(call, "weights_only") is not True
    if name.endswith("load") and keyword_value(call, "allow_pickle") is True:
        return True
    return re.fullmatch(r"(pickle|dill|joblib|cloudpickle)\.(loads?|Unpickler)", name) is not None


def unsafe_calls(path: Path) -> list[str]:
    return [f"{path.name}:{call.lineno} {name}" for call, name in calls(path) if is_unsafe(call, name)]


def test_files_are_short() -> None:
    too_long = {}
    for path in [*PYTHON_FILES, *SHELL_FILES]:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LONGEST_FILE:
            too_long[shown(path)] = lines
    assert too_long == {}, f"split these files (at most {LONGEST_FILE} lines)"


def test_every_module_has_a_docstring() -> None:
    missing = [
        shown(path)
        for path in PYTHON_FILES
        if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]
    assert missing == []


def test_no_code_from_input_files_is_run() -> None:
    found = [call for path in LIBRARY_FILES for call in unsafe_calls(path)]
    assert found == []


@pytest.mark.parametrize(
    ("source", "unsafe"),
    [
        ("eval(text)", True),
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("torch.load(path, weights_only=True)", False),
        ("pickle.load(stream)", True),
        ("pickle.Unpickler(stream)", True),
        ("pickle.dump(value, stream)", False),
        ("np.load(path, allow_pickle=True)", True),
        ("np.savez(path, allow_pickle=True)", False),
        ("subprocess.run(command, shell=True)", True),
        ("model.eval()", False),
    ],
)
def test_unsafe_calls_are_recognized(tmp_path: Path, source: str, unsafe: bool) -> None:
    path = tmp_path / "module.py"
    path.write_text(source, encoding="utf-8")
    assert bool(unsafe_calls(path)) == unsafe


def test_no_file_contains_a_path_of_one_machine() -> None:
    pattern = re.compile(r"(?<![\w.$}/-])/(?:home|root|work|Users)/\w")
    found = []
    for path in FILES:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{shown(path)}: {match.group()}" for match in pattern.finditer(text)]
    assert found == []


@pytest.mark.parametrize("path", SHELL_FILES, ids=shown)
def test_shell_scripts_parse_and_stop_at_errors(path: Path) -> None:
    checked = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert re.search(r"^set -euo pipefail$", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_embedded_sample_is_small() -> None:
    sample = [path for path in FILES if path.is_relative_to(ROOT / "tape" / "sample")]
    assert sample, "tape/sample is missing"
    assert sum(path.stat().st_size for path in sample) <= LARGEST_SAMPLE


def test_the_changelog_names_this_version() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1].startswith(__version__)


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_installation_page_lists_every_extra_and_command() -> None:
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = re.search(r"^\[project\.optional-dependencies\]\n(.*?)^\[", settings, re.MULTILINE | re.DOTALL)
    assert section is not None
    text = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    extras = re.findall(r"^(\w+) = \[", section.group(1), re.MULTILINE)
    assert sorted(re.findall(r"^\| `([a-z0-9]+)` \| ", text, re.MULTILINE)) == sorted(extras)
    commands = re.findall(r"^(tape-[\w-]+|proteinlm) = ", settings, re.MULTILINE)
    assert [command for command in commands if f"`{command}`" not in text] == []


def test_messages_in_troubleshooting_occur_in_the_source() -> None:
    """Each quoted message, or its parts around ``...``, occurs in the source; placeholders of f-strings aside."""
    sources = [
        path.read_text(encoding="utf-8")
        for folder in (*PACKAGES, "scripts")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".sh"}
    ]
    joined = re.sub(r'"\s*\n\s*f?"', "", "\n".join(sources))
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = [
        message for row in re.findall(r"^\| (.+?) \|", text, re.MULTILINE) for message in re.findall("`(.+?)`", row)
    ]
    parts = [part.strip() for message in messages for part in message.split("...") if part.strip()]
    assert len(parts) > 15
    assert [part for part in parts if part not in joined] == []


def test_the_license_is_apache() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


# --- documents -------------------------------------------------------------------------------------------------------

DOCUMENTS = [path for path in FILES if path.suffix == ".md"]


def commands_in(text: str) -> Iterator[str]:
    """The Python and shell scripts that a document's code blocks run, as they are written there."""
    for block in re.findall(r"^```(?:bash|shell|sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from re.findall(r"(?<![\w$/{.-])[\w][\w./-]*\.(?:py|sh)\b", block)


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_documents_name_scripts_that_exist(path: Path) -> None:
    missing = [name for name in commands_in(path.read_text(encoding="utf-8")) if not (ROOT / name).is_file()]
    assert missing == []


def anchors_of(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub and MyST form them."""
    headings = re.findall(r"^#{1,6} (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_links_to_headings_resolve(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s:]*\.md)#([^)\s]+)\)", path.read_text(encoding="utf-8"))
    assert [f"{name}#{anchor}" for name, anchor in links if anchor not in anchors_of(path.parent / name)] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


KNOWN_BUGS = re.split(
    r"^### Bug ", (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8"), flags=re.MULTILINE
)


def test_known_bugs_are_numbered_consecutively() -> None:
    assert [entry.split(":")[0] for entry in KNOWN_BUGS[1:]] == [str(number) for number in range(1, 41)]


@pytest.mark.parametrize("entry", KNOWN_BUGS[1:], ids=lambda entry: entry.split(":")[0])
def test_tests_of_a_known_bug_refer_to_its_number(entry: str) -> None:
    number, tests = entry.split(":")[0], re.findall(r"`(tests/[\w/]+\.py)`", entry)
    reference = re.compile(rf"\bbugs? (?:\d+[a-z]?(?:, | and ))*{number}\b|\bbugs? {number}[a-z]\b")
    assert tests
    assert [test for test in tests if not reference.search((ROOT / test).read_text(encoding="utf-8"))] == []


def test_no_reference_leaves_the_repository() -> None:
    """docs/compatibility.md is the only list of bugs that the repository refers to."""
    pattern = re.compile(r"\bdefects? \d+|INTERFACE section", re.IGNORECASE)
    found = []
    for path in {*PYTHON_FILES, *SHELL_FILES, *DOCUMENTS} - {Path(__file__)}:
        found += [f"{shown(path)}: {match}" for match in pattern.findall(path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=shown)
def test_links_inside_the_repository_resolve(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    assert [target for target in local if not (path.parent / target).exists()] == []


def test_the_readme_shows_the_two_commands() -> None:
    commands = list(commands_in((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {"scripts/quickstart.sh", "scripts/test.sh"} <= set(commands)


# --- packaging -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel and an sdist of a copy of the tree with a bundled model, built without network: {"wheel", "sdist"}."""
    from tests.support.bundled_models import small_language_model

    tree = tmp_path_factory.mktemp("tree")
    for path in FILES:
        copy = tree / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    small_language_model().save_pretrained(tree / "tape" / "pretrained" / "test-model", provenance={"kind": "test"})
    code = "from setuptools import build_meta as b; print(b.build_sdist('dist')); print(b.build_wheel('dist'))"
    built = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,), (sdist,) = (list((tree / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    return {"wheel": wheel, "sdist": sdist}


@pytest.mark.slow
def test_the_archives_contain_code_sample_and_vocabularies(distributions: dict[str, Path]) -> None:
    with zipfile.ZipFile(distributions["wheel"]) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(distributions["sdist"]) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    expected = {shown(path) for path in FILES if shown(path).split("/")[0] in PACKAGES and path.suffix != ".md"}
    assert expected - in_wheel == set()
    assert expected | {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= in_sdist
    assert not any(name.startswith(("tests/", "scripts/")) for name in in_wheel)


@pytest.mark.slow
def test_the_wheel_works_outside_the_repository(distributions: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(distributions["wheel"]) as archive:
        archive.extractall(tmp_path / "site")
    information = next((tmp_path / "site").glob("*.dist-info"))
    entries = re.findall(
        r"^(?:tape-[\w-]+|proteinlm) = ([\w.]+):(\w+)$", (information / "entry_points.txt").read_text(), re.MULTILINE
    )
    declared = re.findall(
        r"^(?:tape-[\w-]+|proteinlm) = (?=\"\w+\.\w+:)",
        (ROOT / "pyproject.toml").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(entries) == len(declared) >= 6
    assert f"Version: {__version__}" in (information / "METADATA").read_text(encoding="utf-8")
    code = f"import importlib, tape\nassert tape.__file__.startswith({str(tmp_path)!r})\n" + "\n".join(
        f"assert callable(importlib.import_module({module!r}).{function})" for module, function in entries
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_the_quickstart_of_the_wheel_runs_installed_commands(distributions: dict[str, Path], tmp_path: Path) -> None:
    """Without a clone, its steps are sub-commands of proteinlm, and the sample is that of the wheel."""
    with zipfile.ZipFile(distributions["wheel"]) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "pretrain.py").write_text("raise SystemExit('the user's own')\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    for words, lines in (
        (
            ("quickstart", "--dry-run", "--tasks", "st"),
            ("proteinlm prepare {site}/tape/sample", " -m proteinlm pretrain "),
        ),
        (("reproduce", "toy", "--dry-run"), ("proteinlm prepare {site}/tape/sample", "proteinlm model-card ")),
    ):
        result = subprocess.run(
            [sys.executable, "-m", "proteinlm", *words],
            cwd=tmp_path / "user",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert [line for line in lines if line.format(site=tmp_path / "site") not in result.stdout] == []


@pytest.mark.slow
def test_a_bundled_model_loads_from_the_wheel(distributions: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(distributions["wheel"]) as archive:
        archive.extractall(tmp_path / "site")
    with tarfile.open(distributions["sdist"]) as archive:
        assert any(name.endswith("tape/pretrained/test-model/model.safetensors") for name in archive.getnames())
    code = f"""if True:
        import tape
        assert tape.__file__.startswith({str(tmp_path)!r})
        from tape import ProteinBertModel
        assert ProteinBertModel.from_pretrained("test-model").config.hidden_size == 16
    """
    environment = {name: value for name, value in os.environ.items() if name != "PROTEINLM_PRETRAINED"}
    environment["PYTHONPATH"] = str(tmp_path / "site")
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
