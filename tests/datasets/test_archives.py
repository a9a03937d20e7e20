"""Fetching and unpacking: real archives, served from disk, whole and damaged."""

import contextlib
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from processes import largest_file, python

from cocoop_tutorial.datasets.archives import extract, fetch
from cocoop_tutorial.datasets.download import FILES, File, download, install
from cocoop_tutorial.datasets.paper import folder_of
from cocoop_tutorial.errors import (
    CocoopError,
    DataError,
    FileError,
    MissingDataError,
    UnknownNameError,
)


def tar_of(path: Path, *members: tarfile.TarInfo | str, mode: str = "w:gz") -> Path:
    """An archive with a file for each name, or with the given members."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            content = f"content of {info.name}".encode() * 200
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def everything(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


def test_tar_and_zip_are_unpacked(tmp_path: Path) -> None:
    extract(tar_of(tmp_path / "a.tar.gz", "d/x", "d/e/y", link("d/z", "e/y")), tmp_path / "tar")
    assert (tmp_path / "tar/d/e/y").read_text().startswith("content of d/e/y")
    assert (tmp_path / "tar/d/z").read_text() == (tmp_path / "tar/d/e/y").read_text()
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("d/x", "hello")
    extract(tmp_path / "b.zip", tmp_path / "zip")
    assert (tmp_path / "zip/d/x").read_text() == "hello"
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    "member",
    [
        "../evil",
        "d/../../evil",
        "/evil",
        link("d/x", "../../evil"),
        link("x", "/etc/passwd"),
        link("x", "../evil", tarfile.LNKTYPE),
    ],
    ids=["up", "through a folder", "absolute", "link up", "link absolute", "hard link"],
)
def test_tar_that_points_outside(tmp_path: Path, member: tarfile.TarInfo | str) -> None:
    (tmp_path / "in" / "box").mkdir(parents=True)
    archive = tar_of(tmp_path / "in" / "box" / "a.tar", "good", member, mode="w")
    before = everything(tmp_path)
    with pytest.raises(DataError, match=r"a\.tar.*points outside"):
        extract(archive, tmp_path / "in" / "box" / "out")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["../evil", "/evil", "..\\evil"])
def test_zip_that_points_outside(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good", "fine")
        archive.writestr(zipfile.ZipInfo(name), "evil")
    with pytest.raises(DataError, match="points outside"):
        extract(tmp_path / "a.zip", tmp_path / "out")
    assert everything(tmp_path) == {"a.zip"}


def test_device_files_are_refused(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar", link("null", "", tarfile.CHRTYPE), mode="w")
    with pytest.raises(DataError, match="'null' is neither a file"):
        extract(archive, tmp_path / "out")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.zip"])
def test_truncated_archive_leaves_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x", "hello" * 1000)
    else:
        tar_of(path, "x", "y", "z", mode="w:gz" if name.endswith("gz") else "w")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="damaged or cut off"):
        extract(path, tmp_path / "out")
    assert everything(tmp_path) == {name}


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no archive"):
        extract(tmp_path / "none.zip", tmp_path / "out")


def test_fetch_checks_what_came(tmp_path: Path) -> None:
    source = tar_of(tmp_path / "a.tar.gz", "x")
    got = fetch(source.as_uri(), md5(source), tmp_path / "in")
    assert got.read_bytes() == source.read_bytes()
    source.unlink()  # the second call needs no network
    assert fetch(source.as_uri(), md5(got), tmp_path / "in") == got


def test_a_file_that_forges_the_md5_is_refused(tmp_path: Path) -> None:
    source = tar_of(tmp_path / "a.tar.gz", "x")
    true = hashlib.sha256(source.read_bytes()).hexdigest()
    assert fetch(source.as_uri(), md5(source), tmp_path / "in", true).is_file()
    for folder in ("new", "in"):
        with pytest.raises(DataError, match=f"sha256 {true}, expected 0000"):
            install(File(source.as_uri(), md5(source), "a", ("x",), "0" * 64), tmp_path / folder)


def test_fetch_of_a_truncated_archive(tmp_path: Path) -> None:
    source = tar_of(tmp_path / "a.tar.gz", "x")
    whole = md5(source)
    source.write_bytes(source.read_bytes()[:100])
    with pytest.raises(DataError, match=rf"a\.tar\.gz\.part is damaged.*expected {whole}"):
        fetch(source.as_uri(), whole, tmp_path / "in")
    assert everything(tmp_path / "in") == set()


def test_a_wrong_file_put_there_by_hand_stays(tmp_path: Path) -> None:
    source = tar_of(tmp_path / "a.tar.gz", "x")
    (tmp_path / "in").mkdir()
    mine = tmp_path / "in" / "a.tar.gz"
    mine.write_text("saved by hand, and not the archive")
    with pytest.raises(DataError, match=r"a\.tar\.gz is damaged.*Remove it"):
        fetch(source.as_uri(), md5(source), tmp_path / "in")
    assert mine.read_text() == "saved by hand, and not the archive"


class Flaky(BaseHTTPRequestHandler):
    """Sends half of what is asked for and hangs up; knows ranges if the server says so.

    With `server.whole` it sends everything, but slowly, and with `server.claims` it states a size.
    """

    def do_GET(self) -> None:
        content, start = self.server.content, 0
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        rest = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(self.server.claims or len(rest)))
        self.end_headers()
        if self.server.whole:
            time.sleep(3)
        half = len(rest) >= 100 and not self.server.whole
        self.wfile.write(rest[: len(rest) // 2] if half else rest)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    server.content, server.ranges, server.asked = bytes(range(250)), True, []
    server.whole, server.claims = False, 0
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on(
    tmp_path: Path, server: ThreadingHTTPServer, ranges: bool
) -> None:
    server.ranges = ranges
    arguments = f"{server.url}/a.bin", hashlib.md5(server.content).hexdigest(), tmp_path
    with pytest.raises(MissingDataError, match=r"125 of 250 bytes.*continues where it stopped"):
        fetch(*arguments)
    if ranges:
        with pytest.raises(MissingDataError, match="187 of 250"):
            fetch(*arguments)
        assert fetch(*arguments).read_bytes() == server.content
        assert server.asked == [None, "bytes=125-", "bytes=187-"]
    else:
        with pytest.raises(MissingDataError, match="125 of 250"):
            fetch(*arguments)


def test_fetch_without_a_connection(tmp_path: Path) -> None:
    missing = (tmp_path / "none.zip").as_uri()
    with pytest.raises(MissingDataError, match="Cannot download"):
        fetch(missing, "0" * 32, tmp_path / "in")
    assert everything(tmp_path / "in") == set()


def test_archive_in_an_archive_lands_in_the_official_folder(tmp_path: Path) -> None:
    inner = tar_of(tmp_path / "101_ObjectCategories.tar.gz", "101_ObjectCategories/ant/1.jpg")
    with zipfile.ZipFile(tmp_path / "caltech-101.zip", "w") as archive:
        archive.write(inner, "caltech-101/101_ObjectCategories.tar.gz")
    outer = tmp_path / "caltech-101.zip"
    official = FILES["caltech101"][0]
    file = File(outer.as_uri(), md5(outer), official.target, official.inside)
    root = tmp_path / "data"
    (root / "caltech-101").mkdir(parents=True)
    (root / "caltech-101" / "split_zhou_Caltech101.json").write_text("kept")
    install(file, root)
    assert (root / "caltech-101/101_ObjectCategories/ant/1.jpg").is_file()
    assert (root / "caltech-101/split_zhou_Caltech101.json").read_text() == "kept"
    assert everything(root / ".downloads") == set()


@pytest.mark.parametrize("by_hand", [False, True])
def test_only_archives_that_were_downloaded_are_deleted(tmp_path: Path, by_hand: bool) -> None:
    archive = tar_of(tmp_path / "dtd.tar.gz", "dtd/images/dotted/1.jpg")
    labels = tmp_path / "labels.mat"
    labels.write_text("a plain file")
    root = tmp_path / "data"
    (root / ".downloads").mkdir(parents=True)
    for source, file in [
        (archive, File(archive.as_uri(), md5(archive), "dtd", ("dtd",))),
        (labels, File(labels.as_uri(), md5(labels), "dtd/labels.mat")),
    ]:
        if by_hand:
            shutil.copyfile(source, root / ".downloads" / source.name)
        install(file, root)
    assert (root / "dtd/images/dotted/1.jpg").is_file() and (root / "dtd/labels.mat").is_file()
    left = {"dtd.tar.gz", "labels.mat"} if by_hand else set()
    assert everything(root / ".downloads") == left


def test_a_kill_after_the_move_does_no_harm(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "dtd.tar.gz", "dtd/images/dotted/1.jpg", "dtd/labels/x.txt")
    file = File(archive.as_uri(), md5(archive), "dtd", ("dtd",))
    root = tmp_path / "data"
    got = fetch(file.url, file.md5, root / ".downloads")
    extract(got, root / ".downloads" / f"{got.name}.unpacked" / "0")
    (root / ".downloads" / f"{got.name}.unpacked" / "0" / "dtd").rename(root / "dtd")
    (root / "dtd/labels/x.txt").unlink()
    install(file, root)
    assert (root / "dtd/labels/x.txt").is_file() and everything(root / ".downloads") == set()


def test_two_downloads_at_once(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    archive = tar_of(tmp_path / "dtd.tar.gz", "dtd/images/dotted/1.jpg")
    server.content, server.whole = archive.read_bytes(), True
    code = f"""
