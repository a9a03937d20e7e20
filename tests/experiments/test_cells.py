"""Grids of runs: they continue where they stopped, in whatever processes they run."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dask
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from small_clips import small_clip

from cocoop_tutorial import (
    CoOp,
    TrainConfig,
    base_new,
    evaluate,
    few_shot,
    load_clip,
    load_dataset,
    train,
)
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import MissingDataError, UnknownNameError
from cocoop_tutorial.experiments import cells as cells_module
from cocoop_tutorial.experiments.cells import Cell, made_by, processes, run_cells

SMALLEST = "icons_games"
SHORT = TrainConfig(epochs=1, batch_size=64)


def score(clip: FrozenCLIP, cell: Cell) -> list[dict]:
    """One short run on the base half of the cell's dataset."""
    base, _ = base_new(few_shot(load_dataset(cell.dataset), shots=4, seed=cell.seed))
    model = CoOp(clip, base.classnames, n_ctx=4, ctx_init="a photo of a")
    train(model, base, cell.config)
    return [{"split": "test", "base": evaluate(model, base).accuracy}]


def cells(seeds: tuple[int, ...]) -> list[Cell]:
    return [Cell(SMALLEST, "CoOp", seed, replace(SHORT, seed=seed)) for seed in seeds]


def rows_of(path: Path) -> list[dict]:
    return json.loads(path.read_text())["data"]


def test_grid_continues_where_it_stopped(tmp_path: Path) -> None:
    clip, done = small_clip("resnet"), []

    def stops_at_two(clip: FrozenCLIP, cell: Cell) -> list[dict]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(cell.seed)
        return score(clip, cell)

    with pytest.raises(KeyboardInterrupt):
        run_cells(clip, "grid", "test", cells((1, 2, 3)), stops_at_two, ("CoOp",), tmp_path, 1)
    kept = rows_of(tmp_path / "grid.json")
    assert [row["seed"] for row in kept] == done == [1, 2]

    def goes_on(clip: FrozenCLIP, cell: Cell) -> list[dict]:
        done.append(cell.seed)
        return score(clip, cell)

    path = run_cells(clip, "grid", "test", cells((1, 2, 3)), goes_on, ("CoOp",), tmp_path, 1)
    assert done == [1, 2, 3] and rows_of(path)[:2] == kept


def test_rows_of_other_weights_or_settings_are_not_kept(tmp_path: Path) -> None:
    clip, other = small_clip("resnet"), small_clip("resnet", seed=1)

    def run(clip: FrozenCLIP, methods: tuple[str, ...]) -> list[dict]:
        return rows_of(run_cells(clip, "grid", "test", cells((1,)), score, methods, tmp_path, 1))

    before = run(clip, ("CoOp",))
    assert run(clip, ()) == before
    after = run(other, ("CoOp",))
    assert {row["made_by"] for row in after} == {made_by(other, SHORT)} != {made_by(clip, SHORT)}
    assert len({made_by(clip, replace(SHORT, lr=lr)) for lr in (0.1, 0.2)}) == 2


@pytest.fixture
def dask_cluster() -> Iterator[LocalCluster]:
    """A cluster of two worker processes, which Dask's settings name."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with dask.config.set({"scheduler-address": cluster.scheduler_address}):
            yield cluster


@pytest.mark.slow
def test_processes_give_the_rows_of_one_process(dask_cluster, tmp_path: Path) -> None:
    clip, frames = load_clip("icon-clip", device="cpu"), []
    for jobs, engine in ((1, "local"), (2, "local"), (2, "dask")):
        name, options = f"{engine}{jobs}", (("CoOp",), tmp_path, jobs, engine)
        path = run_cells(clip, name, "test", cells((1, 2)), score, *options)
        frames.append(pd.DataFrame(rows_of(path)))
    for frame in frames[1:]:  # an image at a tie may fall either way
        pd.testing.assert_frame_equal(frames[0], frame, atol=2.0)
    with Client(dask_cluster) as client:
        assert any(client.run(lambda: "icon-clip" in cells_module._at_hand).values())


def test_unknown_engine_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'dask'"):
        with processes("dusk", 1):
            pass


def test_a_missing_cluster_names_the_extra_that_brings_it(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(MissingDataError, match="cluster"):
        with processes("dask", 1):
            pass


def test_the_command_names_the_known_engines(cocoop) -> None:
    done = cocoop("reproduce", "first-look", "--engine", "dusk")
    assert done.status == 1 and "Did you mean 'dask'" in done.err
