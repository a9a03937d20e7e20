"""Files on disk: written completely or not at all, and checked against a digest when read."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cocoop_tutorial.errors import (
    CheckpointError,
    CocoopError,
    DataError,
    FileError,
    MissingDataError,
    first_line,
)

try:
    import fcntl
except ImportError:  # Windows, which does not delete a file that is open
    fcntl = None

REPO_DATA = Path(__file__).resolve().parents[1] / "data"
KEY, DIGEST = "cocoop_tutorial", "digest"  # the second also in JSON files
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, and the limit on a file's size
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def cache_root() -> Path:
    """The folder of data and features that can be recomputed.

    Returns:
        $COCOOP_CACHE if it is set, else `data/cache` in a clone, else `~/.cache/cocoop_tutorial`.
    """
    if chosen := os.environ.get("COCOOP_CACHE"):
        return Path(os.path.expanduser(chosen))
    if (REPO_DATA / "package.json").exists():
        return REPO_DATA / "cache"
    return Path.home() / ".cache" / "cocoop_tutorial"


@contextlib.contextmanager
def file_errors(what: str, kept: str = "") -> Iterator[None]:
    """Turns an error of the file system into one that names the path, the reason and the remedy.

    Args:
        what: What did not work, for example "The icon data could not be made".
        kept: What is unchanged nevertheless.

    Raises:
        FileError: The block met a full disk, a folder without permission, or the like.
    """
    try:
        yield
    except CocoopError:  # some are also an OSError
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        remedy = "free some space" if error.errno in FULL else "check the path"
        remedy = "change its permissions" if error.errno in CLOSED else remedy
        advice = "; ".join(filter(None, (kept, f"{remedy} or choose another folder.")))
        reason = f"{where}{error.strerror or first_line(error)}"
        raise FileError(f"{what} ({reason}). {advice[0].upper()}{advice[1:]}") from error


@contextlib.contextmanager
def locked(path: Path, doing: str) -> Iterator[bool]:
    """Lets one process at a time into the block; the others say so and wait.

    The lock ends with its process, however that ends.

    Args:
        path: The lock file; missing folders are made.
        doing: What is done in the block, for example "making the icon data".

    Yields:
        Whether another process was in the block, so that the work may be done already.

    Raises:
        FileError: The lock file cannot be made.
    """
    lock = filelock.FileLock(path)
    with file_errors(f"{path} could not be locked"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
            waited = False
        except filelock.Timeout:
            print(f"Another process is {doing}. Waiting for it.", file=sys.stderr, flush=True)
            lock.acquire()
            waited = True
    try:
        yield waited
    finally:
        lock.release()


def write_atomic(path: str | Path, data: bytes) -> Path:
    """Writes a file completely or not at all, even if the power or the disk fails.

    It first removes what writers of the same file left that were killed.

    Args:
        path: The file; missing folders are made.
        data: Its content.

    Returns:
        The path.

    Raises:
        FileError: It cannot be written; an older file is unchanged.
    """
    path = Path(path)
    with file_errors(f"{path} could not be written", "an older file is unchanged"):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_parts(path)
        # In the same folder, because a rename is atomic only within a file system.
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=_part_prefix(path), suffix=".part", delete=False
        ) as file:
            try:
                if fcntl:
                    with contextlib.suppress(OSError):  # some network drives have no locks
                        fcntl.flock(file, fcntl.LOCK_EX)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.chmod(file.name, 0o666 & ~_umask())
                os.replace(file.name, path)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(file.name)
    return path


def check_folder(folder: Path) -> None:
    """Finds before any work is done whether results can be written into a folder.

    Args:
        folder: Made if missing.

    Raises:
        FileError: It cannot be made or written to.
    """
    with file_errors(f"{folder} cannot be written to"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def _remove_parts(path: Path) -> None:
    """Removes parts of a file whose writer was killed; a living writer holds a lock on its part."""
    for part in path.parent.glob(glob.escape(_part_prefix(path)) + "*.part"):
        with contextlib.suppress(OSError), part.open("rb+") as file:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if part.stat().st_size:  # an empty one may be so new that it has no lock yet
                part.unlink()


def _part_prefix(path: Path) -> str:
    return f".{path.name}-"


def _umask() -> int:
    """The permissions that new files do not get (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | Path, content: Mapping[str, Any], indent: int | None = None) -> Path:
    """Writes a JSON object with a digest over its content.

    Args:
        path: The file; missing folders are made.
        content: Plain values; numbers must be finite.
        indent: As for `json.dumps`.

    Returns:
        The path.

    Raises:
        FileError: The file cannot be written.
    """
    content = {**content, DIGEST: _json_digest(content)}
    return write_atomic(path, (json.dumps(content, indent=indent) + "\n").encode())


