"""What a data set is, the few-shot draw, and the base/new split (chapter 2)."""

import math
import random
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from cocoop_tutorial.errors import DataError

Sample = tuple[Path, int]


def open_image(path: Path) -> Image.Image:
    """Reads one image as RGB; what is transparent becomes white.

    Args:
        path: An image file of any common format.

    Returns:
        A PIL image in mode "RGB".

    Raises:
        DataError: The file is missing, cut off, or no image.
    """
    try:
        with Image.open(path) as image:
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                return Image.alpha_composite(white, image).convert("RGB")
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"Cannot read the image {path}: {error}. Replace the file, or leave such images out "
            "with check_images(data, skip=True)."
        ) from error


@dataclass(frozen=True)
class Split:
    """A list of labelled images, usable as a PyTorch map-style data set.

    Attributes:
        samples: Pairs of image path and label, the label counted from 0.

    Introduced in chapter 2.
    """

    samples: list[Sample] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """The image (PIL, RGB) and the label at `index`."""
        path, label = self.samples[index]
        return open_image(path), label

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Split({len(self)} images)"

    @property
    def labels(self) -> list[int]:
        """The label of every sample, in order."""
        return [label for _, label in self.samples]


@dataclass(frozen=True)
class Dataset:
    """Class names and three splits.

    Attributes:
        name: The name that `load_dataset` knows it by.
        classnames: The K names; a label is a position in this list.
        train: Images to learn from.
        val: Images to choose settings by.
        test: Images to report on.
        template: The hand-made prompt of the protocol; "{}" stands for the class name.
        paper_split: Whether the splits are the official ones, so that numbers may be compared
            with the paper's.
        subset: "all", "base" or "new".

    Introduced in chapter 2.
    """

    name: str
    classnames: list[str]
    train: Split
    val: Split
    test: Split
    template: str = "a photo of a {}."
    paper_split: bool = False
    subset: str = "all"

    def __post_init__(self) -> None:
        for i, name in enumerate(self.classnames):
            if not name.strip():
                raise DataError(f"{self.name}: class {i} has an empty name. Give it one.")

    def __repr__(self) -> str:
        part = "" if self.subset == "all" else f", {self.subset} classes"
        sizes = ", ".join(f"{len(getattr(self, s))} {s}" for s in ("train", "val", "test"))
        return f"Dataset({self.name}{part}: {len(self.classnames)} classes, {sizes})"

    def split(self, name: str) -> Split:
        """The split called "train", "val" or "test".

        Raises:
            DataError: No such split.
        """
        if name not in ("train", "val", "test"):
            raise DataError(f"{self.name} has no split {name!r}. Use 'train', 'val' or 'test'.")
        return getattr(self, name)


def few_shot(data: Dataset, shots: int = 16, seed: int = 1) -> Dataset:
    """Draws `shots` training images a class, and at most 4 validation images, as officially done.

    One generator draws class by class, in the order in which the split shows the classes first,
    from train and then from val. A class with fewer images keeps them all, with a warning.
    ImageNet, whose val is its test split, keeps it whole.

    Args:
        data: A data set with training images.
        shots: Images a class.
        seed: Seed of the draw; the papers use 1, 2 and 3.

    Returns:
        The same data set with smaller `train` and `val`, and the same `test`.

    Raises:
        DataError: `shots` is below 1, or there is nothing to draw from.

    Introduced in chapter 2; CoOp (2109.01134), section 4.1.
    """
    if shots < 1:
        raise DataError(f"shots is {shots}; it must be at least 1.")
    if not data.train.samples:
        raise DataError(f"{data.name} has no training images: it is for testing only.")
    rng = random.Random(seed)
    train = _draw(data, data.train, shots, rng)
    _warn_if_short(data, train, shots)
    val = data.val if data.val is data.test else _draw(data, data.val, min(shots, 4), rng)
    return replace(data, train=train, val=val)


def _draw(data: Dataset, split: Split, shots: int, rng: random.Random) -> Split:
    by_label: dict[int, list[Sample]] = defaultdict(list)
    for sample in split.samples:
        by_label[sample[1]].append(sample)
    drawn: list[Sample] = []
    for items in by_label.values():  # dicts keep the order of first sight, which the draw needs
        drawn += rng.sample(items, shots) if len(items) >= shots else items
    return Split(drawn)


def _warn_if_short(data: Dataset, train: Split, shots: int) -> None:
    counts = [0] * len(data.classnames)
    for label in train.labels:
        counts[label] += 1
    short = [f"{data.classnames[i]!r} ({n})" for i, n in enumerate(counts) if n < shots]
    if short:
        shown = ", ".join(short[:5]) + (f" and {len(short) - 5} more" if len(short) > 5 else "")
        warnings.warn(
            f"{data.name}: fewer than {shots} training images for {shown}; all are kept, "
            "as in the official code.",
            stacklevel=3,
        )


def base_new(data: Dataset) -> tuple[Dataset, Dataset]:
    """Splits the classes in two: the first half, rounded up, is base; the rest is new.

    Draw the shots first, then split: the official code draws before it splits.

    Args:
        data: A data set of K classes.

    Returns:
        The base half and the new half, each with its own class names and labels from 0.

    Raises:
        DataError: Fewer than two classes.

    Introduced in chapter 2; CoCoOp (2203.05557), section 4.1.
    """
    n = len(data.classnames)
    if n < 2:
        raise DataError(f"{data.name} has {n} class; base and new need at least two.")
    middle = math.ceil(n / 2)
    return _part(data, 0, middle, "base"), _part(data, middle, n, "new")


def _part(data: Dataset, low: int, high: int, subset: str) -> Dataset:
    def keep(split: Split) -> Split:
        return Split([(p, y - low) for p, y in split.samples if low <= y < high])

    test = keep(data.test)
    return replace(
        data,
        classnames=data.classnames[low:high],
        train=keep(data.train),
        val=test if data.val is data.test else keep(data.val),
        test=test,
        subset=subset,
    )


def check_names(model: Any, data: Dataset) -> None:
    """Refuses a model whose class names are not the data's.

    Args:
        model: Whatever has `.classnames`.
        data: The data set.

    Raises:
        DataError: They differ; the message says where.
    """
    ours, theirs = list(model.classnames), list(data.classnames)
    if ours == theirs:
        return
    where = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    what = (
        f"the model has {len(ours)} classes, {data.name} has {len(theirs)}"
        if where is None or len(ours) != len(theirs)
        else f"class {where} is {ours[where]!r} in the model and {theirs[where]!r} in {data.name}"
    )
    raise DataError(
        f"Model and data disagree on the classes: {what}. "
        "Use model.with_classnames(data.classnames)."
    )
