"""What chapter 5 counts: the packed encoder's savings one by one, operators, pieces in memory.

Notation: B images, K classes, M context tokens, D = text width.
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cocoop_tutorial.measure import seconds
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.text_encoder.packed.classes import class_list, packed_tower
from cocoop_tutorial.text_encoder.packed.layout import shared_prefix, token_paths
from cocoop_tutorial.text_encoder.packed.memory import MOST, SHARE, Plan, make_plan
from cocoop_tutorial.text_encoder.packed.tower import FrozenLinear

STEPS = (
    "published",
    "1 cut after the end token",
    "2 prefix once an image",
    "3 pack, do not pad",
    "4 last layer at end tokens",
    "5 constants once",
    "6 input gradients only",
    "7 share first tokens",
)


def ladder(model: PromptLearner, images: int) -> pd.DataFrame:
    """A training step's operations after each of the seven savings; chapter 5.

    Linear layers only, which are nearly all of the arithmetic. A layer costs 24 D^2 operations a
    token: 6 for queries, keys and values, 2 behind attention, 16 in the MLP (in units of D^2).
    Backward to the inputs costs as much as forward.

    Args:
        model: Class names and backbone; its context stands in front of the names.
        images: B.

    Returns:
        One row a step, with `tokens` that go through a middle layer, `operations` of forward and
        backward, and the factors `gain` (over the row above) and `total` (over the first row).
    """
    K, D = len(model.classnames), model.clip.text_width
    layers = len(model.clip.text_tower.transformer.resblocks)
    prefix = shared_prefix(model.prompts, model.class_specific)
    paths = token_paths(model.prompts, prefix, model.class_specific)
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
        (K * model.clip.context_length, whole(K * model.clip.context_length)),
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


def time_steps(model: PromptLearner, steps: pd.DataFrame, repeats: int = 3) -> pd.Series:
    """Measures what the ladder counts, in one block of the tower, attention left out; chapter 5.

    Args:
        model: Its frozen backbone has the block.
        steps: From `ladder`. Each row's operations are made of whole tokens again: as many as cost
            the same in every layer.
        repeats: Rounds, after one that warms up; in a round each row has its turn.

    Returns:
        For each row, median seconds of forward and backward to the input.
    """
    tower = packed_tower(model.clip, model.prompts, model.clip.dtype)
    assert tower is not None
    block, D, device = tower.blocks[0], tower.width, model.clip.device
    tokens = (steps.operations / (2 * len(tower.blocks) * 24 * D * D)).round().astype(int)

    def run(n: int) -> None:
        x = torch.randn(n, D, device=device, dtype=tower.dtype, requires_grad=True)
        block.finish(x, block.project(x)[:, :D]).sum().backward()

    rounds = [[seconds(lambda n=n: run(n), device) for n in tokens] for _ in range(1 + repeats)]
    middle = [statistics.median(times) for times in zip(*rounds[1:], strict=True)]
    return pd.Series(middle, index=steps.index)


def distinct_tokens(paths: list[list[int]]) -> int:
    """Tokens of some names when names that begin alike share them: the nodes of a trie."""
    return len({tuple(path[: i + 1]) for path in paths for i in range(len(path))})


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls += not getattr(func, "is_view", False)  # a view starts no kernel
        return func(*args, **(kwargs or {}))


def operators(run: Callable[[], Any]) -> int:
    """How many of PyTorch's operators a call starts, views left out: about one kernel each."""
    with _Counter() as counter:
        run()
    return counter.calls


def plan_for(model: PromptLearner, images: int, free: int) -> Plan:
    """How the packed encoder would cut a training batch on a GPU; chapter 5.

    Args:
        model: Class names and backbone.
        images: B.
        free: Free bytes of the GPU.

    Returns:
        The plan that the encoder makes by itself, for memory that need not be there.
    """
    classes = _classes(model)
    budget = int(min(SHARE * free, MOST["cuda"]))
    return make_plan(budget, images, classes.bytes_per_image(True), len(classes), grad=True)


def bytes_per_image(model: PromptLearner) -> int:
    """The packed encoder's own estimate of a training step's memory, for one image."""
    return _classes(model).bytes_per_image(True)


