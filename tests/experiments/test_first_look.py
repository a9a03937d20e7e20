"""The first look at the paper's settings, cut to a few steps."""

import itertools
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_clips import random_features, small_clip

from cocoop_tutorial import Dataset, base_new, load_clip, load_result
from cocoop_tutorial.datasets.splits import Split
from cocoop_tutorial.experiments import first_look as look
from cocoop_tutorial.experiments.cells import Cell

NAMES = ["hammer", "wrench", "bell", "key"]
SHORT = {"epochs": 2, "batch_size": 8, "warmup_epochs": 0}


@pytest.fixture
def tools(tmp_path: Path) -> Dataset:
    """A dataset as the icons are kept: two media, 4 training images and 4 others per class."""
    folder, images, parts = tmp_path / "icons_tools", {}, {}
    for part, numbers in {"train": range(4), "val": range(4, 6), "test": range(6, 10)}.items():
        parts[part] = [(n, y, i) for y, n in enumerate(NAMES) for i in numbers]
    for name, label, i in itertools.chain(*parts.values()):
        file = folder / "images" / name / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([label, i]).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
        images[f"{name}/{i}.png"] = {"medium": ("outline", "solid")[i % 2]}
    (folder / "meta.json").write_text(json.dumps({"images": images}))
    splits = {
        part: Split([(folder / "images" / n / f"{i}.png", y) for n, y, i in rows])
        for part, rows in parts.items()
    }
    return Dataset("icons_tools", NAMES, template="an icon of a {}.", **splits)


