"""The notebooks: as they are in git, and as they came out of their one execution."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from pages import (
    BOOK,
    CHAPTERS,
    EXECUTED,
    NOTEBOOKS,
    PAGES,
    markdown_of,
    read_executed,
    read_source,
)

SECTIONS = ("objectives", "prerequisites", "could fool you", "exercises", "quiz", "take-aways")
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|root|work|tmp|usr|opt|Users|content|mnt|var)/\S+")
RESIDUE = re.compile(r"\r|it/s\]|s/it\]|\d+%\|")


def text_of(output: nbformat.NotebookNode) -> str:
    """Return what a reader can see of an output as text, pictures left out."""
    if output.output_type == "stream":
        return output.text
    data = output.get("data", {})
    return "\n".join(
        str(data[kind]) for kind in ("text/plain", "text/html", "text/markdown") if kind in data
    )


def outputs_of(name: str) -> list[nbformat.NotebookNode]:
    """Return all outputs of an executed notebook."""
    return [o for c in read_executed(name).cells if c.cell_type == "code" for o in c.outputs]


def test_every_notebook_is_in_the_book_and_executed() -> None:
    in_git = {path.stem for path in BOOK.glob("*.ipynb")}
    assert in_git == set(NOTEBOOKS), "book/_toc.yml and the notebooks of book/ differ"
    assert {path.stem for path in EXECUTED.glob("*.ipynb")} == in_git


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_source_has_no_outputs(name: str) -> None:
    notebook = read_source(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert "widgets" not in notebook.metadata


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_code_cell_was_executed_in_order(name: str) -> None:
    code = [cell for cell in read_executed(name).cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code if cell.source.strip()]
    assert counts == list(range(1, len(counts) + 1))
    sources = [c.source for c in read_source(name).cells]
    assert sources == [c.source for c in read_executed(name).cells], "the site shows another text"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_have_no_residue(name: str) -> None:
    for output in outputs_of(name):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
        text = text_of(output)
        assert not ABSOLUTE.search(text), ABSOLUTE.search(text)
        assert not RESIDUE.search(text), RESIDUE.search(text)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs_on_colab(name: str) -> None:
    first = next(cell for cell in read_source(name).cells if cell.cell_type == "code")
    assert 'find_spec("cocoop_tutorial")' in first.source and "%pip install" in first.source


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_is_complete(name: str) -> None:
    notebook = read_source(name)
    prose = markdown_of(notebook).lower()
    missing = [section for section in SECTIONS if section not in prose]
    assert missing == []
    assert prose.count("{exercise-start}") + prose.count("{exercise}") >= 3
    exercises = len(re.findall(r"\{exercise(?:-start)?\}", prose))
    assert len(re.findall(r"\{solution(?:-start)?\}", prose)) >= exercises
    assert len(re.findall(r"difficulty", prose)) >= exercises
    assert len(re.findall(r"\d+ min", prose)) >= exercises
    assert "{run-cost}" in prose, "the opening box gives the measured time and memory"
    quiz = prose.split("## quiz")[1].split("\n## ")[0]
    assert len(re.findall(r"^\*\*\d\.", quiz, re.M)) == quiz.count("{dropdown} answer") == 3


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_are_short(name: str) -> None:
    code = [c.source for c in read_source(name).cells if c.cell_type == "code"]
    lines = sorted(len(source.splitlines()) for source in code)
    assert lines[len(lines) // 2] <= 10 and lines[-1] <= 40


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_can_be_read_at_one_sitting(name: str) -> None:
    assert 2000 <= len(markdown_of(read_source(name)).split()) <= 3800


@pytest.mark.parametrize("name", CHAPTERS)
def test_figures_have_numbers_and_captions(html: Path, name: str) -> None:
    page = BeautifulSoup((html / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    captions = page.select("article figure figcaption .caption-number")
    assert len(captions) >= 1
    loose = [image for image in page.select("article .cell_output > img")]
    assert loose == [], "a picture of a cell has no caption"


@pytest.mark.parametrize("name", PAGES)
def test_no_markup_is_left_over(html: Path, name: str) -> None:
    page = BeautifulSoup((html / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    article = page.select_one("article")
    for tag in article.select("pre, code, script, .math"):
        tag.decompose()
    text = article.get_text(" ")
    assert not re.search(r"\{(term|cite|cite:[pt]|eq|numref|doc|ref)\}|:::|```", text)


def test_status_page_lists_every_notebook(html: Path) -> None:
    page = (html / "status.html").read_text(encoding="utf-8")
    for name in NOTEBOOKS:
        run = json.loads((EXECUTED / f"{name}.ipynb").read_text())["metadata"]["cocoop_run"]
        assert f'href="{name}.html"' in page
        assert f"{run['peak_mb']} MB" in page


def test_bibliography_is_used() -> None:
    keys = set(re.findall(r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text(), re.M))
    files = [*BOOK.glob("*.md"), *BOOK.glob("*.ipynb")]
    cited: set[str] = set()
    for path in files:
        for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", path.read_text(encoding="utf-8")):
            cited |= {key.strip() for key in group.split(",")}
    assert cited <= keys
    assert {"zhou2022cocoop", "zhou2022coop", "radford2021clip"} <= cited


def test_glossary_is_filled(html: Path) -> None:
    page = BeautifulSoup((html / "glossary.html").read_text(encoding="utf-8"), "html.parser")
    terms = page.select("dl.glossary dt")
    assert len(terms) >= 25
    assert all(len(term.find_next_sibling("dd").get_text().split()) >= 5 for term in terms)
