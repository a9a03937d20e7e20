"""Your own images: a folder with one sub-folder per class (chapters 2 and 10)."""

import os
import random
import re
import warnings
from collections import Counter, defaultdict
from numbers import Real
from pathlib import Path

from cocoop_tutorial.classnames import check_classnames
from cocoop_tutorial.datasets.decode import image_suffixes
from cocoop_tutorial.datasets.splits import Dataset, Sample, Split
from cocoop_tutorial.errors import DataError, MissingDataError, suggest
from cocoop_tutorial.seeds import check_seed

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}
# Files and folders that file managers, network drives and archives leave behind, beside those
# whose names begin with a dot.
LEFTOVERS = {
    "__macosx", "__pycache__", "@eadir", "@tmp", "@recycle", "#recycle", "#snapshot",
    "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini",
}  # fmt: skip
MODEL = ".safetensors"  # a folder with such a file is the output of a run, and so are its figures


def ImageFolder(  # noqa: N802 - reads like torchvision's class of this name
    root: Path | str,
    template: str = "a photo of a {}.",
    classnames: dict[str, str] | None = None,
    val: float = 0.2,
    test: float = 0.3,
    seed: int = 1,
) -> Dataset:
    """Makes a data set from `root/CLASS/*.jpg`, or from `root/train/CLASS/...`, `val` and `test`.

    If there are no such splits, the images of each class are shuffled with the seed and divided.
    Splits may have other usual names ("Training", "valid", "dev", "test_set"), and `val` may be
    missing. Hidden files, what tools leave behind and a run's output are left out, and a warning
    counts the other files that are no images.

    Args:
        root: The folder.
        template: The hand-written prompt.
        classnames: Folder name to class name, where they differ.
        val: Share of each class for validation.
        test: Share of each class for testing.
        seed: Seed of the shuffle.

    Returns:
        A data set with the name of the folder; labels follow the sorted folder names.

    Raises:
        MissingDataError: There is no such folder.
        DataError: It has no classes, a class has no images, two classes have the same name,
            `classnames` has a folder that is not there, or only some sub-folders look like splits.
        SettingError: The seed is no whole number from 0.

    Introduced in chapter 2.
    """
    root = Path(os.path.expanduser(root))
    if not os.path.isdir(root):
        raise MissingDataError(f"There is no folder {root}.")
    parts = split_folders(root)
    folders = class_folders(parts["train"] if parts else root)
    found, renamed = [folder.name for folder in folders], classnames or {}
    if unknown := [name for name in renamed if name not in found]:
        raise DataError(f"{root} has no folder {unknown[0]!r}. {suggest(str(unknown[0]), found)}")
    names = check_classnames([renamed.get(name, name) for name in found], where=str(root))
    if parts:
        labels = {folder.name: i for i, folder in enumerate(folders)}
        splits = tuple(_read_split(parts.get(s), labels) for s in SPLITS)
    else:
        splits = divide(folders, val, test, seed)
    return Dataset(root.absolute().name, names, *splits, template=template)


def split_folders(root: Path) -> dict[str, Path]:
    """The sub-folders that are splits: "train", "test" and perhaps "val" to folder.

    Returns:
        No splits if none of the sub-folders is called like one. A folder "train" that lies among
        others and holds images directly is a class, because the photos may be of trains.

    Raises:
        DataError: Some sub-folders look like splits, but "train" or "test" is missing, two are the
            same split, or another folder with images is among them.
    """
    found: dict[str | None, list[Path]] = defaultdict(list)
    for folder in class_folders(root):
        found[split_of(folder.name)].append(folder)
    others = found.pop(None, [])
    if not found or (others and set(found) == {"train"} and _is_class(found["train"][0])):
        return {}
    problem = _split_problem(found, [f for f in others if _walk(f)[0]])
    if problem:
        raise DataError(
            f"{root} looks divided into splits, but {problem}. It needs a train and a test folder, "
            "may have a val folder, and each holds one folder per class. To divide the images of "
            f"one folder, load it alone: ImageFolder({str(root / 'FOLDER')!r}). If such a folder "
            "is a class, rename it and give the class its name with classnames={FOLDER: NAME}."
        )
    return {split: folders[0] for split, folders in found.items()}


def split_of(name: str) -> str | None:
    """The split that a folder of this name usually holds: "train", "val", "test", or None."""
    return SPLIT_OF.get(re.sub(r"[ _-]?(set|split|data|images)$", "", name.casefold()))


def _split_problem(found: dict[str, list[Path]], others: list[Path]) -> str:
    """What is wrong with sub-folders that look like splits, or ""."""
    for split, folders in found.items():
        if len(folders) > 1:
            return f"{folders[0].name} and {folders[1].name} are both called like {split}"
    for split in ("train", "test"):
        if split not in found:
            names = ", ".join(folder.name for folders in found.values() for folder in folders)
            return f"beside {names} there is no {split} folder"
    return f"{others[0].name} is none of them" if others else ""


