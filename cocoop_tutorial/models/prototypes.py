"""A few-shot learner without words: class means of frozen image features (chapter 2)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import DataError


class Prototypes(nn.Module):
    """One mean image feature a class; an image goes to the nearest.

    Prototypical networks (1703.05175), on a backbone that is not trained. It reads no class name,
    so it has nothing to say about a class without shots. Introduced in chapter 2.
    """

    weights: Tensor

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
        features = features.float()  # in half precision, sums and ties would be rounded
        members = F.one_hot(labels, len(self.classnames)).to(features.dtype)  # [N, K]
        missing = (members.sum(dim=0) == 0).nonzero().flatten().tolist()
        if missing:
            raise DataError(
                f"{self.classnames[missing[0]]!r} has no training image, so it has no prototype. "
                "Draw shots for every class."
            )
        # The sum points where the mean points, and only the direction counts.
        self.register_buffer("weights", F.normalize(members.T @ features, dim=-1))  # [K, E]

    def forward(self, images: Tensor) -> Tensor:
        """Scores images `[B, 3, H, W]`; returns logits `[B, K]`."""
        return self.logits_from_features(self.clip.encode_image(images))

    def logits_from_features(self, features: Tensor) -> Tensor:
        """Scores L2-normalised image features `[B, E]`; returns logits `[B, K]`."""
        return self.clip.logit_scale * features.to(self.weights.dtype) @ self.weights.T
