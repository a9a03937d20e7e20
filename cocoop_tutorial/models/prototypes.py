"""A few-shot learner without words: class means of frozen image features (chapter 2)."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.identity import weights_digest
from cocoop_tutorial.errors import BackboneError, DataError
from cocoop_tutorial.models.zero_shot import FixedClassifier


class Prototypes(FixedClassifier):
    """One mean image feature per class; an image belongs to the nearest one.

    Prototypical networks (1703.05175), on a backbone that is not trained. They read no class names,
    so they cannot recognise a class without shots. Introduced in chapter 2.
    """

    def __init__(
        self, clip: FrozenCLIP, classnames: Sequence[str], features: Tensor, labels: Tensor
    ) -> None:
        """Averages the features of the training images of each class.

        Args:
            clip: The backbone.
            classnames: K names.
            features: `[N, E]`, image features of the shots, L2-normalised.
            labels: `[N]`, their classes; each class must be among them.

        Raises:
            DataError: A class has no training image.
        """
        super().__init__()
        self.clip, self.classnames = clip, list(classnames)
        features = features.float()  # half precision would round the sums
        members = F.one_hot(labels, len(self.classnames)).to(features.dtype)  # [N, K]
        missing = (members.sum(dim=0) == 0).nonzero().flatten().tolist()
        if missing:
            raise DataError(
                f"{self.classnames[missing[0]]!r} has no training image, so it has no prototype. "
                "Draw shots for every class."
            )
        # The sum has the direction of the mean, and only the direction counts.
        self.register_buffer("weights", F.normalize(members.T @ features, dim=-1))  # [K, E]
        self._tower = weights_digest(clip.model.visual)

    def logits_from_features(self, features: Tensor) -> Tensor:
        """Scores L2-normalised image features `[B, E]`; returns logits `[B, K]`.

        Raises:
            BackboneError: The image tower is another one now than the means are of.
        """
        if weights_digest(self.clip.model.visual) != self._tower:
            raise BackboneError(
                "The image tower has changed since these class means were computed. Make new "
                "Prototypes from its features."
            )
        return super().logits_from_features(features)