from pathlib import Path
from cocoop_tutorial.datasets.download import FILES, File, download
FILES["dtd"] = [File("{server.url}/dtd.tar.gz", "{md5(archive)}", "dtd", ("dtd",))]
download("dtd", Path({str(tmp_path / "data")!r}))
"""
    both = [subprocess.Popen(python(code), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=300)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0], said
    assert "Another process is downloading dtd" in said[1] or len(server.asked) == 2
    assert (tmp_path / "data/dtd/images/dotted/1.jpg").is_file()


def test_a_folder_that_holds_the_split_file_is_filled_up(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "dtd.tar.gz", "dtd/images/dotted/1.jpg", "dtd/labels/x.txt")
    (tmp_path / "data/dtd").mkdir(parents=True)
    (tmp_path / "data/dtd/split.json").write_text("kept")
    install(File(archive.as_uri(), md5(archive), "dtd", ("dtd",)), tmp_path / "data")
    assert (tmp_path / "data/dtd/images/dotted/1.jpg").is_file()
    assert (tmp_path / "data/dtd/split.json").read_text() == "kept"


def test_archive_that_holds_something_else(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "dtd.tar.gz", "other/1.jpg")
    with pytest.raises(DataError, match="has no 'dtd'"):
        install(File(archive.as_uri(), md5(archive), "dtd", ("dtd",)), tmp_path / "data")
    assert not (tmp_path / "data/dtd").exists()


def test_plain_file(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.new("RGB", (2, 2)).save(picture)
    install(File(picture.as_uri(), md5(picture), "flowers/p.png"), tmp_path / "data")
    assert (tmp_path / "data/flowers/p.png").read_bytes() == picture.read_bytes()


def test_download_knows_what_it_can_fetch(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="sun397"):
        download("sun397", tmp_path)
    for name, files in FILES.items():
        assert all(f.target.split("/")[0] == folder_of(name) for f in files)
        assert all(len(f.md5) == 32 and f.url.startswith("https://") for f in files)
        assert all(len(f.sha256) == 64 for f in files) or name in ("caltech101", "fgvc_aircraft")


# --- what would take the machine down, and what meets a full disk ---


def bomb(path: Path, kind: str) -> Path:
    """An archive of some 100 KB that would take 100 MB of the disk or of memory."""
    zeros = bytes(100 << 20)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x", zeros)
        return path
    with tarfile.open(path, "w:gz") as archive:
        if kind == "many files":
            for i in range(25_000):
                archive.addfile(tarfile.TarInfo(str(i)))
            return path
        archive.addfile(tarfile.TarInfo("good"))
        info = tarfile.TarInfo("x")
        info.size, info.type = len(zeros), tarfile.XHDTYPE if kind == "name" else tarfile.REGTYPE
        archive.addfile(info, io.BytesIO(zeros))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar", "many files"])
def test_an_archive_that_unpacks_to_far_more_than_it_is(tmp_path: Path, kind: str) -> None:
    archive = bomb(tmp_path / "a", kind)
    with pytest.raises(DataError, match=r"/a would unpack to more than \d+ MB"):
        extract(archive, tmp_path / "out")
    assert everything(tmp_path) == {"a"}


def test_a_name_of_a_hundred_megabytes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="an entry's name has 104857600 bytes"):
        extract(bomb(tmp_path / "a", "name"), tmp_path / "out")


def test_a_negative_size(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"size": "-1024"}
    (tmp_path / "a").write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(10240))
    with pytest.raises(DataError, match="damaged"):
        extract(tmp_path / "a", tmp_path / "out")


def test_a_download_that_the_disk_has_no_room_for(
    tmp_path: Path, server: ThreadingHTTPServer
) -> None:
    server.claims = 10**16
    with pytest.raises(FileError, match=r"MB free, and 9536743164 MB are needed"):
        fetch(f"{server.url}/a.bin", "0" * 32, tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_full_disk(tmp_path: Path, server: ThreadingHTTPServer) -> None:
    archive = tar_of(tmp_path / "a.tar", *map(str, range(20)), mode="w")
    with pytest.raises(FileError, match=r"a\.tar could not be unpacked.*free some space"):
        with largest_file(1000):
            extract(archive, tmp_path / "out")
    assert everything(tmp_path) == {"a.tar"}
    server.content, server.whole = archive.read_bytes(), True
    arguments = f"{server.url}/a.tar", md5(archive), tmp_path / "in"
    with pytest.raises(FileError, match=r"a\.tar\.part.*[Ff]ree some space") as caught:
        with largest_file(1000):
            fetch(*arguments)
    assert "network" not in str(caught.value)
    assert fetch(*arguments).read_bytes() == archive.read_bytes(), "it goes on"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar", "x")
    (tmp_path / "file").write_text("in the way")
    for run in (
        lambda: extract(archive, tmp_path / "file" / "out"),
        lambda: fetch(archive.as_uri(), md5(archive), tmp_path / "file" / "in"),
        lambda: download("dtd", tmp_path / "file"),
    ):
        with pytest.raises(FileError, match=r"[Cc]heck the path or choose another folder"):
            run()


@given(
    place=st.floats(0, 1, exclude_max=True),
    value=st.binary(max_size=4),
    kind=st.sampled_from("zt"),
)
def test_a_changed_archive_gives_its_files_or_a_clear_error(
    place: float, value: bytes, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    if kind == "z":
        with zipfile.ZipFile(folder / "a", "w") as archive:
            archive.writestr("d/x", "hello")
    else:
        tar_of(folder / "a", "d/x", link("d/z", "x"), mode="w")
    data = bytearray((folder / "a").read_bytes().rstrip(b"\0"))
    position = int(place * len(data))
    data[position : position + len(value)] = value
    (folder / "a").write_bytes(data)
    with contextlib.suppress(CocoopError):
        extract(folder / "a", folder / "out")
    assert {path.name for path in folder.iterdir()} <= {"a", "out"}
