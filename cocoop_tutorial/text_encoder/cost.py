"""What chapter 5 counts: tokens, operations, the packed encoder's savings, passes in memory.

Notation: B images, K classes, M context tokens, D = text width.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch.nn import functional as F

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.measure import seconds
from cocoop_tutorial.text_encoder.packed.classes import class_list, packed_tower
from cocoop_tutorial.text_encoder.packed.memory import FREE_FRACTION, MAX_BYTES, Plan, make_plan
from cocoop_tutorial.text_encoder.packed.tower import FrozenLinear
from cocoop_tutorial.text_encoder.prompts import ClassPrompts

STEPS = (
    "published",
    "1 cut after the end token",
    "2 prefix once per image",
    "3 pack, do not pad",
    "4 last layer at end tokens",
    "5 constants once",
    "6 input gradients only",
    "7 share first tokens",
)


def ladder(clip: FrozenCLIP, prompts: ClassPrompts, images: int) -> pd.DataFrame:
    """A training step's operations after each of the seven savings; chapter 5.

    Only linear layers are counted, because they are nearly all of the arithmetic. A layer costs
    24 D^2 operations per token: 6 for queries, keys and values, 2 after attention, 16 in the MLP
    (in units of D^2). Backward to the inputs costs as much as forward.

    Args:
        clip: The backbone.
        prompts: The class names, with the context before them.
        images: B.

    Returns:
        One row per step, with the `tokens` that go through a middle layer, the `operations` of
        forward and backward, and the factors `gain` (over the row above) and `total` (over the
        first row).
    """
    K, D, prefix = len(prompts.classnames), clip.text_width, prompts.prefix
    layers = len(clip.text_tower.transformer.resblocks)
    paths = [sequence[1 + prefix :] for sequence in prompts.sequences]
    longest, own = max(map(len, paths)), sum(map(len, paths))
    shared = distinct_tokens(paths)
    P = 1 + prefix

    def whole(tokens: int) -> int:
        return layers * 24 * tokens

    def last_at_ends(tokens: int) -> int:  # the last layer: keys and values of all, the rest of K
        return (layers - 1) * 24 * tokens + 4 * tokens + 20 * K

    def constants(names: int) -> int:  # no start token; of layer 1's products, the context's only
        return last_at_ends(prefix + names) - 6 * names

    counts = [
        (K * clip.context_length, whole(K * clip.context_length)),
        (K * (P + longest), whole(K * (P + longest))),
        (P + K * longest, whole(P + K * longest)),
        (P + own, whole(P + own)),
        (P + own, last_at_ends(P + own)),
        (prefix + own, constants(own)),
        (prefix + own, constants(own)),  # the published code freezes its tower as well
        (prefix + shared, constants(shared)),
    ]
    frame = pd.DataFrame(counts, index=list(STEPS), columns=["tokens", "operations"])
    frame["tokens"] *= images
    frame["operations"] *= 2 * images * D * D
    frame["gain"] = frame.operations.shift() / frame.operations
    frame["total"] = frame.operations.iloc[0] / frame.operations
    return frame


def distinct_tokens(paths: list[list[int]]) -> int:
    """Tokens of some names if names share the tokens they begin with: the nodes of a trie."""
    return len({tuple(path[: i + 1]) for path in paths for i in range(len(path))})


def plan_for(clip: FrozenCLIP, prompts: ClassPrompts, images: int, free: int) -> Plan:
    """How the packed encoder would cut a training batch on a GPU; chapter 5.

    Args:
        clip: The backbone.
        prompts: The class names.
        images: B.
        free: Free bytes of the GPU.

    Returns:
        The plan that the encoder would make, even if this machine has no such GPU.
    """
    tower = packed_tower(clip, prompts, clip.dtype)
    assert tower is not None
    classes = class_list(tower, prompts)
    budget = int(min(FREE_FRACTION * free, MAX_BYTES["cuda"]))
    return make_plan(budget, images, classes.bytes_per_image(True), len(classes), grad=True)


def _fastest(run: Callable[[], Any], device: str | torch.device, repeats: int) -> float:
    """Seconds of the fastest call, after one that does not count."""
    run()
    return min(seconds(run, device) for _ in range(repeats))


def text_operations(
    clip: FrozenCLIP, prompts: ClassPrompts, images: int, encoder: str, train: bool
) -> int:
    """Multiplications and additions of the text tower: counted, not measured.

    The linear layers cost 24 D^2 per token and layer, attention costs 4 D for each token that a
    token sees. Backward to the inputs costs as much as forward.

    Args:
        clip: The backbone.
        prompts: The class names.
        images: B; 1 for CoOp, because all images share its prompts.
        encoder: "reference", "truncated" or "packed".
        train: Forward and backward, or forward only.
    """
    D, layers = clip.text_width, len(clip.text_tower.transformer.resblocks)
    tokens, seen = text_tokens(prompts, images, encoder)
    return (1 + train) * layers * (24 * D * D * tokens + 4 * D * seen)


def text_tokens(prompts: ClassPrompts, images: int, encoder: str) -> tuple[int, int]:
    """Tokens that an encoder sends through the tower.

    Returns:
        The tokens, and the sum over them of how many tokens each sees.
    """
    K, lengths = len(prompts.classnames), list(map(len, prompts.sequences))
    if encoder != "packed":
        length = prompts.tokens.shape[1] if encoder == "reference" else max(lengths)
        return images * K * length, images * K * length * length
    P = 1 + prompts.prefix
    own = [length - P for length in lengths]  # tokens after the prefix
    seen = P * (P + 1) // 2 + sum(n * P + n * (n + 1) // 2 for n in own)
    return images * (P + sum(own)), images * seen


@torch.no_grad()
def product_rate(
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    width: int = 512,
    ours: bool = True,
    repeats: int = 15,
) -> float:
    """Operations per second of large matrix products: the limit that arithmetic sets here.

    Args:
        device: Where to measure.
        dtype: The precision.
        width: D; the products are those of the MLP, 4 D wide.
        ours: Whether to use the packed encoder's product instead of `F.linear`.
        repeats: Number of tries, of which the fastest counts.
    """
    fastest = 0.0
    on_gpu = torch.device(device).type == "cuda"  # small products do not fill a GPU
    for rows in (2**13, 2**15, 2**17) if on_gpu else (512, 1024, 2048):
        x = torch.randn(rows, width, device=device, dtype=dtype)
        weight = torch.randn(4 * width, width, device=device, dtype=dtype)
        run = partial(FrozenLinear(weight, None) if ours else partial(F.linear, weight=weight), x)
        fastest = max(fastest, 2 * x.numel() * len(weight) / _fastest(run, device, repeats))
    return fastest
