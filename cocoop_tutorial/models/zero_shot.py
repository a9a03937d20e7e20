"""Zero-shot CLIP: prompts written by hand (chapter 1)."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import PromptError
from cocoop_tutorial.text_encoder.prompts import TEMPLATE, check_classnames, fill_template


class ZeroShotCLIP(nn.Module):
    """CLIP with hand-made prompts: nothing to train.

    CLIP (2103.00020), sections 3.1.2 and 3.1.4. Introduced in chapter 1.
    """

    weights: Tensor

    def __init__(
        self,
        clip: FrozenCLIP,
        classnames: Sequence[str],
        template: str | Sequence[str] = TEMPLATE,
        allow_duplicates: bool = False,
    ) -> None:
        """Encodes the prompts once.

        Args:
            clip: The backbone.
            classnames: K names.
            template: A text with one `{}`, or several to average over (an ensemble).
            allow_duplicates: Two classes may share a name.

        Raises:
            PromptError: A bad template, or an empty, repeated or too long name.
        """
        super().__init__()
        self.clip, self.template, self.allow_duplicates = clip, template, allow_duplicates
        self.classnames = check_classnames(classnames, allow_duplicates)
        templates = [template] if isinstance(template, str) else list(template)
        if not templates:
            raise PromptError("The list of templates is empty. Give at least one.")
        features = [clip.encode_text(fill_template(t, self.classnames)) for t in templates]
        mean = torch.stack(features).mean(dim=0)  # [K, E]
        # At least float32: in half precision, logits near 25 would be rounded to ties.
        mean = mean.to(torch.promote_types(mean.dtype, torch.float32))
        weights = F.normalize(mean, dim=-1)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Scores images `[B, 3, H, W]`; returns logits `[B, K]`."""
        return self.logits_from_features(self.clip.encode_image(images))

    def logits_from_features(self, features: Tensor) -> Tensor:
        """Scores L2-normalised image features `[B, E]`; returns logits `[B, K]`."""
        return self.clip.logit_scale * features.to(self.weights.dtype) @ self.weights.T

    def with_classnames(self, classnames: Sequence[str]) -> Self:
        """The same prompts for other classes."""
        return type(self)(self.clip, classnames, self.template, self.allow_duplicates)
