"""The library's rooms stand in layers, and an import goes only down."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import cocoop_tutorial

PACKAGE = Path(cocoop_tutorial.__file__).parent
# From the top to the ground. A room may import itself and what stands below it.
LAYERS = (
    "cli",
    "book",
    "experiments",
    "training",
    "models",
    "checkpoints",
    "evaluation",
    "text_encoder",
    "pretraining",
    "clip",
    "datasets",
    "ground",
)
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module, given as the parts of its name below the package."""
    return parts[0] if parts and parts[0] in LAYERS else "ground"


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """Every module of this library that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "cocoop_tutorial":
                yield tuple(rest)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts in {("__init__",), ("__main__",)}:  # the front door opens every room
        return
    here = LAYERS.index(room_of(parts))
    up = [target for target in imports(path) if LAYERS.index(room_of(target)) < here]
    assert not up, f"{'/'.join(parts)} imports from above: {['.'.join(t) for t in up]}"


def test_each_room_says_what_lives_there() -> None:
    rooms = {path.parent for path in FILES} - {PACKAGE}
    for room in rooms:
        text = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
        assert text and len(text.split()) > 15, f"{room.name} does not say what lives there"
    assert {room.name for room in rooms if room.parent == PACKAGE} == set(LAYERS) - {"ground"}


def test_the_table_for_contributors_lists_the_rooms_in_this_order() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("## Rooms")[1].split("## ")[0]
    rooms = re.findall(r"^\| (?:`(\w+)/`|the (ground)) \|", table, re.MULTILINE)
    assert tuple(folder or ground for folder, ground in rooms) == LAYERS


def test_no_module_imports_itself_through_others() -> None:
    """Not even within a function: whoever reads one of two modules must then read the other."""
    names = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in FILES}
    graph = {
        parts: {t[:n] for t in imports(path) for n in (len(t), len(t) - 1) if t[:n] in names}
        for parts, path in names.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join("/".join(parts) for parts in error.args[1]))
