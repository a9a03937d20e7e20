"""CoOp: one learned context for all images (chapter 3)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.text_encoder.encode import DEFAULT_ENCODER


class CoOp(PromptLearner):
    """Context Optimization: one learned context in place of the words of a prompt.

    CoOp (2109.01134), section 3. Introduced in chapter 3.
    """

    image_conditioned = False
    can_be_recorded = True

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
        options = {"encoder": encoder, "allow_duplicates": allow_duplicates}
        order = class_token_position, class_specific
        super().__init__(clip, classnames, n_ctx, ctx_init, *order, **options)

    def text_features(self) -> Tensor:
        """The classifier that the prompts make: `[K, E]`, L2-normalised, the same for all images.

        CoOp (2109.01134), equation 1.
        """
        return self.encode(self.context_of())[0]

    def logits_from_features(self, features: Tensor) -> Tensor:
        """Scores L2-normalised image features `[B, E]`; returns logits `[B, K]`."""
        return self.scaled_cosines(features, self.text_features())

    def options(self) -> dict[str, Any]:
        """The arguments, besides backbone and names, that build this model again."""
        return {
            **super().options(),
            "class_token_position": self.prompts.class_token_position,
            "class_specific": self.class_specific,
        }
