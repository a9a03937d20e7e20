"""How much of the packed encoder's work to hold in memory at once (chapter 5)."""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import psutil
import torch

GIB = 1024**3
# A share of what is free, and no more than this: on a CPU larger pieces are not faster, and a GPU
# of 16 GB must do. Backward at work adds about a quarter to it.
MOST = {"cpu": 5 * GIB // 4, "cuda": 8 * GIB}
SHARE = 0.5
PIECES = 4  # when not all fits: so many pieces at once, one of them at work

_fixed: ContextVar[int | None] = ContextVar("fixed budget", default=None)


@dataclass(frozen=True)
class Plan:
    """How a batch is cut.

    Attributes:
        images: Images in a piece.
        parts: Parts of the class list, more than 1 only if one image is too large.
        kept: Pieces whose intermediate results stay for backward; the rest is computed again.
    """

    images: int
    parts: int
    kept: int


@contextlib.contextmanager
def fixed_budget(budget: int) -> Iterator[None]:
    """Lets the encoder use `budget` bytes, whatever becomes free or taken meanwhile.

    Pieces of another size round differently in the last bit: a run that must repeat bit by bit
    may not let other programs decide.
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
        # PyTorch holds freed blocks back from the driver: they are free for us.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        free = psutil.virtual_memory().available
    return int(min(SHARE * free, MOST.get(device.type, MOST["cpu"])))


def make_plan(budget: int, images: int, bytes_per_image: int, classes: int, grad: bool) -> Plan:
    """Cuts a batch so that what is in memory at once stays within the budget.

    Args:
        budget: Bytes, from `memory_budget`.
        images: B.
        bytes_per_image: What one image needs with all its classes.
        classes: K.
        grad: A backward pass follows.
    """
    if images * bytes_per_image <= budget:
        return Plan(images, parts=1, kept=1)
    piece = budget / PIECES if grad else budget
    group = min(images, int(piece // bytes_per_image))
    if group:
        return Plan(group, parts=1, kept=PIECES - 1)
    return Plan(1, parts=min(classes, math.ceil(bytes_per_image / piece)), kept=PIECES - 1)
