"""Data sets of both worlds behind one function (chapter 2)."""

import os
from pathlib import Path

from cocoop_tutorial.datasets.folder import ImageFolder
from cocoop_tutorial.datasets.images import check_images
from cocoop_tutorial.datasets.paper import NAMES as PAPER_NAMES
from cocoop_tutorial.datasets.paper import folder_of, load_paper
from cocoop_tutorial.datasets.splits import Dataset, Split, base_new, few_shot, open_image
from cocoop_tutorial.datasets.zhou import read_zhou_split
from cocoop_tutorial.errors import UnknownNameError, suggest

__all__ = [
    "PAPER_NAMES",
    "Dataset",
    "ImageFolder",
    "Split",
    "base_new",
    "check_images",
    "data_root",
    "few_shot",
    "load_dataset",
    "open_image",
    "read_zhou_split",
]


def data_root(root: Path | str | None = None) -> Path:
    """The folder of the real data: `root`, else $COCOOP_DATA, else `./data`."""
    return Path(root or os.environ.get("COCOOP_DATA") or "data").expanduser()


def load_dataset(name: str, root: Path | str | None = None, download: bool = False) -> Dataset:
    """Loads a data set of either world by name.

    Args:
        name: "emoji_animals" and its like, or "caltech101" and its like.
        root: The folder that holds `caltech-101/`, `oxford_pets/` ...; None takes $COCOOP_DATA,
            else `./data`. For emoji data None takes the cache that `cocoop data build` fills.
        download: Fetch it first if its folder is not there and a program can fetch it.

    Returns:
        Train, val and test with class names; `paper_split` says whether they are the official
        splits.

    Raises:
        UnknownNameError: No such data set; the message has the near matches.
        MissingDataError: It is not there; the message says how to get it.
        DataError: A split file is damaged.

    Introduced in chapter 2.
    """
    from cocoop_tutorial.datasets import emoji  # here, because it builds on the modules above

    if name in emoji.NAMES:
        return emoji.load(name, root)
    if name not in PAPER_NAMES:
        known = [*emoji.NAMES, *PAPER_NAMES]
        raise UnknownNameError(
            f"Unknown data set {name!r}. {suggest(name, known)} "
            "Your own images load with ImageFolder(path)."
        )
    folder = data_root(root)
    if download and not (folder / folder_of(name)).is_dir():
        from cocoop_tutorial.datasets.download import download as fetch

        fetch(name, folder)
    return load_paper(name, folder)
