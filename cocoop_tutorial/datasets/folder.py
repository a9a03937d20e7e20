"""Your own images: a folder with one sub-folder a class (chapters 2 and 10)."""

import random
from pathlib import Path

from cocoop_tutorial.datasets.splits import Dataset, Sample, Split
from cocoop_tutorial.datasets.zhou import check_classnames
from cocoop_tutorial.errors import DataError, MissingDataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}


def ImageFolder(  # noqa: N802 - reads like torchvision's class of this name
    root: Path | str,
    template: str = "a photo of a {}.",
    classnames: dict[str, str] | None = None,
    val: float = 0.2,
    test: float = 0.3,
    seed: int = 1,
) -> Dataset:
    """Makes a data set of `root/CLASS/*.jpg`, or of `root/train/CLASS/...` with val and test.

    Without `train` and `test` folders the images of each class are shuffled once, with the seed,
    and divided.

    Args:
        root: The folder.
        template: The hand-made prompt.
        classnames: Folder name to class name, where they differ.
        val: Share of each class for validation.
        test: Share of each class for testing.
        seed: Seed of the division.

    Returns:
        A data set named after the folder; labels follow the sorted folder names.

    Raises:
        MissingDataError: There is no such folder.
        DataError: It has no classes, a class has no images, or two classes have one name.

    Introduced in chapter 2.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise MissingDataError(f"There is no folder {root}.")
    divided = (root / "train").is_dir() and (root / "test").is_dir()
    folders = class_folders(root / "train" if divided else root)
    names = [(classnames or {}).get(folder.name, folder.name) for folder in folders]
    check_classnames(names, str(root))
    if divided:
        labels = {folder.name: i for i, folder in enumerate(folders)}
        parts = tuple(_read_split(root / s, labels) for s in ("train", "val", "test"))
    else:
        parts = divide(folders, val, test, seed)
    return Dataset(root.name, names, *parts, template=template)


def class_folders(root: Path, ignore: tuple[str, ...] = ()) -> list[Path]:
    """The visible sub-folders of `root`, sorted by name.

    Raises:
        DataError: There are none.
    """
    found = [f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith(".")]
    folders = [f for f in found if f.name not in ignore]
    if not folders:
        raise DataError(f"{root} has no sub-folders. Put the images of each class into its own.")
    return folders


def images_of(folder: Path) -> list[Path]:
    """The image files in and below a folder, sorted.

    Raises:
        DataError: There are none.
    """
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
    files = [f for f in files if not f.name.startswith(".")]
    if not files:
        raise DataError(f"{folder} has no images. Add some, or delete the folder.")
    return files


def divide(folders: list[Path], val: float, test: float, seed: int) -> tuple[Split, Split, Split]:
    """Divides each class folder on its own; at least one image of each stays for training.

    Args:
        folders: One folder a class, by label.
        val: Share for validation.
        test: Share for testing.
        seed: Seed of the shuffle.

    Returns:
        Train, val, test.

    Raises:
        DataError: The shares leave nothing for training, or a folder has no images.
    """
    if val < 0 or test < 0 or val + test >= 1:
        raise DataError(f"val={val} and test={test} must be at least 0 and sum to less than 1.")
    rng = random.Random(seed)
    parts: tuple[list[Sample], ...] = ([], [], [])
    for label, folder in enumerate(folders):
        samples = [(path, label) for path in images_of(folder)]
        rng.shuffle(samples)
        n_test = min(round(len(samples) * test), len(samples) - 1)
        n_val = min(round(len(samples) * val), len(samples) - 1 - n_test)
        parts[2].extend(samples[:n_test])
        parts[1].extend(samples[n_test : n_test + n_val])
        parts[0].extend(samples[n_test + n_val :])
    return Split(parts[0]), Split(parts[1]), Split(parts[2])


def _read_split(root: Path, labels: dict[str, int]) -> Split:
    if not root.is_dir():  # val is optional
        return Split()
    samples: list[Sample] = []
    for folder in class_folders(root):
        if folder.name not in labels:
            raise DataError(
                f"{folder} is a class that {root.parent / 'train'} does not have. "
                "Rename or remove it."
            )
        samples += [(path, labels[folder.name]) for path in images_of(folder)]
    return Split(samples)
