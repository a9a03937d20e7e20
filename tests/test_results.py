"""Results with provenance: written whole or not at all, found from anywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cocoop_tutorial import load_result, save_result
from cocoop_tutorial.errors import DataError, MissingDataError
from cocoop_tutorial.results import provenance, results_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COCOOP_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def test_what_is_saved_is_loaded(folder: Path) -> None:
    frame = pd.DataFrame({"method": ["CoOp", "CoCoOp"], "base": [1 / 3, np.nan]})
    data = {
        "table": frame,
        "loss": torch.tensor([0.5, 0.25]),
        "mean": np.float64(0.1),
        "steps": np.arange(3),
        "by class": pd.Series({"cat": 1.5}),
        "file": Path("some") / "where" / "x.json",
    }
    path = save_result("a_b.1", data, command="make bench", seeds=[1, 2], device="cpu")
    assert path == folder / "a_b.1.json"
    loaded = load_result("a_b.1")
    assert loaded["data"] == {
        "table": [{"method": "CoOp", "base": 1 / 3}, {"method": "CoCoOp", "base": None}],
        "loss": [0.5, 0.25],
        "mean": 0.1,
        "steps": [0, 1, 2],
        "by class": {"cat": 1.5},
        "file": "x.json",
    }
    record = loaded["provenance"]
    assert record["command"] == "make bench" and record["seeds"] == [1, 2]
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record["device"].startswith("CPU, ")
    assert set(record) >= {"commit", "date", "threads"}


def test_the_old_file_survives_a_failure(folder: Path) -> None:
    save_result("x", {"value": 1}, command="c")
    with pytest.raises(TypeError, match="a result cannot hold a object"):
        save_result("x", {"value": object()}, command="c")
    assert load_result("x")["data"] == {"value": 1}
    assert [f.name for f in folder.iterdir()] == ["x.json"]


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    # A limit on file size stops the write in the middle, as a full disk does.
    code = (
        "import resource, signal, sys\n"
        "from cocoop_tutorial import save_result\n"
        "save_result('x', {'value': 1}, command='c')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "save_result('x', {'value': list(range(100000))}, command='c')\n"
    )
    env = os.environ | {"COCOOP_RESULTS": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert run.returncode != 0 and "File too large" in run.stderr
    assert load_result("x", tmp_path)["data"] == {"value": 1}
    assert [f.name for f in tmp_path.iterdir()] == ["x.json"]


def test_unknown_result_names_the_near_ones(folder: Path) -> None:
    with pytest.raises(MissingDataError, match="no results yet"):
        load_result("base_to_new")
    save_result("base_to_new", {}, command="c")
    with pytest.raises(MissingDataError, match="Did you mean 'base_to_new'"):
        load_result("base_new")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"data": 1}',
        '{"data": NaN, "provenance": {}}',
        '{"data": 1e999, "provenance": {}}',
    ],
)
def test_damaged_result(folder: Path, content: str) -> None:
    folder.mkdir()
    (folder / "x.json").write_text(content)
    with pytest.raises(DataError, match=r"x\.json is damaged"):
        load_result("x")


def test_a_number_that_was_changed_is_noticed(folder: Path) -> None:
    path = save_result("x", {"accuracy": 71.7}, command="c")
    path.write_text(path.read_text().replace("71.7", "77.1"))
    with pytest.raises(DataError, match="not what was written"):
        load_result("x")


def test_the_folder_of_a_clone_is_found_from_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COCOOP_RESULTS", raising=False)
    below = tmp_path / "clone" / "_build" / "executed"
    for path in (below, tmp_path / "clone" / "results", tmp_path / "clone" / "cocoop_tutorial"):
        path.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert results_folder() == tmp_path / "clone" / "results"


def test_command_and_commit_name_no_folder_of_this_machine() -> None:
    record = provenance(seeds=[3])
    assert os.sep + "tmp" not in record["command"] and str(Path.home()) not in record["command"]
    assert json.loads(json.dumps(record)) == record
    code = "from cocoop_tutorial.results import provenance; print(provenance()['command'])"
    run = subprocess.run([sys.executable, "-c", code, "--x", "a b"], capture_output=True, text=True)
    assert run.stdout.strip() == "-c --x 'a b'"
