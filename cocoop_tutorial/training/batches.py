"""Which images a step sees (chapter 3).

Everything random here is a function of the seed, the epoch and the image alone. A run that was
killed therefore finds the same order and the same crops again wherever it continues.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cocoop_tutorial import distributed
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.datasets.splits import Split
from cocoop_tutorial.errors import DataError
from cocoop_tutorial.training.config import TrainConfig, draw_seed
from cocoop_tutorial.training.features import CroppedFeatures, FixedFeatures


def epoch_batches(n: int, epoch: int, config: TrainConfig) -> list[list[int]]:
    """The images of each step of an epoch, in random order.

    Args:
        n: Number of images.
        epoch: From 0.
        config: Its `batch_size` must be a number. If `drop_last` is set, the images that do not
            fill the last batch are left out; they are different ones in each epoch.

    Returns:
        One list of indices below `n` per step, over all processes together.
    """
    generator = torch.Generator().manual_seed(draw_seed(config.seed, epoch))
    order = torch.randperm(n, generator=generator).tolist()
    size = config.batch_size
    batches = [order[i : i + size] for i in range(0, n, size)]
    if config.drop_last and len(batches) > 1 and len(batches[-1]) < size:
        batches.pop()
    return batches


@dataclass(frozen=True)
class Batch:
    """One process's share of a step, b images.

    Attributes:
        features: `[b, E]`, L2-normalised.
        labels: `[b]`.
        weights: `[b]`: 1, or 0 for an image that only fills up this process's share.
        size: Images in the step, over all processes.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor
    size: int

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """What `Objective` takes."""
        return self.features, self.labels, self.weights

    def split(self, images: int | None) -> list["Batch"]:
        """Micro-batches of this many images each; None keeps all in one."""
        pieces = zip(*(x.split(images or len(x)) for x in self.inputs), strict=True)
        return [Batch(*piece, self.size) for piece in pieces]


class BatchSource:
    """The batches of each epoch, with their image features.

    Attributes:
        n_steps: Steps per epoch.
    """

    def __init__(self, clip: FrozenCLIP, split: Split, config: TrainConfig) -> None:
        """Computes all features now if the transform is fixed, else reads every image once.

        Args:
            clip: The backbone.
            split: The images to train on.
            config: The settings.

        Raises:
            DataError: No images, or one that cannot be read.
            TrainingError: The image tower's numbers overflow.
            MemoryLimitError: A batch of the image tower does not fit.
        """
        if not split.samples:
            raise DataError("There are no images to train on.")
        self.config = config
        self.labels = torch.tensor(split.labels, device=clip.device)
        self.n_steps = len(epoch_batches(len(split), 0, config))
        kind = FixedFeatures if config.transform == "test" else CroppedFeatures
        self.features = kind(clip, split, config)

    def steps(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch.

        Args:
            epoch: From 0.
            first: Steps to leave out, because they are done.
        """
        batches = epoch_batches(len(self.labels), epoch, self.config)
        shares = [distributed.share(len(batch)) for batch in batches]
        mine = [[batch[i] for i in at] for batch, at in zip(batches, shares, strict=True)]
        features = self.features.steps(epoch, mine, first)
        for step in range(first, len(batches)):
            # share() repeats images at the end of the last share; only the first copy counts.
            begin, size = distributed.rank() * len(mine[step]), len(batches[step])
            counts = [float(begin + i < size) for i in range(len(mine[step]))]
            weights = torch.tensor(counts, device=self.labels.device)
            yield Batch(next(features), self.labels[mine[step]], weights, size)
