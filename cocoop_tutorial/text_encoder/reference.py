"""The published text encoder of CoOp and CoCoOp, small and slow (chapters 3 and 4).

Every faster path must give these numbers; why this one is slow is the story of chapter 5.

Notation: B images, K classes, M context tokens, N = context length, D, E = text, joint width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.text_encoder.prompts import ClassPrompts


def insert_context(words: Tensor, context: Tensor, slots: Tensor) -> Tensor:
    """Puts the context vectors in their places between the embedded words.

    Args:
        words: `[K, N, D]`, embedded tokens.
        context: `[K, M, D]`, or `[1, M, D]` for one context that all classes share.
        slots: `[K, M]`, the places.

    Returns:
        `[K, N, D]`. CoOp (2109.01134), equation 2.
    """
    index = slots.unsqueeze(-1).expand(-1, -1, words.shape[-1])  # [K, M, D]
    return words.scatter(1, index, context.expand_as(index).to(words.dtype))


def encode_reference(clip: FrozenCLIP, context: Tensor, prompts: ClassPrompts) -> Tensor:
    """The published algorithm: every prompt padded to N tokens, one image after another.

    Args:
        clip: The backbone.
        context: `[B, K, M, D]`; B is 1 if all images share it, K is 1 if all classes do.
        prompts: The class names.

    Returns:
        `[B, K, E]`, L2-normalised.
    """
    tower = clip.text_tower
    dtype = tower.transformer.get_cast_dtype()
    words = tower.token_embedding(prompts.tokens).to(dtype)  # [K, N, D]
    rows = torch.arange(len(words), device=words.device)
    features = []
    for image_context in context:  # [K or 1, M, D]
        x = insert_context(words, image_context, prompts.context_slots)  # [K, N, D]
        x = x + tower.positional_embedding.to(dtype)
        x = tower.transformer(x, attn_mask=tower.attn_mask)
        x = tower.ln_final(x)[rows, prompts.end_positions]  # [K, D]
        features.append(F.normalize(project(tower, x), dim=-1))  # [K, E]
    return torch.stack(features)


def project(tower: nn.Module, x: Tensor) -> Tensor:
    """The last linear map of the text tower, in each form that open_clip has.

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
