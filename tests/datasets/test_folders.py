"""Folders as people and programs leave them: splits by any name, leftovers, outputs, odd names."""

import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from program import Cocoop
from small_clips import small_clip

from cocoop_tutorial import CoOp, ImageFolder, Split, base_new, save_prompts
from cocoop_tutorial.clip.features import image_features
from cocoop_tutorial.datasets.images import check_images, shared_images
from cocoop_tutorial.datasets.own_splits import by_folder
from cocoop_tutorial.errors import ClassNameError, DataError, MissingDataError

MakeImage = Callable[[Path, int], Path]


@pytest.fixture
def fill(tmp_path: Path, make_image: MakeImage) -> Callable[..., Path]:
    """A function that puts two images into each of some folders, and returns their root."""

    def fill(*folders: str) -> Path:
        for i, folder in enumerate(folders):
            for j in range(2):
                make_image(tmp_path / "photos" / folder / f"{j}.png", 2 * i + j)
        return tmp_path / "photos"

    return fill


SPLITS = [
    ("train", "val", "test"),
    ("train", "valid", "test"),
    ("Training", "Validation", "Testing"),
    ("TRAIN", "dev", "Test"),
    ("training_set", "val-data", "test images"),
]


@pytest.mark.parametrize("parts", SPLITS, ids="-".join)
def test_splits_are_recognised_by_their_usual_names(parts: tuple[str, ...], fill) -> None:
    root = fill(*(f"{part}/{name}" for part in parts for name in ("ants", "bees")))
    (root / "annotations").mkdir()  # holds no images, so it is no part of the data
    data = ImageFolder(root)
    assert data.classnames == ["ants", "bees"]
    for part, folder in zip(("train", "val", "test"), parts, strict=True):
        paths = [root / folder / name / f"{i}.png" for name in ("ants", "bees") for i in (0, 1)]
        assert data.split(part).samples == list(zip(paths, (0, 0, 1, 1), strict=True))


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["train/ants", "val/ants"], "beside train, val there is no test folder"),
        (["train/ants", "train/bees"], "no test folder"),
        (["val/ants", "test/ants"], "no train folder"),
        (["train/ants", "test/ants", "Testing/ants"], "Testing and test are both called like test"),
        (["train/ants", "test/ants", "holdout/ants"], "holdout is none of them"),
        (["train/steam", "bus", "car"], "beside train there is no test folder"),
        (["control", "test"], "no train folder"),
        (["photos/train/ants", "photos/val/ants"], r"photos/val is called like a split"),
        (["ants/train", "ants/test", "bees/train"], r"ants/test is called like a split"),
    ],
)
def test_what_looks_like_splits_but_is_not_complete(folders: list[str], words: str, fill) -> None:
    with pytest.raises(DataError, match=words):
        ImageFolder(fill(*folders))


def test_a_train_is_a_class_among_vehicles(fill) -> None:
    assert ImageFolder(fill("bus", "car", "train")).classnames == ["bus", "car", "train"]
    assert ImageFolder(fill("cargo/train")).classnames == ["bus", "car", "cargo", "train"]


LEFTOVERS = [
    "__MACOSX", "@eaDir", ".ipynb_checkpoints", ".thumbnails", "#recycle", "$RECYCLE.BIN",
    "System Volume Information", "lost+found",
]  # fmt: skip


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_leftovers_are_no_images_and_no_classes_at_any_depth(leftover: str, fill) -> None:
    clean = ImageFolder(fill("ants", "bees/small"))
    root = fill(leftover, f"ants/{leftover}/ants", f"bees/small/{leftover}")
    (root / "ants/._0.png").write_bytes(b"resource fork")
    (root / "ants/Thumbs.db").write_bytes(b"thumbnails")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ImageFolder(root) == clean
        assert by_folder(root)[3] == ["ants", "bees"]


def test_output_of_runs_inside_the_data_is_no_class(fill) -> None:
    root = fill("ants", "bees")
    clean = ImageFolder(root)
    fill("runs/first", "ants/tried")  # figures of runs
    for folder in ("runs/first", "ants/tried"):
        save_prompts(CoOp(small_clip(), clean.classnames, n_ctx=1), root / folder / "p.safetensors")
    assert ImageFolder(root) == clean