@pytest.fixture
def short(tools: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs, and the small dataset under the names of the three."""
    cut = {
        method: replace(recipe, config=replace(recipe.config, **SHORT), shots=2, seeds=(1,))
        for method, recipe in look.RECIPES.items()
    }
    monkeypatch.setattr(look, "RECIPES", cut)
    monkeypatch.setattr(look, "load_dataset", lambda name: replace(tools, name=name))
    look.whole.cache_clear()


def rows_of(path: Path) -> list[dict]:
    return json.loads(path.read_text())["data"]


def test_recipes_differ_in_one_thing() -> None:
    recipes = look.RECIPES
    assert recipes["CoOp"].config.epochs == 200 and recipes["CoOp"].config.batch_size == 32
    assert recipes["CoCoOp"].config.epochs == 10 and recipes["CoCoOp"].config.batch_size == 1
    assert all(r.config.lr == 0.002 and r.config.transform == "test" for r in recipes.values())
    for name, recipe in recipes.items():
        plain = recipes[name.split(",")[0]]
        differ = {
            f.name for f in fields(plain) if getattr(plain, f.name) != getattr(recipe, f.name)
        }
        assert len(differ - {"shots", "seeds", "datasets"}) <= 1, (
            name
        )  # one medium has fewer shots: so has "all media"
    assert replace(recipes["CoOp, outline only"], medium=None) == recipes["CoOp, all media"]


def test_goes_on_where_it_stopped(short: None, tmp_path: Path, monkeypatch) -> None:
    clip, done = small_clip("resnet"), []
    measure = look.measure_cell

    def stops_at_four(clip, cell: Cell) -> list[dict]:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(cell)
        return measure(clip, cell)

    monkeypatch.setattr(look, "SEEDS", (1,))
    monkeypatch.setattr(look, "measure_cell", stops_at_four)
    with pytest.raises(KeyboardInterrupt):
        look.first_look(1, clip, tmp_path)
    kept = rows_of(tmp_path / "first_look.json")
    assert [r["method"] for r in kept] == ["CLIP"] * 3 + ["CoOp"] * 2
    monkeypatch.setattr(look, "measure_cell", lambda c, cell: done.append(cell) or measure(c, cell))
    monkeypatch.setattr(look, "RECIPES", {m: look.RECIPES[m] for m in ("CoOp", "CoCoOp")})
    rows = rows_of(look.first_look(1, clip, tmp_path))
    assert [r for r in rows if r in kept] == kept
    assert len(done) == len({(c.dataset, c.method) for c in done}) == 9
    of_one = [r for r in rows if (r["method"], r["dataset"]) == ("CoCoOp", "icons_tools")]
    pis = ["image", "image", "mean", "noise", "none", "another image"]
    assert [r["pi"] for r in of_one] == pis
    assert [r["when"] for r in of_one] == ["start"] + ["end"] * 5


def cell_rows(method: str) -> list[dict]:
    config = look.RECIPES[method].config
    return look.measure_cell(small_clip("resnet"), Cell("icons_tools", method, 1, config))


def test_other_pis_change_what_they_should(short: None) -> None:
    start, end, mean, noise, none, _ = cell_rows("CoCoOp, noise")
    assert noise["same"] == mean["same"] == 100  # it never read an image
    assert max(noise["turn"], mean["turn"]) < 1e-4 < none["turn"]
    assert end["image"] < 1e-6 < end["mean"] and end["turn"] > 0
    start, end, *_ = cell_rows("CoCoOp, zero start")
    assert start["bias"] == start["mean"] == 0 < end["bias"]
    start, *rest = cell_rows("CoCoOp")
    assert start["bias"] > start["image"] > 0 and rest[-1]["turn"] > 0  # another image


def test_starts_are_the_words_given(short: None, tools: Dataset) -> None:
    clip = small_clip("resnet")
    base, _ = base_new(tools)
    good, random = (look.RECIPES[f"CoOp, {start}"] for start in ("an icon of a", "random"))
    ids = clip.tokenizer.encode("an icon of a")
    words = clip.text_tower.token_embedding.weight[ids]
    torch.testing.assert_close(look.build(good, clip, base, 1).ctx.detach(), words)
    one, two, again = (look.build(random, clip, base, seed).ctx for seed in (1, 2, 1))
    assert torch.equal(one, again) and not torch.equal(one, two)


def test_one_medium(short: None) -> None:
    whole, outline = look.whole("icons_tools", None), look.whole("icons_tools", "outline")
    assert len(whole.test) == 16 and len(outline.test) == len(outline.train) == 8
    assert all(int(path.stem) % 2 == 0 for path, _ in outline.train.samples)
    assert outline.classnames == whole.classnames


def test_fixed_pi_is_a_coop(tools: Dataset) -> None:
    clip = small_clip("resnet")
    features = random_features(clip, 6)
    base, _ = base_new(tools)
    model = look.build(look.RECIPES["CoCoOp"], clip, base, seed=1)
    others = dict(look.other_pis(model, features[:1].repeat(6, 1)))
    with torch.no_grad():
        own = model.logits_from_features(features)
        one = model.logits_from_features(features[:1])
        torch.testing.assert_close(others["mean"].logits_from_features(features[:1]), one)
        swapped = others["another image"].logits_from_features(features)
        pairs = torch.stack([features, features.roll(3, 0)])
        text = model.text_features(pairs[1])
        torch.testing.assert_close(swapped, model.scaled_cosines(features, text))
    assert not torch.allclose(own, swapped)


def test_changes_tells_shift_from_turn() -> None:
    logits = [torch.tensor([[1.0, 0.0], [0.0, 1.0]])]
    same = look.changes(logits, [logits[0] + 3])
    assert same == {"same": 100, "shift": 3, "turn": 0}
    turned = look.changes(logits, [torch.tensor([[0.0, 1.0], [0.0, 1.0]])])
    assert turned["same"] == 50 and turned["shift"] == 0
    assert turned["turn"] == pytest.approx(0.5**0.5)


def test_explained() -> None:
    groups = ["a", "a", "b", "b"]
    apart = torch.tensor([[1.0], [1.0], [3.0], [3.0]])
    assert look.explained(apart, groups) == pytest.approx(1)
    assert look.explained(torch.tensor([[1.0], [3.0], [1.0], [3.0]]), groups) == pytest.approx(0)
    assert np.isnan(look.explained(torch.full((4, 3), 0.1) + 1e-7 * torch.rand(4, 3), groups))


def test_recorded_look_is_of_the_shipped_weights_and_its_main_table_complete() -> None:
    clip, rows = load_clip(look.BACKBONE, device="cpu"), load_result(look.RESULT)["data"]
    done = {(r["dataset"], r["method"], r["seed"], r["made_by"]) for r in rows}
    cells = look.all_cells()
    main = ("CLIP", "CoOp", "CoCoOp", "CoOp, 10 x 1")
    assert done >= {cell.key(clip) for cell in cells if cell.method in main}
    assert done <= {cell.key(clip) for cell in cells}
