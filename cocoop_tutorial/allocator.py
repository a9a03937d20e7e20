"""What the C library does with freed memory on a CPU (chapter 5).

By default glibc gives large pieces back to the system as soon as they are freed. A training step
frees the same pieces again and again, and each time the system must clear every page anew.
"""

import contextlib
import ctypes
import ctypes.util
import os
from collections.abc import Iterator

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's numbers for mallopt
GIB = 1024**3
KEEP = {MMAP_THRESHOLD: GIB, TRIM_THRESHOLD: 2 * GIB - 1}
# glibc's thresholds cannot be read. By default they follow the sizes of freed pieces up to these
# limits, which they reach by themselves when pieces as large as a training step's are freed.
DEFAULT = {MMAP_THRESHOLD: GIB // 32, TRIM_THRESHOLD: GIB // 16}


@contextlib.contextmanager
def keep_freed_memory() -> Iterator[bool]:
    """Within the block, the process holds freed memory for its next request.

    The numbers that it computes stay the same to the last bit. At the end, the memory goes back to
    the system and glibc's own thresholds hold again. Thresholds that the environment sets
    (`MALLOC_TRIM_THRESHOLD_` and the like) are left as they are.

    Yields:
        Whether it does so: only glibc can, and only if the environment leaves it the choice.

    Introduced in chapter 5.
    """
    keeps = not set_by_environment() and set_thresholds(KEEP)
    try:
        yield keeps
    finally:
        if keeps:
            set_thresholds(DEFAULT)
        give_back_freed_memory()


def set_by_environment() -> bool:
    """Whether the user chose the allocator's thresholds when starting the process."""
    kinds = ("mmap_threshold", "trim_threshold")
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return any(f"MALLOC_{k.upper()}_" in os.environ or f"malloc.{k}" in tunables for k in kinds)


def set_thresholds(thresholds: dict[int, int]) -> bool:
    """Sets from how many bytes on freed memory is given back; returns whether that worked."""
    mallopt = getattr(_libc(), "mallopt", None)
    return mallopt is not None and all([mallopt(*option) for option in thresholds.items()])


def give_back_freed_memory() -> None:
    """Gives all freed memory back to the system, where the C library can do so."""
    if trim := getattr(_libc(), "malloc_trim", None):
        trim(0)


def _libc() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("c")
    return ctypes.CDLL(name) if name else None
