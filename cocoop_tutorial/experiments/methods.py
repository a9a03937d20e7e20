"""The methods that are compared, with settings that were fixed before any test score was seen.

The headline settings are the paper's: those of the released scripts. A method is a function from a
backbone and a data set to a model, and a `TrainConfig` if the model learns; add yours to `METHODS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from cocoop_tutorial.clip.features import image_features
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.datasets.icons.making import base
from cocoop_tutorial.datasets.splits import Dataset
from cocoop_tutorial.errors import check_known
from cocoop_tutorial.experiments.controls import NoiseCoCoOp, ZeroStartCoCoOp
from cocoop_tutorial.experiments.templates import for_dataset
from cocoop_tutorial.models.cocoop import CoCoOp
from cocoop_tutorial.models.coop import CoOp
from cocoop_tutorial.models.kgcoop import KgCoOp
from cocoop_tutorial.models.probe import LinearProbe
from cocoop_tutorial.models.zero_shot import ZeroShotCLIP
from cocoop_tutorial.seeds import check_seed
from cocoop_tutorial.training.config import TrainConfig

WORDS = "a photo of a"  # the paper's first words, for every data set
COOP = TrainConfig(epochs=200, batch_size=32)  # CoCoOp (2203.05557), section 4
COCOOP = TrainConfig(epochs=10, batch_size=1)
# The paper's bigger CoOp has 60 vectors, about as many parameters as CoCoOp. In the embedded world
# that would need 42, but only 23 leave room for every class name in icon-clip's 32 tokens.
LONGEST, PAPERS_LONGEST = 23, 60


def hand_written(clip: FrozenCLIP, data: Dataset) -> ZeroShotCLIP:
    """CLIP with the protocol's prompt for this data set."""
    return ZeroShotCLIP(clip, data.classnames, data.template, allow_duplicates=True)


def ensemble(clip: FrozenCLIP, data: Dataset) -> ZeroShotCLIP:
    """CLIP with many prompts: chapter 1's twelve for icons, else OpenAI's seven for ImageNet."""
    if data.name.startswith("icons_"):
        templates = list(for_dataset(base(data.name)).values())
    else:
        from open_clip import SIMPLE_IMAGENET_TEMPLATES

        templates = [make("{}") for make in SIMPLE_IMAGENET_TEMPLATES]
    return ZeroShotCLIP(clip, data.classnames, templates, allow_duplicates=True)


def probe(clip: FrozenCLIP, data: Dataset) -> LinearProbe:
    """A linear probe on the shots, which knows no other classes."""
    shots, val = (image_features(clip, part) for part in (data.train, data.val))
    return LinearProbe(clip, data.classnames, shots, val)


def learner(
    clip: FrozenCLIP,
    data: Dataset,
    kind: type[CoOp] | type[CoCoOp],
    n_ctx: int = 4,
    ctx_init: str | None = WORDS,
) -> CoOp | CoCoOp:
    """A prompt learner before training."""
    return kind(clip, data.classnames, n_ctx, ctx_init)


def kgcoop(clip: FrozenCLIP, data: Dataset) -> KgCoOp:
    """KgCoOp, held near the protocol's prompt for this data set."""
    return KgCoOp(clip, data.classnames, 4, WORDS, template=data.template)


@dataclass(frozen=True)
class Method:
    """One way to classify.

    Attributes:
        label: As tables show it.
        make: Makes the model, from the backbone and the data set with its shots.
        config: How to train; None if there is nothing to train.
        options: More arguments of `make`.
        new_classes: Whether it can score classes without shots.
    """

    label: str
    make: Callable[..., nn.Module]
    config: TrainConfig | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    new_classes: bool = True

    def build(self, clip: FrozenCLIP, data: Dataset, seed: int) -> nn.Module:
        """The model before training; the seed is of what it draws at random."""
        torch.manual_seed(check_seed(seed))
        return self.make(clip, data, **self.options)

    def describe(self) -> str:
        """What the hash of a run takes of the method: its code's name and its options."""
        options = {k: getattr(v, "__name__", v) for k, v in self.options.items()}
        return f"{self.make.__name__} {options}"


def _learner(label: str, config: TrainConfig, kind: type, **options: Any) -> Method:
    return Method(label, learner, config, {"kind": kind, **options})


METHODS = {
    "clip": Method("CLIP", hand_written),
    "ensemble": Method("CLIP, ensemble", ensemble),
    "probe": Method("Linear probe", probe, new_classes=False),
    "coop": _learner("CoOp", COOP, CoOp),
    "cocoop": _learner("CoCoOp", COCOOP, CoCoOp),
    # The same with one thing changed.
    "coop-matched": _learner("CoOp, 10 x 1", COCOOP, CoOp),
    "cocoop-noise": _learner("CoCoOp, noise", COCOOP, NoiseCoCoOp),
    "cocoop-zero": _learner("CoCoOp, zero start", COCOOP, ZeroStartCoCoOp),
    "kgcoop": Method("KgCoOp", kgcoop, COOP),
    # The paper's ablations. As there, contexts of other lengths start at random.
    "coop-random": _learner("CoOp, random", COOP, CoOp, ctx_init=None),
    "cocoop-random": _learner("CoCoOp, random", COCOOP, CoCoOp, ctx_init=None),
    "coop-8": _learner("CoOp, 8 random", COOP, CoOp, n_ctx=8, ctx_init=None),
    "cocoop-8": _learner("CoCoOp, 8 random", COCOOP, CoCoOp, n_ctx=8, ctx_init=None),
    "coop-16": _learner("CoOp, 16 random", COOP, CoOp, n_ctx=16, ctx_init=None),
    "cocoop-16": _learner("CoCoOp, 16 random", COCOOP, CoCoOp, n_ctx=16, ctx_init=None),
    "coop-big": _learner(f"CoOp, {LONGEST} random", COOP, CoOp, n_ctx=LONGEST, ctx_init=None),
    "coop-60": _learner("CoOp, 60 random", COOP, CoOp, n_ctx=PAPERS_LONGEST, ctx_init=None),
}


def method(name: str) -> Method:
    """A method by its name.

    Raises:
        UnknownNameError: There is none; the message suggests similar names.
    """
    return METHODS[check_known("method", name, METHODS)]
