"""ImageNet and its four shifted test sets, in the folders of the official DATASETS.md."""

from pathlib import Path

from cocoop_tutorial.datasets.folder import class_folders, images_of
from cocoop_tutorial.datasets.own_splits import read_lines
from cocoop_tutorial.datasets.splits import Dataset, Sample, Split
from cocoop_tutorial.errors import DataError, MissingDataError

# Name -> folder under the root, and where its test images are.
SHIFTS = {
    "imagenetv2": ("imagenetv2", "imagenetv2-matched-frequency-format-val"),
    "imagenet_sketch": ("imagenet-sketch", "images"),
    "imagenet_a": ("imagenet-adversarial", "imagenet-a"),
    "imagenet_r": ("imagenet-rendition", "imagenet-r"),
}


def read_classnames(folder: Path) -> dict[str, str]:
    """Reads `classnames.txt`: "n01440764 tench" a line, in the order of the labels.

    Two pairs of ImageNet's classes share a name there, as in CLIP's own list; that stays.

    Args:
        folder: The folder that holds the file.

    Returns:
        WordNet id to class name.

    Raises:
        MissingDataError: There is no such file.
        DataError: A line has no name.
    """
    path = folder / "classnames.txt"
    names = {}
    for line in read_lines(path):
        wnid, _, name = line.partition(" ")
        if not name.strip():
            raise DataError(f"{path}: {wnid!r} has no class name. A line reads 'n01440764 tench'.")
        names[wnid] = name.strip()
    return names


def load_imagenet(root: Path) -> Dataset:
    """ImageNet: `train` to draw from, the published validation set as both val and test.

    The official code lists files unsorted, so that its draw depends on the file system; here
    they are sorted.

    Args:
        root: The data root; the images are in `imagenet/images/{train,val}`.

    Returns:
        The data set, with 1,000 classes when it is complete.
    """
    folder = root / "imagenet"
    names = read_classnames(folder)
    train, wnids = _by_wnid(folder / "images" / "train", names)
    test, test_wnids = _by_wnid(folder / "images" / "val", names)
    if wnids != test_wnids:
        odd = sorted(set(wnids) ^ set(test_wnids))
        raise DataError(f"{folder}: train and val have different classes, for example {odd[0]}.")
    classnames = [names[w] for w in wnids]
    return Dataset("imagenet", classnames, train, test, test, paper_split=True)


def load_shift(name: str, root: Path) -> Dataset:
    """ImageNetV2, -Sketch, -A or -R: test images only, among the classes that they have.

    Args:
        name: A key of `SHIFTS`.
        root: The data root.

    Returns:
        A data set whose train and val are empty. -A and -R have 200 classes.
    """
    folder, images = root / SHIFTS[name][0], root / SHIFTS[name][0] / SHIFTS[name][1]
    names = read_classnames(folder)
    if name == "imagenetv2":  # its folders are called 0 to 999, the position in classnames.txt
        wnids = list(names)
        samples = [(p, y) for y in range(len(wnids)) for p in images_of(_there(images / str(y)))]
        test = Split(samples)
    else:
        test, wnids = _by_wnid(images, names)
    return Dataset(name, [names[w] for w in wnids], Split(), Split(), test, paper_split=True)


def _by_wnid(folder: Path, names: dict[str, str]) -> tuple[Split, list[str]]:
    samples: list[Sample] = []
    folders = class_folders(_there(folder))
    for label, wnid in enumerate(folders):
        if wnid.name not in names:
            raise DataError(f"{wnid} is no class of classnames.txt. Move the folder elsewhere.")
        samples += [(path, label) for path in images_of(wnid)]
    return Split(samples), [f.name for f in folders]


def _there(folder: Path) -> Path:
    if not folder.is_dir():
        raise MissingDataError(f"There is no folder {folder}. Unpack the images there.")
    return folder