def test_suffixes_of_other_kinds_and_cases_are_images(fill) -> None:
    root = fill("ants", "bees")
    for suffix in (".PGM", ".jfif", ".Jpe", ".BMP", ".tif", ".webp", ".jp2", ".avif", ".apng"):
        shutil.copy(root / "ants/0.png", root / f"ants/copy{suffix}")  # its content decides
    data = ImageFolder(root)
    assert sum(len(data.split(s)) for s in ("train", "val", "test")) == 4 + 9
    assert check_images(data) is data


def test_files_that_are_left_out_are_counted(fill) -> None:
    root = fill("ants", "bees")
    for name in ("ants/a.heic", "bees/b.HEIC", "bees/labels.txt"):
        (root / name).write_bytes(b"?")
    with pytest.warns(UserWarning, match=r"photos: left out .*2 \.heic, 1 \.txt.*ants/a\.heic"):
        ImageFolder(root)
    (root / "cows").mkdir()
    (root / "cows/c.heic").write_bytes(b"?")
    with pytest.raises(DataError, match=r"cows has no images, only 1 \.heic"):
        ImageFolder(root)


def test_folders_called_like_images_and_links(fill) -> None:
    root = fill("ants", "bees", "bees/odd.png")
    elsewhere = root.parent / "elsewhere"
    shutil.move(root / "ants", elsewhere)
    (root / "ants").symlink_to(elsewhere)
    (elsewhere / "again").symlink_to(elsewhere)  # a link to itself ends
    data = ImageFolder(root, val=0, test=0)
    assert sorted(data.train.labels) == [0, 0, 1, 1, 1, 1]


def test_the_same_image_in_several_splits_is_reported(fill, make_image: MakeImage) -> None:
    root = fill("train/ants", "test/ants", "val/ants")
    assert shared_images(ImageFolder(root)) == []
    copy = shutil.copy(root / "train/ants/0.png", root / "test/ants/other.jpg")
    shutil.copy(root / "train/ants/1.png", root / "train/ants/twice.png")  # within one split
    (root / "val/ants/broken.png").touch()
    data = ImageFolder(root)
    assert shared_images(data) == [[Path(copy), root / "train/ants/0.png"]]


def test_the_check_of_ones_own_folder(fill, cocoop: Cocoop, make_image: MakeImage) -> None:
    root = fill(
        "train/ants", "train/bees", "Valid/ants", "test/ants", "test/bees", "train/bees/runs"
    )
    save_prompts(CoOp(small_clip(), ["a"], n_ctx=1), root / "train/bees/runs/p.safetensors")
    done = cocoop("data", "check", root)
    assert done.status == 0 and "Nothing is wrong." in done.out
    assert "bees      2 train      0 val      2 test" in done.out
    for name in ("test/a.heic", "train/ants/b.HEIC", "train/bees/Thumbs.db"):
        (root / name).write_bytes(b"?")
    (root / "Valid/ants/1.png").write_bytes(b"broken")
    copy = str(shutil.copy(root / "train/ants/0.png", root / "test/bees/copy.png"))
    done = cocoop("data", "check", f"{root}/", "--json")
    found = json.loads(done.out)
    assert done.status == 1
    assert found["here"] == {"classes": 2, "train": 4, "val": 2, "test": 5}
    assert found["by_class"]["ants"] == {"train": 2, "val": 2, "test": 2}
    assert found["unreadable"] == [str(root / "Valid/ants/1.png")]
    assert found["in_several_splits"] == [[copy, str(root / "train/ants/0.png")]]
    left = ["test/a.heic", "train/ants/b.HEIC", "train/bees/Thumbs.db"]
    runs = [f"train/bees/runs/{name}" for name in ("0.png", "1.png", "p.safetensors")]
    assert found["left_out"] == sorted(str(root / name) for name in left + runs)
    assert [problem.split()[:4] for problem in found["problems"]] == [
        "1 images are unreadable,".split(),
        "1 images are in".split(),
    ]
    text = cocoop("data", "check", root).out
    assert "left out: 2 .heic, 2 .png, 1 .db, 1 .safetensors" in text
    assert "test/bees/copy.png = train/ants/0.png" in text


