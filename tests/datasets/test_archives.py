"""Fetching and unpacking: real archives, served from disk, whole and damaged."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from cocoop_tutorial.datasets.archives import extract, fetch
from cocoop_tutorial.datasets.download import FILES, File, download, install
from cocoop_tutorial.datasets.paper import folder_of
from cocoop_tutorial.errors import DataError, MissingDataError, UnknownNameError


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
    with pytest.raises(DataError, match="'null' is neither"):
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


def test_fetch_of_a_truncated_archive(tmp_path: Path) -> None:
    source = tar_of(tmp_path / "a.tar.gz", "x")
    whole = md5(source)
    source.write_bytes(source.read_bytes()[:100])
    with pytest.raises(DataError, match=rf"a\.tar\.gz is damaged or cut off.*expected {whole}"):
        fetch(source.as_uri(), whole, tmp_path / "in")
    assert everything(tmp_path / "in") == set()


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


def test_a_folder_that_holds_the_split_file_is_filled_up(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "dtd.tar.gz", "dtd/images/dotted/1.jpg", "dtd/labels/x.txt")
    (tmp_path / "data/dtd").mkdir(parents=True)
    (tmp_path / "data/dtd/split.json").write_text("kept")
    install(File(archive.as_uri(), md5(archive), "dtd", ("dtd",)), tmp_path / "data")
    assert (tmp_path / "data/dtd/images/dotted/1.jpg").is_file()
    assert (tmp_path / "data/dtd/split.json").read_text() == "kept"


def test_archive_that_holds_something_else(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "dtd.tar.gz", "other/1.jpg")
    with pytest.raises(DataError, match="holds no 'dtd'"):
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
        assert all(len(f.md5) == 32 for f in files)
