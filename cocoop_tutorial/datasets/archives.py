"""Downloading with a checksum, and unpacking without surprises."""

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
    """Downloads one file, unless it is there already, and checks it.

    Args:
        url: Where it is.
        md5: Its checksum, in hexadecimal.
        folder: Where it goes.

    Returns:
        The path of the whole, checked file.

    Raises:
        MissingDataError: It cannot be downloaded.
        DataError: What came is not what was published; it is deleted again.
    """
    target = folder / PurePosixPath(url).name
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        try:
            _download(url, part)
        except (OSError, ValueError, http.client.HTTPException) as error:
            part.unlink(missing_ok=True)
            raise MissingDataError(
                f"Cannot download {url} ({error}). Connect, or put the file at {target}."
            ) from error
        part.replace(target)
    verify(target, md5)
    return target


def _download(url: str, target: Path) -> None:
    with urllib.request.urlopen(url, timeout=60) as answer, target.open("wb") as out:
        total = int(answer.headers.get("Content-Length") or 0) or None
        with bar(text=target.stem, total=total, unit="B", unit_scale=True) as progress:
            while block := answer.read(BLOCK):
                out.write(block)
                progress.update(len(block))


def verify(path: Path, md5: str) -> None:
    """Compares a file with its published checksum, and deletes it if it differs.

    Raises:
        DataError: The checksum differs.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    if digest.hexdigest() != md5:
        path.unlink()
        raise DataError(
            f"{path} is damaged or cut off (md5 {digest.hexdigest()}, expected {md5}) and was "
            "deleted. Run the same command again."
        )


def extract(archive: Path, folder: Path) -> None:
    """Unpacks a .tar(.gz) or .zip, all or nothing.

    Args:
        archive: The file.
        folder: A folder that does not exist yet; it is made only when everything was unpacked.

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
            raise  # a full disk or a missing permission is no fault of the archive
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
                raise DataError(f"{archive}: {member.name!r} is neither file, folder nor link.")
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        file.extractall(folder, members, **safe)


def _check_entry(archive: Path, name: str, link: str) -> None:
    """Refuses absolute paths, and paths or links that climb out of the folder."""
    for path in (name, link):
        pure, depth = PurePosixPath(path.replace("\\", "/")), 0
        for part in pure.parts:
            depth += -1 if part == ".." else 1
            if depth < 0 or pure.is_absolute():
                raise DataError(
                    f"{archive}: the entry {name!r} points outside the folder. Nothing was "
                    "unpacked; get the archive from its publisher."
                )
