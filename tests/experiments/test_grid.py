"""Grids of runs: known by what they depend on, resumed where they stopped, in any processes."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from joblib import cpu_count
from paper_trees import plant
from small_clips import small_clip

from cocoop_tutorial import TrainConfig, load_clip
from cocoop_tutorial.errors import (
    DataError,
    FileError,
    MissingDataError,
    TrainingError,
    UnknownNameError,
)
from cocoop_tutorial.experiments import grid, runs
from cocoop_tutorial.experiments.grid import How, make, processes
from cocoop_tutorial.experiments.methods import METHODS
from cocoop_tutorial.experiments.protocols import frame
from cocoop_tutorial.experiments.runs import Run, digest

SMALLEST = "icons_games"
SHORT = TrainConfig(epochs=1, batch_size=8)


def some(*methods: str, seeds: tuple[int, ...] = (1, 2), **facts: object) -> list[Run]:
    every = [
        Run(SMALLEST, "base", m, s, 1, METHODS[m].config and SHORT) for m in methods for s in seeds
    ]
    return [replace(run, **facts) for run in every]


def test_a_grid_goes_on_where_it_stopped(tmp_path: Path, monkeypatch) -> None:
    clip, done, how = small_clip("resnet"), [], How(1, folder=tmp_path)
    finish = runs.finish

    def stops_at_two(clip, part, root):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(part)
        return finish(clip, part, root)

    wanted = [*some("coop", shots=1), *some("coop", shots=2), *some("cocoop", shots=3)]
    monkeypatch.setattr(grid, "finish", stops_at_two)
    with pytest.raises(KeyboardInterrupt):
        make(clip, wanted, how)
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert len(kept) == 4 == sum(map(len, done))
    monkeypatch.setattr(
        grid, "finish", lambda c, part, root: done.append(part) or finish(c, part, root)
    )
    rows = make(clip, wanted, how)
    assert {run for part in done for run in part} == set(wanted) and sum(map(len, done)) == 6
    assert all(file.stat().st_mtime_ns == then for file, then in kept.items())
    assert make(clip, wanted, how) == rows and len(done) == 3


def test_a_run_is_known_by_what_it_depends_on() -> None:
    clip, run = small_clip("resnet"), some("coop")[0]
    first = digest(clip, run)
    assert first == digest(clip, replace(run, config=replace(SHORT, save_every=7)))
    others = [
        replace(run, seed=2),
        replace(run, shots=2),
        replace(run, subset="all"),
        replace(run, method="kgcoop"),
        replace(run, dataset="icons_tools"),
        replace(run, targets=("icons_tools",)),
        *(replace(run, config=replace(SHORT, **c)) for c in ({"lr": 1.0}, {"epochs": 2})),
    ]
    known = {first, digest(small_clip("resnet", seed=1), run), *(digest(clip, r) for r in others)}
    assert len(known) == 2 + len(others)


def test_a_replaced_photograph_makes_another_run(tmp_path: Path, make_image) -> None:
    image = plant("dtd", tmp_path, make_image) / "images/banded/banded_0001.jpg"
    clip, wanted = small_clip("resnet"), [replace(some("clip")[0], dataset="dtd")]
    how = How(1, folder=tmp_path / "cells", root=tmp_path)
    make(clip, wanted, how)
    (first,) = (tmp_path / "cells").iterdir()
    image.write_bytes(image.read_bytes() + b"more")
    make(clip, wanted, how)
    assert len(list((tmp_path / "cells").iterdir())) == 2 and first.is_file()


def test_shards_share_the_work(tmp_path: Path) -> None:
    clip, wanted = small_clip("resnet"), [*some("coop"), *some("coop", shots=2), *some("clip")]
    parts = [len(make(clip, wanted, How(1, folder=tmp_path, shard=(i, 3)))) for i in (1, 2, 3)]
    assert 0 < parts[0] < parts[1] < parts[2] == len(make(clip, wanted, How(1, folder=tmp_path)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path, list[runs.Row]]:
    """A finished run, its file and its rows."""
    clip, run, folder = small_clip("resnet"), some("clip")[0], tmp_path_factory.mktemp("cells")
    rows = make(clip, [run], How(1, folder=folder))
    return run, folder / f"{digest(clip, run)}.json", rows


def test_long_groups_are_halved_for_many_processes() -> None:
    how, seeds = How(), tuple(range(1, 7))
    wanted = [*some("cocoop", seeds=seeds), *some("coop", seeds=(1, 2, 3)), *some("clip")]
    groups = grid.group(wanted, how)
    assert sorted(map(len, groups)) == [2, 3, 6]
    assert grid.spread(groups, 1, how) == groups
    for jobs in (2, 4, 100):
        parts = grid.spread(groups, jobs, how)
        assert {run for part in parts for run in part} == set(wanted)
        assert sum(map(len, parts)) == len(wanted)
        costs = [sum(grid.cost(run, None) for run in part) for part in parts]
        assert costs == sorted(costs, reverse=True)
        limit = sum(costs) / (2 * jobs)
        assert all(len(p) == 1 or c <= limit for p, c in zip(parts, costs, strict=True))


def test_a_damaged_file_is_named(made: tuple[Run, Path, list[runs.Row]]) -> None:
    run, file, rows = made
    whole = file.read_bytes()
    for content in (
        whole[:-9], b"", b"\xff", b"[" * 100_000, b"[]", b"{}", b"null", b"[1]", b"1" * 5000,
        whole.replace(b'"split": "base"', b'"split": "new"', 1),
        json.dumps([{**rows[0], "accuracy": "80"}]).encode(),
        json.dumps([{k: v for k, v in rows[0].items() if k != "split"}]).encode(),
    ):  # fmt: skip
        file.write_bytes(content)
        with pytest.raises(DataError, match=f"{file.name} is damaged.*Delete it"):
            grid._read(file, run)
    file.write_text(json.dumps(rows))
    assert grid._read(file, run) == rows, "a list without a digest, as it once was"
    for other in some("clip", seeds=(2,)) + some("clip", shots=2):
        with pytest.raises(DataError, match="rows of this run"):
            grid._read(file, other)


WORSE = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([1]) | st.just({})
)


@given(st.data())
def test_rows_that_cannot_be(made: tuple[Run, Path, list[runs.Row]], data: st.DataObject) -> None:
    run, file, rows = made
    row = data.draw(st.sampled_from(rows))
    key = data.draw(st.sampled_from(sorted(row)))
    worse = [other | {key: data.draw(WORSE)} if other is row else other for other in rows]
    file.write_text(json.dumps(worse))  # without a digest
    try:
        assert grid._read(file, run) == rows or key in ("pi", "seconds", "commit", "epoch")
    except DataError as error:
        assert file.name in str(error)


def test_of_two_grids_the_first_counts(tmp_path: Path, monkeypatch) -> None:
    clip, run, finish, first = small_clip("resnet"), some("clip")[0], runs.finish, []

    def slowly(*arguments):
        monkeypatch.undo()
        first.extend(make(clip, [run], How(1, folder=tmp_path)))  # the other grid
        return [[row | {"seconds": 9.0} for row in rows] for rows in finish(*arguments)]

    monkeypatch.setattr(grid, "finish", slowly)
    assert make(clip, [run], How(1, folder=tmp_path)) == first
    assert first[0]["seconds"] == 0.0 and len(list(tmp_path.iterdir())) == 1


def test_more_processes_than_cores_are_not_started() -> None:
    with processes("local", 10**9) as parallel:
        assert parallel.n_jobs == cpu_count()


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"seed": "1"}, "seed is '1'"),
        ({"seed": -1}, "seed is -1"),
        ({"shots": 1.0}, "shots is 1.0"),
        ({"shots": 0}, "shots is 0"),
        ({"subset": "bse"}, "Did you mean 'base'"),
        ({"method": "cocop"}, "Did you mean 'cocoop'"),
    ],
)
def test_runs_that_cannot_be(facts: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        some("clip", **facts)


def test_runs_with_numbers_of_other_types_are_the_same() -> None:
    run, clip = some("coop")[0], small_clip("resnet")
    other = replace(run, seed=np.int64(run.seed), shots=np.int8(run.shots), targets=[])
    assert other == run and digest(clip, other) == digest(clip, run)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"jobs": 0}, "jobs is 0"),
        ({"jobs": "2"}, "jobs is '2'"),
        ({"shard": (0, 2)}, "shard is 0"),
        ({"shard": (3, 2)}, "no shard 3 of 2"),
        ({"engine": "dusk"}, "Did you mean 'dask'"),
    ],
)
def test_ways_that_cannot_be(facts: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        How(**facts)


def test_a_folder_that_cannot_be_written_is_found_before_any_run(monkeypatch) -> None:
    monkeypatch.setattr(grid, "digest", None)  # nothing is looked at
    with pytest.raises(FileError, match="/dev/null/x cannot be written to"):
        make(small_clip("resnet"), some("clip"), How(1, folder=Path("/dev/null/x")))


def test_rows_say_what_was_scored() -> None:
    clip = small_clip("resnet")
    rows = frame([*chain(*runs.finish(clip, some("coop", "cocoop-noise"), None))])
    assert set(rows.split) == {"base", "new", "all"} and set(rows.pi) == {"own"}
    last = rows[rows.epoch.isna()]
    for _, row in last.iterrows():
        right, images = ([int(n) for n in row[c].split()] for c in ("right", "images"))
        assert row.accuracy == pytest.approx(100 * sum(right) / sum(images))
    sizes = {split: len(part.iloc[0].images.split()) for split, part in last.groupby("split")}
    assert sizes["base"] + sizes["new"] == sizes["all"] == 21


def test_a_conditional_prompt_is_also_scored_with_other_pis() -> None:
    rows = frame(runs.finish(small_clip("resnet"), some("cocoop", seeds=(1,)), None)[0])
    own = ["own", "mean", "noise", "none", "another image"]
    assert rows[(rows.split == "new") & rows.epoch.isna()].pi.tolist() == own
    sizes = rows[rows.split == "train"].iloc[0]
    assert sizes["mean"] > 0 and sizes["image"] > 0


def test_every_method_is_scored_in_half_precision() -> None:
    clip = load_clip("icon-clip", device="cpu", precision="bf16")
    for name in METHODS.keys() - {"coop-60"}:  # which needs CLIP's longer captions
        rows = frame(runs.finish(clip, some(name, seeds=(1,)), None)[0])
        assert rows.accuracy.dropna().between(0, 100).all(), name
        assert set(rows.split) >= {"base"}, name


def test_the_way_is_scored_too() -> None:
    run = some("coop", seeds=(1,), config=replace(SHORT, epochs=6))
    rows = pd.DataFrame(runs.finish(small_clip("resnet"), run, None)[0])
    assert sorted(rows.epoch.dropna()) == [1, 1, 2, 2, 5, 5]


def test_transfer_is_scored_on_each_target_with_its_own_names() -> None:
    targets = (SMALLEST, "icons_tools")
    wanted = [
        Run(SMALLEST, "all", m, 1, 1, SHORT if m == "coop" else None, targets)
        for m in ("coop", "clip")
    ]
    for run in wanted:
        rows = pd.DataFrame(runs.finish(small_clip("resnet"), [run], None)[0])
        assert rows.target.tolist() == list(targets) and set(rows.split) == {"all"}
        assert [len(text.split()) for text in rows.images] == [21, 25]


@pytest.fixture
def dask_cluster() -> Iterator[LocalCluster]:
    """A cluster of two worker processes, which Dask's settings name."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with dask.config.set({"scheduler-address": cluster.scheduler_address}):
            yield cluster


