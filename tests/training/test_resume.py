"""A run that was stopped continues to the same bits; a full disk destroys no checkpoint."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from train_jobs import (
    in_process,
    make_data,
    make_model,
    run,
    run_killed_while_writing,
    run_on_full_disk,
    run_with_memory,
)

from cocoop_tutorial import TrainConfig, train
from cocoop_tutorial.errors import CheckpointError
from cocoop_tutorial.training.state import FILE

# 15 images, 4 per step, 3 epochs: 9 steps. Blocks of 5 features straddle the steps.
CONFIG: dict[str, Any] = {
    "epochs": 3, "batch_size": 4, "lr": 0.1, "feature_batch": 5, "save_every": 2,
}  # fmt: skip
STEPS = 9
CASES = {
    "CoOp": TrainConfig(**CONFIG, transform="train"),
    "CoCoOp": TrainConfig(**CONFIG, transform="train", micro_batch=3),
    "CoOp, features cached": TrainConfig(**CONFIG),
    "CoCoOp, bf16 products": TrainConfig(**CONFIG, precision="amp"),
    "CoCoOp, fp16 with a scaled loss": TrainConfig(**CONFIG, precision="fp16"),
}


def scaler_in(folder: Path) -> dict[str, Any]:
    """The loss scaler as the checkpoint has it."""
    with safe_open(folder / FILE, "pt") as file:
        return json.loads(file.metadata()["cocoop_tutorial"])["scaler"]


@pytest.mark.parametrize("case", CASES)
def test_killed_at_random_steps(case: str, tmp_path: Path) -> None:
    method, config = case.split(",")[0], CASES[case]
    whole, killed, folder = tmp_path / "whole.json", tmp_path / "killed.json", tmp_path / "run"
    assert in_process(run, method, tmp_path / "data", None, whole, config) == 0
    draw = random.Random(case)
    # Each of these processes continues from the last checkpoint and dies some steps later.
    for kill in (draw.randint(1, 3), draw.randint(3, 4), draw.randint(2, 3)):
        arguments = (method, tmp_path / "data", folder, killed, config, kill)
        assert in_process(run, *arguments) == -9
        assert not killed.exists()
    assert in_process(run, method, tmp_path / "data", folder, killed, config) == 0
    never, often = json.loads(whole.read_text()), json.loads(killed.read_text())
    assert never["steps"] == STEPS and 0 < often["steps"] < STEPS  # it did continue
    assert often["history"] == never["history"]
    assert often["state"] == never["state"]
    # It counts the steps since the loss last overflowed, over all processes.
    assert scaler_in(folder).get("_growth_tracker") == (STEPS if "scaled" in case else None)


def test_free_memory_may_change_meanwhile(tmp_path: Path) -> None:
    config, little, much = replace(CASES["CoCoOp"], micro_batch=None), 2**17, 2**30
    whole, killed, folder = tmp_path / "whole.json", tmp_path / "killed.json", tmp_path / "run"
    arguments = ("CoCoOp", tmp_path / "data")
    assert in_process(run_with_memory, *arguments, None, whole, config, little) == 0
    assert in_process(run_with_memory, *arguments, folder, killed, config, little, 3) == -9
    assert in_process(run_with_memory, *arguments, folder, killed, config, much) == 0
    never, once = json.loads(whole.read_text()), json.loads(killed.read_text())
    assert once["state"] == never["state"]
    assert in_process(run_with_memory, *arguments, None, whole, config, much) == 0
    assert once["state"] != json.loads(whole.read_text())["state"]  # so the budget matters


def test_killed_while_writing(tmp_path: Path) -> None:
    config, folder, out = CASES["CoOp, features cached"], tmp_path / "run", tmp_path / "out.json"
    whole = tmp_path / "whole.json"
    assert in_process(run, "CoOp", tmp_path / "data", None, whole, config) == 0
    arguments = ("CoOp", tmp_path / "data", folder, out, config, 3)
    assert in_process(run_killed_while_writing, *arguments) == -9
    (part,) = folder.glob("*.part")  # half of the third checkpoint, beside the second
    assert part.stat().st_size > 0 and (folder / FILE).exists()
    assert in_process(run, "CoOp", tmp_path / "data", folder, out, config) == 0
    assert [f.name for f in folder.iterdir()] == [FILE]
    assert json.loads(out.read_text())["state"] == json.loads(whole.read_text())["state"]


def test_full_disk_leaves_the_old_checkpoint_whole(tmp_path: Path) -> None:
    config, folder, out = CASES["CoOp, features cached"], tmp_path / "run", tmp_path / "out.json"
    assert in_process(run, "CoOp", tmp_path / "data", folder, out, config, 3) == -9
    before = (folder / FILE).read_bytes()
    assert in_process(run_on_full_disk, "CoOp", tmp_path / "data", folder, out, config) == 0
    kind, message = json.loads(out.read_text())
    assert kind == "FileError" and "free some space" in message and FILE in message
    assert [f.name for f in folder.iterdir()] == [FILE]
    assert (folder / FILE).read_bytes() == before
    assert in_process(run, "CoOp", tmp_path / "data", folder, out, config) == 0


def test_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    data, config = make_data(tmp_path / "data"), CASES["CoOp, features cached"]
    first, again = make_model("CoOp"), make_model("CoOp", seed=5)
    history = train(first, data, config, folder=tmp_path / "run")
    with pytest.warns(UserWarning, match=r"finished, so nothing is trained.*remove training"):
        assert train(again, data, config, folder=tmp_path / "run").equals(history)
    assert (again.ctx == first.ctx).all()
    with safe_open(tmp_path / "run" / FILE, "pt") as file:
        assert set(file.keys()) == {"parameter.ctx", "momentum.ctx"}


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    data, config = make_data(tmp_path / "data"), CASES["CoOp, features cached"]
    train(make_model("CoOp"), data, config, folder=tmp_path / "run")
    before = (tmp_path / "run" / FILE).read_bytes()
    other = TrainConfig(**{**CONFIG, "lr": 0.2})
    with pytest.raises(CheckpointError, match=r"lr 0\.1 \(now 0\.2\)"):
        train(make_model("CoOp"), data, other, folder=tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"method 'CoOp' \(now 'CoCoOp'\)"):
        train(make_model("CoCoOp"), data, config, folder=tmp_path / "run")
    fewer = make_data(tmp_path / "data", each=4)
    with pytest.raises(CheckpointError, match="images"):
        train(make_model("CoOp"), fewer, config, folder=tmp_path / "run")
    with pytest.raises(CheckpointError, match="weights"):
        train(make_model("CoOp", weights=1), data, config, folder=tmp_path / "run")
    model = make_model("CoOp")
    model.encoder = "reference"
    with pytest.raises(CheckpointError, match="encoder 'packed' \\(now 'reference'\\)"):
        train(model, data, config, folder=tmp_path / "run")
    model = make_model("CoOp", precision="amp")  # a backbone that no other test has
    model.clip.name, model.clip.model.visual.proj.data[0, 0] = "small-vit-gelu", 2.0
    with pytest.raises(CheckpointError, match="weights"):
        train(model, data, replace(config, precision="fp32"), folder=tmp_path / "run")
    path = data.train.samples[0][0]
    path.write_bytes(data.train.samples[-1][0].read_bytes())  # another picture, the same name
    with pytest.raises(CheckpointError, match="images"):
        train(make_model("CoOp"), data, config, folder=tmp_path / "run")
    assert (tmp_path / "run" / FILE).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no tensors here", None])
def test_damaged_checkpoint(tmp_path: Path, content: bytes | None) -> None:
    data, config = make_data(tmp_path / "data"), CASES["CoOp, features cached"]
    file = tmp_path / "run" / FILE
    train(make_model("CoOp"), data, config, folder=tmp_path / "run")
    file.write_bytes(file.read_bytes()[:-40] if content is None else content)
    with pytest.raises(CheckpointError, match="is damaged"):
        train(make_model("CoOp"), data, config, folder=tmp_path / "run")
