"""Settings of the documentation: python -m sphinx -W --keep-going docs build/docs."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

from tape.version import __version__  # noqa: E402

project = "ProteinLM"
author = "the ProteinLM contributors"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "module_table"]
exclude_patterns = ["_ext", "report"]  # report: made by tape-report

# Markdown: formulas between dollar signs, and links to headings ([text](page.md#heading)) as on GitHub.
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4

# API reference: signatures as written in the source, members in the order of the source.
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def escape_markup(app, what, name, obj, options, lines):  # the arguments of autodoc-process-docstring
    """Keep |i - j| and a trailing underscore in docstrings as text; outside code they mean something else to Sphinx."""
    for number, line in enumerate(lines):
        pieces = re.split(r"(``.+?``|`[^`]+`)", line)
        pieces[::2] = [re.sub(r"\||(?<=\w)_(?!\w)", r"\\\g<0>", piece) for piece in pieces[::2]]
        lines[number] = "".join(pieces)


def setup(app):
    app.connect("autodoc-process-docstring", escape_markup)


# `python -m sphinx -b linkcheck docs build/links` follows external links; the build itself needs no network.
linkcheck_timeout = 20

html_theme = "furo"
html_title = f"ProteinLM {release}"
html_static_path = ["_static"]
html_css_files = ["proteinlm.css"]
html_copy_source = False
html_show_sphinx = False
