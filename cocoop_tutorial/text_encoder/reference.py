"""The published text encoder of CoOp and CoCoOp, small and slow, whole or without its padding.

Every faster encoder must give the numbers of the whole one (chapters 3 and 4). Chapter 5 explains
why it is slow.

Notation: B images, K classes, M context tokens, T = context length, D, E = text, joint width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.text_encoder.prompts import ClassPrompts


def insert_context(words: Tensor, context: Tensor, slots: Tensor) -> Tensor:
    """Puts the context vectors into their positions between the embedded words.

    Args:
        words: `[K, T, D]`, embedded tokens.
        context: `[K, M, D]`, or `[1, M, D]` if all classes share one context.
        slots: `[K, M]`, the positions.

    Returns:
        `[K, T, D]`. CoOp (2109.01134), equation 2.
    """
    index = slots.unsqueeze(-1).expand(-1, -1, words.shape[-1])  # [K, M, D]
    return words.scatter(1, index, context.expand_as(index).to(words.dtype))


def encode_reference(
    clip: FrozenCLIP, context: Tensor, prompts: ClassPrompts, length: int | None = None
) -> Tensor:
    """The published algorithm: every prompt padded to T tokens, one image after another.

    Args:
        clip: The backbone.
        context: `[B, K, M, D]`; B is 1 if all images share it, K is 1 if all classes do.
        prompts: The class names.
        length: Cuts the prompts after so many tokens; the published code does not.

    Returns:
        `[B, K, E]`, L2-normalised.
    """
    tower, mask = clip.text_tower, clip.text_tower.attn_mask
    mask = mask if mask is None else mask[:length, :length]
    dtype = tower.transformer.get_cast_dtype()
    words = tower.token_embedding(prompts.tokens[:, :length]).to(dtype)  # [K, T, D]
    rows = torch.arange(len(words), device=words.device)
    features = []
    for image_context in context:  # [K or 1, M, D]
        x = insert_context(words, image_context, prompts.context_slots)  # [K, T, D]
        x = x + tower.positional_embedding[:length].to(dtype)
        x = tower.transformer(x, attn_mask=mask)
        x = tower.ln_final(x)[rows, prompts.end_positions]  # [K, D]
        features.append(F.normalize(project(tower, x), dim=-1))  # [K, E]
    return torch.stack(features)


def encode_truncated(clip: FrozenCLIP, context: Tensor, prompts: ClassPrompts) -> Tensor:
    """Stops after the longest prompt: in a causal tower nothing later can reach an end token.

    Args:
        clip: The backbone; if its tower is not causal, this is `encode_reference`.
        context: `[B, K, M, D]`, as for `encode_reference`.
        prompts: The class names.

    Returns:
        `[B, K, E]`, L2-normalised; equal to `encode_reference` up to rounding. A few times
        cheaper; introduced in chapter 5.
    """
    longest = max(map(len, prompts.sequences))
    length = longest if is_causal(clip.text_tower.attn_mask) else None
    return encode_reference(clip, context, prompts, length)


def is_causal(mask: Tensor | None) -> bool:
    """Whether no position sees a later one; `mask` is `[T, T]`, added to the scores."""
    if mask is None:
        return False
    later = torch.ones_like(mask, dtype=torch.bool).triu(1)
    return bool((mask[later] == float("-inf")).all())


def project(tower: nn.Module, x: Tensor) -> Tensor:
    """The last linear map of the text tower, in any of open_clip's forms.

    Args:
        tower: `clip.text_tower`.
        x: `[..., D]`.

    Returns:
        `[..., E]`.
    """
    projection = tower.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Linear) else x @ projection
