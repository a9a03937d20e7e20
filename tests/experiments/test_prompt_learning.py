"""The grid of chapters 3 and 4, on the real data, cut to one small step."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from small_clips import small_clip

from cocoop_tutorial import TrainConfig, load_clip, load_dataset, load_result, save_result
from cocoop_tutorial.book import coop_figures
from cocoop_tutorial.datasets.emoji import drawing
from cocoop_tutorial.errors import MissingDataError
from cocoop_tutorial.experiments import prompt_learning as grid
from cocoop_tutorial.experiments import prompt_results as read
from cocoop_tutorial.experiments.cells import Cell, made_by

SMALLEST = "emoji_clothing"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    short = {m: replace(c, epochs=1, batch_size=128) for m, c in grid.SETTINGS.items()}
    monkeypatch.setattr(grid, "SETTINGS", short)
    monkeypatch.setattr(grid, "DATASETS", (SMALLEST,))
    monkeypatch.setattr(grid, "CHOSEN_ON", SMALLEST)
    monkeypatch.setattr(grid, "RATES", (0.02, 0.2))


def rows_of(path: Path) -> list[dict]:
    return json.loads(path.read_text())["data"]


def test_grid_continues_where_it_stopped(tiny, tmp_path: Path, monkeypatch) -> None:
    clip, done = small_clip("resnet"), []
    measure = grid.measure_cell

    def stops_at_two(clip, cell: Cell) -> list[dict]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(cell)
        return measure(clip, cell)

    monkeypatch.setattr(grid, "measure_cell", stops_at_two)
    with pytest.raises(KeyboardInterrupt):
        grid.run_grid(clip, ("zero-shot",), tmp_path)
    kept = rows_of(tmp_path / "coop_cocoop.json")
    assert [(r["seed"], r["split"]) for r in kept[::3]] == [(1, "val"), (2, "val")]
    monkeypatch.setattr(grid, "measure_cell", lambda c, cell: done.append(cell) or measure(c, cell))
    rows = rows_of(grid.run_grid(clip, ("zero-shot", "CoOp"), tmp_path))
    assert [(c.method, c.seed) for c in done[2:]] == [
        *(("CoOp", seed) for seed in grid.SEEDS),
        ("zero-shot", 3),
    ]
    assert [r for r in rows if r["method"] == "zero-shot" and r["seed"] < 3] == kept
    coop = [r for r in rows if r["method"] == "CoOp" and r["seed"] == 1]
    assert all(r["train_seconds"] > 0 for r in coop)


@pytest.mark.parametrize(
    ("epochs", "measured"), [(1, [0, 1]), (5, [0, 2, 4, 5]), (4, [0, 1, 2, 3, 4])]
)
def test_measurements_while_training(epochs: int, measured: list[int], monkeypatch) -> None:
    monkeypatch.setattr(grid, "MEASUREMENTS", 2 if epochs == 5 else 10)
    config = TrainConfig(epochs=epochs, batch_size=128)
    rows = grid.measure_cell(small_clip("resnet"), Cell(SMALLEST, "CoOp", 1, config))
    assert [r["epoch"] for r in rows if r["split"] == "val"] == measured
    assert [(r["epoch"], r["split"]) for r in rows[::2]] == [
        *((epoch, "val") for epoch in measured),
        (-1, "test"),
    ]
    assert {r["split"] for r in rows[1::2]} == {"poses"}


def test_rows_of_other_weights_or_settings_are_not_kept(tiny, tmp_path: Path) -> None:
    clip, other = small_clip("resnet"), small_clip("resnet", seed=1)
    before = rows_of(grid.run_grid(clip, ("zero-shot",), tmp_path))
    assert rows_of(grid.run_grid(clip, (), tmp_path)) == before
    after = rows_of(grid.run_grid(other, ("zero-shot",), tmp_path))
    assert {r["made_by"] for r in after} == {made_by(other, None)} != {made_by(clip, None)}
    config = TrainConfig(epochs=2, batch_size=4, lr=0.1)
    assert len({made_by(clip, replace(config, lr=lr)) for lr in (0.1, 0.2)}) == 2


def test_the_rate_with_the_lowest_loss_on_poses_is_taken(tiny, tmp_path: Path) -> None:
    assert grid.settings("CoOp", tmp_path) == grid.SETTINGS["CoOp"]
    clip = small_clip("resnet")
    rows = rows_of(grid.choose_settings(clip, tmp_path))
    assert len(rows) == 2 * len(grid.RATES) * len(grid.SEEDS) * 2
    assert {r["dataset"] for r in rows} == {SMALLEST}
    for method in grid.SETTINGS:
        mine = pd.DataFrame([r for r in rows if (r["method"], r["split"]) == (method, "poses")])
        best = min(grid.RATES, key=lambda lr: mine[mine.lr == lr].loss.mean())
        assert grid.settings(method, tmp_path).lr == best


def test_no_dataset_was_picked_for_its_numbers() -> None:
    from cocoop_tutorial.datasets.emoji import NAMES, SHIFTS

    eleven = [name for name in NAMES if name not in SHIFTS]
    small = {name for name in eleven if len(load_dataset(name).classnames) < 50}
    assert {*grid.DATASETS, grid.CHOSEN_ON} == small
    assert grid.CHOSEN_ON not in grid.DATASETS and grid.MAIN in grid.DATASETS


def test_other_poses_are_of_seen_drawings_and_no_shots() -> None:
    for half in grid.few_shot_halves(SMALLEST, seed=2):
        rest = grid.other_poses(half).samples
        assert len(rest) == 4 * len(half.classnames)  # 20 training images, 16 of them shots
        assert not {path for path, _ in rest} & {path for path, _ in half.train.samples}
        shown = {drawing(path) for path, _ in half.train.samples}
        assert {drawing(path) for path, _ in rest} <= shown
        assert not shown & {drawing(path) for path, _ in half.val.samples + half.test.samples}
        names = {path.parent.name: half.classnames[y] for path, y in half.test.samples}
        assert all(names[path.parent.name] == half.classnames[y] for path, y in rest)


@pytest.mark.parametrize(
    ("template", "words"),
    [("an emoji of {}.", "an emoji of"), ("{} texture.", "a photo of a")],
)
def test_start_words(template: str, words: str) -> None:
    base, _ = grid.few_shot_halves(SMALLEST, 1)
    assert grid.start_words(replace(base, template=template)) == words


def test_methods_start_as_the_template() -> None:
    clip = small_clip("resnet")
    base, _ = grid.few_shot_halves(SMALLEST, 1)
    features = torch.nn.functional.normalize(torch.randn(3, clip.embed_dim), dim=-1)
    zero, coop = (grid.build(m, clip, base, 1) for m in ("zero-shot", "CoOp"))
    torch.testing.assert_close(
        zero.logits_from_features(features), coop.logits_from_features(features)
    )


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    """Two datasets, two seeds, numbers that can be checked by head."""
    rows = []
    for dataset, seed in itertools.product("ab", (1, 2)):
        easy = 10.0 * (dataset == "b")
        rows.append((dataset, seed, "zero-shot", "test", -1, 50 + easy + seed, 60))
        rows.append((dataset, seed, "CoOp", "test", -1, 50 + easy + 5 * seed, 59))
        for split in ("val", "poses"):
            rows.append((dataset, seed, "zero-shot", split, 0, 10, 20))
            for epoch, base in enumerate((10, 40, 30)):
                at = (base + easy * epoch, 20 - epoch * seed)
                rows.append((dataset, seed, "CoOp", split, epoch, *at))
    names = ["dataset", "seed", "method", "split", "epoch", "base", "new"]
    save_result("coop_cocoop", pd.DataFrame(rows, columns=names).assign(H=1.0), folder=tmp_path)
    return read.recorded(tmp_path)


def test_gains_compare_the_same_shots_at_the_end(frame: pd.DataFrame) -> None:
    gain = read.gains(frame, "CoOp", over="CLIP")
    assert gain.base["test"].to_dict() == {("a", 1): 4, ("a", 2): 8, ("b", 1): 4, ("b", 2): 8}
    assert gain.base["val"].to_dict() == {("a", 1): 20, ("a", 2): 20, ("b", 1): 40, ("b", 2): 40}
    assert set(gain.new["test"]) == {-1.0} and set(gain.H["test"]) == {0.0}


def test_summary_takes_datasets_as_the_sample(frame: pd.DataFrame) -> None:
    gain = read.gains(frame, "CoOp", over="CLIP")
    assert read.summary(gain.loc["test"]).loc["base"].to_dict() == {
        "mean": 6, "error": 0, "clear": True, "above": 4, "below": 0
    }  # fmt: skip
    val = read.summary(gain.loc["val"])  # base gains 20 on a and 40 on b, with every seed
    assert (val["mean"].base, val.error.base) == (30, pytest.approx(10))
    assert val.clear.base and (val.above.new, val.below.new) == (0, 4)
    against = gain.loc["val"].mul([1, 1, -1, -1], axis=0)  # the datasets disagree
    assert not read.summary(against).clear.base


def test_figures_show_the_means(frame: pd.DataFrame) -> None:
    places = {"poses": "other poses", "val": "other drawings"}
    axes = coop_figures.curve_figure(frame, ["CoOp"], places).axes
    zero, line = axes[2].lines  # base classes, val
    assert set(zero.get_ydata()) == {0} and line.get_ydata().tolist() == [0, 35, 30]
    assert line.get_xdata().tolist() == [0, 50, 100]
    band = axes[3].collections[0].get_paths()[0].vertices  # new classes, val
    assert band[:, 1].min() == -4 and axes[3].lines[1].get_ydata().tolist() == [0, -1.5, -3]
    gain = read.gains(frame, "CoOp", over="CLIP")
    ax = coop_figures.gain_figure(gain, {"val": "v", "test": "t"}, "points").axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in ax.containers]
    assert heights == [[30, 6], [-3, -1]]  # base and new


def test_table_averages_datasets_before_seeds(frame: pd.DataFrame) -> None:
    table = read.table(frame).map(lambda cell: cell.replace("\u00a0", " "))
    assert list(table.index) == [(d, m) for d in ("a", "b", "average") for m in ("CLIP", "CoOp")]
    assert table.base["a", "CoOp"] == "57.5 ± 3.5"
    assert table.base["average", "CLIP"] == "56.5 ± 0.7"
    assert table.new["average", "CoOp"] == "59.0 ± 0.0"


def test_missing_results_say_so(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="coop_cocoop"):
        read.recorded(tmp_path)
    assert read.rate_losses("CoOp", tmp_path).empty


@pytest.mark.parametrize(("change", "text"), [(1.26, "+1.3"), (-0.04, "+0.0"), (-2, "-2.0")])
def test_points(change: float, text: str) -> None:
    assert read.points(change) == text


def test_recorded_results_are_of_the_shipped_weights_and_complete() -> None:
    clip, rows = load_clip("emoji-clip", device="cpu"), read.recorded()
    for method in grid.METHODS:
        config = grid.settings(method) if method in grid.SETTINGS else None
        mine = rows[rows.method == ("CLIP" if method == "zero-shot" else method)]
        assert set(mine.made_by) == {made_by(clip, config)}, "run `cocoop reproduce` again"
        for split in ("val", "test", "poses"):
            runs = mine[mine.split == split][["dataset", "seed"]].drop_duplicates()
            assert len(runs) == len(grid.DATASETS) * len(grid.SEEDS)


def test_recorded_rates_are_of_the_shipped_weights_and_complete() -> None:
    clip, rows = load_clip("emoji-clip", device="cpu"), load_result(read.CHOICE)["data"]
    tried = {replace(grid.SETTINGS[r["method"]], lr=r["lr"]): r["made_by"] for r in rows}
    assert all(made_by(clip, config) == made for config, made in tried.items())
    assert {(c.epochs, c.lr) for c in tried} == {
        (c.epochs, lr) for c in grid.SETTINGS.values() for lr in grid.RATES
    }
    assert len(rows) == len(tried) * len(grid.SEEDS) * 2  # poses and val
