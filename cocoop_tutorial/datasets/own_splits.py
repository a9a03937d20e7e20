"""Our own splits, for data sets whose official split file is missing; not the paper's."""

import random
from collections import defaultdict
from pathlib import Path

from cocoop_tutorial.datasets.folder import class_folders, divide
from cocoop_tutorial.datasets.splits import Sample, Split
from cocoop_tutorial.datasets.zhou import Splits, check_exist, read_text
from cocoop_tutorial.errors import DataError, MissingDataError

SEED = 1  # of the shuffle; fixed, so that everybody gets the same split
EUROSAT = {
    "AnnualCrop": "Annual Crop Land",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "SeaLake": "Sea or Lake",
}
CALTECH = {
    "airplanes": "airplane",
    "Faces": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
}
CALTECH_IGNORED = ("BACKGROUND_Google", "Faces_easy")


def by_folder(
    images: Path, names: dict[str, str] | None = None, ignore: tuple[str, ...] = ()
) -> Splits:
    """Splits each class folder into 50% train, 20% val and 30% test, like the official code.

    Args:
        images: The folder with one folder per class.
        names: Folder name to class name, where they differ.
        ignore: Folders that are not classes.

    Returns:
        Train, val, test, class names.
    """
    folders = class_folders(images, ignore)
    classnames = [(names or {}).get(folder.name, folder.name) for folder in folders]
    return *divide(folders, val=0.2, test=0.3, seed=SEED), classnames


def caltech101(folder: Path) -> Splits:
    """Caltech101, without the two folders that are not classes."""
    return by_folder(folder / "101_ObjectCategories", CALTECH, CALTECH_IGNORED)


def food101(folder: Path) -> Splits:
    """Food101 by folder."""
    return by_folder(folder / "images")


def dtd(folder: Path) -> Splits:
    """Describable Textures by folder."""
    return by_folder(folder / "images")


def eurosat(folder: Path) -> Splits:
    """EuroSAT by folder, with the ten names of the official code."""
    return by_folder(folder / "2750", EUROSAT)


def oxford_pets(folder: Path) -> Splits:
    """OxfordPets: the published trainval and test lists; a fifth of trainval becomes val."""
    names: dict[int, str] = {}
    trainval = _pets_list(folder, "trainval.txt", names)
    test = _pets_list(folder, "test.txt", names)
    by_label: dict[int, list[Sample]] = defaultdict(list)
    for sample in trainval:
        by_label[sample[1]].append(sample)
    rng, train, val = random.Random(SEED), [], []
    for samples in by_label.values():
        rng.shuffle(samples)
        n_val = round(len(samples) * 0.2)
        val += samples[:n_val]
        train += samples[n_val:]
    classnames = [names[label] for label in sorted(names)]
    return Split(train), Split(val), Split(test), classnames


def _pets_list(folder: Path, file: str, names: dict[int, str]) -> list[Sample]:
    """Reads lines like "Abyssinian_100 1 1 1": image, class from 1, species, breed."""
    path = folder / "annotations" / file
    samples = []
    for line in read_lines(path):
        image, label, *_ = [*line.split(" "), ""]
        if not label.isdecimal() or int(label) < 1:
            raise DataError(f"{path}: {line!r} does not read like 'Abyssinian_100 1 1 1'.")
        names[int(label) - 1] = image.rpartition("_")[0].lower()
        samples.append((folder / "images" / f"{image}.jpg", int(label) - 1))
    check_exist([image for image, _ in samples], str(path))
    return samples


def oxford_flowers(folder: Path) -> Splits:
    """Flowers102: 50% train, 20% val, 30% test of each class."""
    labels, names = _flower_labels(folder / "imagelabels.mat"), _flower_names()
    by_label: dict[int, list[Sample]] = defaultdict(list)
    for i, label in enumerate(labels):
        by_label[label].append((folder / "jpg" / f"image_{i + 1:05d}.jpg", label))
    rng = random.Random(SEED)
    splits: tuple[list[Sample], ...] = ([], [], [])
    for label in sorted(by_label):
        samples = by_label[label]
        rng.shuffle(samples)
        n_train, n_val = round(len(samples) * 0.5), round(len(samples) * 0.2)
        splits[0].extend(samples[:n_train])
        splits[1].extend(samples[n_train : n_train + n_val])
        splits[2].extend(samples[n_train + n_val :])
    check_exist([image for split in splits for image, _ in split], str(folder / "imagelabels.mat"))
    return Split(splits[0]), Split(splits[1]), Split(splits[2]), names


def _flower_labels(path: Path) -> list[int]:
    if not path.is_file():
        raise MissingDataError(f"There is no file {path}, which has the labels of Flowers102.")
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError(f"Reading {path} needs scipy: pip install scipy") from error
    return [int(label) - 1 for label in loadmat(path)["labels"][0]]


def _flower_names() -> list[str]:
    from torchvision.datasets import Flowers102  # here, because it is slow to import

    return list(Flowers102.classes)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without empty ones.

    Raises:
        MissingDataError: There is no such file.
        DataError: Its encoding is unknown.
    """
    if not path.is_file():
        raise MissingDataError(
            f"There is no file {path}. It belongs to the annotations of the data set."
        )
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
