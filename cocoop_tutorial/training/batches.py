"""Which images a step sees, and their features, computed ahead of it (chapter 3).

Everything random here is a function of the seed, the epoch and the image alone. A run that was
killed therefore finds the same order and the same crops again, wherever it goes on.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cocoop_tutorial import distributed
from cocoop_tutorial.clip.features import image_features
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.datasets.images import check_images, image_batches
from cocoop_tutorial.datasets.splits import Dataset, Split
from cocoop_tutorial.errors import DataError, TrainingError, memory_advice
from cocoop_tutorial.training.config import TrainConfig


def draw_seed(*what: int) -> int:
    """A seed from numbers that say what is drawn: different numbers, unrelated draws."""
    return int.from_bytes(hashlib.blake2b(repr(what).encode(), digest_size=8).digest()) >> 1


def epoch_batches(n: int, epoch: int, config: TrainConfig) -> list[list[int]]:
    """The images of each step of an epoch, in random order.

    Args:
        n: Number of images.
        epoch: From 0.
        config: Its `batch_size` must be a number.

    Returns:
        One list of indices below `n` a step, over all processes together.
    """
    assert config.batch_size is not None
    generator = torch.Generator().manual_seed(draw_seed(config.seed, epoch))
    order = torch.randperm(n, generator=generator).tolist()
    size = config.batch_size
    batches = [order[i : i + size] for i in range(0, n, size)]
    if config.drop_last and len(batches) > 1 and len(batches[-1]) < size:
        batches.pop()
    return batches


@dataclass(frozen=True)
class Batch:
    """One process's part of a step, b images.

    Attributes:
        features: `[b, E]`, L2-normalised.
        labels: `[b]`.
        weights: `[b]`: 1, or 0 for an image that only fills up this process's part.
        size: Images in the step, over all processes.
    """

    features: Tensor
    labels: Tensor
    weights: Tensor
    size: int


class FeatureSource:
    """Gives each step its image features, computed in large batches."""

    def __init__(self, clip: FrozenCLIP, split: Split, config: TrainConfig) -> None:
        """Computes all features now, if the transform is fixed; else looks at every image once.

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
        self.clip, self.split, self.config = clip, split, config
        self.labels = torch.tensor(split.labels, device=clip.device)
        self.table = self._all_features() if config.transform == "test" else None
        if self.table is None:  # a broken image would stop the first epoch in the middle
            check_images(Dataset("training", [], split, Split(), Split()))

    def steps(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The steps of an epoch.

        Args:
            epoch: From 0.
            first: Steps to leave out, because they are done.
        """
        batches = epoch_batches(len(self.split), epoch, self.config)
        places = [distributed.share(len(batch)) for batch in batches]
        mine = [[batch[i] for i in at] for batch, at in zip(batches, places, strict=True)]
        rows = self._rows(epoch, mine, first)
        for step in range(first, len(batches)):
            # share() repeats items at the end of the last share; only the first copy counts.
            begin, size = distributed.rank() * len(mine[step]), len(batches[step])
            counts = [float(begin + i < size) for i in range(len(mine[step]))]
            weights = torch.tensor(counts, device=self.labels.device)
            yield Batch(next(rows), self.labels[mine[step]], weights, size)

    def _rows(self, epoch: int, mine: list[list[int]], first: int) -> Iterator[Tensor]:
        """Features `[b, E]` of each step from `first` on."""
        if self.table is not None:
            for indices in mine[first:]:
                yield self.table[indices]
            return
        flat = [i for indices in mine for i in indices]
        start = sum(len(indices) for indices in mine[:first])
        # Whole blocks, counted from the start of the epoch: sums in another order would differ
        # in the last bit from those of a run that was not interrupted.
        begin = start - start % self.config.feature_batch
        crops = self._crops(epoch, flat[begin:])
        ready = next(crops)[start - begin :]
        for indices in mine[first:]:
            while len(ready) < len(indices):
                ready = torch.cat([ready, next(crops)])
            yield ready[: len(indices)]
            ready = ready[len(indices) :]

    @torch.no_grad()
    def _crops(self, epoch: int, indices: list[int]) -> Iterator[Tensor]:
        """Features of random crops, block by block; threads decode one block ahead."""
        config, clip = self.config, self.clip
        paths = [self.split.samples[i][0] for i in indices]
        seeds = [draw_seed(config.seed, epoch, i) for i in indices]
        blocks = image_batches(paths, clip.preprocess_train, config.feature_batch, seeds=seeds)
        with self._advice():
            for block in blocks:
                yield self._checked(clip.encode_image(block))

    def _all_features(self) -> Tensor:
        """`[N, E]`; each process computes its share."""
        n = len(self.split)
        mine = Split([self.split.samples[i] for i in distributed.share(n)])
        with self._advice():
            features, _ = image_features(self.clip, mine, batch_size=self.config.feature_batch)
        return self._checked(distributed.gather_rows(features, n))

    def _advice(self) -> contextlib.AbstractContextManager[None]:
        return memory_advice(f"Lower feature_batch (now {self.config.feature_batch}).")

    def _checked(self, features: Tensor) -> Tensor:
        if not features.isfinite().all():
            raise TrainingError(
                f"The image tower of {self.clip.name!r} gives numbers that are not finite in "
                f"{self.config.precision}. Load the backbone with precision='fp32' or 'bf16'."
            )
        return features
