"""Reading data from disk: split files, folders, the paper's layouts, and what can be wrong."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from paper_trees import plant
from PIL import Image

from cocoop_tutorial import ImageFolder, Split, load_dataset, read_zhou_split
from cocoop_tutorial.datasets.images import check_images
from cocoop_tutorial.datasets.own_splits import read_lines
from cocoop_tutorial.datasets.paper import NAMES as PAPER_NAMES
from cocoop_tutorial.datasets.paper import folder_of
from cocoop_tutorial.datasets.splits import open_image
from cocoop_tutorial.errors import DataError, MissingDataError, UnknownNameError

MakeImage = Callable[[Path, int], Path]
GOOD = {
    "train": [["a/0.png", 0, "ape"], ["b/0.png", 1, "polar_bear"]],
    "val": [["a/1.png", 0, "ape"]],
    "test": [["b/1.png", 1, "polar_bear"]],
}


@pytest.fixture
def images(tmp_path: Path, make_image: MakeImage) -> Path:
    for i, name in enumerate(["a/0.png", "a/1.png", "b/0.png", "b/1.png"]):
        make_image(tmp_path / "images" / name, i)
    return tmp_path / "images"


def write(folder: Path, content: object) -> Path:
    path = folder / "split.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_good_split_file(tmp_path: Path, images: Path) -> None:
    train, val, test, names = read_zhou_split(write(tmp_path, GOOD), images)
    assert names == ["ape", "polar_bear"]
    assert train.samples == [(images / "a/0.png", 0), (images / "b/0.png", 1)]
    assert (len(val), len(test)) == (1, 1)
    image, label = test[0]
    assert image.mode == "RGB" and image.size == (30, 24) and label == 1


def test_split_file_that_is_missing_or_no_json(tmp_path: Path, images: Path) -> None:
    with pytest.raises(MissingDataError, match="no split file"):
        read_zhou_split(tmp_path / "none.json", images)
    with pytest.raises(DataError, match="is not JSON"):
        read_zhou_split(write(tmp_path, "<!DOCTYPE html>"), images)
    with pytest.raises(DataError, match="must be an object"):
        read_zhou_split(write(tmp_path, [1, 2]), images)


@pytest.mark.parametrize("key", ["train", "val", "test"])
def test_split_file_without_a_key(tmp_path: Path, images: Path, key: str) -> None:
    content = {k: v for k, v in GOOD.items() if k != key}
    with pytest.raises(DataError, match=f'no key "{key}"'):
        read_zhou_split(write(tmp_path, content), images)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (
            [["a/0.png", 0, "ape"], ["b/0.png", 0, "bear"]],
            "label 0 has two names, 'ape' and 'bear'",
        ),
        ([["a/0.png", 0, "ape"], ["b/0.png", 1, "Ape"]], "'ape'.*'Ape'.*the same name"),
        ([["a/0.png", 0, "sea_lion"], ["b/0.png", 1, "sea lion"]], "the same name"),
        ([["a/0.png", 0, ""]], "class 0 has an empty name"),
        ([["a/0.png", 0, "_"]], "class 0 has an empty name"),
        ([["a/0.png", 0, "ape"], ["b/0.png", 2, "bear"]], "no image has the label 1"),
        ([["a/0.png", -1, "ape"]], "labels start at 0"),
        ([["a/0.png", "zero", "ape"]], "entry 0 of train"),
        ([["a/0.png", 0]], "entry 0 of train"),
        ([["a/0.png", 0.0, "ape"], ["b/0.png", 1.5, "bear"]], "entry 0 of train"),
        ([["a/0.png", True, "ape"]], "entry 0 of train"),
        ([["a/0.png", 0, 747]], "a whole number and a string"),
        ([["a/0.png", 0, None]], "a whole number and a string"),
        ([["a/0.png", 10**12, "ape"]], "no image has the label 0"),
        (7, '"train" must be a list'),
        ([["C:\\secret.png", 0, "ape"]], "points outside"),
        ([["a\\..\\..\\secret.png", 0, "ape"]], "points outside"),
        ([["../secret.png", 0, "ape"]], "points outside"),
        ([["/etc/secret.png", 0, "ape"]], "points outside"),
        ([], "it lists no images"),
    ],
)
def test_split_file_with_bad_content(
    tmp_path: Path, images: Path, items: list[object], words: str
) -> None:
    path = write(tmp_path, {"train": items, "val": [], "test": []})
    with pytest.raises(DataError, match=words) as caught:
        read_zhou_split(path, images)
    assert "split.json" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_split_file_in_any_encoding_and_with_back_slashes(
    tmp_path: Path, images: Path, encoding: str
) -> None:
    text = json.dumps(GOOD, ensure_ascii=False).replace("ape", "\u9e1f")
    expected = read_zhou_split(write(tmp_path, text), images)
    assert expected[3] == ["\u9e1f", "polar_bear"]
    (tmp_path / "odd.json").write_bytes(text.replace("a/0", "a\\\\0").encode(encoding))
    assert read_zhou_split(str(tmp_path / "odd.json"), str(images)) == expected


def test_split_file_in_an_unknown_encoding(tmp_path: Path, images: Path) -> None:
    (tmp_path / "split.json").write_bytes('["caf\u00e9"]'.encode("latin-1"))
    with pytest.raises(DataError, match=r"split\.json cannot be read as text.*UTF-8"):
        read_zhou_split(tmp_path / "split.json", images)


def test_lists_are_read_in_any_encoding(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "list.txt").write_bytes("caf\u00e9 1\r\n\r\nb 2\r\n".encode(encoding))
        assert read_lines(tmp_path / "list.txt") == ["caf\u00e9 1", "b 2"]


def test_split_file_with_an_image_that_does_not_exist(tmp_path: Path, images: Path) -> None:
    content = {**GOOD, "test": [["b/9.png", 1, "polar_bear"], ["c/9.png", 1, "polar_bear"]]}
    with pytest.raises(MissingDataError, match=r"lists 2 images.*b/9.png"):
        read_zhou_split(write(tmp_path, content), images)


def test_unreadable_images_are_named_and_can_be_skipped(image_folder: Path) -> None:
    data = ImageFolder(image_folder)
    assert check_images(data) is data
    cut, fake = image_folder / "cat" / "03.png", image_folder / "dog" / "05.png"
    cut.write_bytes(cut.read_bytes()[:200])
    fake.write_text("not a picture")
    with pytest.raises(DataError, match=r"2 of 30 images are unreadable.*cat/03.png"):
        check_images(data)
    kept = check_images(data, skip=True)
    assert len(kept.train) + len(kept.val) + len(kept.test) == 28
    everything = {p for s in (kept.train, kept.val, kept.test) for p, _ in s.samples}
    assert everything.isdisjoint({cut, fake})
    index = [p for p, _ in data.train.samples + data.val.samples + data.test.samples].index(cut)
    with pytest.raises(DataError, match=r"03\.png"):
        Split(data.train.samples + data.val.samples + data.test.samples)[index]


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    pixels = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    pixels.putpixel((1, 0), (0, 0, 0, 0))
    pixels.save(tmp_path / "t.png")
    image = open_image(tmp_path / "t.png")
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_opaque_images_are_read_as_the_official_code_reads_them(tmp_path: Path) -> None:
    Image.effect_noise((9, 9), 80).save(tmp_path / "grey.png")
    Image.effect_noise((9, 9), 80).convert("CMYK").save(tmp_path / "cmyk.jpg")
    for path in tmp_path.iterdir():
        assert open_image(path).tobytes() == Image.open(path).convert("RGB").tobytes()


# Folders of one's own


def test_folder_is_divided_by_class(image_folder: Path) -> None:
    data = ImageFolder(image_folder, template="a drawing of a {}.")
    assert data.classnames == ["cat", "dog", "sea_lion"] and data.name == "pets"
    assert data.template == "a drawing of a {}." and not data.paper_split
    for split, n in [(data.train, 5), (data.val, 2), (data.test, 3)]:
        assert [split.labels.count(y) for y in range(3)] == [n] * 3
        assert all(p.parent.name == data.classnames[y] for p, y in split.samples)
    every = [s for n in ("train", "val", "test") for s in data.split(n).samples]
    assert len(set(every)) == 30
    assert ImageFolder(image_folder).test == data.test
    assert ImageFolder(image_folder, seed=2).test != data.test


def test_folder_with_its_own_splits(tmp_path: Path, make_image: MakeImage) -> None:
    for i, name in enumerate(["train/b/0", "train/a/1", "test/a/x/2", "train/.hidden/3"]):
        make_image(tmp_path / f"{name}.JPG", i)
    (tmp_path / "train/a/notes.txt").write_text("not an image")
    data = ImageFolder(tmp_path, classnames={"a": "ape"})
    assert data.classnames == ["ape", "b"]
    assert data.test.samples == [(tmp_path / "test/a/x/2.JPG", 0)]
    assert (len(data.train), len(data.val)) == (2, 0)


def test_tiny_classes_keep_a_training_image(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "one" / "0.png", 0)
    for i in range(2):
        make_image(tmp_path / "two" / f"{i}.png", i)
    data = ImageFolder(tmp_path, val=0.5, test=0.4)
    assert data.train.labels.count(0) == 1 and data.train.labels.count(1) >= 1
    assert len(data.train) + len(data.val) + len(data.test) == 3


def test_folders_that_cannot_be_right(tmp_path: Path, make_image: MakeImage) -> None:
    with pytest.raises(MissingDataError, match="no folder"):
        ImageFolder(tmp_path / "none")
    with pytest.raises(DataError, match="no sub-folders"):
        ImageFolder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no images"):
        ImageFolder(tmp_path)
    make_image(tmp_path / "empty" / "0.png", 0)
    make_image(tmp_path / "full" / "0.png", 0)
    with pytest.raises(DataError, match="sum to less than 1"):
        ImageFolder(tmp_path, val=0.5, test=0.5)
    with pytest.raises(DataError, match="the same name"):
        ImageFolder(tmp_path, classnames={"full": "empty"})
    with pytest.raises(DataError, match="empty name"):
        ImageFolder(tmp_path, classnames={"full": " "})


def test_test_class_that_training_does_not_have(tmp_path: Path, make_image: MakeImage) -> None:
    make_image(tmp_path / "train" / "cat" / "0.png", 0)
    make_image(tmp_path / "test" / "dog" / "0.png", 0)
    with pytest.raises(DataError, match=r"dog is a class that .*train does not have"):
        ImageFolder(tmp_path)


# The paper's data sets


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("caltech", "caltech101"),
        ("OxfordPet", "oxford_pets"),
        ("icons_weathr", "icons_weather"),
        ("imagenet-sketch", "imagenet_sketch"),
    ],
)
def test_unknown_data_set_names_the_near_ones(name: str, words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        load_dataset(name)


@pytest.mark.parametrize("name", PAPER_NAMES)
def test_missing_data_set_says_where_it_belongs(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingDataError) as caught:
        load_dataset(name, tmp_path)
    assert folder_of(name) in str(caught.value)
    assert "cocoop data fetch" in str(caught.value) or "DATASETS.md" in str(caught.value)


def test_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOOP_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(MissingDataError, match="elsewhere"):
        load_dataset("dtd")


@pytest.mark.parametrize("name", ["stanford_cars", "sun397", "ucf101"])
def test_split_file_that_only_a_person_can_get(tmp_path: Path, name: str) -> None:
    (tmp_path / folder_of(name)).mkdir()
    with pytest.raises(MissingDataError, match=r"split_zhou_.*DATASETS\.md"):
        load_dataset(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "images", "folders", "names"),
    [
        (
            "caltech101",
            "caltech-101/101_ObjectCategories",
            ["Faces", "Faces_easy", "BACKGROUND_Google", "ant", "airplanes"],
            ["face", "airplane", "ant"],
        ),
        ("eurosat", "eurosat/2750", ["SeaLake", "Forest"], ["Forest", "Sea or Lake"]),
        ("dtd", "dtd/images", ["woven", "banded"], ["banded", "woven"]),
        ("food101", "food-101/images", ["pho", "apple_pie"], ["apple_pie", "pho"]),
    ],
)
def test_without_the_official_split_our_own_is_flagged(
    tmp_path: Path,
    make_image: MakeImage,
    name: str,
    images: str,
    folders: list[str],
    names: list[str],
) -> None:
    for folder in folders:
        for i in range(10):
            make_image(tmp_path / images / folder / f"{i}.jpg", i)
    with pytest.warns(UserWarning, match="do not compare with the paper's"):
        data = load_dataset(name, tmp_path)
    assert not data.paper_split
    assert data.classnames == names
    assert (len(data.train), len(data.val), len(data.test)) == tuple(
        n * len(names) for n in (5, 2, 3)
    )


def test_pets_without_the_official_split(tmp_path: Path, make_image: MakeImage) -> None:
    root, lines = tmp_path / "oxford_pets", {"trainval": [], "test": []}
    for part, counts in lines.items():
        for label, breed in [(1, "Abyssinian"), (2, "american_bulldog")]:
            for i in range(10):
                image = f"{breed}_{i + (100 if part == 'test' else 0)}"
                make_image(root / "images" / f"{image}.jpg", i)
                counts.append(f"{image} {label} 1 1")
    (root / "annotations").mkdir()
    for part, content in lines.items():
        (root / "annotations" / f"{part}.txt").write_text("\n".join(content) + "\n")
    with pytest.warns(UserWarning, match="split is our own"):
        data = load_dataset("oxford_pets", tmp_path)
    assert data.classnames == ["abyssinian", "american_bulldog"]
    assert (len(data.train), len(data.val), len(data.test)) == (16, 4, 20)


def test_flowers_without_the_official_split(tmp_path: Path, make_image: MakeImage) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    root = tmp_path / "oxford_flowers"
    labels = [1 + i // 10 for i in range(1020)]
    for i in range(len(labels)):
        path = root / "jpg" / f"image_{i + 1:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    savemat(root / "imagelabels.mat", {"labels": [labels]})
    with pytest.warns(UserWarning, match="split is our own"):
        data = load_dataset("oxford_flowers", tmp_path)
    assert len(data.classnames) == 102 and "water lily" in data.classnames
    assert (len(data.train), len(data.val), len(data.test)) == (510, 204, 306)


def test_the_real_caltech101(caltech_root: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_dataset("caltech101", caltech_root)
    assert (len(data.train), len(data.val), len(data.test)) == (4128, 1649, 2465)
    assert data.classnames[:3] == ["face", "leopard", "motorbike"]
    image, label = data.test[0]
    assert image.mode == "RGB" and label == data.test.labels[0]


def test_skipping_keeps_val_and_test_one(tmp_path: Path, make_image: MakeImage) -> None:
    folder = plant("imagenet", tmp_path, make_image)
    (folder / "images/val/n01440764/2.JPEG").write_text("no picture")
    kept = check_images(load_dataset("imagenet", tmp_path), skip=True)
    assert kept.val is kept.test and len(kept.test) == 3


def test_pets_list_that_is_damaged(tmp_path: Path) -> None:
    for folder in ("images", "annotations"):
        (tmp_path / "oxford_pets" / folder).mkdir(parents=True)
    (tmp_path / "oxford_pets/annotations/trainval.txt").write_text("Abyssinian_1 one 1 1\n")
    with pytest.raises(DataError, match="'Abyssinian_1 one 1 1'"):
        load_dataset("oxford_pets", tmp_path)