def read_json(path: Path, remedy: str) -> Any:
    """Reads a JSON file and compares its content with its digest, if it has one.

    Args:
        path: The file.
        remedy: What to do about a damaged file, for the error message.

    Returns:
        The content without the digest.

    Raises:
        DataError: It is no JSON, a number is not finite, or the digest differs.
        FileError: It cannot be read.
    """
    try:
        with file_errors(f"{path} could not be read"):
            content = json.loads(path.read_bytes())
        stated = content.pop(DIGEST, None) if isinstance(content, dict) else None
        if stated not in (None, _json_digest(content)):
            raise ValueError("its content is not what was written")
    except (ValueError, RecursionError) as error:
        if isinstance(error, CocoopError):
            raise
        raise DataError(f"{path} is damaged ({first_line(error)}). {remedy}") from error
    return content


def _json_digest(content: Any) -> str:
    """A SHA-256 over a JSON value, however it is indented; an error if a number is not finite."""
    return hashlib.sha256(json.dumps(content, allow_nan=False).encode()).hexdigest()


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> Path:
    """Writes tensors and facts about them to a safetensors file, with a digest over both.

    Equal tensors and facts give equal files, byte for byte.

    Args:
        path: The file; missing folders are made.
        tensors: Name to tensor.
        facts: Plain values for JSON; paths become strings.

    Returns:
        The path.

    Raises:
        FileError: The file cannot be written.
    """
    text = json.dumps(facts, default=str)
    metadata = {"format": "pt", KEY: text, DIGEST: tensor_digest(tensors, text)}
    data = safetensors.torch.save(dict(tensors), metadata)
    return write_atomic(path, _with_sorted_metadata(data))


def _with_sorted_metadata(data: bytes) -> bytes:
    """The same file with sorted metadata, which safetensors writes in random order."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors stay aligned
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def read_tensors(
    path: str | Path, remedy: str = "Copy it again."
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a file of `write_tensors`, or an older one without a digest.

    Args:
        path: The file.
        remedy: What to do about a damaged file, for the error message.

    Returns:
        The facts and the tensors.

    Raises:
        MissingDataError: No such file.
        CheckpointError: It is damaged, or was written by another program.
    """
    if not Path(path).is_file():
        raise MissingDataError(f"There is no file {path}.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if KEY not in metadata:
            raise CheckpointError(
                f"{path} holds tensors, but not the facts that this library adds to them. "
                "Was it written by another program?"
            )
        facts = json.loads(metadata[KEY])
        if not isinstance(facts, dict):
            raise ValueError("its facts are no JSON object")
    except (safetensors.SafetensorError, ValueError, OSError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({first_line(error)}). {remedy}"
        ) from error
    if metadata.get(DIGEST, "") not in ("", tensor_digest(tensors, metadata[KEY])):
        raise CheckpointError(f"{path} is damaged: its content is not what was written. {remedy}")
    return facts, tensors


def tensor_digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """A SHA-256 over a text and over names, types, shapes and values of tensors.

    Args:
        tensors: Name to tensor; their order does not matter.
        text: Text to include in the digest.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{value.dtype}{list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
