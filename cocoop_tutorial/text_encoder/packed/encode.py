"""The packed shared-prefix text encoder: the published numbers without repeated work (chapter 5).

It saves in seven ways, none of which changes a number beyond rounding: nothing after the end token
is computed; the prefix (start token and context) is computed once per image, not once per class;
tokens are packed without padding; the last layer runs at the end tokens only; what depends only on
backbone and class list is computed once; backward computes gradients of inputs only; names share
the tokens that they begin with.

Notation: B images, K classes, M context tokens, D, E = text, joint width, G tiles of R tokens with
Q end tokens each, C = slots for context vectors.
"""

from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.text_encoder.packed.attention import attention
from cocoop_tutorial.text_encoder.packed.classes import (
    ClassList,
    PackedClasses,
    class_list,
    packed_tower,
)
from cocoop_tutorial.text_encoder.packed.memory import make_plan, memory_budget
from cocoop_tutorial.text_encoder.packed.tower import PackedTower
from cocoop_tutorial.text_encoder.prompts import ClassPrompts
from cocoop_tutorial.text_encoder.reference import encode_reference


def encode_packed(clip: FrozenCLIP, context: Tensor, prompts: ClassPrompts) -> Tensor:
    """Text features of all prompts for all images, from as few tokens as possible.

    Args:
        clip: The backbone. If its text tower cannot be packed, the reference encoder is used, and a
            warning says why.
        context: `[B, K, M, D]`; B is 1 if all images share it, K is 1 if all classes do.
        prompts: The class names.

    Returns:
        `[B, K, E]`, L2-normalised; equal to `encode_reference` up to rounding. The gradient can
        be taken once, with respect to `context` only.
    """
    device = context.device.type
    own = clip.text_tower.transformer.get_cast_dtype()
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else own
    tower = packed_tower(clip, prompts, dtype)
    if tower is None:
        return encode_reference(clip, context, prompts)
    with torch.autocast(device, enabled=False):
        return _encode_chunks(class_list(tower, prompts), context.to(own))


def _encode_chunks(classes: ClassList, context: Tensor) -> Tensor:
    """Runs images in groups and classes in chunks, as memory allows."""
    grad = torch.is_grad_enabled() and context.requires_grad
    budget, done, images = memory_budget(context.device), 0, []
    plan = make_plan(budget, len(context), classes.bytes_per_image(grad), len(classes), grad)
    chunks, order = classes.chunks(plan.class_chunks)
    for group in context.split(plan.images):  # [b, K or 1, M, D]
        features = []
        for chunk in chunks:
            run = partial(encode_classes, classes.tower, chunk)
            if grad and done >= plan.kept:  # computed again in backward: memory stays bounded
                run = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)
            features.append(run(group))  # [b, k, E]
            done += 1
        images.append(torch.cat(features, dim=1))  # [b, K, E]
    whole = torch.cat(images)  # [B, K, E]
    return whole if len(chunks) == 1 else whole[:, order]


def encode_classes(tower: PackedTower, classes: PackedClasses, context: Tensor) -> Tensor:
    """One chunk of the work: these classes for these images, in one pass.

    Args:
        tower: The frozen text tower.
        classes: k classes.
        context: `[B, K or 1, M, D]`.

    Returns:
        `[B, k, E]`, L2-normalised.
    """
    layout, B, D = classes.layout, len(context), tower.width
    G, R = layout.shape
    slots = layout.slots
    context = context.flatten(1, 2)[:, layout.rows] + classes.words[slots]  # [B, C, D]
    x = classes.words.expand(B, -1, -1).index_copy(1, slots, context)  # [B, G * R, D]
    # The first layer's projection of the names is a constant: only the context's is computed.
    qkv = tower.blocks[0].project(context)  # [B, C, 3 D]
    qkv = classes.first.expand(B, -1, -1).index_copy(1, slots, qkv)  # [B, G * R, 3 D]
    for i, block in enumerate(tower.blocks[:-1]):
        if i > 0:
            qkv = block.project(x)  # [B, G * R, 3 D]
        qkv = qkv.view(B, G, R, 3 * D)
        attended = attention(qkv, None, tower.starts[i], classes.mask, tower.heads, layout.prefix)
        x = block.finish(x, attended.view(B, G * R, D))  # [B, G * R, D]
    return tower.head(_last_layer(tower, classes, x))


def _last_layer(tower: PackedTower, classes: PackedClasses, x: Tensor) -> Tensor:
    """Keys and values of all tokens, the rest at end tokens: `[B, G * R, D] -> [B, k, D]`.

    (In a tower with one layer, the first layer's constants are not used.)
    """
    layout, block, (B, _, D) = classes.layout, tower.blocks[-1], x.shape
    G, R = layout.shape
    Q = len(layout.ends) // G
    kv = block.kv(block.norm(x)).view(B, G, R, 2 * D)
    ends = x[:, layout.ends]  # [B, G * Q, D]
    q = block.q(block.norm(ends)).view(B, G, Q, D)
    attended = attention(q, kv, tower.starts[-1], classes.end_mask, tower.heads, layout.prefix)
    attended = attended.view(B, G * Q, D)[:, layout.order]  # [B, k, D]
    return block.finish(ends[:, layout.order], attended)
