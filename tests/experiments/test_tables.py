"""Tables: the paper's settings, means, intervals, verdicts, and the command that makes them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cocoop_tutorial import load_result, save_result
from cocoop_tutorial.errors import DataError, MissingDataError, UnknownNameError
from cocoop_tutorial.experiments import claims, report, summary, tables, tuning
from cocoop_tutorial.experiments.methods import METHODS
from cocoop_tutorial.experiments.protocols import halves, transfers
from cocoop_tutorial.experiments.worlds import EMBEDDED, PAPER
from cocoop_tutorial.results import results_folder

BOOK = Path(__file__).parents[2] / "book"


def test_settings_are_the_papers() -> None:
    for world, epochs, transform in ((EMBEDDED, 50, "test"), (PAPER, 50, "train")):
        for dataset in world.datasets:
            coop, cocoop = (world.config(m, dataset, 3) for m in ("coop", "cocoop"))
            assert (cocoop.epochs, cocoop.batch_size) == (10, 1)
            assert (coop.epochs, coop.batch_size) == (
                epochs if dataset == world.source else 200,
                32,
            )
            assert {c.lr for c in (coop, cocoop)} == {0.002}
            assert {c.transform for c in (coop, cocoop)} == {transform}
            assert coop.seed == 3
    assert len(EMBEDDED.datasets) == len(PAPER.datasets) == 11
    assert len(EMBEDDED.shifts) == len(PAPER.shifts) == 4
    assert not set(EMBEDDED.settings) & set(EMBEDDED.datasets)


def test_controls_differ_from_their_method_in_one_thing() -> None:
    cocoop = METHODS["cocoop"]
    for name in ("cocoop-noise", "cocoop-zero", "coop-matched"):
        other = METHODS[name]
        assert other.config == cocoop.config
        assert {k: v for k, v in other.options.items() if k != "kind"} == {
            k: v for k, v in cocoop.options.items() if k != "kind"
        }


def test_every_table_has_its_runs() -> None:
    save_needed = {"tuned"}
    for name in tables.TABLES.keys() - save_needed:
        wanted = tables.table(name)
        asked = tables.Asked(EMBEDDED, EMBEDDED.datasets[:3], (1, 2), wanted.methods)
        made = wanted.runs(asked)
        assert made and len(made) == len(set(made))
        assert {run.method for run in made} == set(wanted.methods)
    assert tables.table("table5").compared_in(EMBEDDED) == ("coop", "coop-big", "cocoop")
    assert tables.table("table5").compared_in(PAPER) == ("coop", "coop-60", "cocoop")
    assert METHODS["coop-60"].options["n_ctx"] == 60
    source = tables.table("table2").runs(tables.Asked(EMBEDDED, EMBEDDED.datasets, (1,), ("coop",)))
    assert [run.dataset for run in source] == [EMBEDDED.source]
    assert set(source[0].targets) == {*EMBEDDED.datasets, *EMBEDDED.shifts}
    matrix = tables.table("matrix").runs(tables.Asked(EMBEDDED, EMBEDDED.datasets, (1,), ("coop",)))
    assert source[0] in matrix and len(matrix) == 11


def row(method: str, seed: int, target: str, split: str, right: list[int], **more) -> dict:
    """A row of four classes with ten images each."""
    text = {"right": " ".join(map(str, right)), "images": "10 10 10 10"}
    facts = {"dataset": target, "method": method, "seed": seed, "target": target, "split": split}
    scored = {"pi": "own", "epoch": None, "accuracy": 100 * sum(right) / 40}
    return facts | scored | text | more


def grid(**right: list[list[int]]) -> pd.DataFrame:
    """Two seeds on two data sets; `right` has by method and split-data set a list per seed."""
    rows = []
    for where, lists in right.items():
        method, split, target = where.split("_")
        rows += [row(method, s, target, split, r) for s, r in enumerate(lists, 1)]
    return pd.DataFrame(rows)


ROWS = grid(
    clip_base_a=[[8, 8, 8, 8]] * 2, clip_new_a=[[6, 6, 6, 6]] * 2,
    clip_base_b=[[4, 4, 4, 4]] * 2, clip_new_b=[[2, 2, 2, 2]] * 2,
    coop_base_a=[[9, 9, 9, 9], [10, 10, 10, 10]], coop_new_a=[[5, 5, 5, 5], [4, 4, 4, 4]],
    coop_base_b=[[9, 1, 9, 1], [4, 4, 4, 4]], coop_new_b=[[2, 2, 2, 2], [2, 2, 2, 2]],
)  # fmt: skip


def test_means_are_of_seeds_then_of_data_sets() -> None:
    found = summary.means(ROWS).loc["coop"]
    assert found.base == pytest.approx((95 + 45) / 2)
    assert found.new == pytest.approx((45 + 20) / 2)
    assert found.H == pytest.approx(2 * 70 * 32.5 / 102.5)  # of the means, as in the paper
    h = (2 * 95 * 45 / 140, 2 * 45 * 20 / 65)  # of the means over seeds, per data set
    assert found.mean_H == pytest.approx(sum(h) / 2)
    assert found.sd_base == pytest.approx(np.std([(90 + 50) / 2, (100 + 40) / 2], ddof=1))
    assert summary.per_seed(ROWS).loc[("a", "coop", 2), "new"] == pytest.approx(40)


def test_intervals_know_that_images_of_a_class_go_together() -> None:
    even, uneven = (
        grid(x_base_a=[r] * 2, y_base_a=[[5, 5, 5, 5]] * 2) for r in ([5, 5, 5, 5], [10, 0, 10, 0])
    )
    same = summary.difference(even, "x", "y", "base")
    assert (same.effect, same.low, same.high) == (0, 0, 0)
    wide = summary.difference(uneven, "x", "y", "base")
    assert wide.effect == 0 and wide.low <= -40 and wide.high >= 40
    assert wide.verdict(1) == wide.verdict(-1) == "cannot tell"


def test_what_is_compared_is_compared_on_the_same_draws() -> None:
    rows = grid(x_base_a=[[10, 1, 9, 2]] * 2, y_base_a=[[9, 0, 8, 1]] * 2)
    found = summary.difference(rows, "x", "y", "base")
    assert [found.effect, found.low, found.high] == pytest.approx([10, 10, 10])
    assert found.verdict(1) == "holds here" and found.verdict(-1) == "does not hold here"


def test_difference_of_h_is_of_the_means() -> None:
    found = summary.difference(ROWS, "coop", "clip", "H")
    assert found.effect == pytest.approx(summary.means(ROWS).H.diff().iloc[-1])
    assert found.low < found.effect < found.high
    new = summary.difference(ROWS, "clip", "coop", "new")
    assert (new.ahead, new.of) == (1, 2)


def test_only_data_sets_that_both_have_are_compared() -> None:
    rows = ROWS[(ROWS.method != "coop") | (ROWS.target == "a")]
    found = summary.difference(rows, "coop", "clip", "new")
    assert (found.effect, found.of) == (pytest.approx(-15), 1)
    with pytest.raises(DataError, match="kgcoop"):
        summary.difference(rows, "kgcoop", "clip", "new")


def test_a_control_is_another_pi_of_the_same_runs() -> None:
    mean = ROWS[ROWS.method == "coop"].assign(pi="mean", accuracy=0.0, right="0 0 0 0")
    rows = pd.concat([ROWS, mean])
    assert summary.means(rows).equals(summary.means(ROWS))
    found = summary.difference(rows, "coop", "coop", "new", ("own", "mean"))
    assert found.effect == pytest.approx(32.5) and found.verdict(1) == "holds here"


def test_claims_are_told_from_files(tmp_path: Path) -> None:
    save_result("table1", ROWS, "test", folder=tmp_path)
    told = claims.claims_table(claims.CLAIMS[:2], tmp_path)
    assert told.verdict.tolist()[0] in ("holds here", "cannot tell")
    assert told.iloc[0]["ahead"] == "2 of 2" and told.iloc[0].effect.startswith("+10.0 [")
    assert told.iloc[1].effect.startswith("-7.5 [")


def test_the_recorded_claims_have_their_rows() -> None:
    for claim in (*claims.CLAIMS, *claims.CONTROLS):
        wanted = tables.table(claim.table)
        assert {claim.first, claim.second} <= set(wanted.methods), claim


def test_settings_are_chosen_by_h_of_the_means() -> None:
    runs = tuning.candidates(EMBEDDED, ("coop", "cocoop"), (1,))
    assert {run.dataset for run in runs} == set(EMBEDDED.settings)
    assert {run.config.epochs for run in runs} == {tuning.EPOCHS}
    rows = pd.DataFrame(
        [
            row("coop", 1, t, split, [n] * 4, batch_size=b, lr=0.1)
            for b, base, new in ((1, 9, 2), (8, 6, 6), (32, 10, 3))
            for t in ("a", "b")
            for split, n in (("base", base), ("new", new))
        ]
    )
    assert tuning.chosen(rows) == {"coop": (8, 0.1)}
    with pytest.raises(MissingDataError, match="no settings for cocoop"):
        tuning.tuned(rows, EMBEDDED, ["icons_games"], ["cocoop"], (1,))
    final = tuning.tuned(rows, EMBEDDED, ["icons_games"], ["coop"], (1, 2))
    assert {(r.config.batch_size, r.config.lr, r.config.epochs) for r in final} == {(8, 0.1, 10)}


def test_the_command_makes_a_table(cocoop, tmp_path: Path) -> None:
    few = "--datasets", "icons_games", "--methods", "clip", "--seeds", "1"
    where = "--out", str(tmp_path), "--cells", str(tmp_path / "cells"), "--jobs", "1"
    done = cocoop("reproduce", "table1", *few, *where, "--json")
    assert done.status == 0, done.err
    (told,) = json.loads(done.out)
    assert told.keys() == {"dataset", "method", "seed", "target", "shots", "base", "new", "h"}
    assert told["h"] == pytest.approx(2 * told["base"] * told["new"] / (told["base"] + told["new"]))
    rows = summary.recorded("table1", tmp_path)
    assert summary.means(rows).loc["clip", "base"] == pytest.approx(told["base"])
    shown = cocoop("reproduce", "table1", *few, *where).out
    assert "CLIP" in shown and "80.47" in shown  # the paper's CoCoOp beside it


def test_a_shard_without_work_is_no_error(cocoop, tmp_path: Path) -> None:
    few = "--datasets", "icons_games", "--methods", "clip", "--seeds", "1", "--shard", "9/9"
    for more in ((), ("--json",)):
        done = cocoop("reproduce", "table1", *few, "--cells", str(tmp_path), *more)
        assert done.status == 0, done.err
    assert json.loads(done.out) == [] and not list(tmp_path.iterdir())


def test_quick_search_is_of_one_data_set_for_settings() -> None:
    asked = tables.quick("search", tables.ask(EMBEDDED))
    tables.check("search", asked)
    assert {run.dataset for run in tables.search_runs(replace(asked, methods=("coop",)))} == {
        EMBEDDED.settings[-1]
    }


def test_a_part_of_a_table_does_not_replace_the_whole(cocoop, tmp_path: Path) -> None:
    few = "--datasets", "icons_games", "--methods", "clip", "--cells", str(tmp_path)
    done = cocoop("reproduce", "table4", *few, "--jobs", "1", COCOOP_RESULTS=str(tmp_path))
    assert done.status == 0 and not (tmp_path / "table4.json").exists()


def test_a_shard_does_not_replace_the_whole(cocoop, tmp_path: Path) -> None:
    shard = "--methods", "clip", "--shard", "9999/9999", "--cells", str(tmp_path)
    done = cocoop("reproduce", "matrix", *shard, COCOOP_RESULTS=str(tmp_path))
    assert done.status == 0 and not (tmp_path / "matrix.json").exists()
    done = cocoop("reproduce", "matrix", *shard, "--out", str(tmp_path))
    assert done.status == 0 and load_result("matrix", tmp_path)["provenance"]["seeds"] == []


def test_a_result_names_the_seeds_that_it_holds(cocoop, tmp_path: Path) -> None:
    few = "--datasets", "icons_games", "--methods", "clip", "--source", "icons_games"
    done = cocoop("reproduce", "matrix", *few, "--cells", str(tmp_path), "--out", str(tmp_path))
    assert done.status == 0 and load_result("matrix", tmp_path)["provenance"]["seeds"] == [1]


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--engine", "dusk", "Did you mean 'dask'"),
        ("--datasets", "icons_game", "Did you mean 'icons_games'"),
        ("--methods", "cocop", "Did you mean 'cocoop'"),
        ("--world", "papers", "Did you mean 'paper'"),
        ("--seeds", "one", "not a list of numbers"),
        ("--shard", "3/2", "i from 1 to n"),
    ],
)
def test_wrong_options_are_named(cocoop, option: str, value: str, told: str) -> None:
    done = cocoop("reproduce", "table1", "--datasets", "icons_games", option, value)
    assert done.status != 0 and told in " ".join((done.err + done.out).split())


def test_unknown_table_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="table1"):
        tables.table("table11")
    with pytest.raises(UnknownNameError, match="cocoop"):
        halves(["icons_games"], ["cocop"])
    assert transfers("icons_games", ["icons_tools"], ["clip"], (1,))[0].config is None


RECORDED = [name for name in tables.TABLES if (results_folder() / f"{name}.json").is_file()]


def test_what_chapters_read_is_recorded() -> None:
    book = " ".join(path.read_text() for path in BOOK.glob("*.ipynb"))
    read = set(re.findall(r'recorded\(\\"(\w+)', book)) & set(tables.TABLES)
    assert {"table1", "table2", "table3", "table4"} <= read <= set(RECORDED)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_tables_are_whole(name: str) -> None:
    rows = summary.recorded(name)
    wanted = tables.table(name)
    runs = wanted.runs(replace(tables.Asked(EMBEDDED, EMBEDDED.datasets), methods=wanted.methods))
    keys = ["dataset", "method", "seed", "shots"]
    there = set(rows[keys].itertuples(index=False, name=None))
    assert there == {(r.dataset, r.method, r.seed, r.shots) for r in runs}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_tables_can_be_shown(name: str) -> None:
    rows = summary.recorded(name)
    text = report.show(name, rows)
    assert text.startswith(tables.table(name).title)
    assert all(summary.label(method) in text for method in tables.table(name).methods)
    runs = json.loads(report.show(name, rows, as_json=True))
    assert {row["method"] for row in runs} == set(tables.table(name).methods)
