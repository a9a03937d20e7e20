"""`load_dataset`: the data sets of both worlds by name (chapter 2)."""

import os
from pathlib import Path

from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.download import download as fetch
from cocoop_tutorial.datasets.paper import NAMES, folder_of, load_paper
from cocoop_tutorial.datasets.splits import Dataset
from cocoop_tutorial.errors import UnknownNameError, suggest


def data_root(root: Path | str | None = None) -> Path:
    """The folder of the real data: `root`, else $COCOOP_DATA, else `./data`."""
    return Path(os.path.expanduser(root or os.environ.get("COCOOP_DATA") or "data"))


def means_folder(name: str) -> bool:
    """Whether this is a folder of one's own images rather than the name of a data set."""
    known = name in icons.NAMES or name in NAMES
    return not known and bool(name.strip()) and (os.path.isdir(name) or os.sep in name)


def load_dataset(name: str, root: Path | str | None = None, download: bool = False) -> Dataset:
    """Loads a data set of either world by name.

    Args:
        name: For example "icons_weather" or "caltech101".
        root: The folder that holds `caltech-101/`, `oxford_pets/` ...; None takes $COCOOP_DATA,
            else `./data`. For icons None takes the cache that `cocoop data build` fills.
        download: Download it first if its folder does not exist.

    Returns:
        Train, val and test with class names; `paper_split` says whether they are the official
        splits.

    Raises:
        UnknownNameError: No such data set; the message suggests similar names.
        MissingDataError: It is not here; the message says how to get it.
        DataError: A split file is damaged.

    Introduced in chapter 2.
    """
    if name in icons.NAMES:
        return icons.load(name, root)
    if name not in NAMES:
        raise UnknownNameError(
            f"Unknown data set {name!r}. {suggest(str(name), [*icons.NAMES, *NAMES])} "
            "Your own images load with ImageFolder(path)."
        )
    folder = data_root(root)
    if download and not (folder / folder_of(name)).is_dir():
        fetch(name, folder)
    return load_paper(name, folder)
