"""A few-shot learner without words: class means of frozen image features (chapter 2)."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cocoop_tutorial.classnames import check_classnames
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.identity import has_hooks, structure, weights_digest
from cocoop_tutorial.errors import BackboneError, DataError
from cocoop_tutorial.models.zero_shot import FixedClassifier


class ShotClassifier(FixedClassifier):
    """A classifier made from image features of shots, which hold for one image tower only.

    Introduced in chapter 2.
    """

    def __init__(self, clip: FrozenCLIP, classnames: Sequence[str], labels: Tensor) -> None:
        """Checks that each of the K names has shots; `labels` `[N]` are the classes of these.

        Raises:
            DataError: A class has no training image, or a label has no name.
        """
        super().__init__()
        self.clip, self.classnames = clip, check_classnames(classnames, allow_duplicates=True)
        counts = torch.bincount(labels, minlength=len(self.classnames)).tolist()
        if len(counts) > len(self.classnames):
            raise DataError(f"Label {len(counts) - 1} has no name among {len(self.classnames)}.")
        if 0 in counts:
            raise DataError(
                f"{self.classnames[counts.index(0)]!r} has no training image, and this model knows "
                "a class only from such images. Draw shots for every class."
            )
        self._made_for = self._tower()

    def _tower(self) -> Hashable:
        tower = self.clip.model.visual
        return weights_digest(tower), structure(tower), has_hooks(tower)

    def check_tower(self) -> None:
        """Refuses to score images that another image tower sees than the one that saw the shots.

        Raises:
            BackboneError: The image tower has changed.
        """
        if self._tower() != self._made_for:
            raise BackboneError(
                f"The image tower has changed since this {type(self).__name__} was made. Make it "
                "again, from new image features."
            )


class Prototypes(ShotClassifier):
    """One mean image feature per class; an image belongs to the nearest one.

    Prototypical networks (1703.05175), on a backbone that is not trained. They read no class names,
    so they cannot recognise a class without shots. Introduced in chapter 2.
    """

    @torch.inference_mode(False)  # because images may ask for gradients later
    def __init__(
        self, clip: FrozenCLIP, classnames: Sequence[str], features: Tensor, labels: Tensor
    ) -> None:
        """Averages the features of the training images of each class.

        Args:
            clip: The backbone.
            classnames: K names.
            features: `[N, E]`, image features of the shots, L2-normalised.
            labels: `[N]`, their classes; each class must be among them.
        """
        super().__init__(clip, classnames, labels)
        features = features.float()  # half precision would round the sums
        members = F.one_hot(labels, len(self.classnames)).to(features.dtype)  # [N, K]
        # The sum has the direction of the mean, and only the direction counts.
        self.register_buffer("weights", F.normalize(members.T @ features, dim=-1))  # [K, E]

    def logits_from_features(self, features: Tensor) -> Tensor:
        """Scores L2-normalised image features `[B, E]`; returns logits `[B, K]`."""
        self.check_tower()
        return super().logits_from_features(features)
