"""Several processes do what one does: training, evaluation, and `torchrun` itself."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from program import Cocoop
from train_jobs import make_data, make_model, run, run_shared, together

from cocoop_tutorial import TrainConfig, distributed, evaluate, train
from cocoop_tutorial.errors import DeviceError, TrainingError

CONFIG = TrainConfig(epochs=3, batch_size=4, lr=0.05)
CASES = {
    "CoOp": CONFIG,
    "CoCoOp": CONFIG,
    # 15 images, the last 3 shared by two: one of them fills up and must not count
    "CoCoOp, uneven": replace(CONFIG, drop_last=False),
    "CoCoOp, crops": replace(CONFIG, transform="train", feature_batch=3),
    "CoCoOp, in parts": replace(CONFIG, micro_batch=1),
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one_with_the_same_batch(case: str, tmp_path: Path) -> None:
    method, config = case.split(",")[0], CASES[case]
    alone, data = make_model(method), make_data(tmp_path / "data")
    history = train(alone, data, config)
    (tmp_path / "out").mkdir()
    arguments = (method, tmp_path / "data", tmp_path / "out", config)
    assert together(run_shared, 2, tmp_path, *arguments) == [0, 0]
    first, second = (torch.load(tmp_path / "out" / f"{rank}.pt") for rank in (0, 1))
    start = make_model(method).prompt_state()
    for name, value in alone.prompt_state().items():
        assert torch.equal(first["state"][name], second["state"][name])
        torch.testing.assert_close(first["state"][name], value, rtol=1e-4, atol=1e-6)
        assert not torch.equal(value, start[name])
    rows = history.drop(columns="seconds").to_dict("records")
    for a, b, c in zip(first["history"], second["history"], rows, strict=True):
        assert a == b and a == pytest.approx(c, rel=1e-5)
    whole = evaluate(alone, data)
    for result in (first, second):
        assert torch.equal(result["labels"], whole.labels)
        torch.testing.assert_close(result["logits"], whole.logits, rtol=1e-4, atol=1e-4)


def run_in_group(rank: int, method: str, data: Path, folder: Path, *rest: Any) -> None:
    run(method, data, folder / "run", folder / f"{rank}.json", *rest)


def test_processes_that_are_killed_go_on_together(tmp_path: Path) -> None:
    config = replace(CONFIG, save_every=2, transform="train", feature_batch=3)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    arguments = ("CoCoOp", tmp_path / "data")
    assert together(run_in_group, 2, tmp_path, *arguments, whole, config) == [0, 0]
    for kill in (3, 4):
        assert together(run_in_group, 2, tmp_path, *arguments, killed, config, kill) == [-9, -9]
    assert together(run_in_group, 2, tmp_path, *arguments, killed, config) == [0, 0]
    for rank in (0, 1):
        one, other = (json.loads((f / f"{rank}.json").read_text()) for f in (whole, killed))
        assert one["state"] == other["state"] and other["steps"] < one["steps"]


def check_shares(rank: int, out: Path) -> None:
    """Gathers shares of every small size, in three processes."""
    for n in range(1, 11):
        mine = distributed.share(n)
        assert len(mine) == -(-n // 3)
        rows = torch.tensor(mine).unsqueeze(1).expand(-1, 2)
        assert distributed.gather_rows(rows, n).tolist() == [[i, i] for i in range(n)]
    assert distributed.total([1.0, rank], torch.device("cpu")) == [3.0, 3.0]
    (out / f"{rank}").touch()


def test_shares_come_together_again(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert together(check_shares, 3, tmp_path, tmp_path / "out") == [0, 0, 0]
    assert len(list((tmp_path / "out").iterdir())) == 3


@given(st.integers(1, 100))
def test_one_process_has_everything(n: int) -> None:
    assert distributed.share(n) == list(range(n))
    rows = torch.arange(n)
    assert distributed.gather_rows(rows, n) is rows
    assert distributed.total([1.5], torch.device("cpu")) == [1.5]
    assert distributed.is_main() and distributed.world_size() == 1


def refuse_uneven_batch(rank: int, data: Path, out: Path) -> None:
    try:
        train(make_model("CoOp"), make_data(data), TrainConfig(epochs=1, batch_size=5))
    except TrainingError as error:
        (out / f"{rank}").write_text(str(error))


def test_batch_that_cannot_be_shared(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    together(refuse_uneven_batch, 2, tmp_path, tmp_path / "data", tmp_path / "out")
    assert "Use batch_size=6" in (tmp_path / "out" / "1").read_text()


def test_no_torchrun_no_session() -> None:
    with distributed.session("cpu") as device:
        assert device == "cpu" and not distributed.active()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has GPUs")
def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DeviceError, match="--device cpu"), distributed.session("cuda"):
        pass


def test_torchrun(tmp_path: Path, model_dir: Path, cocoop: Cocoop) -> None:
    make_data(tmp_path / "noise")
    arguments: list[Any] = [
        "train", "--backbone", f"local-dir:{model_dir}", "--data", tmp_path / "noise",
        "--classes", "all", "--shots", "2", "--epochs", "2", "--batch-size", "2",
        "--device", "cpu", "--json",
    ]  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", "-m", "cocoop_tutorial"]
    command = [*torchrun, *map(str, arguments), "--out", str(tmp_path / "run2")]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COCOOP_QUIET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=500)
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)  # one process prints

    alone = cocoop(*arguments, "--out", tmp_path / "run1")
    assert alone.status == 0, alone.err
    one = json.loads(alone.out)
    assert [r["loss"] for r in two["history"]] == pytest.approx(
        [r["loss"] for r in one["history"]], rel=1e-5
    )
    assert two["scores"] == one["scores"]
    assert sorted(f.name for f in (tmp_path / "run2").iterdir()) == [
        "prompts.safetensors", "result.json", "training.safetensors",
    ]  # fmt: skip
