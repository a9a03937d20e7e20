"""Downloading those of the paper's data sets that a program can download.

Addresses and MD5 sums are torchvision's, which keeps them up to date, but all by https. MD5 can be
forged, so the SHA-256 sums of TensorFlow Datasets stand beside them; for the archives of Caltech101
and of Aircraft none is published. The folders are those of the official DATASETS.md. The official
split files are not included, because their links open only in a browser.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from cocoop_tutorial.datasets.archives import OURS, extract, fetch
from cocoop_tutorial.errors import DataError, UnknownNameError, suggest
from cocoop_tutorial.files import file_errors, locked

OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"


@dataclass(frozen=True)
class File:
    """A file to download.

    Attributes:
        url: Its address.
        md5: Its checksum.
        target: Where its content goes, relative to the data root.
        inside: What to take out of the archive; a second entry is for an archive within the
            archive. Empty for a plain file.
        sha256: A second checksum, if one is published.
    """

    url: str
    md5: str
    target: str
    inside: tuple[str, ...] = ()
    sha256: str = ""


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
            "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
        ),
        File(
            f"{OXFORD}/pets/data/annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f",
            "oxford_pets/annotations", ("annotations",),
            "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
        ),
    ],
    "oxford_flowers": [
        File(
            f"{OXFORD}/flowers/102/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa",
            "oxford_flowers/jpg", ("jpg",),
            "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
        ),
        File(
            f"{OXFORD}/flowers/102/imagelabels.mat", "e0620be6f572b9609742df49c70aed4d",
            "oxford_flowers/imagelabels.mat", (),
            "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
        ),
    ],
    "food101": [
        File(
            "https://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            "85eeb15f3717b99a5da872d97d918f87", "food-101", ("food-101",),
            "d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
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
            "e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
        )
    ],
    "eurosat": [
        File(
            "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
            "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
            "c8fa014336c82ac7804f0398fcb19387", "eurosat/2750", ("2750",),
            "8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd",
        )
    ],
}  # fmt: skip


def download(name: str, root: Path) -> None:
    """Downloads a data set and lays it out as the official code expects.

    Files that are there already stay; an interrupted call can be repeated. Of several calls at
    once, one works and the others wait for it.

    Args:
        name: A key of `FILES`.
        root: The data root.

    Raises:
        UnknownNameError: This data set cannot be downloaded by a program.
        MissingDataError: The download failed.
        DataError: An archive is damaged.
        FileError: The disk is full, or a folder cannot be written.
    """
    if name not in FILES:
        raise UnknownNameError(f"{name!r} cannot be downloaded. {suggest(name, FILES)}")
    lock = root / ".downloads" / f"{name}.lock"
    with locked(lock, f"downloading {name} to {root}") as waited:
        if waited and all((root / file.target).exists() for file in FILES[name]):
            return
        for file in FILES[name]:
            install(file, root)


def install(file: File, root: Path) -> None:
    """Downloads a file and puts its content into place.

    An archive that was put into `.downloads` by hand stays there.

    Raises:
        MissingDataError: It cannot be downloaded.
        DataError: It is damaged, or has other content than expected.
        FileError: The disk is full, or a folder cannot be written.
    """
    archive = source = fetch(file.url, file.md5, root / ".downloads", file.sha256)
    work = archive.with_name(archive.name + ".unpacked")
    with file_errors(f"{archive} could not be installed", "run the same command again to continue"):
        shutil.rmtree(work, ignore_errors=True)
        for step, wanted in enumerate(file.inside):
            extract(source, work / str(step))
            source = work / str(step) / wanted
            if not source.exists():
                raise DataError(f"{archive} has no {wanted!r}; its publisher must have changed it.")
        if source == archive and archive.suffix != OURS:
            work.mkdir()
            source = Path(shutil.copy(archive, work))
        place(source, root / file.target)
        if archive.suffix == OURS:
            archive.unlink(missing_ok=True)
        shutil.rmtree(work, ignore_errors=True)


def place(source: Path, target: Path) -> None:
    """Moves a file or folder; an existing folder gets the children that it lacks."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        source.replace(target)
    elif source.is_dir():
        for child in sorted(source.iterdir()):
            place(child, target / child.name)
