"""Freed memory stays with the process while it trains, and goes back afterwards."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import psutil, torch
from cocoop_tutorial import allocator

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [torch.ones(10 * 2**20) for _ in range(3)]  # 40 MiB: too large for glibc to keep
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

step()
plain = min(step() for _ in range(5))
assert allocator.keep_freed_memory()
step()
kept = min(step() for _ in range(5))
held = psutil.Process().memory_info().rss
allocator.give_back_freed_memory()
print(plain, kept, held - psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library's allocator is glibc's")
def test_a_step_gets_the_pages_of_the_last_one_until_they_are_given_back() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    plain, kept, returned = map(int, run.stdout.split())
    assert kept < plain / 20  # page faults
    assert returned > 60 * 2**20


def test_where_the_c_library_cannot_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    from cocoop_tutorial import allocator

    monkeypatch.setattr(allocator.ctypes.util, "find_library", lambda name: None)
    assert not allocator.keep_freed_memory()
    allocator.give_back_freed_memory()
