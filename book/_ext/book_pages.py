"""Sphinx parts of this book: what each chapter's last execution cost, and the API page.

``{chapter-status}`` draws the table of the status page, ``{road-map}`` lists the chapters;
``{run-cost}`` in a chapter gives its own measured time and memory. All read what
``tools/execute.py`` wrote into the executed notebooks. The API page lists every module of the
library, by room, and every command, so that none can be forgotten, and each "chapter N" in a
docstring becomes a link.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole
from typer.main import get_command

from cocoop_tutorial.cli import main as cli

# Rooms in the order in which a reader meets them; the modules at the top level come last.
ROOMS = ("clip", "datasets", "text_encoder", "models", "training", "evaluation", "checkpoints")
ROOMS += ("experiments", "book", "pretraining")
HEADINGS = ("Chapter", "Code cells", "Run time", "Peak memory", "Machine", "Versions")


def read_run(path: Path) -> dict[str, Any]:
    """Return the facts of one executed notebook; fail if it was never executed."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    run = notebook["metadata"].get("cocoop_run")
    if run is None:
        raise ValueError(f"{path.name} has not been executed: run `make book`")
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return run | {"cells": len(code)} | read_opening(notebook)


def read_opening(notebook: dict[str, Any]) -> dict[str, str]:
    """Return a chapter's title and the question under it: its first two paragraphs."""
    prose = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown"]
    parts = [part.strip() for part in "\n\n".join(prose).split("\n\n") if part.strip()]
    if not parts[0].startswith("# "):
        raise ValueError("a chapter must open with a line that begins with '# '")
    question = re.sub(r"[*_`]|\{[a-z:]+\}", "", " ".join(parts[1].split()))
    return {"title": parts[0].splitlines()[0][2:].strip(), "question": question}


def format_seconds(seconds: float) -> str:
    """Return ``75.0`` as ``1 min 15 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def format_cost(run: dict[str, Any]) -> str:
    """Return time, memory and machine of a run in one phrase."""
    memory = f"{run['peak_mb'] / 1024:.1f} GB"
    return f"{format_seconds(run['seconds'])} and {memory} on {run['cores']} CPU cores"


class ChapterStatus(Directive):
    """The table of all executed chapters of the book."""

    def run(self) -> list[nodes.Node]:
        """Build one row per chapter, in the order of the file names."""
        env = self.state.document.settings.env
        found = (path for path in sorted(Path(env.srcdir).glob("*.ipynb")))
        rows = []
        for path in found:
            if path.stem not in env.found_docs or path.name.endswith(".failed.ipynb"):
                continue
            env.note_dependency(str(path))
            rows.append(self.make_row(path.stem, read_run(path)))
        return [make_table(HEADINGS, rows)]

    def make_row(self, name: str, run: dict[str, Any]) -> list[nodes.Node]:
        """Return the cells of one chapter, its title linked to its page."""
        link = link_to(name, run["title"])
        versions = (
            f"Python {run['python']}, torch {run['torch']}, open_clip {run['open_clip_torch']}"
        )
        texts = [str(run["cells"]), format_seconds(run["seconds"]), f"{run['peak_mb']} MB"]
        texts += [f"{run['cores']} CPU cores, {run['machine']}", versions]
        return [link, *(nodes.Text(text) for text in texts)]


class RoadMap(Directive):
    """The list of chapters, each with the question it answers."""

    def run(self) -> list[nodes.Node]:
        """Build one item a chapter, in the order of the book."""
        env = self.state.document.settings.env
        items = nodes.bullet_list()
        for path in sorted(Path(env.srcdir).glob("[0-9][0-9]_*.ipynb")):
            if path.stem in env.found_docs:
                env.note_dependency(str(path))
                items += self.make_item(int(path.stem[:2]), path.stem, read_run(path))
        return [items] if len(items) else []

    def make_item(self, number: int, name: str, run: dict[str, Any]) -> nodes.list_item:
        """Return "1. Title: question (time)", linked to the chapter."""
        link = nodes.reference(
            "", f"{number}. {run['title']}", internal=True, refuri=f"{name}.html"
        )
        time = f" ({format_seconds(run['seconds'])})"
        text = nodes.paragraph(
            "", "", nodes.strong("", "", link), nodes.Text(f". {run['question']}{time}")
        )
        return nodes.list_item("", text)


def link_to(page: str, text: str) -> addnodes.pending_xref:
    """Return a link to a page of the book, which fails the build if there is no such page."""
    place = {"refdomain": "std", "reftype": "doc", "reftarget": f"/{page}", "refexplicit": True}
    return addnodes.pending_xref("", nodes.inline("", text), refwarn=True, **place)


def make_table(headings: tuple[str, ...], rows: list[list[nodes.Node]]) -> nodes.table:
    """Return a docutils table with one heading row."""
    group = nodes.tgroup(cols=len(headings))
    group += [nodes.colspec(colwidth=1) for _ in headings]
    head, body = nodes.thead(), nodes.tbody()
    head += make_table_row([nodes.Text(text) for text in headings])
    body += [make_table_row(row) for row in rows]
    group += [head, body]
    return nodes.table("", group, classes=["status"])


def make_table_row(cells: list[nodes.Node]) -> nodes.row:
    """Return one table row, one paragraph per cell."""
    row = nodes.row()
    for cell in cells:
        row += nodes.entry("", nodes.paragraph("", "", cell))
    return row


class RunCost(SphinxRole):
    """``{run-cost}`01_clip``` : measured time and memory of that chapter."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the phrase as plain text."""
        path = Path(self.env.srcdir) / f"{self.text}.ipynb"
        self.env.note_dependency(str(path))
        return [nodes.Text(format_cost(read_run(path)))], []


