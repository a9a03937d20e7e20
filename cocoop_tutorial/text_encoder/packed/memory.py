"""How much of the packed encoder's work to hold in memory at once (chapter 5)."""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from cocoop_tutorial.measure import free_memory

GIB = 1024**3
# The encoder takes a fraction of what is free, but at most this: larger chunks are not faster on a
# CPU, and a GPU of 16 GB must be enough. While backward runs, it needs about a quarter more.
MAX_BYTES = {"cpu": 5 * GIB // 4, "cuda": 8 * GIB}
FREE_FRACTION = 0.5
CHUNKS = 4  # held at once when not all fit: one that is being computed, the rest for backward

_fixed: ContextVar[int | None] = ContextVar("fixed budget", default=None)


@dataclass(frozen=True)
class Plan:
    """How a batch is cut.

    Attributes:
        images: Images per chunk.
        class_chunks: Chunks of the class list, more than 1 only if one image is too large.
        kept: Chunks whose intermediate results stay for backward; the others are computed again.
    """

    images: int
    class_chunks: int
    kept: int


@contextlib.contextmanager
def fixed_budget(budget: int) -> Iterator[None]:
    """Lets the encoder use `budget` bytes, however much memory is free meanwhile.

    Chunks of another size differ in the last bit, so a run that must repeat bit by bit cannot
    depend on the memory that other programs leave.
    """
    token = _fixed.set(budget)
    try:
        yield
    finally:
        _fixed.reset(token)


def memory_budget(device: torch.device) -> int:
    """Bytes that the encoder may use now, from what is free on `device`."""
    if (fixed := _fixed.get()) is not None:
        return fixed
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # PyTorch keeps freed blocks, which the driver does not count as free.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        free = free_memory()
    return int(min(FREE_FRACTION * free, MAX_BYTES.get(device.type, MAX_BYTES["cpu"])))


def make_plan(budget: int, images: int, bytes_per_image: int, classes: int, grad: bool) -> Plan:
    """Cuts a batch so that what is in memory at the same time stays within the budget.

    Args:
        budget: Bytes, from `memory_budget`.
        images: B.
        bytes_per_image: What one image needs with all its classes.
        classes: K.
        grad: Whether a backward pass follows.
    """
    if images * bytes_per_image <= budget:
        return Plan(images, class_chunks=1, kept=1)
    chunk = budget / CHUNKS if grad else budget
    group = min(images, int(chunk // bytes_per_image))
    if group:
        return Plan(group, class_chunks=1, kept=CHUNKS - 1)
    return Plan(1, class_chunks=min(classes, math.ceil(bytes_per_image / chunk)), kept=CHUNKS - 1)
