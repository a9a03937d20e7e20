"""`TrainConfig`: how to train, and the papers' learning rate (chapter 3)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from cocoop_tutorial.errors import TrainingError, UnknownNameError, suggest

TRANSFORMS = ("test", "train")
PRECISIONS = ("fp32", "bf16", "fp16", "amp")

# CoCoOp (2203.05557), section 4: CoCoOp's and its CoOp's. CoCoOp kept to one image a step for
# want of memory; larger batches give another model.
PAPER: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "CoCoOp": MappingProxyType({"epochs": 10, "batch_size": 1}),
        "CoOp": MappingProxyType({"epochs": 200, "batch_size": 32}),
    }
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train: the paper's optimiser and schedule by default.

    Attributes:
        epochs: Passes over the images; None takes the paper's (CoCoOp 10, CoOp 200).
        batch_size: Images a step, over all processes together; None takes the paper's (CoCoOp 1,
            CoOp 32).
        micro_batch: Images in one forward pass of one process; None takes all of the step's.
            Smaller passes add up their gradients: less memory, and the same step.
        lr: Highest learning rate; the released code's.
        momentum: Of SGD; the released code's.
        weight_decay: Of SGD; the released code's.
        warmup_epochs: Epochs at `warmup_lr` before the cosine begins; the released code's.
        warmup_lr: Small, because the first gradients of a new context are large.
        transform: "test" sees each image the same way in every epoch, so that its features are
            computed once; "train" takes the paper's random crops and flips, new in every epoch.
        feature_batch: Images in one pass of the image tower. It needs no gradients, so that many
            fit; more than 128 are no faster.
        precision: "fp32", "bf16", "fp16" (the backbone's weights are in it) or "amp" (weights in
            fp32, products in half precision); None takes what the backbone was loaded with. What
            trains stays in fp32, and with fp16 products the loss is scaled, which the released
            code did not do: small gradients would be lost.
        drop_last: Leave out the images that do not fill the last batch of an epoch, as the
            released code does; with fewer images than a batch they are all used.
        seed: Of the order of the images and of their crops.
        deterministic: Have PyTorch choose operations that give the same bits each time.
        cuda_graph: On one GPU, record a small step once and replay it: the same kernels, the same
            bits, without Python's time to start each. Off, every step can be debugged.
        save_every: Steps between two checkpoints inside an epoch, when a folder is given. Each
            takes milliseconds, and a killed run repeats at most this many steps.

    Raises:
        TrainingError: A number that cannot be.
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
        for name in ("epochs", "batch_size", "micro_batch", "feature_batch", "save_every"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise TrainingError(f"{name} is {value!r}; it must be a whole number from 1.")
        for name in ("lr", "momentum", "weight_decay", "warmup_epochs", "warmup_lr"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise TrainingError(f"{name} is {value!r}; it must be 0 or more.")
        for name, known in (("transform", TRANSFORMS), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if value not in known and not (name == "precision" and value is None):
                raise UnknownNameError(f"Unknown {name} {value!r}. {suggest(str(value), known)}")

    def resolved(self, method: str, precision: str) -> "TrainConfig":
        """Fills in what is None.

        Args:
            method: "CoOp", "CoCoOp", or a class of your own, which gets CoCoOp's numbers.
            precision: What the backbone was loaded with.

        Returns:
            The settings with no None but `micro_batch`.

        Raises:
            TrainingError: The backbone's weights are in another precision.
        """
        paper: Mapping[str, Any] = PAPER.get(method, PAPER["CoCoOp"])
        wanted = self.precision or precision
        weights = {"amp": "fp32"}
        if weights.get(wanted, wanted) != weights.get(precision, precision):
            raise TrainingError(
                f"precision={wanted!r}, but the backbone was loaded in {precision!r}. "
                f"Load it with load_clip(name, precision={wanted!r})."
            )
        return replace(
            self,
            epochs=self.epochs or paper["epochs"],
            batch_size=self.batch_size or paper["batch_size"],
            precision=wanted,
        )


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
    assert config.epochs is not None
    if epoch < config.warmup_epochs:
        return config.warmup_lr
    turn = math.pi * (epoch - config.warmup_epochs) / config.epochs
    return config.lr * (1 + math.cos(turn)) / 2