def list_rooms(package: str) -> dict[str, list[str]]:
    """Return the modules of each room, its own name first; checkers and commands are left out."""
    root = importlib.import_module(package)
    found = [item.name for item in pkgutil.walk_packages(root.__path__, f"{package}.")]
    hidden = re.compile(rf"{package}\.(__main__|cli|book\.checks)\b")
    rooms: dict[str, list[str]] = {room: [] for room in (*ROOMS, "")}
    for name in sorted(n for n in found if not hidden.match(n)):
        room = name.split(".")[1]
        rooms[room if room in rooms else ""].append(name)
    return rooms


def list_commands(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield every command of a program and what its ``--help`` says, without colours."""
    if not hasattr(command, "commands"):
        command.rich_markup_mode = None
        context = command.context_class(command, info_name=name, terminal_width=88)
        yield name, command.get_help(context)
        return
    for part, inner in command.commands.items():
        yield from list_commands(inner, f"{name} {part}")


def write_api(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put a section for every module and every command in the place of the page's markers."""
    if docname != "api":
        return
    sections = []
    for room, names in list_rooms("cocoop_tutorial").items():
        if not room:
            sections.append("## For every room\n\nThese modules import none of the rooms above.\n")
        for name in names:
            title = name.removeprefix("cocoop_tutorial.")
            body = f".. automodule:: {name}\n   :members:\n   :ignore-module-all:\n"
            level = "##" if title == room else "###"
            sections.append(f"{level} `{title}`\n\n```{{eval-rst}}\n{body}```\n")
    source[0] = source[0].replace("<!-- modules -->", "\n".join(sections))
    helps = [
        f"### `{name}`\n\n```text\n{text}\n```\n"
        for name, text in list_commands(get_command(cli.app), cli.app.info.name)
    ]
    source[0] = source[0].replace("<!-- commands -->", "\n".join(helps))


def mark_commands(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Set the indented commands of a module's docstring as code."""
    if what != "module":
        return
    for place in range(len(lines) - 1, 0, -1):
        opens = lines[place].startswith("    ") and not lines[place - 1].strip()
        if opens and not lines[max(place - 2, 0)].endswith("::"):
            lines[place:place] = ["::", ""]


def link_chapters(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Turn "chapter 1" in a docstring into a link, where that chapter exists."""
    pages = {int(path.stem[:2]): path.stem for path in Path(app.srcdir).glob("[0-9][0-9]_*.ipynb")}

    def link(match: re.Match[str]) -> str:
        page = pages.get(int(match[2]))
        return f":doc:`{match[1]} {match[2]} <{page}>`" if page else match[0]

    lines[:] = [re.sub(r"\b(chapters?) (\d+)\b", link, line, flags=re.I) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and the role."""
    app.add_directive("chapter-status", ChapterStatus)
    app.add_directive("road-map", RoadMap)
    app.add_role("run-cost", RunCost())
    app.connect("source-read", write_api)
    app.connect("autodoc-process-docstring", mark_commands)
    app.connect("autodoc-process-docstring", link_chapters)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
