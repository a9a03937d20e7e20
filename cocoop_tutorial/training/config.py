"""`TrainConfig`: how to train, and the papers' learning rate (chapter 3)."""

import hashlib
import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np

from cocoop_tutorial.errors import TrainingError, check_known
from cocoop_tutorial.precision import PRECISIONS, Precision
from cocoop_tutorial.seeds import as_int, check_seed

TRANSFORMS = ("test", "train")

WHOLE = dict.fromkeys(("epochs", "batch_size", "micro_batch", "feature_batch", "save_every"), 1)
WHOLE |= {"warmup_epochs": 0}  # the smallest
REAL = {"lr": math.inf, "momentum": 1, "weight_decay": math.inf, "warmup_lr": math.inf}  # below
FLAGS = ("drop_last", "deterministic", "cuda_graph")
OPTIONAL = ("epochs", "batch_size", "micro_batch")  # None has a meaning

# CoCoOp (2203.05557), section 4, for CoCoOp and for the CoOp that it is compared with. CoCoOp used
# one image per step because more did not fit in memory; larger batches give another model.
PAPER = {"CoCoOp": (10, 1), "CoOp": (200, 32)}  # epochs, batch size


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train: the paper's optimiser and schedule by default.

    Attributes:
        epochs: Passes over the images, of which `drop_last` may leave out a few; None takes the
            paper's number (CoCoOp 10, CoOp 200).
        batch_size: Images per step, over all processes together; None takes the paper's number
            (CoCoOp 1, CoOp 32).
        micro_batch: Images in one forward pass of one process; None takes all of the step's.
            Smaller passes add up their gradients, so the step stays the same. CoCoOp then needs
            less memory; CoOp hardly does, because its images share their prompts.
        lr: Highest learning rate; the released code's.
        momentum: Of SGD; the released code's.
        weight_decay: Of SGD; the released code's.
        warmup_epochs: Epochs at `warmup_lr` before the cosine begins; the released code's.
        warmup_lr: Small, because the first gradients of a new context are large.
        transform: "test" sees each image the same way in every epoch, so that its features are
            computed once; "train" takes the paper's random crops and flips, new in every epoch.
        feature_batch: Images in one pass of the image tower. It needs no gradients, so many fit,
            but more than 128 are no faster.
        precision: "fp32", "bf16", "fp16" (the backbone's weights are in it) or "amp" (weights in
            fp32, products in half precision); None takes what the backbone was loaded with. What
            trains stays in fp32. With fp16 products the loss is scaled, because small gradients
            would otherwise be lost; the released code did not do this.
        drop_last: Leave out the images that do not fill the last batch of an epoch, as the
            released code does: 840 images in batches of 32 give 26 steps, which use 832 of them,
            chosen anew in every epoch. If all images together are fewer than a batch, they are
            used.
        seed: For the order of the images and for their crops.
        deterministic: Have PyTorch choose operations that give the same bits each time.
        cuda_graph: On one GPU, record a small step once and replay it. The kernels and their bits
            are the same, but Python need not start each one. Turn it off to debug a step.
        save_every: Steps between two checkpoints inside an epoch, when a folder is given. Each
            takes milliseconds, and a killed run repeats at most this many steps.

    Raises:
        TrainingError: A setting is of another type, or a number is out of its range.
        SettingError: The seed is not a whole number from 0 to 2**64 - 1.
        UnknownNameError: No such transform or precision.

    Introduced in chapter 3; CoOp (2109.01134), section 4.1, CoCoOp (2203.05557), section 4.
    """

    epochs: int | None = None
    batch_size: int | None = None
    micro_batch: int | None = None
    lr: float = 0.002
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: int = 1
    warmup_lr: float = 1e-5
    transform: str = "test"
    feature_batch: int = 128
    precision: str | None = None
    drop_last: bool = True
    seed: int = 1
    deterministic: bool = True
    cuda_graph: bool = True
    save_every: int = 100

    def __post_init__(self) -> None:
        for plain, names in ((_whole, WHOLE), (_real, REAL), (_flag, FLAGS)):
            for name in names:  # plain Python values, because they are compared and written
                object.__setattr__(self, name, plain(name, getattr(self, name)))
        object.__setattr__(self, "seed", check_seed(self.seed))
        for name, known in (("transform", TRANSFORMS), ("precision", PRECISIONS)):
            if name != "precision" or self.precision is not None:
                check_known(name, getattr(self, name), known)

    def resolved(self, method: str, precision: str) -> "TrainConfig":
        """Fills in what is None.

        Args:
            method: "CoOp", "CoCoOp", or the name of your own class, which gets CoCoOp's numbers.
            precision: What the backbone was loaded with.

        Returns:
            The settings; only `micro_batch` may still be None.

        Raises:
            TrainingError: The backbone's weights are in another precision.
        """
        epochs, batch_size = PAPER.get(method, PAPER["CoCoOp"])
        wanted = self.precision or precision
        if Precision(wanted).of_weights != Precision(precision).of_weights:
            raise TrainingError(
                f"precision={wanted!r}, but the backbone was loaded in {precision!r}. "
                f"Load it with load_clip(name, precision={wanted!r})."
            )
        return replace(
            self,
            epochs=self.epochs or epochs,
            batch_size=self.batch_size or batch_size,
            precision=wanted,
        )


def _whole(name: str, value: Any) -> int | None:
    if value is None and name in OPTIONAL:
        return None
    number = as_int(value)
    if number is None or not WHOLE[name] <= number < 2**31:
        raise TrainingError(
            f"{name} is {value!r}; it must be a whole number from {WHOLE[name]} to 2**31 - 1."
        )
    return number


def _real(name: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TrainingError(
            f"{name} is {value!r}, of type {type(value).__name__}; it must be a number. "
            "In YAML write 2.0e-3, because 2e-3 is text there."
        )
    if not 0 <= value < REAL[name]:
        raise TrainingError(f"{name} is {value!r}; it must be from 0 to below {REAL[name]}.")
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TrainingError(f"{name} is {value!r}; it must be True or False.")
    return bool(value)


def learning_rate(epoch: int, config: TrainConfig) -> float:
    """The learning rate of an epoch: a constant warm-up, then a cosine that starts at `lr`.

    As in the released code, the cosine's length is the number of all epochs, and it starts after
    the warm-up: the last epoch's rate is small, but not 0.

    Args:
        epoch: From 0 to `config.epochs` - 1.
        config: Its `epochs` must be a number.

    Returns:
        The rate of every step of that epoch.
    """
    if epoch < config.warmup_epochs:
        return config.warmup_lr
    turn = math.pi * (epoch - config.warmup_epochs) / config.epochs
    return config.lr * (1 + math.cos(turn)) / 2


def draw_seed(*what: int) -> int:
    """A seed from numbers that say what is drawn: different numbers, unrelated draws."""
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=8).digest()) >> 1
