"""CoCoOp: a context that moves with the image (chapter 4)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.seeds import check_flag
from cocoop_tutorial.text_encoder.encode import DEFAULT_ENCODER

REDUCTION = 16  # the paper's bottleneck: a sixteenth of the joint width


class MetaNet(nn.Module):
    """Linear - ReLU - Linear with a bottleneck: pi = h(x).

    CoCoOp (2203.05557), section 3.2. Introduced in chapter 4.
    """

    def __init__(self, embed_dim: int, text_width: int) -> None:
        """Default initialisation of `nn.Linear`, as published.

        Args:
            embed_dim: E, the width of the image feature.
            text_width: D, the width of the context.
        """
        super().__init__()
        hidden = max(embed_dim // REDUCTION, 1)
        self.linear1 = nn.Linear(embed_dim, hidden)
        self.linear2 = nn.Linear(hidden, text_width)

    def forward(self, features: Tensor) -> Tensor:
        """Computes pi.

        Args:
            features: `[B, E]`, L2-normalised image features, in any precision.

        Returns:
            `[B, D]`.
        """
        features = features.to(self.linear1.weight.dtype)  # a backbone in half precision gives half
        return self.linear2(F.relu(self.linear1(features)))


class CoCoOp(PromptLearner):
    """Conditional CoOp: the context moves with the image, v_m(x) = v_m + h(x).

    CoCoOp (2203.05557), section 3.2. Introduced in chapter 4.
    """

    image_conditioned = True
    can_be_recorded = True

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
            separate_meta_nets: M networks, one for each context vector. The paper decided against
                this because it needs M times the parameters (section 3.2).
            encoder: The text encoder; see `encode_prompts`.
            allow_duplicates: Two classes may share a name.

        Raises:
            PromptError: A bad name, or `n_ctx` and `ctx_init` that disagree.
            UnknownNameError: No such encoder.
        """
        options = {"encoder": encoder, "allow_duplicates": allow_duplicates}
        super().__init__(clip, classnames, n_ctx, ctx_init, **options)
        self.separate_meta_nets = check_flag("separate_meta_nets", separate_meta_nets)
        n = self.n_ctx if separate_meta_nets else 1
        nets = [MetaNet(clip.embed_dim, clip.text_width) for _ in range(n)]
        self.meta_net = nn.ModuleList(nets) if separate_meta_nets else nets[0]
        self.meta_net.to(clip.device, self.ctx.dtype)

    def conditional_context(self, features: Tensor) -> Tensor:
        """v_m(x): the context of each image.

        Args:
            features: `[B, E]`, L2-normalised image features.

        Returns:
            `[B, M, D]`. CoCoOp (2203.05557), section 3.2.
        """
        features = features.to(self.ctx.dtype)  # for a Meta-Net of the reader's own, too
        if self.separate_meta_nets:
            pi = torch.stack([net(features) for net in self.meta_net], dim=1)  # [B, M, D]
        else:
            pi = self.meta_net(features).unsqueeze(1)  # [B, 1, D]
        return self.ctx + pi

    def context_of(self, features: Tensor) -> Tensor:
        """The context of each image, for all classes: `[B, 1, M, D]`."""
        return self.conditional_context(features).unsqueeze(1)

    def text_features(self, features: Tensor) -> Tensor:
        """A classifier for each image.

        Args:
            features: `[B, E]`, L2-normalised image features.

        Returns:
            `[B, K, E]`, L2-normalised.
        """
        return self.encode(self.context_of(features))

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
