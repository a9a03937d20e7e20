"""Accuracy, calibration, and the image features that both are computed from (chapters 1 and 2)."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import pandas as pd
import torch
from torch import Tensor, nn

from . import distributed
from .datasets.images import image_batches
from .datasets.splits import Dataset, Split
from .errors import DataError, memory_advice
from .frozen_clip import FrozenCLIP
from .progress import bar
from .transforms import Transform

CACHE_BYTES = 2 * 1024**3  # per backbone: half a million images at E = 1024
_cache: "WeakKeyDictionary[FrozenCLIP, OrderedDict[tuple[Any, ...], Tensor]]" = WeakKeyDictionary()


def image_features(
    clip: FrozenCLIP,
    split: Split,
    transform: Transform | None = None,
    batch_size: int = 128,
    cache: bool = True,
) -> tuple[Tensor, Tensor]:
    """Image features of a split, computed once and then remembered.

    Two splits that list the same files share one entry.

    Args:
        clip: The backbone.
        split: N images.
        transform: PIL image to `[3, H, W]`; None takes `clip.preprocess`. Random transforms need
            `cache=False`.
        batch_size: Images in one pass of the image tower.
        cache: Whether to look in the cache and to store there.

    Returns:
        Features `[N, E]`, L2-normalised, on the backbone's device, and labels `[N]` (int64) there.

    Raises:
        DataError: The split is empty, or an image cannot be read.
        MemoryLimitError: A batch does not fit.
    """
    if not split.samples:
        raise DataError("There are no images in this split.")
    transform = transform or clip.preprocess
    labels = torch.tensor(split.labels, device=clip.device)
    if not cache:
        return _encode(clip, split, transform, batch_size), labels
    # batch_size is part of the key: sums in another order differ in the last bit, and a run
    # must not depend on what was computed before it.
    key = (_fingerprint(split), transform, batch_size, str(clip.device), clip.dtype)
    entries = _cache.setdefault(clip, OrderedDict())
    if key not in entries:
        entries[key] = _encode(clip, split, transform, batch_size)
        _trim(entries)
    else:
        entries.move_to_end(key)
    return entries[key], labels


def _encode(clip: FrozenCLIP, split: Split, transform: Transform, batch_size: int) -> Tensor:
    paths = [path for path, _ in split.samples]
    batches = image_batches(paths, transform, batch_size)
    total = -(-len(paths) // batch_size)
    with memory_advice(f"Lower batch_size (now {batch_size}) of the image features."):
        return torch.cat([clip.encode_image(b) for b in bar(batches, "image features", total)])


def _fingerprint(split: Split) -> str:
    text = "\0".join(str(path) for path, _ in split.samples)
    return hashlib.sha256(text.encode()).hexdigest()


def _trim(entries: "OrderedDict[tuple[Any, ...], Tensor]") -> None:
    while len(entries) > 1 and sum(t.nbytes for t in entries.values()) > CACHE_BYTES:
        entries.popitem(last=False)


def clear_cache() -> None:
    """Forgets all image features."""
    _cache.clear()


@dataclass(frozen=True)
class Evaluation:
    """What a model said about N images of K classes.

    Attributes:
        logits: `[N, K]`, float32, on the CPU.
        labels: `[N]`, the true classes.
        classnames: The K names.

    `float(evaluation)` is the accuracy in percent. Introduced in chapter 1.
    """

    logits: Tensor
    labels: Tensor
    classnames: list[str]

    @property
    def predictions(self) -> Tensor:
        """`[N]`, the class with the highest logit."""
        return self.logits.argmax(dim=1)

    @property
    def correct(self) -> Tensor:
        """`[N]`, bool."""
        return self.predictions == self.labels

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * self.correct.float().mean().item()

    @property
    def per_class(self) -> pd.Series:
        """Accuracy in percent, one row a class; not-a-number where a class has no image."""
        means = pd.Series(self.correct.numpy()).groupby(self.labels.numpy()).mean() * 100
        values = means.reindex(range(len(self.classnames))).to_numpy(dtype=float)
        return pd.Series(values, index=pd.Index(self.classnames, name="class"), name="accuracy")

    @property
    def ece(self) -> float:
        """Expected calibration error in percent, over 15 bins."""
        return expected_calibration_error(self.logits, self.labels)

    def __float__(self) -> float:
        return self.accuracy

    def __repr__(self) -> str:
        n, k = self.logits.shape
        return f"Evaluation({self.accuracy:.1f}% of {n} images, {k} classes)"


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: Dataset,
    split: str | Split = "test",
    batch_size: int = 100,
    transform: Transform | None = None,
    feature_batch: int = 128,
) -> Evaluation:
    """Scores a model on a data set, among the data set's own class names.

    Under `torchrun` each process scores its share of the images, and all get the whole result.

    Args:
        model: `ZeroShotCLIP`, `CoOp` or `CoCoOp`: whatever has `.clip`, `.classnames` and
            `logits_from_features`.
        data: Its class names must be the model's.
        split: "train", "val", "test", or a `Split`.
        batch_size: Images in one call of `logits_from_features`; the official code has 100.
        transform: As for `image_features`.
        feature_batch: Images in one pass of the image tower.

    Returns:
        The logits and what follows from them.

    Raises:
        DataError: The class names differ, the split is empty, or an image cannot be read.
        MemoryLimitError: It does not fit; the message says which of the two numbers to lower.

    Introduced in chapter 1.
    """
    check_names(model, data)
    part = data.split(split) if isinstance(split, str) else split
    mine = Split([part.samples[i] for i in distributed.share(len(part))])
    with memory_advice(f"Lower feature_batch (now {feature_batch})."):
        features, _ = image_features(model.clip, mine, transform, feature_batch)
    training = model.training
    model.eval()
    try:
        with memory_advice(f"Lower batch_size (now {batch_size}) of evaluate."):
            batches = features.split(batch_size)
            parts = [model.logits_from_features(f).float() for f in batches]
    finally:
        model.train(training)
    logits = distributed.gather_rows(torch.cat(parts), len(part)).cpu()
    return Evaluation(logits, torch.tensor(part.labels), list(data.classnames))


def check_names(model: nn.Module, data: Dataset) -> None:
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


def harmonic_mean(base: float, new: float) -> float:
    """The harmonic mean H of two accuracies: low when either is low.

    Args:
        base: Accuracy on base classes (a number or an `Evaluation`).
        new: Accuracy on new classes.

    Returns:
        2 base new / (base + new), and 0 when both are 0. CoCoOp (2203.05557), section 4.1.

    Introduced in chapter 2.
    """
    b, n = float(base), float(new)
    return 2 * b * n / (b + n) if b + n > 0 else 0.0


def reliability(logits: Tensor, labels: Tensor, bins: int = 15) -> pd.DataFrame:
    """Confidence against accuracy, in bins of equal width.

    Args:
        logits: `[N, K]`.
        labels: `[N]`.
        bins: Number of bins over 0 to 1.

    Returns:
        One row a bin: `low`, `high`, `count`, and the mean `confidence` and `accuracy` (0 to 1,
        not-a-number in empty bins).
    """
    confidence, predicted = logits.float().softmax(dim=1).max(dim=1)
    place = (confidence * bins).long().clamp(max=bins - 1)
    table = pd.DataFrame(
        {
            "bin": place.numpy(),
            "confidence": confidence.double().numpy(),
            "accuracy": (predicted == labels).double().numpy(),
        }
    )
    grouped = table.groupby("bin")
    out = grouped.mean().reindex(range(bins))
    out.insert(0, "count", grouped.size().reindex(range(bins), fill_value=0))
    out.insert(0, "high", [(i + 1) / bins for i in range(bins)])
    out.insert(0, "low", [i / bins for i in range(bins)])
    return out.reset_index(drop=True)


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy, weighted by bin, in percent.

    Args:
        logits: `[N, K]`.
        labels: `[N]`.
        bins: Number of bins over 0 to 1.

    Returns:
        Percent; 0 is perfectly calibrated.
    """
    table = reliability(logits, labels, bins).dropna()
    gaps = (table.confidence - table.accuracy).abs()
    return 100 * float((gaps * table["count"]).sum() / table["count"].sum())
