"""What the book consists of, read from its table of contents."""

from pathlib import Path

import nbformat
from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
EXECUTED = ROOT / "_build" / "executed"
PAGES = sorted(str(name) for name in parse_toc_yaml(BOOK / "_toc.yml"))
NOTEBOOKS = [name for name in PAGES if (BOOK / f"{name}.ipynb").exists()]
CHAPTERS = [name for name in NOTEBOOKS if name[:2].isdigit()]


def read_source(name: str) -> nbformat.NotebookNode:
    """Return a notebook as it is in git."""
    return nbformat.read(BOOK / f"{name}.ipynb", as_version=4)


def read_executed(name: str) -> nbformat.NotebookNode:
    """Return a notebook with its outputs, as the site shows it."""
    path = EXECUTED / f"{name}.ipynb"
    assert path.exists(), f"{name}.ipynb was not executed: run `make book`"
    return nbformat.read(path, as_version=4)


def markdown_of(notebook: nbformat.NotebookNode) -> str:
    """Return all prose of a notebook in one text."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
