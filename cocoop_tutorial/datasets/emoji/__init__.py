"""The embedded world's data sets: emoji by subject, drawn by houses that the backbone never saw.

The paper's data sets are not here, but one folder up.
"""

import json
from pathlib import Path

import pandas as pd

from cocoop_tutorial.datasets.emoji import making, sources
from cocoop_tutorial.datasets.emoji.making import NAMES, SHIFTS, SOURCE, build
from cocoop_tutorial.datasets.splits import Dataset
from cocoop_tutorial.datasets.zhou import read_zhou_split
from cocoop_tutorial.errors import CocoopError

__all__ = [
    "NAMES",
    "SHIFTS",
    "SOURCE",
    "TEMPLATE",
    "build",
    "drawing",
    "load",
    "summary",
    "verify",
]

TEMPLATE = "an emoji of {}."


def load(name: str, root: str | Path | None = None) -> Dataset:
    """Loads one of the emoji datasets, making it first where the cache has none.

    Args:
        name: one of `NAMES`.
        root: folder that holds `NAME/`, as `cocoop data build` leaves it; None is the cache.

    Raises:
        MissingDataError: the split file or an image is not there.
        DataError: the split file is broken.
    """
    folder = Path(root) / name if root else making.folder(name)
    if not root and not making.is_fresh(name):
        build(progress=True, names=(name,))
    path = folder / making.split_file(name).name
    try:
        train, val, test, classnames = read_zhou_split(path, folder / "images")
    except CocoopError as error:
        if root:
            raise
        raise type(error)(f"{error} Or make it again: cocoop data build") from error
    return Dataset(name, classnames, train, val, test, template=TEMPLATE)


def drawing(path: str | Path) -> tuple[str, str]:
    """Which drawing an image of these datasets is a pose of.

    Args:
        path: an image file, `.../CONCEPT/PACKAGE-PURPOSE-NUMBER.png`.

    Returns:
        The concept and the drawing set. Two images with equal answers share a drawing.
    """
    path = Path(path)
    package = path.stem.rsplit("-", 2)[0]
    return path.parent.name, sources.BY_NAME[package].drawing_set


def summary() -> pd.DataFrame:
    """One row a dataset: classes, images by split, whether it is made and fresh."""
    rows = []
    for name in NAMES:
        row = {"dataset": name, "ready": making.is_fresh(name)}
        if row["ready"]:
            split = json.loads(making.split_file(name).read_text())
            row["classes"] = len({label for part in split.values() for _, label, _ in part})
            row |= {part: len(items) for part, items in split.items()}
        rows.append(row)
    return pd.DataFrame(rows).set_index("dataset")


def verify() -> list[str]:
    """Compares every image on disk with its digest; returns what is missing or changed."""
    wrong = []
    for name in NAMES:
        if not making.is_fresh(name):
            wrong.append(f"{name}: not made, or made by an older version")
            continue
        wrong += making.corrupted_files(name)
    return wrong
