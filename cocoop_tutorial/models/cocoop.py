"""CoCoOp: a context that moves with the image (chapter 4)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.models.meta_net import MetaNet
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.text_encoder.encode import DEFAULT_ENCODER, encode_prompts


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