def _is_class(folder: Path) -> bool:
    return any(path.parent == folder for path in _walk(folder)[0])


def class_folders(root: Path, ignore: tuple[str, ...] = ()) -> list[Path]:
    """The sub-folders of `root`, sorted by name, without leftovers and without a run's output.

    Raises:
        DataError: There are none, or the folder cannot be read.
    """
    folders = [f for f in _subfolders(root) if f.name not in ignore and not _is_output(f)]
    if not folders:
        raise DataError(f"{root} has no sub-folders. Put the images of each class into its own.")
    return folders


def _subfolders(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as entries:
            return sorted(Path(e.path) for e in entries if not _is_leftover(e.name) and e.is_dir())
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror}).") from error


def _is_leftover(name: str) -> bool:
    return name.startswith(".") or name.casefold() in LEFTOVERS


def _is_output(folder: Path) -> bool:
    """Whether a folder holds saved models, at any depth, and no images but theirs."""
    saved = (name.endswith(MODEL) for _, _, names in os.walk(folder) for name in names)
    return any(saved) and not _walk(folder)[0]


def images_of(folder: Path) -> list[Path]:
    """The image files in and below a folder, sorted.

    Raises:
        DataError: There are none.
    """
    return _images([folder])[0]


def _images(folders: list[Path]) -> list[list[Path]]:
    """The images of each folder; one warning counts all files that are no images."""
    images, others = [], []
    for folder in folders:
        files, rest = _walk(folder)
        if not files:
            but = f", only {kinds_of(rest)}" if rest else ""
            raise DataError(f"{folder} has no images{but}. Add some, or delete the folder.")
        images.append(files)
        others += rest
    if others:
        warnings.warn(
            f"{folders[0].parent}: left out what does not have the suffix of an image that can be "
            f"read ({kinds_of(others)}), for example {others[0]}. If one is a picture, save it as "
            "PNG or JPEG.",
            stacklevel=4,
        )
    return images


def kinds_of(files: list[Path]) -> str:
    """The most frequent suffixes of files with their counts, such as "3 .heic, 1 .txt"."""
    counts = Counter(path.suffix.lower() or path.name for path in files).most_common(5)
    return ", ".join(f"{n} {kind}" for kind, n in counts)


def _walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images in and below a folder, and the other files, both sorted."""
    images, others, suffixes, seen = [], [], image_suffixes(), set()
    for where, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):
        real = os.path.realpath(where)
        if real in seen or any(name.endswith(MODEL) for name in names):
            folders.clear()  # a link to what was seen, or the output of a run
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not _is_leftover(name)]
        _refuse_splits(folder, where, folders)
        for name in names:
            if not _is_leftover(name):
                taken = os.path.splitext(name)[1].lower() in suffixes
                (images if taken else others).append(Path(where, name))
    return sorted(images), sorted(others)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read ({error.strerror}).") from error


def _refuse_splits(class_folder: Path, where: str, names: list[str]) -> None:
    """Refuses splits below a class, whose images would be mixed."""
    found = {split_of(name): name for name in names}
    if {"val", "test"} & set(found):
        name = found.get("test") or found["val"]
        raise DataError(
            f"{Path(where, name)} is called like a split, but lies in the class {class_folder}. "
            "Splits come first: test/CLASS/... If it is none, rename it."
        )


def divide(folders: list[Path], val: float, test: float, seed: int) -> tuple[Split, Split, Split]:
    """Divides each class folder separately; at least one image of each stays for training.

    Args:
        folders: One folder per class, by label.
        val: Share for validation.
        test: Share for testing.
        seed: Seed of the shuffle.

    Returns:
        Train, val, test.

    Raises:
        DataError: The shares leave nothing for training, or a folder has no images.
    """
    numbers = all(isinstance(share, Real) for share in (val, test))
    if not (numbers and val >= 0 and test >= 0 and val + test < 1):  # so that NaN is refused too
        raise DataError(f"val={val!r} and test={test!r} must be from 0 and sum to less than 1.")
    rng = random.Random(check_seed(seed))
    splits: tuple[list[Sample], ...] = ([], [], [])
    for label, paths in enumerate(_images(folders)):
        samples = [(path, label) for path in paths]
        rng.shuffle(samples)
        n_test = min(round(len(samples) * test), len(samples) - 1)
        n_val = min(round(len(samples) * val), len(samples) - 1 - n_test)
        splits[2].extend(samples[:n_test])
        splits[1].extend(samples[n_test : n_test + n_val])
        splits[0].extend(samples[n_test + n_val :])
    return Split(splits[0]), Split(splits[1]), Split(splits[2])


def _read_split(root: Path | None, labels: dict[str, int]) -> Split:
    if root is None:  # val is optional
        return Split()
    folders = class_folders(root)
    for folder in folders:
        if folder.name not in labels:
            raise DataError(
                f"{folder} is a class that train does not have. Rename it or remove it."
            )
    images = zip(folders, _images(folders), strict=True)
    return Split([(path, labels[folder.name]) for folder, paths in images for path in paths])