@pytest.mark.slow
def test_processes_give_the_rows_of_one_process(dask_cluster, tmp_path: Path) -> None:
    clip, frames, wanted = load_clip("icon-clip", device="cpu"), [], some("coop")
    for jobs, engine in ((1, "local"), (2, "local"), (2, "dask")):
        rows = make(clip, wanted, How(jobs, engine, tmp_path / f"{engine}{jobs}"))
        frames.append(pd.DataFrame(rows).drop(columns=["seconds", "right"]))
    for other in frames[1:]:  # an image at a tie may fall either way
        pd.testing.assert_frame_equal(frames[0], other, atol=2.0)
    with Client(dask_cluster) as client:
        assert any(client.run(lambda: "icon-clip" in grid._at_hand).values())


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_nothing(dask_cluster, tmp_path: Path) -> None:
    clip = load_clip("icon-clip", device="cpu")
    wanted = [run for shots in (1, 2, 3, 4) for run in some("coop", shots=shots)]
    here, killed = How(2, "dask", tmp_path), []
    write = grid.write_json

    def kills_one(path: Path, content: dict) -> Path:
        if not killed:
            with Client(dask_cluster) as client:
                killed.extend(client.run(os.getpid).values())
            os.kill(killed[0], signal.SIGKILL)
        return write(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "write_json", kills_one)
        rows = make(clip, wanted, here)
    assert len(killed) == 2 and {row["shots"] for row in rows} == {1, 2, 3, 4}
    assert len(list(tmp_path.iterdir())) == len(wanted)
    assert json.loads(next(tmp_path.iterdir()).read_text())


def test_another_backbone_of_that_name_is_refused(tmp_path: Path) -> None:
    clip = small_clip("resnet")
    with pytest.raises(TrainingError, match="other weights in another process"):
        grid._finish(clip.name, "cpu", "fp32", "0" * 64, None, some("clip"))


def test_unknown_engine_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'dask'"):
        with processes("dusk", 1):
            pass


def test_a_missing_cluster_names_the_extra_that_brings_it(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(MissingDataError, match="cluster"):
        with processes("dask", 1):
            pass
