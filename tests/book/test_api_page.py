"""The API page: every module in its room."""

import importlib.util
from pathlib import Path

import cocoop_tutorial

ROOT = Path(__file__).parents[2]


def test_api_page_lists_every_module_once_in_its_room() -> None:
    spec = importlib.util.spec_from_file_location("book_pages", ROOT / "book/_ext/book_pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    rooms = pages.list_rooms("cocoop_tutorial")
    listed = [name for names in rooms.values() for name in names]
    package = Path(cocoop_tutorial.__file__).parent
    files = {path.relative_to(package.parent).with_suffix("") for path in package.rglob("*.py")}
    modules = {".".join(path.parts).removesuffix(".__init__") for path in files}
    hidden = tuple(f"cocoop_tutorial.{name}." for name in ("cli", "book.checks", "__main__"))
    shown = [name for name in modules if not f"{name}.".startswith(hidden)]
    assert sorted([*listed, "cocoop_tutorial"]) == sorted(shown)
    for room, names in rooms.items():
        assert not room or names[0] == f"cocoop_tutorial.{room}"  # it introduces the others
