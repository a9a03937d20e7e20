"""Image features for training, computed ahead of the steps that need them (chapter 3)."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from cocoop_tutorial import distributed
from cocoop_tutorial.clip.features import image_features
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.datasets.images import check_readable, image_batches
from cocoop_tutorial.datasets.splits import Split
from cocoop_tutorial.errors import TrainingError, memory_advice
from cocoop_tutorial.training.config import TrainConfig, draw_seed


class FixedFeatures:
    """Features of a fixed transform: the same in every epoch, so they are computed once."""

    def __init__(self, clip: FrozenCLIP, split: Split, config: TrainConfig) -> None:
        """Computes all features; each process takes its share of the images."""
        n = len(split)
        mine = Split([split.samples[i] for i in distributed.share(n)])
        with _advice(config):
            features, _ = image_features(clip, mine, batch_size=config.feature_batch)
        self.table = _checked(distributed.gather_rows(features, n), clip, config)  # [n, E]

    def steps(self, epoch: int, batches: list[list[int]], first: int) -> Iterator[Tensor]:
        """Features `[b, E]` of each batch from number `first` on."""
        for indices in batches[first:]:
            yield self.table[indices]


class CroppedFeatures:
    """Features of random crops, new in every epoch, in blocks that are larger than a step."""

    def __init__(self, clip: FrozenCLIP, split: Split, config: TrainConfig) -> None:
        """Reads every image once: a broken one would stop the first epoch in the middle."""
        self.clip, self.split, self.config = clip, split, config
        check_readable({path for path, _ in split.samples}, "training")

    def steps(self, epoch: int, batches: list[list[int]], first: int) -> Iterator[Tensor]:
        """Features `[b, E]` of each batch from number `first` on."""
        flat = [i for indices in batches for i in indices]
        start = sum(len(indices) for indices in batches[:first])
        # Whole blocks, counted from the start of the epoch: sums in another order would differ
        # in the last bit from those of a run that was not interrupted.
        begin = start - start % self.config.feature_batch
        blocks = self._blocks(epoch, flat[begin:])
        ready = next(blocks)[start - begin :]
        for indices in batches[first:]:
            while len(ready) < len(indices):
                ready = torch.cat([ready, next(blocks)])
            yield ready[: len(indices)]
            ready = ready[len(indices) :]

    @torch.no_grad()
    def _blocks(self, epoch: int, indices: list[int]) -> Iterator[Tensor]:
        """Features block by block; threads decode one block ahead."""
        config, clip = self.config, self.clip
        paths = [self.split.samples[i][0] for i in indices]
        seeds = [draw_seed(config.seed, epoch, i) for i in indices]
        blocks = image_batches(paths, clip.preprocess_train, config.feature_batch, seeds=seeds)
        with _advice(config):
            for block in blocks:
                yield _checked(clip.encode_image(block), clip, config)


def _advice(config: TrainConfig) -> contextlib.AbstractContextManager[None]:
    return memory_advice(f"Lower feature_batch (now {config.feature_batch}).")


def _checked(features: Tensor, clip: FrozenCLIP, config: TrainConfig) -> Tensor:
    if not features.isfinite().all():
        raise TrainingError(
            f"The image tower of {clip.name!r} gives numbers that are not finite in "
            f"{config.precision}. Load the backbone with precision='fp32' or 'bf16'."
        )
    return features
