"""Freed memory stays with the process while it trains; afterwards all is as it was before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cocoop_tutorial import allocator

linux = pytest.mark.skipif(sys.platform != "linux", reason="the C library's allocator is glibc's")
FAULTS = """
import resource, sys
import psutil, torch
torch.set_num_threads(1)

def faults(mib):
    "Share of a piece's pages that the system must clear each time that it is asked for."
    def once():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(mib * 2**18)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    once()
    return min(once() for _ in range(12)) / (mib * 256)
"""
BLOCK = """
from cocoop_tutorial import allocator

before = faults(40)
with allocator.keep_freed_memory() as keeps:
    inside, held = faults(80), psutil.Process().memory_info().rss
print(keeps, before, inside, faults(200), held - psutil.Process().memory_info().rss)
"""
TRAIN = """
from pathlib import Path
from cocoop_tutorial import TrainConfig, train
from train_jobs import make_data, make_model

data, inside = make_data(Path(sys.argv[1])), []
before = faults(40)
train(make_model("CoOp"), data, TrainConfig(epochs=1, batch_size=4),
      on_epoch_end=lambda model: inside.append(faults(80)) or {})
print(before, *inside, faults(200))  # larger than any gap that is left
"""


def run(program: str, *arguments: str, **environment: str) -> list[str]:
    helpers = str(Path(__file__).parents[1] / "helpers")
    path = os.pathsep.join([helpers, *sys.path])
    # Dask's cluster, in another test of this process, leaves its own threshold in the environment.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS + program, *arguments],
        capture_output=True,
        text=True,
        env={**plain, "PYTHONPATH": path, "COCOOP_QUIET": "1", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@linux
def test_a_block_keeps_freed_memory_and_gives_it_back() -> None:
    keeps, *numbers = run(BLOCK)
    before, inside, after, returned = map(float, numbers)
    assert keeps == "True"
    assert inside < 0.05 and min(before, after) > 0.9
    assert returned > 60 * 2**20


@linux
def test_training_leaves_the_allocator_as_it_was(tmp_path: Path) -> None:
    before, inside, after = map(float, run(TRAIN, str(tmp_path / "data")))
    assert inside < 0.05 and min(before, after) > 0.9


LARGE = {"mmap_threshold": 2**30, "trim_threshold": 2**31 - 1}
CHOICES = (
    {f"MALLOC_{name.upper()}_": str(value) for name, value in LARGE.items()},
    {"GLIBC_TUNABLES": ":".join(f"glibc.malloc.{n}={value}" for n, value in LARGE.items())},
)


@linux
@pytest.mark.parametrize("chosen", CHOICES)
def test_thresholds_that_the_user_chose_stay(chosen: dict[str, str]) -> None:
    keeps, *shares, _ = run(BLOCK, **chosen)
    assert keeps == "False"
    assert max(map(float, shares)) < 0.05


def test_where_the_c_library_cannot_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes.util, "find_library", lambda name: None)
    with allocator.keep_freed_memory() as keeps:
        assert not keeps
    allocator.give_back_freed_memory()
