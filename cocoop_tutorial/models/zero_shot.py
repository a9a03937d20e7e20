"""Zero-shot CLIP: prompts written by hand (chapter 1)."""

from collections.abc import Hashable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cocoop_tutorial.classnames import check_classnames
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.identity import fingerprint, has_hooks, text_weights
from cocoop_tutorial.errors import PromptError
from cocoop_tutorial.text_encoder.prompts import TEMPLATE, fill_template


class FixedClassifier(nn.Module):
    """Scores images with weights `[K, E]` that do not train. Introduced in chapter 1."""

    clip: FrozenCLIP
    weights: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Scores images `[B, 3, H, W]`; returns logits `[B, K]`."""
        return self.logits_from_features(self.clip.encode_image(images))

    def logits_from_features(self, features: Tensor) -> Tensor:
        """Scores L2-normalised image features `[B, E]`; returns logits `[B, K]`."""
        weights = self.weights
        return self.clip.logit_scale * features.to(weights.dtype) @ weights.T


class ZeroShotCLIP(FixedClassifier):
    """CLIP with hand-made prompts: nothing to train.

    CLIP (2103.00020), sections 3.1.2 and 3.1.4. Introduced in chapter 1.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        classnames: Sequence[str],
        template: str | Sequence[str] = TEMPLATE,
        allow_duplicates: bool = False,
    ) -> None:
        """Encodes the prompts; they are encoded again only after the text tower has changed.

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
        self._texts = [fill_template(t, self.classnames) for t in templates]
        self._kept: tuple[Hashable, Tensor] = fingerprint(*text_weights(clip)), self._encode()

    @property
    def weights(self) -> Tensor:
        """The classifier that the prompts make: `[K, E]`, L2-normalised."""
        parts = text_weights(self.clip)
        now = fingerprint(*parts)
        if self._kept[0] != now or any(map(has_hooks, parts[0])):
            self._kept = now, self._encode()
        return self._kept[1]

    @torch.inference_mode(False)  # because they may be used in training later
    @torch.no_grad()
    def _encode(self) -> Tensor:
        features = [self.clip.encode_text(texts) for texts in self._texts]
        mean = torch.stack(features).mean(dim=0)  # [K, E]
        # At least float32: half precision would make some logits near 25 equal.
        mean = mean.to(torch.promote_types(mean.dtype, torch.float32))
        return F.normalize(mean, dim=-1)

    def with_classnames(self, classnames: Sequence[str]) -> Self:
        """The same prompts for other classes."""
        return type(self)(self.clip, classnames, self.template, self.allow_duplicates)
