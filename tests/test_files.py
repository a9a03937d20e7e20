"""Files on disk: whole or not at all, and checked when they are read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cocoop_tutorial.errors import CheckpointError, DataError, FileError, MissingDataError
from cocoop_tutorial.files import read_json, read_tensors, write_atomic, write_json, write_tensors

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


SLOW_DISK = """
import os, sys, time
from cocoop_tutorial.files import write_atomic
os.fsync = lambda _: print("writing", flush=True) or time.sleep(60)
write_atomic(sys.argv[1], b"part")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps open files by itself")
def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path, command = tmp_path / "prompts.safetensors", [sys.executable, "-c", SLOW_DISK]
    foreign = [
        tmp_path / name for name in ("tmp1.part", ".other-x1.part", f".{path.name}-new.part")
    ]
    for other in foreign[:2]:
        other.write_text("another program's, or another file's")
    foreign[2].touch()  # a writer that has just begun
    writer = subprocess.Popen([*command, str(path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout.readline() == b"writing\n"
        (part,) = set(tmp_path.iterdir()) - set(foreign)
        write_atomic(path, b"whole")
        assert part.read_bytes() == b"part", "its writer lives"
    finally:
        writer.kill()
        writer.communicate()
    write_atomic(path, b"whole")
    assert set(tmp_path.iterdir()) == {path, *foreign} and path.read_bytes() == b"whole"


# --- JSON ---


def test_json_comes_back(tmp_path: Path) -> None:
    content = {"b": (1, 0.1), "a": {2: None, 10: "\u9e1f", "x": 1e-300}}
    back = {"b": [1, 0.1], "a": {"2": None, "10": "\u9e1f", "x": 1e-300}}
    for indent in (None, 1):
        assert read_json(write_json(tmp_path / "x.json", content, indent), "") == back
    write_atomic(tmp_path / "x.json", b"[1]")
    assert read_json(tmp_path / "x.json", "") == [1], "a file without a digest"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_json_is_noticed(
    place: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write_json(tmp_path_factory.mktemp("bit") / "file", content := {"a": [0.5, "name"]})
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    try:
        assert read_json(path, "Make it again.").items() >= content.items()
    except DataError as error:
        assert f"{path} is damaged" in str(error) and "Make it again." in str(error)


@pytest.mark.parametrize(
    "text", ["", "{", '{"a": NaN}', "[1e999]", "[" * 10**5, b"\xff", "9" * 9999]
)
def test_json_that_cannot_be(tmp_path: Path, text: str | bytes) -> None:
    write_atomic(tmp_path / "x", text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match="x is damaged"):
        read_json(tmp_path / "x", "")
    with pytest.raises(FileError, match="could not be read"):
        read_json(tmp_path, "")


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
