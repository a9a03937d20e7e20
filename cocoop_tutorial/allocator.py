"""What the C library does with freed memory on a CPU (chapter 5).

By default glibc gives large pieces back to the system as soon as they are free. A training step
frees the same pieces again and again, and the system must clear every page of each anew.
"""

import ctypes
import ctypes.util

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's numbers for mallopt
GIB = 1024**3
KEEP = {MMAP_THRESHOLD: GIB, TRIM_THRESHOLD: 2 * GIB - 1}
# As glibc's own thresholds end up, which follow the pieces that are freed.
GIVE_BACK = {MMAP_THRESHOLD: GIB // 32, TRIM_THRESHOLD: GIB // 16}


def keep_freed_memory(thresholds: dict[int, int] = KEEP) -> bool:
    """From now on the process holds freed memory for its next request.

    Its results stay the same to the last bit. `give_back_freed_memory` returns what is held.

    Args:
        thresholds: Bytes from which memory is given back, for mallopt.

    Returns:
        Whether the C library can do so; other systems than Linux have other allocators.

    Introduced in chapter 5.
    """
    mallopt = getattr(_libc(), "mallopt", None)
    return mallopt is not None and all([mallopt(*option) for option in thresholds.items()])


def give_back_freed_memory() -> None:
    """Gives all freed memory back to the system, where the C library can do so."""
    if trim := getattr(_libc(), "malloc_trim", None):
        trim(0)


def _libc() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("c")
    return ctypes.CDLL(name) if name else None
