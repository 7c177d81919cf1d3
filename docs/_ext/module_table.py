"""The directive ``module-table``: a table of the modules of a package with the first sentence of their docstrings.

The sentences come from the source itself, so the map of the packages is never older than the code.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

ROOT = Path(__file__).resolve().parent.parent.parent


def first_sentence(path: Path) -> str:
    """The first sentence of a file's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    # a capital letter begins the next sentence, so that "et al. 2020" does not end one
    return re.split(r"(?<=\.)\s(?=[A-Z`])", paragraph, maxsplit=1)[0].rstrip(":") if paragraph else ""


def inline_nodes(text: str) -> list[nodes.Node]:
    """Plain text with ``code`` between double (or single) backticks; roles such as :mod: keep their target's name."""
    text = re.sub(r":[\w:]+:`~?([^`]+)`", r"``\1``", text)
    pieces = re.split(r"``?([^`]+)``?", text)
    return [nodes.literal(text=piece) if place % 2 else nodes.Text(piece) for place, piece in enumerate(pieces)]


class ModuleTable(Directive):
    """``module-table:: FOLDER``: every module of a folder of the repository, packages below it included."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        folder = ROOT / self.arguments[0]
        files = sorted(path for path in folder.rglob("*.py") if path.read_text(encoding="utf-8").strip())
        self.state.document.settings.env.note_dependency(str(folder))
        table, group, body = nodes.table(), nodes.tgroup(cols=2), nodes.tbody()
        group += [nodes.colspec(colwidth=35), nodes.colspec(colwidth=65)]
        head = nodes.thead()
        head += _row([nodes.Text("module")], [nodes.Text("purpose")])
        body += [_row([nodes.literal(text=_name(path))], inline_nodes(first_sentence(path))) for path in files]
        group += [head, body]
        table += group
        return [table]


def _name(path: Path) -> str:
    name = path.relative_to(ROOT).as_posix()
    return name.removesuffix("__init__.py") if path.name == "__init__.py" else name


def _row(*cells: list[nodes.Node]) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        row += nodes.entry("", nodes.paragraph("", "", *cell))
    return row


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("module-table", ModuleTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
