"""Downloading with a checksum, and unpacking only what stays inside the folder."""

import hashlib
import http.client
import shutil
import stat
import tarfile
import urllib.request
import zipfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePosixPath

from cocoop_tutorial.errors import CocoopError, DataError, FileError, MissingDataError, first_line
from cocoop_tutorial.files import file_errors
from cocoop_tutorial.progress import bar

MB = BLOCK = 1 << 20
OURS = ".fetched"  # suffix of what we downloaded ourselves, so it may be deleted after use
# What an archive may unpack to, in times its own size. Pictures hardly shrink and text does by 20.
MOST_TIMES, SMALL = 100, 64 * MB
LEAST_ENTRY = 4096  # bytes of the disk that even an empty file takes
# Entries with a long name or other facts on the next entry, which tarfile reads whole.
EXTRAS = (*tarfile.GNU_TYPES[:2], tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


def fetch(url: str, md5: str, folder: Path, sha256: str = "") -> Path:
    """Downloads a file, unless it is there already, and checks it.

    An interrupted download continues where it stopped, which pooch and torchvision cannot do.

    Args:
        url: Its address.
        md5: Its checksum, in hexadecimal.
        folder: The folder to put it into.
        sha256: A second checksum, if one is known.

    Returns:
        The path of the complete, checked file; it ends in `OURS` unless it was put there by hand.

    Raises:
        MissingDataError: It cannot be downloaded.
        DataError: The file does not have the published checksum.
        FileError: It cannot be written.
    """
    by_hand = folder / PurePosixPath(url).name
    part, target = (by_hand.with_name(by_hand.name + suffix) for suffix in (".part", OURS))
    if by_hand.exists():
        check(by_hand, md5, "Remove it, or put the right file in its place.", sha256)
        return by_hand
    if target.exists():
        return target
    with file_errors(f"{url} could not be saved", "run the same command again to continue"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _download(url, part)
        except CocoopError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise MissingDataError(
                f"Cannot download {url} ({error}). Check the network and run the same command "
                f"again, which continues where it stopped, or put the file at {by_hand}."
            ) from error
        try:
            check(part, md5, "It was deleted. Run the same command again.", sha256)
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
        _check_space(part.parent, int(length or 0))
        with bar(text=part.stem, total=total, initial=have, unit="B", unit_scale=True) as progress:
            if not have:
                part.write_bytes(b"")
            while block := answer.read(BLOCK):
                with file_errors(f"{part} could not be written"), part.open("ab") as out:
                    out.write(block)
                have += len(block)
                progress.update(len(block))
        if total is not None and have < total:
            raise OSError(f"the connection ended after {have} of {total} bytes")


def check(path: Path, md5: str, remedy: str, sha256: str = "") -> None:
    """Compares a file with its published checksums.

    Args:
        path: The file.
        md5: The checksum, in hexadecimal.
        remedy: What to do if it differs.
        sha256: A second one; empty if none is published.

    Raises:
        DataError: One differs.
    """
    for kind, expected in (("md5", md5), ("sha256", sha256)):
        with path.open("rb") as file:
            new = partial(hashlib.new, kind, usedforsecurity=False)
            found = hashlib.file_digest(file, new).hexdigest()
        if expected not in ("", found):
            raise DataError(
                f"{path} is damaged or cut off ({kind} {found}, expected {expected}). {remedy}"
            )


def extract(archive: Path, folder: Path) -> None:
    """Unpacks a .tar(.gz) or .zip completely, or not at all.

    Args:
        archive: The file.
        folder: A folder that does not exist yet; it is made after everything has been unpacked.

    Raises:
        MissingDataError: There is no such archive.
        DataError: It is damaged or cut off, an entry points outside the folder, or it would unpack
            to far more than archives of pictures do.
        FileError: The disk has no room for it, or the folder cannot be written.
    """
    if not archive.is_file():
        raise MissingDataError(f"There is no archive {archive}.")
    part = folder.with_name(folder.name + ".part")
    with file_errors(f"{archive} could not be unpacked", "nothing was unpacked"):
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            _unpack(archive, part)
            part.replace(folder)
        except CocoopError:
            raise
        except Exception as error:  # a damaged archive can fail in any way
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(
                f"{archive} is damaged or cut off ({first_line(error)}). Delete it and download "
                "it again."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _unpack(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            _check_sizes(archive, folder, (info.file_size for info in file.infolist()))
            for info in file.infolist():
                link = stat.S_ISLNK(info.external_attr >> 16)
                _check_entry(archive, info.filename, "" if not link else "/")
            file.extractall(folder)
        return
    with tarfile.open(archive, tarinfo=_Member) as file:
        _check_sizes(archive, folder, (member.size for member in file))
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


class _Member(tarfile.TarInfo):
    """An entry of a tar file, refused if its name would take more memory than any name does."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> "_Member":
        member = super().frombuf(buf, encoding, errors)
        if member.type in EXTRAS and not 0 <= member.size <= MB:
            raise tarfile.ReadError(f"an entry's name has {member.size} bytes")
        return member


def _check_sizes(archive: Path, folder: Path, sizes: Iterable[int]) -> None:
    """Refuses what is no archive of pictures, and what the disk has no room for.

    The sizes are those that the archive states; neither tar nor zip can unpack to more.
    """
    total, most = 0, SMALL + MOST_TIMES * archive.stat().st_size
    for size in sizes:
        if size < 0:
            raise tarfile.ReadError("an entry has a negative size")
        total += size + LEAST_ENTRY
        if total > most:  # at once, because the rest of a bomb takes long to read
            raise DataError(
                f"{archive} would unpack to more than {most // MB} MB, over {MOST_TIMES} times its "
                "size. Nothing was unpacked; get the archive from its publisher."
            )
    _check_space(folder, total)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FileError(
            f"{folder} has {free // MB} MB free, and {needed // MB} MB are needed. Free some space "
            "or choose another folder."
        )


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
