"""Several processes that work on one model, as `torchrun` starts them (chapter 5).

Without `torchrun` there is one process, which works on all images. With it, all processes of a run
must call these functions in the same order, as `evaluate` and `train` do.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from cocoop_tutorial.errors import CocoopError, DeviceError

T = TypeVar("T")


def active() -> bool:
    """Whether several processes share this run."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if active() else 0


def world_size() -> int:
    """How many processes share this run."""
    return dist.get_world_size() if active() else 1


def is_main() -> bool:
    """Whether this is the process that prints and writes files."""
    return rank() == 0


def from_main(job: Callable[[], T]) -> T:
    """Lets the main process do something that the others cannot, for example read a file.

    Args:
        job: What it does.

    Returns:
        In all processes what `job` returned. They all raise its error, too, because they would
        otherwise wait for the main process for ever.
    """
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome[0] = job()
        except CocoopError as error:
            outcome[1] = error
    if active():
        dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


@contextlib.contextmanager
def session(device: str | None = None) -> Iterator[str | None]:
    """Connects the processes that `torchrun` started; does nothing without it.

    Args:
        device: "cuda", "cpu", or None for the GPU if there is one.

    Yields:
        The device of this process: under `torchrun` each process has its own GPU.

    Raises:
        DeviceError: There are fewer GPUs than processes.
    """
    if "LOCAL_RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield device
        return
    kind = (device or ("cuda" if torch.cuda.is_available() else "cpu")).split(":")[0]
    mine = _own_device(kind)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield mine
    finally:
        dist.destroy_process_group()


def _own_device(kind: str) -> str:
    if kind != "cuda":
        return kind
    number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= there:
        raise DeviceError(
            f"torchrun started more processes than this machine has GPUs ({there}). "
            f"Use --nproc-per-node {max(there, 1)}, or --device cpu."
        )
    torch.cuda.set_device(number)
    return f"cuda:{number}"


def share(n: int) -> list[int]:
    """Which of `n` items this process works on.

    Every process gets the same number of consecutive items. If `n` is not divisible by the number
    of processes, the last ones start again at item 0, so that no process is idle.

    Args:
        n: Number of items, at least 1.

    Returns:
        Indices below `n`. The shares of all processes, concatenated and cut at `n`, are 0 to n - 1.
    """
    size = -(-n // world_size())
    return [i % n for i in range(rank() * size, (rank() + 1) * size)]


def gather_rows(rows: Tensor, n: int) -> Tensor:
    """Concatenates the rows of all shares.

    Args:
        rows: `[len(share(n)), ...]`, this process's rows.
        n: The `n` of `share`.

    Returns:
        `[n, ...]`, the same in every process.
    """
    if not active():
        return rows
    shares = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(shares, rows.contiguous())
    return torch.cat(shares)[:n]


def total(values: list[float], device: torch.device) -> list[float]:
    """Adds numbers over all processes, in double precision.

    Args:
        values: Numbers of this process.
        device: The device of this process.

    Returns:
        The sums, the same in every process.
    """
    if not active():
        return values
    sums = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return sums.tolist()
