"""The embedded world: datasets of icons by subject, drawn by houses the backbone never saw.

The drawings that the backbone was trained on come from here too; `pretraining` reads them.
"""

from functools import lru_cache
from pathlib import Path

import pandas as pd

from cocoop_tutorial.datasets.icons import making
from cocoop_tutorial.datasets.icons.making import MAIN, NAMES, SETTINGS, SHIFTS, SOURCE, build
from cocoop_tutorial.datasets.splits import Dataset
from cocoop_tutorial.datasets.zhou import read_zhou_split
from cocoop_tutorial.errors import CocoopError
from cocoop_tutorial.files import read_json

__all__ = [
    "MAIN",
    "NAMES",
    "SETTINGS",
    "SHIFTS",
    "SOURCE",
    "TEMPLATE",
    "build",
    "drawing",
    "load",
    "medium",
    "summary",
    "verify",
]

TEMPLATE = "an icon of a {}."


def load(name: str, root: str | Path | None = None) -> Dataset:
    """Loads one of the icon datasets, making it first where the cache has none.

    Args:
        name: One of `NAMES`.
        root: Folder that holds `NAME/`, as `cocoop data build` leaves it; None is the cache.

    Raises:
        MissingDataError: The split file or an image is not there.
        DataError: The split file is broken.
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


@lru_cache(maxsize=32)
def _images(folder: Path, _changed: int) -> dict[str, dict[str, str]]:
    return read_json(folder / "meta.json", "Make it again: cocoop data build")["images"]


def facts(path: str | Path) -> dict[str, str]:
    """What is known of an image: its package, icon, house, concept and medium.

    Args:
        path: An image file of one of these datasets.

    Raises:
        KeyError: It is none of theirs.
    """
    path = Path(path)
    folder = path.parents[2]
    images = _images(folder, (folder / "meta.json").stat().st_mtime_ns)
    return images[path.relative_to(folder / "images").as_posix()]


def drawing(path: str | Path) -> tuple[str, str]:
    """The house and the icon that an image shows, for example ("Tabler", "tabler:plane")."""
    known = facts(path)
    return known["house"], f"{known['package']}:{known['icon']}"


def medium(path: str | Path) -> str:
    """How the drawing of an image is made, such as "outline", "solid" or "emoji"."""
    return facts(path)["medium"]


def summary() -> pd.DataFrame:
    """One row per dataset: classes, images by split, whether it is made and fresh.

    Raises:
        DataError: A split file is damaged.
    """
    rows = []
    for name in NAMES:
        row = {"dataset": name, "ready": making.is_fresh(name)}
        if row["ready"]:
            data = load(name, making.folder(name).parent)
            row["classes"] = len(data.classnames)
            row |= {part: len(data.split(part)) for part in ("train", "val", "test")}
        rows.append(row)
    return pd.DataFrame(rows).set_index("dataset")


def verify(names: tuple[str, ...] = NAMES) -> list[str]:
    """Compares every image and split file with its digest; what is missing or changed."""
    wrong = []
    for name in names:
        if not making.is_fresh(name):
            wrong.append(f"{name}: not made, or made by an older version. Run: cocoop data build")
            continue
        wrong += making.damage(name)
    return wrong
