"""Time, memory and arithmetic, measured and counted (chapter 5).

Notation: B images, K classes, D = text width.
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .allocator import give_back_freed_memory
from .packed_layout import shared_prefix
from .packed_tower import FrozenLinear
from .prompt_learner import PromptLearner


@dataclass(frozen=True)
class Times:
    """Repeated timings, in seconds."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Times":
        """Median and range."""
        return cls(statistics.median(seconds), min(seconds), max(seconds), len(seconds))

    as_dict = asdict


def seconds(run: Callable[[], Any], device: str | torch.device = "cpu") -> float:
    """Wall-clock time of one call, the GPU's queue included."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str | torch.device) -> None:
    """Waits for a GPU; a CPU is never behind."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def saved_bytes(forward: Callable[[], Any], module: nn.Module) -> int:
    """What a forward pass holds for backward: exact, and the same on every machine.

    Args:
        forward: Runs forward with gradients and returns its outputs, which keep the graph alive.
        module: Its parameters and buffers, held anyway, are left out.

    Returns:
        Bytes of distinct storages.
    """
    held: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    own = [*module.parameters(), *module.buffers()]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = forward()
    for tensor in own:
        held.pop(tensor.untyped_storage().data_ptr(), None)
    del outputs
    return sum(storage.nbytes() for storage in held.values())


def peak_bytes(run: Callable[[], Any], device: str | torch.device = "cpu") -> tuple[int, int]:
    """The most memory in use during one call.

    Returns:
        How far use rose above where it was before, and the highest use of the whole process.
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        peak = torch.cuda.max_memory_allocated(device)
        return peak - before, peak
    give_back_freed_memory()  # or the call would reuse it unseen
    highest = Path("/proc/self/clear_refs")
    if highest.exists():  # Linux counts pages; elsewhere, what is left after the call must do
        highest.write_text("5")
    before = psutil.Process().memory_info().rss
    run()
    peak = psutil.Process().memory_info().rss
    if highest.exists():
        status = Path("/proc/self/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    return peak - before, peak


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
