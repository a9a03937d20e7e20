"""Damaged input of any kind: only this library's own errors may come out."""

import contextlib
import io
import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cocoop_tutorial import ImageFolder, read_zhou_split
from cocoop_tutorial.datasets.decode import FORMATS, open_image
from cocoop_tutorial.datasets.images import check_images, shared_images
from cocoop_tutorial.errors import CocoopError

SPLIT = {
    "train": [["a/0.png", 0, "ape"], ["b/0.png", 1, "polar_bear"]],
    "val": [["a/0.png", 0, "ape"]],
    "test": [["b/0.png", 1, "polar_bear"]],
}


def image_of(kind: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((12, 9), 90).convert("RGB").save(file, kind)
    return file.getvalue()


IMAGES = {kind: image_of(kind) for kind in FORMATS if kind != "HEIF"}


@st.composite
def mutated(draw: st.DrawFn, whole: bytes) -> bytes:
    """Some bytes of a file are changed, cut out or put in, or its end is missing."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(data[: draw(st.sampled_from([len(data), len(data) // 2]))])


@contextlib.contextmanager
def only_our_errors():
    """Lets only errors of other kinds through; warnings are allowed."""
    with warnings.catch_warnings(), contextlib.suppress(CocoopError):
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("kind", IMAGES)
@given(data=st.data())
def test_damaged_images(kind: str, data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "image")
        path.write_bytes(data.draw(mutated(IMAGES[kind])))
        with only_our_errors():
            assert open_image(path).mode == "RGB"


odd = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
entries = st.lists(
    st.tuples(
        st.sampled_from(["a/0.png", "b\\0.png", "../x", "C:/x", "\0", "x" * 300]) | odd,
        st.integers(-1, 2) | odd,
        st.sampled_from(["ape", "\ud800", "<b>"]) | odd,
    )
    | st.lists(odd, max_size=4)
    | odd,
    max_size=4,
)
contents = st.dictionaries(st.sampled_from([*SPLIT]), entries | odd, min_size=2)
encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32-le", "latin-1"])


@given(st.binary(max_size=30) | mutated(json.dumps(SPLIT).encode()) | contents, encodings)
def test_damaged_split_files(content: bytes | dict[str, object], encoding: str) -> None:
    if isinstance(content, dict):
        content = json.dumps({**SPLIT, **content}).encode(encoding)
    with TemporaryDirectory() as root:
        for name in "ab":
            Path(root, name).mkdir()
            Path(root, name, "0.png").write_bytes(IMAGES["PNG"])
        Path(root, "split.json").write_bytes(content)
        with only_our_errors():
            train, val, test, names = read_zhou_split(f"{root}/split.json", root)
            labels = train.labels + val.labels + test.labels
            assert sorted(set(labels)) == list(range(len(names)))


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"train": ' * 50_000, b"1" * 5000])
def test_split_files_that_are_nested_or_long(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "split.json").write_bytes(content)
    with pytest.raises(CocoopError):
        read_zhou_split(tmp_path / "split.json", tmp_path)


letters = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])
names = st.text(letters, min_size=1, max_size=9) | st.sampled_from(
    ["train", "Val", "test", "ants", "bees", "<b>&amp;", "{}", "_", "\udce9", "\n", "@eaDir", ".x"]
)
files = st.sampled_from(["0.png", "1.JPG", "\udcff.gif", "x.heic", "m.safetensors", "x.png/y"])
trees = st.lists(
    st.tuples(st.lists(names, max_size=3), files, st.sampled_from([*IMAGES.values(), b"", b"?"])),
    max_size=8,
)


@given(trees, st.floats(0, 0.6), st.floats(0, 0.6))
def test_odd_folders(tree: list[tuple[list[str], str, bytes]], val: float, test: float) -> None:
    with TemporaryDirectory() as root:
        for folders, file, content in tree:
            path = Path(root, *folders, file)
            with contextlib.suppress(OSError):  # "..", or a file where a folder should be
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.resolve().is_relative_to(Path(root).resolve()):
                    path.write_bytes(content)
        with only_our_errors():
            data = ImageFolder(root, val=val, test=test)
            assert set(data.train.labels) == set(range(len(data.classnames)))
            shared_images(data)
            check_images(data)
