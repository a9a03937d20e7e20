"""The packed shared-prefix text encoder: the published numbers, no work twice (chapter 5).

Seven savings, none of which changes a number beyond rounding: nothing after the end token is
computed; the prefix (start token and context) is computed once an image and not once a class; real
tokens stand side by side without padding; the last layer runs at the end tokens only; what follows
from backbone and class list alone is computed once; backward computes gradients of inputs only;
names that begin alike share those tokens.

Notation: B images, K classes, M context tokens, D, E = text, joint width; N = places of a layout.
"""

from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.text_encoder.packed.attention import attention
from cocoop_tutorial.text_encoder.packed.classes import ClassList, Names, class_list, packed_tower
from cocoop_tutorial.text_encoder.packed.memory import make_plan, memory_budget
from cocoop_tutorial.text_encoder.packed.tower import PackedTower
from cocoop_tutorial.text_encoder.prompts import ClassPrompts
from cocoop_tutorial.text_encoder.reference import encode_reference


def encode_packed(clip: FrozenCLIP, context: Tensor, prompts: ClassPrompts) -> Tensor:
    """Text features of all prompts for all images, from as few tokens as can be.

    Args:
        clip: The backbone; one whose text tower cannot be packed takes the reference path, with a
            warning that says why.
        context: `[B, K, M, D]`; B is 1 if all images share it, K is 1 if all classes do.
        prompts: The class names.

    Returns:
        `[B, K, E]`, L2-normalised; equal to `encode_reference` but for rounding. The gradient can
        be taken once, in `context` only.
    """
    device = context.device.type
    own = clip.text_tower.transformer.get_cast_dtype()
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else own
    tower = packed_tower(clip, prompts, dtype)
    if tower is None:
        return encode_reference(clip, context, prompts)
    with torch.autocast(device, enabled=False):
        return _encode_pieces(class_list(tower, prompts, context), context.to(own))


def _encode_pieces(classes: ClassList, context: Tensor) -> Tensor:
    """Runs images in groups and classes in parts, as memory allows."""
    grad = torch.is_grad_enabled() and context.requires_grad
    budget, done, images = memory_budget(context.device), 0, []
    plan = make_plan(budget, len(context), classes.bytes_per_image(grad), len(classes), grad)
    parts = classes.parts(plan.parts)
    for group in context.split(plan.images):  # [b, K or 1, M, D]
        features = []
        for part in parts:
            run = partial(encode_names, classes.tower, part)
            if grad and done >= plan.kept:  # computed again in backward: memory stays bounded
                run = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)
            features.append(run(group))  # [b, k, E]
            done += 1
        images.append(torch.cat(features, dim=1))  # [b, K, E]
    whole = torch.cat(images)  # [B, K, E]
    return whole if len(parts) == 1 else whole[:, classes.order]


def encode_names(tower: PackedTower, names: Names, context: Tensor) -> Tensor:
    """One piece of the work: these classes for these images, in one pass.

    Args:
        tower: The frozen text tower.
        names: k classes.
        context: `[B, K or 1, M, D]`.

    Returns:
        `[B, k, E]`, L2-normalised.
    """
    layout, B, D = names.layout, len(context), tower.width
    T, R = layout.shape
    slots = layout.slots
    context = context.flatten(1, 2)[:, layout.rows] + names.words[slots]  # [B, C, D]
    x = names.words.expand(B, -1, -1).index_copy(1, slots, context)  # [B, N, D]
    # The first layer's projection of the names is a constant: only the context's is computed.
    qkv = tower.blocks[0].project(context)  # [B, C, 3 D]
    qkv = names.first.expand(B, -1, -1).index_copy(1, slots, qkv)  # [B, N, 3 D]
    for i, block in enumerate(tower.blocks[:-1]):
        if i > 0:
            qkv = block.project(x)  # [B, N, 3 D]
        qkv = qkv.view(B, T, R, 3 * D)
        attended = attention(qkv, None, tower.starts[i], names.mask, tower.heads, layout.prefix)
        x = block.finish(x, attended.view(B, T * R, D))  # [B, N, D]
    return tower.head(_last_layer(tower, names, x))


def _last_layer(tower: PackedTower, names: Names, x: Tensor) -> Tensor:
    """Keys and values of all tokens, everything else at the end tokens: `[B, N, D] -> [B, k, D]`.

    (In a tower with one layer, the first layer's constants are not used.)
    """
    layout, block, (B, _, D) = names.layout, tower.blocks[-1], x.shape
    T, R = layout.shape
    Q = len(layout.ends) // T
    kv = block.kv(block.norm(x)).view(B, T, R, 2 * D)
    ends = x[:, layout.ends]  # [B, T * Q, D]
    q = block.q(block.norm(ends)).view(B, T, Q, D)
    attended = attention(q, kv, tower.starts[-1], names.end_mask, tower.heads, layout.prefix)
    attended = attended.view(B, T * Q, D)[:, layout.order]  # [B, k, D]
    return block.finish(ends[:, layout.order], attended)
