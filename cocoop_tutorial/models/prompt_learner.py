"""`PromptLearner`: what CoOp and CoCoOp share (chapter 3)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from cocoop_tutorial.checkpoints.hub import HubMixin
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import CheckpointError, PromptError
from cocoop_tutorial.text_encoder.encode import DEFAULT_ENCODER, check_encoder
from cocoop_tutorial.text_encoder.prompts import ClassPrompts, initial_context


class PromptLearner(nn.Module, HubMixin, ABC):
    """A frozen CLIP, class names, and a context that trains.

    Attributes:
        clip: The frozen backbone.
        prompts: The class names as tokens.
        ctx: `[M, D]`, or `[K, M, D]` if each class has its own: the learned context.
        ctx_init: The words that it began as, if any.
        encoder: The text encoder; see `encode_prompts`. May be changed at any time.
    """

    def __init__(
        self,
        clip: FrozenCLIP,
        classnames: Sequence[str],
        n_ctx: int | None,
        ctx_init: str | None,
        class_token_position: str = "end",
        class_specific: bool = False,
        *,
        encoder: str = DEFAULT_ENCODER,
        allow_duplicates: bool = False,
    ) -> None:
        """Draws or looks up the first context, and tokenises the names."""
        super().__init__()
        n_classes = len(classnames) if class_specific else None
        ctx = initial_context(clip, n_ctx, ctx_init, n_classes)
        self.clip, self.ctx_init, self.encoder = clip, ctx_init, check_encoder(encoder)
        self.prompts = ClassPrompts(
            clip, classnames, ctx.shape[-2], class_token_position, allow_duplicates
        )
        self.ctx = nn.Parameter(ctx)

    @property
    def classnames(self) -> list[str]:
        """The K names."""
        return self.prompts.classnames

    @property
    def n_ctx(self) -> int:
        """M: the number of context vectors."""
        return self.ctx.shape[-2]

    @property
    def class_specific(self) -> bool:
        """Whether each class has a context of its own."""
        return self.ctx.dim() == 3

    def forward(self, images: Tensor) -> Tensor:
        """Scores images `[B, 3, H, W]`; returns logits `[B, K]`."""
        return self.logits_from_features(self.clip.encode_image(images))

    @abstractmethod
    def logits_from_features(self, features: Tensor) -> Tensor:
        """Scores L2-normalised image features `[B, E]`; returns logits `[B, K]`."""

    def scaled_cosines(self, features: Tensor, text: Tensor) -> Tensor:
        """The last step of every method; CLIP (2103.00020), section 2.3.

        Args:
            features: `[B, E]`, L2-normalised image features.
            text: `[K, E]`, or `[B, K, E]` if each image has a classifier of its own; normalised.

        Returns:
            `[B, K]`, in the parameters' precision: half precision would round logits to ties.
        """
        with torch.autocast(features.device.type, enabled=False):
            features, text = features.to(self.ctx.dtype), text.to(self.ctx.dtype)
            if text.dim() == 2:
                return self.clip.logit_scale * features @ text.T
            cosines = text @ features.unsqueeze(-1)  # [B, K, 1]
            return self.clip.logit_scale * cosines.squeeze(-1)

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """The arguments, besides backbone and names, that build this model again."""
        return {
            "n_ctx": self.n_ctx,
            "ctx_init": self.ctx_init,
            "allow_duplicates": self.prompts.allow_duplicates,
        }

    def with_classnames(self, classnames: Sequence[str]) -> Self:
        """The same learned prompt for other classes; CoCoOp (2203.05557), section 4.1.

        Args:
            classnames: The other K names.

        Returns:
            A model that shares the backbone and every parameter with this one: training either
            trains both.

        Raises:
            PromptError: A bad name, or the context is class-specific.
        """
        if self.class_specific:
            raise PromptError(
                "A class-specific context belongs to its classes and does not carry over to "
                "others. Train with class_specific=False."
            )
        old = self.prompts
        prompts = ClassPrompts(
            self.clip, classnames, self.n_ctx, old.class_token_position, old.allow_duplicates
        )
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._modules = {**self._modules, "prompts": prompts}
        return other

    def prompt_parameters(self) -> dict[str, nn.Parameter]:
        """What trains, under the official names: "ctx", "meta_net.linear1.weight" ..."""
        return {n: p for n, p in self.named_parameters() if not n.startswith("clip.")}

    def prompt_state(self) -> dict[str, Tensor]:
        """A copy of what trains, on the CPU: all that a checkpoint needs to hold."""
        return {
            name: p.detach().to("cpu", copy=True).contiguous()
            for name, p in self.prompt_parameters().items()
        }

    @torch.no_grad()
    def load_prompt_state(self, state: dict[str, Tensor]) -> None:
        """Copies a `prompt_state` into the parameters, in place.

        Raises:
            CheckpointError: A parameter is missing, unknown, or of another shape. Nothing is
                changed then.
        """
        parameters = self.prompt_parameters()
        kind = type(self).__name__
        if unlike := sorted(parameters.keys() ^ state.keys()):
            raise CheckpointError(
                f"These parameters are on one side only: {', '.join(unlike)}. The checkpoint has "
                f"{', '.join(state)}; this {kind} has {', '.join(parameters)}."
            )
        for name, parameter in parameters.items():
            if state[name].shape != parameter.shape:
                raise CheckpointError(
                    f"{name} is {list(state[name].shape)} in the checkpoint, but "
                    f"{list(parameter.shape)} in this {kind} for {self.clip.name}."
                )
        for name, parameter in parameters.items():
            parameter.copy_(state[name])
