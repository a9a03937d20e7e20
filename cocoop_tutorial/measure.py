"""Time and memory, measured (chapter 5)."""

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from cocoop_tutorial.allocator import give_back_freed_memory

# By kind of control group ("" is version 2): files with the limit and the use, prefix in the
# statistics.
LIMITS = {
    "": ("memory.max", "memory.current", ""),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


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
    """Waits until a GPU is done; a CPU always is."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def saved_bytes(forward: Callable[[], Any], module: nn.Module) -> int:
    """What a forward pass keeps for backward: exact, and the same on every machine.

    Args:
        forward: Runs forward with gradients and returns its outputs, which keep the graph alive.
        module: Its parameters and buffers do not count, because they are in memory anyway.

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
    if highest.exists():  # only Linux records the peak; elsewhere the use after the call must do
        highest.write_text("5")
    before = psutil.Process().memory_info().rss
    run()
    peak = psutil.Process().memory_info().rss
    if highest.exists():
        status = Path("/proc/self/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    return peak - before, peak


def free_memory(
    cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int:
    """Bytes of main memory that this process can still use.

    Containers and batch systems limit memory by control groups, whatever the machine has, and a
    process that exceeds the limit is killed without a message.

    Args:
        cgroups: Where the control groups are mounted.
        own: The file that lists the groups of this process.

    Returns:
        The smallest of what is available on the machine and what each limit leaves.
    """
    return max(0, min([psutil.virtual_memory().available, *_left_by_limits(cgroups, own)]))


def _left_by_limits(cgroups: Path, own: Path) -> Iterator[int]:
    """What each memory limit leaves, of this process's control groups and of those around them."""
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, kind, group = line.split(":", 2)
        if kind in LIMITS:
            path = PurePosixPath(group.lstrip("/"))  # inside a container it may not exist
            for folder in (path, *path.parents):
                with contextlib.suppress(OSError, ValueError, KeyError):  # "max" is no limit
                    yield _left(cgroups / kind / folder, *LIMITS[kind])


def _left(group: Path, limit: str, used: str, prefix: str) -> int:
    lines = (group / "memory.stat").read_text().splitlines()
    facts = dict(line.split(" ", 1) for line in lines)
    # Cached files count as used, but the system drops them when memory gets short.
    cached = sum(int(facts[f"{prefix}{state}_file"]) for state in ("active", "inactive"))
    return int((group / limit).read_text()) - int((group / used).read_text()) + cached
