"""From context vectors to text features, by any of several encoders (chapter 5).

Notation: B images, K classes, M context tokens, D = text width, E = joint width.
"""

from collections.abc import Callable

from torch import Tensor

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import PromptError, check_known
from cocoop_tutorial.text_encoder.packed.encode import encode_packed
from cocoop_tutorial.text_encoder.prompts import ClassPrompts
from cocoop_tutorial.text_encoder.reference import encode_reference, encode_truncated

Encoder = Callable[[FrozenCLIP, Tensor, ClassPrompts], Tensor]

ENCODERS: dict[str, Encoder] = {
    "reference": encode_reference,
    "truncated": encode_truncated,
    "packed": encode_packed,
}
DEFAULT_ENCODER = "packed"


def encode_prompts(
    clip: FrozenCLIP, context: Tensor, prompts: ClassPrompts, encoder: str = DEFAULT_ENCODER
) -> Tensor:
    """Text features of all prompts, for all images.

    Args:
        clip: The backbone.
        context: `[B, K, M, D]`; B is 1 if all images share it, K is 1 unless the prompts are
            class-specific.
        prompts: The class names.
        encoder: "reference" (as published), "truncated" (without the padding) or "packed" (also
            without repeated work). The numbers differ only by rounding.

    Returns:
        `[B, K, E]`, L2-normalised, differentiable in `context`.

    Raises:
        UnknownNameError: No such encoder.
        PromptError: The context is class-specific and the prompts are not, or the other way round.
    """
    contexts = len(prompts.classnames) if prompts.class_specific else 1
    if context.shape[1] != contexts:
        raise PromptError(
            f"The context is {list(context.shape)}, [B, K, M, D], but these prompts take K = "
            f"{contexts}. Build ClassPrompts with class_specific={not prompts.class_specific}."
        )
    encode = ENCODERS[check_known("encoder", encoder, ENCODERS)]
    if not len(context):
        return context.new_zeros(0, len(prompts.classnames), clip.embed_dim)
    return encode(clip, context, prompts)
