"""Fetching the data sets that a program can fetch, into the official folders.

Addresses and checksums are those of torchvision, which keeps them up to date; the layout is that
of the official DATASETS.md. The official split files are not among them: they lie behind links
that only a browser can open.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from cocoop_tutorial.datasets.archives import extract, fetch
from cocoop_tutorial.errors import DataError, UnknownNameError, suggest

OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"


@dataclass(frozen=True)
class File:
    """One file to fetch.

    Attributes:
        url: Its address.
        md5: Its checksum.
        target: Where its content goes, under the data root.
        inside: What to take out of the archive; a second step unpacks an archive in the archive.
            Empty for a plain file.
    """

    url: str
    md5: str
    target: str
    inside: tuple[str, ...] = ()


FILES = {
    "caltech101": [
        File(
            "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
            "3138e1922a9193bfa496528edbbc45d0",
            "caltech-101/101_ObjectCategories",
            ("caltech-101/101_ObjectCategories.tar.gz", "101_ObjectCategories"),
        )
    ],
    "oxford_pets": [
        File(
            f"{OXFORD}/pets/data/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c",
            "oxford_pets/images", ("images",),
        ),
        File(
            f"{OXFORD}/pets/data/annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f",
            "oxford_pets/annotations", ("annotations",),
        ),
    ],
    "oxford_flowers": [
        File(
            f"{OXFORD}/flowers/102/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa",
            "oxford_flowers/jpg", ("jpg",),
        ),
        File(
            f"{OXFORD}/flowers/102/imagelabels.mat", "e0620be6f572b9609742df49c70aed4d",
            "oxford_flowers/imagelabels.mat",
        ),
    ],
    "food101": [
        File(
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            "85eeb15f3717b99a5da872d97d918f87", "food-101", ("food-101",),
        )
    ],
    "fgvc_aircraft": [
        File(
            f"{OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            "d4acdd33327262359767eeaa97a4f732", "fgvc_aircraft", ("fgvc-aircraft-2013b/data",),
        )
    ],
    "dtd": [
        File(
            f"{OXFORD}/dtd/download/dtd-r1.0.1.tar.gz", "fff73e5086ae6bdbea199a49dfb8a4c1",
            "dtd", ("dtd",),
        )
    ],
    "eurosat": [
        File(
            "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
            "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            "c8fa014336c82ac7804f0398fcb19387", "eurosat/2750", ("2750",),
        )
    ],
}  # fmt: skip


def download(name: str, root: Path) -> None:
    """Fetches one data set and lays it out as the official code expects it.

    What is there already stays; an interrupted call can be repeated.

    Args:
        name: A key of `FILES`.
        root: The data root.

    Raises:
        UnknownNameError: No program can fetch this data set.
        MissingDataError: The network does not answer.
        DataError: An archive is damaged.
    """
    if name not in FILES:
        raise UnknownNameError(f"{name!r} cannot be downloaded. {suggest(name, FILES)}")
    for file in FILES[name]:
        install(file, root)


def install(file: File, root: Path) -> None:
    """Fetches one file and puts its content in its place.

    Raises:
        MissingDataError: It cannot be downloaded.
        DataError: It is damaged, or holds something else.
    """
    archive = fetch(file.url, file.md5, root / ".downloads")
    source, work = archive, archive.with_name(archive.name + ".unpacked")
    for step, wanted in enumerate(file.inside):
        folder = work / str(step)
        if not folder.exists():
            extract(source, folder)
        source = folder / wanted
        if not source.exists():
            raise DataError(f"{archive} holds no {wanted!r}; its publisher has changed it.")
    place(source, root / file.target)
    archive.unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)


def place(source: Path, target: Path) -> None:
    """Moves a file or folder; into a folder that exists go the children that it lacks."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        source.replace(target)
    elif source.is_dir():
        for child in sorted(source.iterdir()):
            place(child, target / child.name)
