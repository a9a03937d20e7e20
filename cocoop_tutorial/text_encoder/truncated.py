"""The published text encoder without its padding: exact, and a few times cheaper (chapter 5).

Notation: B images, K classes, M context tokens, N = context length, D, E = text, joint width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.text_encoder.prompts import ClassPrompts
from cocoop_tutorial.text_encoder.reference import encode_reference, insert_context, project


def is_causal(mask: Tensor | None) -> bool:
    """Whether a position can see none after it; `mask` is `[N, N]`, added to the scores."""
    if mask is None:
        return False
    later = torch.ones_like(mask, dtype=torch.bool).triu(1)
    return bool((mask[later] == float("-inf")).all())


def encode_truncated(clip: FrozenCLIP, context: Tensor, prompts: ClassPrompts) -> Tensor:
    """Stops behind the longest prompt: in a causal tower nothing later can reach an end token.

    Args:
        clip: The backbone; a tower that is not causal takes the reference path.
        context: `[B, K, M, D]`; B is 1 if all images share it, K is 1 if all classes do.
        prompts: The class names.

    Returns:
        `[B, K, E]`, L2-normalised; equal to `encode_reference` but for rounding.
    """
    tower = clip.text_tower
    if not is_causal(tower.attn_mask):
        return encode_reference(clip, context, prompts)
    dtype = tower.transformer.get_cast_dtype()
    length = int(prompts.end_positions.max()) + 1  # n <= N
    words = tower.token_embedding(prompts.tokens[:, :length]).to(dtype)  # [K, n, D]
    positions = tower.positional_embedding[:length].to(dtype)
    mask = tower.attn_mask[:length, :length]
    rows = torch.arange(len(words), device=words.device)
    features = []
    for image_context in context:  # [K or 1, M, D]
        x = insert_context(words, image_context, prompts.context_slots) + positions
        x = tower.transformer(x, attn_mask=mask)
        x = tower.ln_final(x[rows, prompts.end_positions])  # [K, D]
        features.append(F.normalize(project(tower, x), dim=-1))  # [K, E]
    return torch.stack(features)