def test_the_check_of_a_folder_divides_it_as_training_does(fill, cocoop: Cocoop) -> None:
    root = fill("ants", "bees")
    data, found = ImageFolder(root), json.loads(cocoop("data", "check", root, "--json").out)
    assert found["here"] == {"classes": 2, "train": len(data.train), "val": 0, "test": 2}
    (root / "test").mkdir()
    shutil.move(root / "ants", root / "test/ants")
    refused = cocoop("data", "check", root)
    assert refused.status == 1 and "problem: " in refused.out and "no train folder" in refused.out
    missing = cocoop("data", "check", f"{root}/none")
    assert missing.status == 1 and "There is no folder" in missing.out


def test_images_that_viewers_turn_are_reported(fill) -> None:
    root = fill("ants", "bees")
    image = Image.open(root / "ants/0.png").convert("RGB")
    image.getexif()[274] = 6
    image.save(root / "ants/turned.jpg", exif=image.getexif())
    with pytest.warns(UserWarning, match=r"1 images, for example .*turned\.jpg.*orientation"):
        check_images(ImageFolder(root))


def test_paths_may_be_strings_and_relative(fill, monkeypatch: pytest.MonkeyPatch) -> None:
    root = fill("ants", "bees")
    assert ImageFolder(str(root)) == ImageFolder(root)
    monkeypatch.chdir(root)
    assert ImageFolder(".").name == "photos"
    monkeypatch.setenv("HOME", str(root.parent))
    assert ImageFolder("~/photos") == ImageFolder(root)
    for wrong in ("x" * 5000, "a\0b", "~nobody-of-this-name/x", root / "ants/0.png"):
        with pytest.raises(MissingDataError, match="no folder"):
            ImageFolder(wrong)


def test_names_that_are_not_utf8(fill, tmp_path: Path) -> None:
    root = fill("ants", "bees")
    clip = small_clip()
    wanted = image_features(clip, ImageFolder(root, val=0, test=0).train)[0].sum(0)
    os.rename(root / "ants/0.png", os.path.join(os.fsencode(root), b"ants/0\xe9.png"))
    data = ImageFolder(root, val=0, test=0)
    assert image_features(clip, data.train)[0].sum(0).allclose(wanted)
    (broken,) = [path for path, _ in data.train.samples if "\udce9" in path.name]
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"0\\udce9\.png") as caught:
        check_images(data)
    str(caught.value).encode()  # so that it can be printed
    os.rename(root / "ants", os.path.join(os.fsencode(root), b"caf\xe9"))
    with pytest.raises(ClassNameError, match="not UTF-8"):
        ImageFolder(root)


def test_names_with_markup_are_kept_as_they_are(fill) -> None:
    names = ["<b>bold<!b>", "a & b", "{% if %}", "{x}", "{{ y }}"]
    data = ImageFolder(fill(*names))
    assert data.classnames == sorted(names)
    with pytest.raises(ClassNameError, match="the same"):
        ImageFolder(fill("a &amp; b"))


@pytest.mark.parametrize("renamed", [{"ant": "an ant"}, {1: "one"}, ["ant", "bee"]])
def test_renamed_folders_must_be_there(renamed: object, fill) -> None:
    with pytest.raises(DataError, match=r"no folder ('ant'|1)\. (Did you mean|There are)"):
        ImageFolder(fill("ants", "bees"), classnames=renamed)
    with pytest.raises(ClassNameError, match="1 is a number: write '1'"):
        ImageFolder(fill("ants", "bees"), classnames={"ants": 1})


@pytest.mark.parametrize("share", ["0.2", None, float("nan"), -0.1, 1])
def test_shares_that_cannot_be(share: object, fill) -> None:
    for name in ("val", "test"):
        with pytest.raises(DataError, match=f"{name}={share!r}"):
            ImageFolder(fill("ants", "bees"), **{name: share})


def test_half_without_images_is_an_error(fill) -> None:
    data = ImageFolder(fill("ants", "bees"))
    first = {s: Split([x for x in data.split(s).samples if x[1] == 0]) for s in ("train", "val")}
    with pytest.raises(DataError, match="no image of the new classes"):
        base_new(replace(data, test=Split(), **first))
