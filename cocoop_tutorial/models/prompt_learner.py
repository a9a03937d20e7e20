"""`PromptLearner`: what CoOp and CoCoOp share (chapter 3)."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import PromptError, check_known
from cocoop_tutorial.models.saving import Saveable
from cocoop_tutorial.seeds import check_flag
from cocoop_tutorial.text_encoder.encode import DEFAULT_ENCODER, ENCODERS, encode_prompts
from cocoop_tutorial.text_encoder.prompts import ClassPrompts, initial_context


class PromptLearner(nn.Module, Saveable, ABC):
    """A frozen CLIP, class names, and a context that trains.

    Each class says for itself whether it is `image_conditioned` and `can_be_recorded`. Neither is
    inherited, because what a subclass overrides may change the answer.

    Attributes:
        image_conditioned: Whether each image has prompts of its own. If not, the prompts are
            encoded once for a whole evaluation, and once for all micro-batches of a step.
        can_be_recorded: Whether a training pass neither waits for the GPU nor draws random
            numbers, so that it can be replayed as a CUDA graph.
        clip: The frozen backbone.
        prompts: The class names as tokens.
        ctx: `[M, D]`, or `[K, M, D]` if each class has its own: the learned context.
        ctx_init: The words that it started from, if any.
        encoder: The text encoder; see `encode_prompts`. May be changed at any time.
    """

    image_conditioned: ClassVar[bool] = True
    can_be_recorded: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.image_conditioned = vars(cls).get("image_conditioned", True)
        cls.can_be_recorded = vars(cls).get("can_be_recorded", False)

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
        class_specific = check_flag("class_specific", class_specific)
        allow_duplicates = check_flag("allow_duplicates", allow_duplicates)
        n_classes = len(classnames) if class_specific else None
        ctx = initial_context(clip, n_ctx, ctx_init, n_classes)
        self.clip, self.ctx_init = clip, ctx_init
        self.encoder = check_known("encoder", encoder, ENCODERS)
        options = class_token_position, allow_duplicates, class_specific
        self.prompts = ClassPrompts(clip, classnames, ctx.shape[-2], *options)
        self.ctx = nn.Parameter(ctx)
        self._shared: list[Tensor] | None = None  # within encode_once: the features, their copy

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
        return self.prompts.class_specific

    def forward(self, images: Tensor) -> Tensor:
        """Scores images `[B, 3, H, W]`; returns logits `[B, K]`."""
        return self.logits_from_features(self.clip.encode_image(images))

    @abstractmethod
    def logits_from_features(self, features: Tensor) -> Tensor:
        """Scores L2-normalised image features `[B, E]`; returns logits `[B, K]`."""

    def context_of(self, features: Tensor | None = None) -> Tensor:
        """The context of the prompts that these images are scored with.

        Args:
            features: `[B, E]`, L2-normalised image features; only conditional prompts need them.

        Returns:
            `[B, K, M, D]`, as `encode` takes it; here `ctx` for all images, so B is 1.
        """
        return self.ctx.view(1, -1, *self.ctx.shape[-2:])  # [1, K or 1, M, D]

    def penalty(self) -> Tensor | float:
        """What the loss of a step adds to the cross-entropy: nothing, unless a method overrides it.

        It may call `text_features`, which within a step costs nothing if all images share them.
        """
        return 0.0

    def encode(self, context: Tensor) -> Tensor:
        """Text features of all prompts with this context, by the text encoder of this model.

        Args:
            context: `[B, K, M, D]`; B is 1 unless the model is image-conditioned, K is 1 unless
                it is class-specific.

        Returns:
            `[B, K, E]`, L2-normalised.
        """
        if self._shared:
            return self._shared[1]
        features = encode_prompts(self.clip, context, self.prompts, self.encoder)
        if self._shared is None:
            return features
        copy = features.detach().to(self.ctx.dtype).requires_grad_(features.requires_grad)
        self._shared += [features, copy]
        return copy

    @contextlib.contextmanager
    def encode_once(self) -> Iterator[None]:
        """Encodes prompts that are the same for all images only once within the block.

        Every backward pass in the block stops at the text features and adds to their gradient. The
        end of the block sends the sum back through the text tower, once.
        """
        if self.image_conditioned:
            yield
            return
        self._shared = []
        try:
            yield
            if self._shared and (grad := self._shared[1].grad) is not None:
                self._shared[0].backward(grad.to(self._shared[0].dtype))
        finally:
            self._shared = None

    @contextlib.contextmanager
    def encoded(self, text: Tensor) -> Iterator[None]:
        """Within the block, `encode` returns these text features instead of computing them.

        Args:
            text: `[B, K, E]`: what `encode` would return for the block's images.
        """
        self._shared = [text, text]
        try:
            yield
        finally:
            self._shared = None

    def scaled_cosines(self, features: Tensor, text: Tensor) -> Tensor:
        """The last step of every method; CLIP (2103.00020), section 2.3.

        Args:
            features: `[B, E]`, L2-normalised image features.
            text: `[K, E]`, or `[B, K, E]` if each image has a classifier of its own; normalised.

        Returns:
            `[B, K]`, in the parameters' precision, because half precision would make some logits
            equal.
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
        options = self.prompts.class_token_position, self.prompts.allow_duplicates
        prompts = ClassPrompts(self.clip, classnames, self.n_ctx, *options)
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _shared=None)
        other._modules = {**self._modules, "prompts": prompts}
        return other
