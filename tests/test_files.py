"""Files on disk: whole or not at all, and checked when they are read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cocoop_tutorial import files
from cocoop_tutorial.errors import CheckpointError, MissingDataError
from cocoop_tutorial.files import read_tensors, remove_partial, write_atomic, write_tensors

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(3, dtype=torch.int64)}
FACTS = {"version": 1, "names": ["cat", "\u9e1f"], "path": Path("here")}

FULL_DISK = """
import resource, signal, sys
from cocoop_tutorial.files import write_atomic
from cocoop_tutorial.errors import FileError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # no file may grow beyond this
try:
    write_atomic(sys.argv[1], b"new" * 1000)
except FileError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "prompt.safetensors", b"old")
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "could not be written" in run.stdout and str(path) in run.stdout
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["prompt.safetensors"], "no half file stays"


@pytest.mark.skipif(sys.platform == "win32", reason="Unix permissions")
def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    ours = write_atomic(tmp_path / "ours", b"")
    assert os.stat(ours).st_mode == os.stat(usual).st_mode


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    ours = tmp_path / f"{files._part_prefix(tmp_path / 'run.json')}x1.part"
    foreign = [tmp_path / "tmp1.part", tmp_path / ".other.json-x1.part", tmp_path / "run.json"]
    for path in (ours, *foreign):
        path.touch()
    remove_partial(tmp_path / "run.json")
    assert not ours.exists() and all(path.exists() for path in foreign)


# --- tensors ---


def test_tensors_and_facts_come_back(tmp_path: Path) -> None:
    facts, tensors = read_tensors(write_tensors(tmp_path / "file", TENSORS, FACTS))
    assert facts == {**FACTS, "path": "here"}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_equal_content_gives_equal_files(tmp_path: Path) -> None:
    """safetensors itself writes metadata in another order each time."""
    files = [write_tensors(tmp_path / str(i), TENSORS, FACTS) for i in range(20)]
    assert len({path.read_bytes() for path in files}) == 1
    assert read_tensors(files[0])[0]["version"] == 1


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(
    place: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every bit of the file counts, except where flipping it leaves facts and tensors unchanged."""
    path = write_tensors(tmp_path_factory.mktemp("bit") / "file", TENSORS, FACTS)
    whole, data = read_tensors(path), bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        facts, tensors = read_tensors(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:
        assert facts == whole[0] and all(torch.equal(tensors[n], whole[1][n]) for n in TENSORS)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="There is no file"):
        read_tensors(tmp_path / "none")
    path = write_tensors(tmp_path / "file", TENSORS, {})
    deep = path.read_bytes().replace(b'"{}"', b'"' + b"[" * 100_000 + b'"')
    size = int.from_bytes(deep[:8], "little") + len(deep) - path.stat().st_size
    path.write_bytes(size.to_bytes(8, "little") + deep[8:])
    with pytest.raises(CheckpointError, match=r"damaged.*Fetch it"):
        read_tensors(path, "Fetch it again.")
