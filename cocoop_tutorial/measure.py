"""Time, memory and arithmetic, measured and counted (chapter 5).

Notation: B images, K classes, D = text width.
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from cocoop_tutorial.allocator import give_back_freed_memory


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
