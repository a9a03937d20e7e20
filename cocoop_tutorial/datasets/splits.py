"""Data sets, the few-shot draw, and the base/new split (chapter 2)."""

import math
import random
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from cocoop_tutorial.classnames import check_classnames
from cocoop_tutorial.datasets.decode import open_image
from cocoop_tutorial.errors import DataError
from cocoop_tutorial.seeds import as_int, check_seed

Sample = tuple[Path, int]


@dataclass(frozen=True)
class Split:
    """A list of labelled images, which is also a map-style data set for PyTorch.

    Attributes:
        samples: Pairs of image path and label; labels start at 0. Paths may be strings, and labels
            NumPy's or PyTorch's integers: they become `Path` and int.

    Raises:
        DataError: A sample is no such pair.

    Introduced in chapter 2.
    """

    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        samples = self.samples if isinstance(self.samples, list) else list(self.samples)
        if not all(_is_sample(sample) for sample in samples):
            samples = [_to_sample(i, sample) for i, sample in enumerate(samples)]
        object.__setattr__(self, "samples", samples)  # because the class is frozen

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
        """The labels of the samples, in order."""
        return [label for _, label in self.samples]


def _is_sample(sample: Any) -> bool:
    path, label = sample if type(sample) is tuple and len(sample) == 2 else (None, None)
    return isinstance(path, Path) and type(label) is int


def _to_sample(i: int, sample: Any) -> Sample:
    try:
        path, label = sample
        path = Path(path)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"Sample {i} is {sample!r}; it must be a pair of an image path and a label."
        ) from error
    number = as_int(label)
    if number is None:
        raise DataError(
            f"Sample {i} ({path}) has the label {label!r}, of type {type(label).__name__}; "
            "a label is a whole number, the position of the class in the list of names."
        )
    return path, number


@dataclass(frozen=True)
class Dataset:
    """Class names and three splits.

    Attributes:
        name: Its name, as for `load_dataset`.
        classnames: The K names; a label is an index into this list.
        train: Images to learn from.
        val: Images to choose settings by.
        test: Images to report on.
        template: The protocol's hand-written prompt; "{}" stands for the class name.
        paper_split: Whether the splits are the official ones, so that numbers can be compared
            with the paper's.
        subset: "all", "base" or "new".

    Raises:
        ClassNameError: A class name is empty.
        DataError: A label is not from 0 to K - 1.

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
        if self.classnames:  # two classes of ImageNet share a name
            names = check_classnames(self.classnames, allow_duplicates=True, where=self.name)
            object.__setattr__(self, "classnames", names)
        for part in ("train", "val", "test"):
            self._check_labels(part)

    def _check_labels(self, part: str) -> None:
        labels, k = set(getattr(self, part).labels), len(self.classnames)
        odd = min(labels - set(range(k)), default=None)
        if odd is None:
            return
        advice = "Subtract 1 from each label." if (min(labels), max(labels)) == (1, k) else ""
        path = next(path for path, label in getattr(self, part).samples if label == odd)
        raise DataError(
            f"{self.name}: {part} has the label {odd} (at {path}), but there are {k} class names, "
            f"so labels run from 0 to {k - 1}. {advice}".rstrip()
        )

    def __repr__(self) -> str:
        subset = "" if self.subset == "all" else f", {self.subset} classes"
        sizes = ", ".join(f"{len(getattr(self, s))} {s}" for s in ("train", "val", "test"))
        return f"Dataset({self.name}{subset}: {len(self.classnames)} classes, {sizes})"

    def split(self, name: str) -> Split:
        """The split called "train", "val" or "test".

        Raises:
            DataError: No such split.
        """
        if name not in ("train", "val", "test"):
            raise DataError(f"{self.name} has no split {name!r}. Use 'train', 'val' or 'test'.")
        return getattr(self, name)


def few_shot(data: Dataset, shots: int = 16, seed: int = 1) -> Dataset:
    """Draws `shots` training images and at most 4 validation images per class, as officially done.

    One generator draws class by class, in the order in which classes first occur in the split, from
    train and then from val. A class with fewer images keeps them all, with a warning. The val split
    of ImageNet is its test split, so it is kept whole.

    Args:
        data: A data set with training images.
        shots: Images per class.
        seed: Seed of the draw; the papers use 1, 2 and 3.

    Returns:
        The same data set with smaller `train` and `val`, and the same `test`.

    Raises:
        SettingError: The seed is no whole number from 0.
        DataError: `shots` is no whole number from 1, or there is nothing to draw from.

    Introduced in chapter 2; CoOp (2109.01134), section 4.1.
    """
    wanted, seed = as_int(shots), check_seed(seed)
    if wanted is None or wanted < 1:
        raise DataError(f"shots is {shots!r}; it must be a whole number from 1.")
    if not data.train.samples:
        raise DataError(f"{data.name} has no training images: it is for testing only.")
    rng = random.Random(seed)
    train = _draw(data, data.train, wanted, rng)
    _warn_if_short(data, train, wanted)
    val = data.val if data.val is data.test else _draw(data, data.val, min(wanted, 4), rng)
    return replace(data, train=train, val=val)


def _draw(data: Dataset, split: Split, shots: int, rng: random.Random) -> Split:
    by_label: dict[int, list[Sample]] = defaultdict(list)
    for sample in split.samples:
        by_label[sample[1]].append(sample)
    drawn: list[Sample] = []
    for items in by_label.values():  # in the order of first occurrence, on which the draw depends
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

    Draw the shots before you split, because the official code does so too.

    Args:
        data: A data set of K classes.

    Returns:
        The base half and the new half, each with its own class names and with labels from 0.

    Raises:
        DataError: Fewer than two classes, or a half without any image.

    Introduced in chapter 2; CoCoOp (2203.05557), section 4.1.
    """
    n = len(data.classnames)
    if n < 2:
        raise DataError(f"{data.name} has {n} class; base and new need at least two.")
    middle = math.ceil(n / 2)
    return _half(data, 0, middle, "base"), _half(data, middle, n, "new")


def _half(data: Dataset, low: int, high: int, subset: str) -> Dataset:
    def keep(split: Split) -> Split:
        return Split([(p, y - low) for p, y in split.samples if low <= y < high])

    test = keep(data.test)
    half = replace(
        data,
        classnames=data.classnames[low:high],
        train=keep(data.train),
        val=test if data.val is data.test else keep(data.val),
        test=test,
        subset=subset,
    )
    if not any((half.train, half.val, half.test)):
        raise DataError(
            f"{data.name}: there is no image of the {subset} classes, which are number {low} to "
            f"{high - 1}. Are the images of all classes there?"
        )
    return half


def check_names(model: Any, data: Dataset) -> None:
    """Refuses a model whose class names differ from the data's.

    Args:
        model: Anything with `.classnames`.
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
