"""Downloading with a checksum, and unpacking only what stays inside the folder."""

import contextlib
import hashlib
import http.client
import shutil
import stat
import tarfile
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from cocoop_tutorial.errors import DataError, MissingDataError
from cocoop_tutorial.progress import bar

BLOCK = 1 << 20


def fetch(url: str, md5: str, folder: Path) -> Path:
    """Downloads a file, unless it is there already, and checks it.

    An interrupted download continues where it stopped, which pooch and torchvision cannot do.

    Args:
        url: Its address.
        md5: Its checksum, in hexadecimal.
        folder: The folder to put it into.

    Returns:
        The path of the complete, checked file.

    Raises:
        MissingDataError: It cannot be downloaded.
        DataError: The file does not have the published checksum.
    """
    target = folder / PurePosixPath(url).name
    if target.exists():  # never delete it: it may have been put there by hand
        check(target, md5, "Remove it, or put the right file in its place.")
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        _download(url, part)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise MissingDataError(
            f"Cannot download {url} ({error}). Check the network and run the same command again, "
            f"which continues where it stopped, or put the file at {target}."
        ) from error
    try:
        check(part, md5, "It was deleted. Run the same command again.")
    except DataError:
        part.unlink()
        raise
    part.replace(target)
    return target


def _download(url: str, part: Path) -> None:
    """Appends what `part` lacks, if the server can send a range; else starts again."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        have = have if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab" if have else "wb") as out,
            bar(text=part.stem, total=total, initial=have, unit="B", unit_scale=True) as progress,
        ):
            while block := answer.read(BLOCK):
                out.write(block)
                progress.update(len(block))
            if total is not None and out.tell() < total:
                raise OSError(f"the connection ended after {out.tell()} of {total} bytes")


def check(path: Path, md5: str, remedy: str) -> None:
    """Compares a file with its published checksum.

    Args:
        path: The file.
        md5: The checksum, in hexadecimal.
        remedy: What to do if it differs.

    Raises:
        DataError: It differs.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != md5:
        raise DataError(f"{path} is damaged or cut off (md5 {digest}, expected {md5}). {remedy}")


def extract(archive: Path, folder: Path) -> None:
    """Unpacks a .tar(.gz) or .zip completely, or not at all.

    Args:
        archive: The file.
        folder: A folder that does not exist yet; it is made after everything has been unpacked.

    Raises:
        MissingDataError: There is no such archive.
        DataError: It is damaged or cut off, or an entry points outside the folder.
    """
    if not archive.is_file():
        raise MissingDataError(f"There is no archive {archive}.")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _unpack(archive, part)
        part.replace(folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk or a missing permission, for example
        raise DataError(
            f"{archive} is damaged or cut off ({error}). Delete it and download it again."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(part)


def _unpack(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                link = stat.S_ISLNK(info.external_attr >> 16)
                _check_entry(archive, info.filename, "" if not link else "/")
            file.extractall(folder)
        return
    with tarfile.open(archive) as file:
        members = file.getmembers()
        for member in members:
            base = PurePosixPath(member.name).parent if member.issym() else PurePosixPath()
            target = str(base / member.linkname) if member.issym() or member.islnk() else ""
            _check_entry(archive, member.name, target)
            if not (member.isfile() or member.isdir() or target):
                raise DataError(
                    f"{archive}: {member.name!r} is neither a file, a folder nor a link."
                )
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        file.extractall(folder, members, **safe)


def _check_entry(archive: Path, name: str, link: str) -> None:
    """Refuses absolute paths, and paths and links that lead out of the folder."""
    for path in (name, link):
        pure, depth = PurePosixPath(path.replace("\\", "/")), 0
        for part in pure.parts:
            depth += -1 if part == ".." else 1
            if depth < 0 or pure.is_absolute():
                raise DataError(
                    f"{archive}: the entry {name!r} points outside the folder. Nothing was "
                    "unpacked; get the archive from its publisher."
                )
