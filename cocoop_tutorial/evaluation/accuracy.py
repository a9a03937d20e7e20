"""Accuracy of a model on a split, and the harmonic mean of two (chapters 1 and 2)."""

import contextlib
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from cocoop_tutorial import distributed
from cocoop_tutorial.clip.features import image_features
from cocoop_tutorial.clip.identity import settled_weights
from cocoop_tutorial.clip.transforms import Transform
from cocoop_tutorial.datasets.splits import Dataset, Split, check_names
from cocoop_tutorial.errors import BackboneError, memory_advice
from cocoop_tutorial.evaluation.calibration import expected_calibration_error
from cocoop_tutorial.seeds import check_whole


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
        """Accuracy in percent, one row per class; not-a-number where a class has no image."""
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
            `logits_from_features`. If it also has `encode_once`, prompts that do not depend on
            the image are encoded once, not once per batch.
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
        BackboneError: A score is not a number.
        SettingError: A number of images is not a whole number from 1.

    Introduced in chapter 1.
    """
    check_names(model, data)
    batch_size = check_whole("batch_size", batch_size)
    images = data.split(split) if isinstance(split, str) else split
    mine = Split([images.samples[i] for i in distributed.share(len(images))])
    with memory_advice(f"Lower feature_batch (now {feature_batch})."):
        features, _ = image_features(model.clip, mine, transform, feature_batch)
    with memory_advice(f"Lower batch_size (now {batch_size}) of evaluate."):
        logits = _score(model, features, batch_size)
    logits = distributed.gather_rows(logits, len(images)).cpu()
    _refuse_nan(logits, model)
    return Evaluation(logits, torch.tensor(images.labels), list(data.classnames))


def _score(model: nn.Module, features: Tensor, batch_size: int) -> Tensor:
    """Logits `[N, K]` of features `[N, E]`, in evaluation mode."""
    training = model.training
    encode_once = getattr(model, "encode_once", contextlib.nullcontext)
    model.eval()
    try:
        with settled_weights(), encode_once():
            batches = features.split(batch_size)
            return torch.cat([model.logits_from_features(f).float() for f in batches])
    finally:
        model.train(training)


def _refuse_nan(logits: Tensor, model: nn.Module) -> None:
    if logits.isnan().any():  # argmax would name the first such class
        raise BackboneError(
            f"Some scores of this {type(model).__name__} are not numbers. Take another prompt, or "
            f"load {model.clip.name!r} with precision='fp32' or 'bf16'."
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
