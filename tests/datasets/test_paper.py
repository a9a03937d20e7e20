"""The paper's fifteen data sets: the official layouts, and whether what is on disk is theirs."""

import json
import shutil
from pathlib import Path

import pytest
from paper_trees import SPLIT_FILES, WNIDS, MakeImage, plant
from program import Cocoop

from cocoop_tutorial import load_dataset
from cocoop_tutorial.datasets.check import check
from cocoop_tutorial.datasets.paper import NAMES, folder_of
from cocoop_tutorial.errors import CocoopError, DataError, FileError, MissingDataError

HALF = ["tench", "missile"]  # the classes that -A and -R have in the small trees
# Prompt, class names, and images in train, val and test of the small trees.
OFFICIAL = {
    "imagenet": ("a photo of a {}.", list(WNIDS.values()), (8, 4, 4)),
    "caltech101": ("a photo of a {}.", ["face", "airplane"], (2, 2, 2)),
    "oxford_pets": (
        "a photo of a {}, a type of pet.", ["abyssinian", "american_bulldog"], (2, 2, 2)),
    "stanford_cars": (
        "a photo of a {}.", ["2000 AM General Hummer SUV", "2012 Acura TL Sedan"], (2, 2, 2)),
    "oxford_flowers": (
        "a photo of a {}, a type of flower.", ["pink primrose", "canterbury bells"], (2, 2, 2)),
    "food101": ("a photo of {}, a type of food.", ["apple_pie", "baby_back_ribs"], (2, 2, 2)),
    "fgvc_aircraft": ("a photo of a {}, a type of aircraft.", ["707-320", "F/A-18"], (2, 2, 2)),
    "sun397": ("a photo of a {}.", ["abbey", "indoor apse"], (2, 2, 2)),
    "dtd": ("{} texture.", ["banded", "blotchy"], (2, 2, 2)),
    "eurosat": (
        "a centered satellite photo of {}.", ["Annual Crop Land", "Sea or Lake"], (2, 2, 2)),
    "ucf101": ("a photo of a person doing {}.", ["Apply_Eye_Makeup", "Yo_Yo"], (2, 2, 2)),
    "imagenetv2": ("a photo of a {}.", list(WNIDS.values()), (0, 0, 4)),
    "imagenet_sketch": ("a photo of a {}.", list(WNIDS.values()), (0, 0, 4)),
    "imagenet_a": ("a photo of a {}.", HALF, (0, 0, 2)),
    "imagenet_r": ("a photo of a {}.", HALF, (0, 0, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_official_layout_is_read(
    tmp_path: Path, make_image: MakeImage, name: str, recwarn: pytest.WarningsRecorder
) -> None:
    plant(name, tmp_path, make_image)
    data = load_dataset(name, tmp_path)
    template, classnames, sizes = OFFICIAL[name]
    assert (data.name, data.template, data.classnames) == (name, template, classnames)
    assert (len(data.train), len(data.val), len(data.test)) == sizes
    assert data.test.labels == [i % len(classnames) for i in range(sizes[2])]
    assert data.paper_split and not recwarn.list
    for image, label in data.test:
        assert image.size == (30, 24) and label < len(classnames)


def test_every_image_has_its_own_class(tmp_path: Path, make_image: MakeImage) -> None:
    """A path of the split file leads to the class that the file says, for the renamed ones too."""
    for name, classes in SPLIT_FILES.items():
        folder = plant(name, tmp_path, make_image)
        data = load_dataset(name, tmp_path)
        for path, label in data.train.samples:
            form = classes[data.classnames[label]]
            assert path.relative_to(folder).as_posix().endswith(form.format(0, s="train"))


def test_imagenet_tests_on_val_and_lists_files_in_order(
    tmp_path: Path, make_image: MakeImage
) -> None:
    plant("imagenet", tmp_path, make_image)
    data = load_dataset("imagenet", tmp_path)
    assert data.val is data.test
    assert [path.name for path, _ in data.train.samples[:2]] == ["0.JPEG", "1.JPEG"]


def test_imagenet_that_is_not_whole(tmp_path: Path, make_image: MakeImage) -> None:
    for name in ("imagenet", "imagenet_sketch", "imagenetv2"):
        plant(name, tmp_path, make_image)
    shutil.rmtree(tmp_path / "imagenet/images/val/n04008634")
    with pytest.raises(DataError, match="n04008634"):
        load_dataset("imagenet", tmp_path)
    (tmp_path / "imagenet-sketch/images/n99999999").mkdir()
    with pytest.raises(CocoopError, match="n99999999"):
        load_dataset("imagenet_sketch", tmp_path)
    (tmp_path / "imagenetv2/classnames.txt").write_text("n01440764\n")
    with pytest.raises(DataError, match="'n01440764' has no class name"):
        load_dataset("imagenetv2", tmp_path)
    (tmp_path / "imagenetv2/classnames.txt").unlink()
    with pytest.raises(MissingDataError, match=r"classnames\.txt"):
        load_dataset("imagenetv2", tmp_path)


def test_aircraft_lists_that_are_damaged(tmp_path: Path, make_image: MakeImage) -> None:
    folder = plant("fgvc_aircraft", tmp_path, make_image)
    (folder / "images_variant_test.txt").write_text("9 F/A-18\n")
    with pytest.raises(MissingDataError, match=r"9\.jpg"):
        load_dataset("fgvc_aircraft", tmp_path)
    (folder / "images_variant_test.txt").write_text("0000000 F-18\n")
    with pytest.raises(DataError, match="'F-18'"):
        load_dataset("fgvc_aircraft", tmp_path)


def test_a_folder_that_cannot_be_read_is_named() -> None:
    with pytest.raises(FileError, match=r"dtd could not be read \(x{300}/dtd: File name too long"):
        load_dataset("dtd", "x" * 300)


# --- cocoop data check ---


@pytest.mark.parametrize("name", NAMES)
def test_counts_stand_beside_the_published_ones(
    tmp_path: Path, make_image: MakeImage, name: str
) -> None:
    folder = plant(name, tmp_path, make_image)
    report = check(name, tmp_path)
    _, classnames, (train, val, test) = OFFICIAL[name]
    here = {"classes": len(classnames), "train": train, "val": val, "test": test}
    assert (report.folder, report.here) == (folder, here)
    assert report.published["classes"] >= 10 and report.published["test"] > 1000
    stated = {key: number for key, number in report.published.items() if number is not None}
    counted = [problem for problem in report.problems if "instead of" in problem]
    assert [problem.split()[0] for problem in counted] == [str(here[key]) for key in stated]
    assert [problem.split()[-1] for problem in counted] == [str(n) for n in stated.values()]
    others = [problem for problem in report.problems if problem not in counted]
    assert len(others) == (name == "caltech101"), "only its official split file is known"
    assert report.unreadable == report.in_several_splits == []


def test_missing_data_are_a_problem_with_a_way_out(tmp_path: Path, cocoop: Cocoop) -> None:
    for name in NAMES:
        result = cocoop("data", "check", name, "--root", tmp_path, "--json")
        (problem,) = json.loads(result.out)["problems"]
        assert result.status == 1 and folder_of(name) in problem
        assert "cocoop data fetch" in problem or "DATASETS.md" in problem


def test_what_is_broken_is_listed(tmp_path: Path, make_image: MakeImage, cocoop: Cocoop) -> None:
    folder = plant("dtd", tmp_path, make_image)
    cut = folder / "images/banded/banded_0001.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    train, test = (folder / f"images/blotchy/blotchy_000{i}.jpg" for i in (0, 2))
    shutil.copyfile(train, test)
    result = cocoop("data", "check", "dtd", "--root", tmp_path, "--json")
    report = json.loads(result.out)
    assert result.status == 1
    assert report["unreadable"] == [str(cut)]
    assert report["in_several_splits"] == [[str(train), str(test)]]
    assert "1 images are unreadable" in report["problems"][-1]
    assert not any("several" in problem for problem in report["problems"])
    text = cocoop("data", "check", "dtd", "--root", tmp_path).out
    assert "blotchy_0000.jpg = images/blotchy/blotchy_0002.jpg" in text
    assert "classes         2 of 47" in text and "problem: 2 test images instead of 1692" in text
    test.unlink()
    text = cocoop("data", "check", "dtd", "--root", tmp_path).out
    assert f"lists 1 images that do not exist, the first {test}" in text
    (folder / "split_zhou_DescribableTextures.json").write_text("<html>")
    assert "is not JSON" in cocoop("data", "check", "dtd", "--root", tmp_path).out


def test_a_split_of_our_own_is_a_problem(tmp_path: Path, make_image: MakeImage) -> None:
    folder = plant("dtd", tmp_path, make_image)
    (folder / "split_zhou_DescribableTextures.json").unlink()
    report = check("dtd", tmp_path)
    assert any("the split is our own" in problem for problem in report.problems)
    assert report.split_file == ""


def test_the_real_caltech101_is_the_published_one(caltech_root: Path, cocoop: Cocoop) -> None:
    result = cocoop("data", "check", "caltech101", "--root", caltech_root)
    assert result.status == 0
    assert "split file: the official one" in result.out and "Nothing is wrong." in result.out
    assert "train        4128 of 4128" in result.out and "classes       100 of 100" in result.out
