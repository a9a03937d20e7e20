"""The paper's eleven data sets and four shifted test sets, in the official folders (chapter 2)."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cocoop_tutorial.classnames import check_classnames
from cocoop_tutorial.datasets import own_splits
from cocoop_tutorial.datasets.imagenet import SHIFTS, load_imagenet, load_shift
from cocoop_tutorial.datasets.own_splits import read_lines
from cocoop_tutorial.datasets.splits import Dataset, Split
from cocoop_tutorial.datasets.zhou import Splits, check_exist, read_zhou_split
from cocoop_tutorial.errors import DataError, MissingDataError
from cocoop_tutorial.files import file_errors

LAYOUT = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"


@dataclass(frozen=True)
class Source:
    """Where a data set is, relative to the data root.

    Attributes:
        folder: Its folder.
        images: The folder that the split file's paths are relative to, inside `folder`.
        split: The official split file, inside `folder`.
        template: The hand-written prompt.
        own: Makes our own split if the official file is missing; None if there is no such function.
        sha256: The digest of the official split file, where one could be seen.
    """

    folder: str
    images: str
    split: str
    template: str = "a photo of a {}."
    own: Callable[[Path], Splits] | None = None
    sha256: str = ""


SOURCES = {
    "caltech101": Source(
        "caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json",
        own=own_splits.caltech101,
        sha256="43ab95e88d2f6a32a11c4f8dc9f822c534e822f3dbbde2e248af5432d771a6fc",
    ),
    "oxford_pets": Source(
        "oxford_pets", "images", "split_zhou_OxfordPets.json",
        "a photo of a {}, a type of pet.", own_splits.oxford_pets,
    ),
    "stanford_cars": Source("stanford_cars", "", "split_zhou_StanfordCars.json"),
    "oxford_flowers": Source(
        "oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json",
        "a photo of a {}, a type of flower.", own_splits.oxford_flowers,
    ),
    "food101": Source(
        "food-101", "images", "split_zhou_Food101.json",
        "a photo of {}, a type of food.", own_splits.food101,
    ),
    "sun397": Source("sun397", "SUN397", "split_zhou_SUN397.json"),
    "dtd": Source(
        "dtd", "images", "split_zhou_DescribableTextures.json", "{} texture.", own_splits.dtd
    ),
    "eurosat": Source(
        "eurosat", "2750", "split_zhou_EuroSAT.json",
        "a centered satellite photo of {}.", own_splits.eurosat,
    ),
    "ucf101": Source(
        "ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", "a photo of a person doing {}."
    ),
}  # fmt: skip
AIRCRAFT = "a photo of a {}, a type of aircraft."
# In the order of the paper's tables.
NAMES = (
    "imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101",
    "fgvc_aircraft", "sun397", "dtd", "eurosat", "ucf101", *SHIFTS,
)  # fmt: skip


def folder_of(name: str) -> str:
    """The folder of a data set, relative to the data root."""
    if name in SHIFTS:
        return SHIFTS[name][0]
    if name in ("imagenet", "fgvc_aircraft"):
        return name
    return SOURCES[name].folder


def template_of(name: str) -> str:
    """The hand-written prompt of a data set; ImageNet and its shifts have the plain one."""
    if name == "fgvc_aircraft":
        return AIRCRAFT
    return SOURCES[name].template if name in SOURCES else "a photo of a {}."


def load_paper(name: str, root: Path) -> Dataset:
    """Loads one of the paper's data sets.

    Args:
        name: One of `NAMES`.
        root: The data root.

    Returns:
        The data set; `paper_split` says whether its splits are the official ones.

    Raises:
        MissingDataError: Its folder, its split file or one of its images is missing.
        DataError: The split file is damaged.
        FileError: A folder or file cannot be read.
    """
    folder = root / folder_of(name)
    with file_errors(f"{name} could not be read"):
        if not folder.is_dir():
            raise MissingDataError(f"{name} is not in {folder}. {how_to_get(name, root)}")
        if name == "imagenet":
            return load_imagenet(root)
        if name in SHIFTS:
            return load_shift(name, root)
        if name == "fgvc_aircraft":
            return _aircraft(folder)
        return _from_source(name, root, SOURCES[name])


def how_to_get(name: str, root: Path) -> str:
    """A sentence that says how to get a data set that is missing."""
    from cocoop_tutorial.datasets.download import FILES

    if name in FILES:
        return f"Download it: cocoop data fetch {name} --root {root}"
    return f"A program cannot download it; get it as described in {LAYOUT}"


def _from_source(name: str, root: Path, source: Source) -> Dataset:
    folder = root / source.folder
    official = folder / source.split
    if official.is_file():
        *splits, names = read_zhou_split(official, folder / source.images)
        return Dataset(name, names, *splits, template=source.template, paper_split=True)
    if source.own is None:
        raise MissingDataError(f"There is no file {official}. Get it as described in {LAYOUT}")
    if not (folder / source.images).is_dir():
        raise MissingDataError(
            f"There is no folder {folder / source.images}. {how_to_get(name, root)}"
        )
    *splits, names = source.own(folder)
    check_classnames(names, where=str(folder))
    warnings.warn(
        f"{name}: {source.split} is not in {folder}, so the split is our own and its numbers do "
        f"not compare with the paper's. The official file is linked from {LAYOUT}",
        stacklevel=4,
    )
    return Dataset(name, names, *splits, template=source.template)


def _aircraft(folder: Path) -> Dataset:
    """FGVCAircraft has its own official lists, with lines such as "0056978 707-320"."""
    names = read_lines(folder / "variants.txt")
    check_classnames(names, where=str(folder / "variants.txt"))
    labels = {name: label for label, name in enumerate(names)}
    splits = []
    for split in ("train", "val", "test"):
        path, samples = folder / f"images_variant_{split}.txt", []
        for line in read_lines(path):
            image, _, variant = line.partition(" ")
            if variant not in labels:
                raise DataError(f"{path}: {variant!r} is not in variants.txt.")
            samples.append((folder / "images" / f"{image}.jpg", labels[variant]))
        check_exist([image for image, _ in samples], str(path))
        splits.append(Split(samples))
    return Dataset("fgvc_aircraft", names, *splits, template=AIRCRAFT, paper_split=True)
