"""The tables of the datasheet, written from the lock file and the data (chapter 2).

    python -m cocoop_tutorial.datasets.icons.datasheet

rewrites what stands between the datasheet's marks, so that no count is typed by hand.
"""

import re
from collections import Counter

import pandas as pd

from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.icons import houses, making, names, sources
from cocoop_tutorial.errors import DataError

FILE = sources.REPO_DATA / "README.md"


def house_table() -> pd.DataFrame:
    """One row per house: role, packages with version and author, licence, drawings, reason."""
    locked = sources.lock()
    rows = []
    for house in houses.HOUSES:
        links, drawn = [], 0
        for package in house.packages:
            author = sources.read_json(f"@iconify-json/{package}", "info.json")["author"]
            version = locked[f"@iconify-json/{package}"]["version"]
            link = f"[{package}]({author['url']})" if author.get("url") else package
            links.append(f"{link} {version} by {author['name']}")
            drawn += len(names.read(package))
        row = {"house": house.name, "role": house.role, "packages": "; ".join(links)}
        row |= {"licence": ", ".join(house.licence.split()), "named drawings": drawn}
        rows.append(row | {"reason": house.reason})
    return pd.DataFrame(rows)


def left_out() -> pd.DataFrame:
    """One row per reason to leave sets out."""
    rows = [
        {"sets": " ".join(house.packages), "reason": house.reason}
        for house in houses.TABLE
        if house.role not in houses.ROLES
    ]
    return pd.DataFrame(rows)


def datasets() -> pd.DataFrame:
    """One row per dataset: classes, images by split, houses, shares of the media."""
    icons.build(progress=False)
    table = icons.summary().drop(columns="ready").astype(int).reset_index()
    more = []
    for name in table["dataset"]:
        images = making.images(name).values()
        media = Counter(image["medium"] for image in images)
        shares = [f"{medium} {100 * n / len(images):.0f}%" for medium, n in media.most_common()]
        drawn_by = len({image["house"] for image in images})
        more.append({"houses": drawn_by, "media": ", ".join(shares)})
    return table.join(pd.DataFrame(more))


def markdown(table: pd.DataFrame) -> str:
    """A frame as a Markdown table."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.values.tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


TABLES = {"houses": house_table, "left out": left_out, "datasets": datasets}


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
            raise DataError(f"{FILE.name} has no {marks[0]} ... {marks[1]}. Put it back.")
        pattern = re.escape(marks[0]) + ".*?" + re.escape(marks[1])
        table = f"{marks[0]}\n{markdown(make())}\n{marks[1]}"
        text = re.sub(pattern, lambda _, table=table: table, text, flags=re.DOTALL)
    return text


def main() -> None:
    """Rewrites the datasheet of this clone."""
    FILE.write_text(render(FILE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"data/{FILE.name} is up to date")


if __name__ == "__main__":
    main()
