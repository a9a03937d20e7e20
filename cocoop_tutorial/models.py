"""The three methods of the book: zero-shot CLIP, CoOp and CoCoOp.

Notation: B images, K classes, M context tokens, D = text width, E = joint width.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import PromptError
from .frozen_clip import FrozenCLIP
from .meta_net import MetaNet
from .prompt_learner import PromptLearner
from .prompts import TEMPLATE, check_classnames, fill_template
from .text_encoder import DEFAULT_ENCODER, encode_prompts


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


class CoOp(PromptLearner):
    """Context Optimization: one learned context in place of the words of a prompt.

    CoOp (2109.01134), section 3. Introduced in chapter 3.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        classnames: Sequence[str],
        n_ctx: int | None = 16,
        ctx_init: str | None = None,
        class_token_position: str = "end",
        class_specific: bool = False,
        *,
        encoder: str = DEFAULT_ENCODER,
        allow_duplicates: bool = False,
    ) -> None:
        """Builds the prompts.

        Args:
            clip: The backbone.
            classnames: K names.
            n_ctx: M; None takes the number of tokens in `ctx_init`.
            ctx_init: First words of the context; None draws it at random.
            class_token_position: "end"; "middle" of the context, after M // 2 vectors; or "front".
            class_specific: A context for each class, `[K, M, D]`, instead of one for all. With
                `ctx_init` each class starts from the words (the official code then ignores
                `class_specific` silently).
            encoder: The text encoder; see `encode_prompts`.
            allow_duplicates: Two classes may share a name.

        Raises:
            PromptError: A bad name, or `n_ctx` and `ctx_init` that disagree.
            UnknownNameError: No such position or encoder.
        """
        super().__init__(
            clip,
            classnames,
            n_ctx,
            ctx_init,
            class_token_position,
            class_specific,
            encoder=encoder,
            allow_duplicates=allow_duplicates,
        )

    def text_features(self) -> Tensor:
        """The classifier that the prompts make: `[K, E]`, L2-normalised, the same for all images.

        CoOp (2109.01134), equation 1.
        """
        context = self.ctx if self.ctx.dim() == 3 else self.ctx.unsqueeze(0)  # [K or 1, M, D]
        return encode_prompts(self.clip, context.unsqueeze(0), self.prompts, self.encoder)[0]

    def logits_from_features(self, features: Tensor) -> Tensor:
        """Scores L2-normalised image features `[B, E]`; returns logits `[B, K]`."""
        return self.scaled_cosines(features, self.text_features())

    def options(self) -> dict[str, Any]:
        """The arguments, besides backbone and names, that build this model again."""
        return {
            **super().options(),
            "class_token_position": self.prompts.class_token_position,
            "class_specific": self.ctx.dim() == 3,
        }


class CoCoOp(PromptLearner):
    """Conditional CoOp: the context moves with the image, v_m(x) = v_m + h(x).

    CoCoOp (2203.05557), section 3.2. Introduced in chapter 4.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        classnames: Sequence[str],
        n_ctx: int | None = 4,
        ctx_init: str | None = "a photo of a",
        *,
        separate_meta_nets: bool = False,
        encoder: str = DEFAULT_ENCODER,
        allow_duplicates: bool = False,
    ) -> None:
        """Builds the prompts and the Meta-Net.

        Args:
            clip: The backbone.
            classnames: K names.
            n_ctx: M; None takes the number of tokens in `ctx_init`.
            ctx_init: First words of the context; None draws it at random.
            separate_meta_nets: M networks, one for each context vector: the road the paper did
                not take, since it costs M times the parameters (section 3.2).
            encoder: The text encoder; see `encode_prompts`.
            allow_duplicates: Two classes may share a name.

        Raises:
            PromptError: A bad name, or `n_ctx` and `ctx_init` that disagree.
            UnknownNameError: No such encoder.
        """
        super().__init__(
            clip,
            classnames,
            n_ctx,
            ctx_init,
            encoder=encoder,
            allow_duplicates=allow_duplicates,
        )
        self.separate_meta_nets = separate_meta_nets
        nets = [MetaNet(clip.embed_dim, clip.text_width)]
        if separate_meta_nets:
            nets += [MetaNet(clip.embed_dim, clip.text_width) for _ in range(self.n_ctx - 1)]
        self.meta_net = nn.ModuleList(nets) if separate_meta_nets else nets[0]
        self.meta_net.to(clip.device, self.ctx.dtype)

    def conditional_context(self, features: Tensor) -> Tensor:
        """v_m(x): the context of each image.

        Args:
            features: `[B, E]`, L2-normalised image features.

        Returns:
            `[B, M, D]`. CoCoOp (2203.05557), section 3.2.
        """
        features = features.to(self.ctx.dtype)
        if self.separate_meta_nets:
            pi = torch.stack([net(features) for net in self.meta_net], dim=1)  # [B, M, D]
        else:
            pi = self.meta_net(features).unsqueeze(1)  # [B, 1, D]
        return self.ctx + pi

    def text_features(self, features: Tensor) -> Tensor:
        """A classifier for each image.

        Args:
            features: `[B, E]`, L2-normalised image features.

        Returns:
            `[B, K, E]`, L2-normalised.
        """
        context = self.conditional_context(features).unsqueeze(1)  # [B, 1, M, D]
        return encode_prompts(self.clip, context, self.prompts, self.encoder)

    def logits_from_features(self, features: Tensor) -> Tensor:
        """Scores image features.

        Args:
            features: `[B, E]`, L2-normalised.

        Returns:
            `[B, K]`. CoCoOp (2203.05557), equation 3.
        """
        return self.scaled_cosines(features, self.text_features(features))

    def options(self) -> dict[str, Any]:
        """The arguments, besides backbone and names, that build this model again."""
        return {**super().options(), "separate_meta_nets": self.separate_meta_nets}
