"""Other processes, and the limits of this one."""

import contextlib
import resource
import sys
import time
from collections.abc import Callable, Iterator

import psutil


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Within the block, a file that grows beyond `size` bytes meets an error, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def run_on(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those of some processes that still run after a while."""

    def running(process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    wait_until(lambda: not any(map(running, processes)), seconds)
    return [process for process in processes if running(process)]


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Waits for a condition; returns whether it came about in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def python(code: str) -> list[str]:
    """The command that runs some code."""
    return [sys.executable, "-c", code]
