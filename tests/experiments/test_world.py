"""The measurements of the world, on worlds whose answers are known."""

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from small_clips import small_clip

from cocoop_tutorial import Dataset, ZeroShotCLIP, evaluate, load_clip, save_result
from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.icons import houses, names
from cocoop_tutorial.datasets.splits import Split
from cocoop_tutorial.experiments import templates, world, world_copies
from cocoop_tutorial.experiments import world_results as read
from cocoop_tutorial.experiments.world import made_by
from cocoop_tutorial.models.probe import STRENGTHS

COLOURS = {"apple": "red", "leaf": "green", "sky": "blue", "lemon": "yellow"}
MEDIA = ("outline", "solid", "emoji")


def paint(folder: Path, colour: str, number: int) -> Path:
    """A picture of one colour with noise of its own."""
    random = np.random.default_rng(number)
    pixels = np.asarray(Image.new("RGB", (32, 32), colour), dtype=float) / 2 + 60
    path = folder / f"{colour}-{number}.png"
    Image.fromarray((pixels + random.uniform(0, 40, pixels.shape)).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four classes that pixels tell apart, and random weights do not: 16 shots, 3 val, 6 test."""
    folder = tmp_path_factory.mktemp("colours")
    parts = {"train": range(16), "val": range(16, 19), "test": range(19, 25)}
    splits = {
        part: Split(
            [(paint(folder, c, i), y) for y, c in enumerate(COLOURS.values()) for i in numbers]
        )
        for part, numbers in parts.items()
    }
    return Dataset("icons_food", list(COLOURS), template="an icon of a {}.", **splits)


def medium(path: Path) -> str:
    return MEDIA[int(path.stem.split("-")[1]) % len(MEDIA)]


def test_twelve_templates_take_a_name_each() -> None:
    filled = templates.for_dataset("icons_editing")
    assert len(set(filled.values())) == 12 and list(filled) == list(templates.TEMPLATES)
    assert all(text.count("{}") == 1 and "<" not in text for text in filled.values())
    assert filled["a {}, a type of <subject>."] == "a {}, a type of editing symbol."
    assert "a type of food." in templates.for_dataset("icons_food")["a {}, a type of <subject>."]


def test_every_medium_has_a_template() -> None:
    told = {medium for house in houses.HOUSES for medium in house.packages.values()}
    told |= {medium for medium in names.STYLES.values() if medium}
    assert told <= templates.OF_MEDIUM.keys()


def test_probe_learns_what_names_do_not_say(colours: Dataset) -> None:
    row = world.headroom(small_clip("resnet"), colours, seed=1)
    assert row["probe"] == row["class_means"] == 100  # two colours
    assert row["zero_shot"] < 100
    assert row["gain"] == pytest.approx(row["probe"] - row["zero_shot"], abs=1e-4)
    assert (row["dataset"], row["seed"]) == ("icons_food", 1) and row["C"] in STRENGTHS


def test_breadth_counts_the_halves(colours: Dataset) -> None:
    clip = small_clip("resnet")
    row = world.breadth(clip, colours)
    assert (row["classes"], row["test"]) == (4, 24)
    zero = evaluate(ZeroShotCLIP(clip, colours.classnames, colours.template), colours)
    assert row["all"] == pytest.approx(zero.accuracy)
    assert row["base"] >= row["all"] / 2 and {"new", "H"} <= row.keys()
    assert "base" not in world.breadth(
        clip, Dataset("x", list(COLOURS), *[Split()] * 2, colours.test)
    )


def test_words_scores_each_template(colours: Dataset) -> None:
    clip = small_clip("resnet")
    rows = {row["template"]: row["accuracy"] for row in world.words(clip, colours)}
    assert list(rows) == [*templates.TEMPLATES, "ensemble"]
    texts = {"{}": "{}", "<subject>: a {}.": "food: a {}."}
    for template, text in texts.items():
        zero = evaluate(ZeroShotCLIP(clip, colours.classnames, text), colours)
        assert rows[template] == pytest.approx(zero.accuracy)


def test_own_medium_asks_each_image_in_its_words(colours: Dataset) -> None:
    clip = small_clip("resnet")
    row = world.own_medium(clip, colours, medium)
    right = fixed = 0
    for kind in MEDIA:
        zero = evaluate(ZeroShotCLIP(clip, list(COLOURS), templates.OF_MEDIUM[kind]), colours)
        mine = torch.tensor([medium(path) == kind for path, _ in colours.test.samples])
        right += int(zero.correct[mine].sum())
        fixed = max(fixed, int(zero.correct.sum()))
    assert row["own"] == pytest.approx(100 * right / 24)
    assert row["best_fixed"] == pytest.approx(100 * fixed / 24)
    assert row["gain"] == pytest.approx(100 * (right - fixed) / 24, abs=1e-4)
    assert world.own_medium(clip, colours, lambda path: "solid")["gain"] == 0


def test_emoji_house_knows_what_it_drew() -> None:
    picture = world.emoji_picture("fxemoji", "redapple")
    red, _, blue = np.asarray(picture).reshape(-1, 3).astype(int).mean(axis=0)
    assert picture.size == (64, 64) and red > blue + 20
    assert picture.getpixel((1, 1)) == (255, 255, 255)
    row = world.emoji_house(small_clip("resnet"), "fxemoji")
    assert row["package"] == "fxemoji" and row["classes"] > 300
    assert row["accuracy"] < 10  # random weights


def test_emoji_packages_are_unseen() -> None:
    found = world.emoji_packages()
    assert {"noto", "fxemoji", "fluent-emoji"} <= set(found)
    assert "twemoji" not in found and "lucide" not in found


@pytest.fixture
def copied(tmp_path: Path) -> Dataset:
    """Hammers: two of pretraining, one drawing twice; a wrench of pretraining among them."""
    shown = {
        "train": [("tabler", "hammer"), ("lucide", "wrench")],
        "test": [("tabler", "hammer"), ("lucide", "hammer"), ("tabler", "bell")],
    }
    folder, images, parts = tmp_path / "icons_tools", {}, {"val": Split()}
    for part, drawn in shown.items():
        paths = [f"hammer/{part}-{i}.png" for i in range(len(drawn))]
        for path, (package, icon) in zip(paths, drawn, strict=True):
            told = {"package": package, "icon": icon, "house": "x", "medium": "outline"}
            images[path] = {**told, "concept": icon}
        parts[part] = Split([(folder / "images" / path, 0) for path in paths])
    folder.mkdir()
    (folder / "meta.json").write_text(json.dumps({"images": images}))
    return Dataset("icons_tools", ["hammer"], **parts)


def test_copies_are_counted(copied: Dataset) -> None:
    known = [d for d in names.read("lucide") if d.concept in ("hammer", "wrench")]
    with ProcessPoolExecutor(1) as pool:
        rows = world_copies.count_copies(copied, known, pool)
    counts = {row["between"]: row["count"] for row in rows}
    assert counts == {read.SPLIT: 1, read.SAME_NAME: 1, read.ANY_NAME: 2}
    assert rows[2]["classes"] == {"hammer": 2} and rows[0]["images"] == 5


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A result of two datasets with numbers that can be checked by head."""
    frame = {
        "breadth": [
            {"dataset": "icons_a", "classes": 4, "all": 50, "base": 60, "new": 70},
            {"dataset": "icons_b", "classes": 8, "all": 70, "base": 80, "new": 60},
        ],
        "headroom": [
            {"dataset": d, "seed": s, "probe": 70 + s, "gain": gain + s, "zero_shot": 70 - gain}
            for d, gain in (("icons_a", 10), ("icons_b", -4))
            for s in (1, 3)
        ],
        "words": [
            {"dataset": d, "template": t, "accuracy": value}
            for d, values in (("icons_a", (50, 45, 99)), ("icons_b", (60, 71, 65)))
            for t, value in zip(("{}", templates.WITH_SUBJECT[0], "ensemble"), values, strict=True)
        ],
        "media": [{"dataset": "icons_a", "gain": 2.0}, {"dataset": "icons_b", "gain": -1.0}],
        "emoji": [{"package": "noto", "classes": 9, "accuracy": 59.9}],
        "copies": [
            {"dataset": d, "between": between, "count": count}
            for d in "ab"
            for between, count in ((read.SPLIT, 0), (read.SAME_NAME, 1), (read.ANY_NAME, 2))
        ],
    }
    save_result(read.RESULT, frame, folder=tmp_path)
    return tmp_path


def test_world_table(measured: Path) -> None:
    table = read.world_table(measured)
    assert list(table.index) == ["icons_a", "icons_b", "average"]
    assert table.spread.to_dict() == {"icons_a": 5, "icons_b": 11, "average": 8}  # no ensemble
    assert table.gain.to_dict() == {"icons_a": 12, "icons_b": -2, "average": 5}  # mean of seeds
    assert table.best.to_dict() == {
        "icons_a": "{}",
        "icons_b": templates.WITH_SUBJECT[0],
        "average": "",
    }
    assert table["own medium"].average == 0.5


def test_goals(measured: Path) -> None:
    goals = read.goals(measured).set_index("measure")
    value, reached = goals.value, goals.reached
    gain, halves = (
        goals.filter(like=text, axis=0).index[0] for text in ("base classes, mean", "difference of")
    )
    assert (value[gain], reached[gain]) == (5.0, False)
    assert (value[halves], reached[halves]) == (5.0, True)  # -10 and 20: 5 on average
    noto = goals.filter(like="noto", axis=0)
    assert noto.value.item() == 59.9 and not noto.reached.item()
    assert reached["zero-shot, all classes, mean (%)"]
    copies = [f"copies between {where}" for where in (read.SPLIT, read.SAME_NAME, read.ANY_NAME)]
    assert value[copies].tolist() == [0, 2, 4] and reached[copies].tolist() == [True, False, None]
    assert value["the same without the three that name the subject"] == 0  # one template is left
    told = goals[goals.aim == ""]
    assert told.reached.isna().all() and len(told) == 5
    assert isinstance(goals, pd.DataFrame)


def test_recorded_world_is_of_the_shipped_weights_and_complete() -> None:
    clip = load_clip(world.BACKBONE, device="cpu")
    assert read.recorded("made_by").backbone.item() == made_by(clip)
    assert set(read.recorded("breadth").dataset) == set(icons.MAIN)
    assert len(read.recorded("headroom")) == len(icons.MAIN) * len(world.SEEDS)
    assert len(read.recorded("words")) == len(icons.MAIN) * 13
    assert set(read.recorded("shifts").dataset) == set(icons.SHIFTS)
    assert set(read.recorded("copies").dataset) == set(icons.NAMES)
    assert len(read.world_table()) == 12 and len(read.goals()) > 10