def _classes(model: PromptLearner) -> Any:
    context = model.ctx.detach()[None]  # [1, K, M, D]
    context = context if model.class_specific else context[None]  # [1, 1, M, D]
    tower = packed_tower(model.clip, model.prompts, context.dtype)
    return class_list(tower, model.prompts, context)


@torch.no_grad()
def copy_rate(megabytes: int = 256, repeats: int = 5, device: str = "cpu") -> float:
    """Bytes a second that a large copy reads and writes: what memory alone allows here."""
    source = torch.ones(megabytes * 2**20 // 4, device=device)
    target = torch.empty_like(source)
    target.copy_(source)  # the first call also asks the system for the pages
    least = min(seconds(lambda: target.copy_(source), device) for _ in range(repeats))
    return 2 * source.nbytes / least


@torch.no_grad()
def product_points(rows: tuple[int, ...], width: int, device: str = "cpu") -> pd.DataFrame:
    """Measures products `[n, D] x [D, 4 D]`, from few tokens to many.

    Args:
        rows: The n to try.
        width: D.
        device: Where.

    Returns:
        `rows`, `intensity` (operations for each byte that must move) and `rate` (operations a
        second).
    """
    weight: Tensor = torch.randn(4 * width, width, device=device)
    found = []
    for n in rows:
        x = torch.randn(n, width, device=device)
        times = [seconds(lambda x=x: x @ weight.T, device) for _ in range(8)]
        work = 2 * n * width * 4 * width
        moved = 4 * (n * width + weight.numel() + n * 4 * width)
        found.append((n, work / moved, work / min(times[1:])))
    return pd.DataFrame(found, columns=["rows", "intensity", "rate"])


def text_operations(model: PromptLearner, images: int, encoder: str, train: bool) -> int:
    """Multiplications and additions of the text tower, counted, not measured.

    The linear layers cost 24 D^2 a token and layer, attention 4 D for each token seen. Backward
    to the inputs costs as much as forward.

    Args:
        model: Class names and backbone.
        images: B; for CoOp 1, since all images share its prompts.
        encoder: "reference", "truncated" or "packed".
        train: Forward and backward, or forward only.
    """
    D, layers = model.clip.text_width, len(model.clip.text_tower.transformer.resblocks)
    tokens, seen = text_tokens(model, images, encoder)
    return (1 + train) * layers * (24 * D * D * tokens + 4 * D * seen)


def text_tokens(model: PromptLearner, images: int, encoder: str) -> tuple[int, int]:
    """Tokens that an encoder sends through the tower.

    Returns:
        The tokens, and the sum over them of how many tokens each sees.
    """
    prompts, K = model.prompts, len(model.classnames)
    lengths = prompts.end_positions + 1  # [K]
    if encoder != "packed":
        length = model.clip.context_length if encoder == "reference" else int(lengths.max())
        return images * K * length, images * K * length * length
    prefix = shared_prefix(prompts, model.class_specific)
    P, own = 1 + prefix, prompts.end_positions - prefix  # [K], tokens behind the prefix
    seen = P * (P + 1) // 2 + int((own * P + own * (own + 1) // 2).sum())
    return images * (P + int(own.sum())), images * seen


@torch.no_grad()
def product_rate(
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    width: int = 512,
    ours: bool = True,
    repeats: int = 15,
) -> float:
    """Operations a second of large matrix products: what arithmetic alone could reach here.

    Args:
        device: Where.
        dtype: In which precision.
        width: D; the products are those of the MLP, 4 D wide.
        ours: By the product that the packed encoder uses; else by `F.linear`.
        repeats: The fastest counts.
    """
    fastest = 0.0
    on_gpu = torch.device(device).type == "cuda"  # which small products do not fill
    for rows in (2**13, 2**15, 2**17) if on_gpu else (512, 1024, 2048):
        x = torch.randn(rows, width, device=device, dtype=dtype)
        weight = torch.randn(4 * width, width, device=device, dtype=dtype)
        run = partial(FrozenLinear(weight, None) if ours else partial(F.linear, weight=weight), x)
        run()
        least = min(seconds(run, device) for _ in range(repeats))
        fastest = max(fastest, 2 * x.numel() * len(weight) / least)
    return fastest
