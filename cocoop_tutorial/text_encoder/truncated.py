"""The published text encoder without its padding: exact, and a few times cheaper (chapter 5).

Notation: B images, K classes, M context tokens, T = context length, E = joint width.
"""

import torch
from torch import Tensor

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.text_encoder.prompts import ClassPrompts
from cocoop_tutorial.text_encoder.reference import encode_reference


def is_causal(mask: Tensor | None) -> bool:
    """Whether no position sees a later one; `mask` is `[T, T]`, added to the scores."""
    if mask is None:
        return False
    later = torch.ones_like(mask, dtype=torch.bool).triu(1)
    return bool((mask[later] == float("-inf")).all())


def encode_truncated(clip: FrozenCLIP, context: Tensor, prompts: ClassPrompts) -> Tensor:
    """Stops after the longest prompt: in a causal tower nothing later can reach an end token.

    Args:
        clip: The backbone; if its tower is not causal, the reference encoder is used.
        context: `[B, K, M, D]`; B is 1 if all images share it, K is 1 if all classes do.
        prompts: The class names.

    Returns:
        `[B, K, E]`, L2-normalised; equal to `encode_reference` up to rounding.
    """
    longest = max(map(len, prompts.sequences))
    length = longest if is_causal(clip.text_tower.attn_mask) else None
    return encode_reference(clip, context, prompts, length)
