"""The tables of the datasheet, data/README.md, written from the lock file and the data (chapter 2).

    python -m cocoop_tutorial.datasets.emoji.datasheet

rewrites what stands between the datasheet's marks, so that no count is typed by hand.
"""

import json
import re

import pandas as pd

from cocoop_tutorial.datasets import emoji
from cocoop_tutorial.datasets.emoji import making, sources
from cocoop_tutorial.errors import DataError


def packages() -> pd.DataFrame:
    """One row a package of drawings: version, author, licence, house, drawing set, role, number."""
    locked, rows = sources.lock(), []
    for package in sources.PACKAGES:
        info = sources.read_json(f"@iconify-json/{package.name}", "info.json")
        rows.append(
            {
                "package": f"[{package.name}]({info['author']['url']})",
                "version": locked[f"@iconify-json/{package.name}"]["version"],
                "drawn by": info["author"]["name"],
                "licence": info["license"]["spdx"],
                "house": package.house,
                "drawing set": package.drawing_set,
                "role": package.role,
                "drawings": len(sources.icons(package.name)["icons"]),
                "of emoji": len(sources.drawn(package.name)) if package.emoji else "",
            }
        )
    return pd.DataFrame(rows)


def names() -> pd.DataFrame:
    """One row a package of names."""
    rows = []
    for package, use in (("unicode-emoji-json", "emoji"), ("emojibase-data", "names, keywords")):
        entry = sources.read_json(package, "package.json")
        row = {"package": package, "version": entry["version"], "licence": entry["license"]}
        rows.append(row | {"gives": use})
    return pd.DataFrame(rows)


def datasets() -> pd.DataFrame:
    """One row a data set: classes, images by split, and drawings that they are poses of."""
    emoji.build(progress=False)
    table = emoji.summary().drop(columns="ready").astype(int).reset_index()
    drawings = []
    for name in table["dataset"]:
        split = json.loads(making.split_file(name).read_text())
        drawings.append(
            {
                f"drawings, {part}": len({emoji.drawing(path) for path, _, _ in items})
                for part, items in split.items()
            }
        )
    return table.join(pd.DataFrame(drawings))


def markdown(table: pd.DataFrame) -> str:
    """A frame as a Markdown table."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.values.tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


TABLES = {"packages": packages, "names": names, "datasets": datasets}


def render(text: str) -> str:
    """The datasheet with its tables made anew.

    Args:
        text: Markdown with `<!-- begin NAME -->` and `<!-- end NAME -->` for each of `TABLES`.

    Raises:
        DataError: A mark is missing.
    """
    for name, make in TABLES.items():
        marks = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if not all(mark in text for mark in marks):
            raise DataError(f"data/README.md has no {marks[0]} ... {marks[1]}. Put it back.")
        pattern = re.escape(marks[0]) + ".*?" + re.escape(marks[1])
        table = f"{marks[0]}\n{markdown(make())}\n{marks[1]}"
        text = re.sub(pattern, lambda _, table=table: table, text, flags=re.DOTALL)
    return text


def main() -> None:
    """Rewrites the datasheet of this clone."""
    path = sources.REPO_DATA / "README.md"
    path.write_text(render(path.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"{path.parent.name}/{path.name} is up to date")


if __name__ == "__main__":
    main()
