"""A training folder belongs to one run, and its checkpoint is checked before it is used."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from train_jobs import (
    held,
    in_process,
    make_data,
    make_model,
    run_and_tell,
    run_shared_and_tell,
    together,
)

from cocoop_tutorial import Dataset, TrainConfig, train
from cocoop_tutorial.errors import CheckpointError, FileError, TrainingError
from cocoop_tutorial.files import read_tensors, write_tensors
from cocoop_tutorial.training import history
from cocoop_tutorial.training.state import FILE, Progress, identity, load_state, own_folder
from cocoop_tutorial.training.step import new_state

CONFIG = TrainConfig(epochs=3, batch_size=4, lr=0.1, save_every=2)


class StopHereError(Exception):
    """Ends a run in the middle."""


def train_first_epoch(data: Dataset, folder: Path, **settings: Any) -> None:
    """Leaves a checkpoint in the second of three epochs."""
    epochs = []

    def stop(_: object) -> dict[str, float]:
        epochs.append(1)
        if len(epochs) == 2:
            raise StopHereError
        return {}

    with pytest.raises(StopHereError):
        train(
            make_model("CoOp"), data, dataclasses.replace(CONFIG, **settings),
            folder=folder, on_epoch_end=stop,
        )  # fmt: skip


# --- one run at a time ---


def test_a_second_run_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    data, folder, out = make_data(tmp_path / "data"), tmp_path / "run", tmp_path / "out"
    part, out_of = folder / ".training.safetensors-x.part", tmp_path / "group"
    out_of.mkdir()
    with held(folder):
        part.write_bytes(b"half")  # the other one is writing
        with pytest.raises(CheckpointError, match="Another run is at work"):
            train(make_model("CoOp"), data, CONFIG, folder=folder)
        assert in_process(run_and_tell, "CoOp", tmp_path / "data", folder, out, CONFIG) == 0
        group = tmp_path / "data", folder, out_of, CONFIG
        assert together(run_shared_and_tell, 2, tmp_path, *group) == [0, 0]
        for told in (out, out_of / "0", out_of / "1"):
            assert "Another run is at work" in told.read_text()
        assert part.exists()
    train(make_model("CoOp"), data, CONFIG, folder=folder)
    assert [f.name for f in folder.iterdir()] == [FILE], "neither a lock nor a part is left"


def test_blocks_of_one_run_may_be_nested(tmp_path: Path) -> None:
    with own_folder(tmp_path / "new"):
        with own_folder(tmp_path / "new" / ".." / "new"):
            pass
        assert list((tmp_path / "new").iterdir()), "still held"
    assert not (tmp_path / "new").exists(), "nothing came of it"


@pytest.mark.parametrize("place", ["file/run", "file", "/dev/null/run", "x" * 300])
def test_a_folder_that_cannot_be_is_found_before_any_work(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    missing = make_data(tmp_path / "data")
    missing.train.samples[0][0].unlink()  # would be found if an image were opened
    with pytest.raises(FileError, match="cannot be made or written to"):
        train(make_model("CoOp"), missing, CONFIG, folder=tmp_path / place)


# --- where a run began ---


def test_a_run_goes_on_with_its_number_of_threads(tmp_path: Path) -> None:
    data, seen, before = make_data(tmp_path / "data"), [], torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        train_first_epoch(data, tmp_path / "run")
    finally:
        torch.set_num_threads(before)

    def look(_: object) -> dict[str, float]:
        seen.append(torch.get_num_threads())
        return {}

    train(make_model("CoOp"), data, CONFIG, folder=tmp_path / "run", on_epoch_end=look)
    assert set(seen) == {before + 1} and torch.get_num_threads() == before


def test_what_cannot_be_taken_over_is_said(tmp_path: Path) -> None:
    data, path = make_data(tmp_path / "data"), tmp_path / "run" / FILE
    train_first_epoch(data, path.parent)
    facts, tensors = read_tensors(path)
    began = {"torch": "2.0", "processor": "AVX", "processes": 2}
    write_tensors(path, tensors, facts | {"machine": facts["machine"] | began})
    with pytest.warns(UserWarning) as said:
        train(make_model("CoOp"), data, CONFIG, folder=path.parent)
    (message,) = [str(w.message) for w in said if "last digits" in str(w.message)]
    for words in ("torch '2.0' (now", "processor 'AVX' (now", "processes 2 (now 1)"):
        assert words in message
    assert read_tensors(path)[0]["machine"]["torch"] == "2.0", "it still began there"


# --- what is in the file ---


def test_equal_runs_write_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    data = make_data(tmp_path / "data")
    for folder in ("one", "two"):
        train_first_epoch(data, tmp_path / folder)
    one, two = ((tmp_path / folder / FILE).read_bytes() for folder in ("one", "two"))
    assert one == two


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    folder = tmp_path_factory.mktemp("kept")
    data = make_data(folder / "data")
    train_first_epoch(data, folder)
    return folder / FILE, data


def read_again(path: Path, data: Dataset, facts: dict, tensors: dict) -> None:
    """Loads a changed file; what is not refused must be fit to go on with."""
    model = make_model("CoOp")
    config = CONFIG.resolved("CoOp", "fp32")
    folder = path.with_name("changed")
    write_tensors(folder / FILE, tensors, facts)
    state, before = new_state(model, config), model.prompt_state()
    try:
        assert load_state(state, folder, identity(model, data, config))
    except CheckpointError as error:
        assert str(folder) in str(error)
        assert torch.equal(model.ctx, before["ctx"]) and state.progress == Progress()
    else:
        assert model.ctx.isfinite().all() and 0 < state.budget
        assert state.progress.epoch <= 3 and state.progress.step < 3


BAD = [None, True, -1, 0, 1, 1.5, 10**400, float("inf"), float("nan"), "x", [], [1], [{}], {}]
PLACE = [f.name for f in dataclasses.fields(Progress)]


@given(
    name=st.sampled_from(["version", "run", "place", "scaler", "budget", "machine", *PLACE]),
    bad=st.sampled_from([*BAD, "absent"]),
)
def test_facts_that_cannot_be(kept: tuple[Path, Dataset], name: str, bad: object) -> None:
    facts, tensors = read_tensors(kept[0])
    inner = facts["place"] if name in PLACE else facts
    inner[name] = bad
    if bad == "absent":
        del inner[name]
    read_again(*kept, facts, tensors)


CHANGES = {
    "absent": lambda x: None,
    "broadcast": lambda x: x[:1],
    "scalar": lambda x: x.sum(),
    "empty": lambda x: x[:0],
    "NaN": lambda x: x * float("nan"),
    "infinite": lambda x: x / 0,
    "integers": lambda x: x.long(),
    "half": lambda x: x.half(),
    "tiny floats": lambda x: x.to(torch.float8_e4m3fn),
}


@pytest.mark.parametrize("name", ["parameter.ctx", "momentum.ctx", "parameter.other"])
@pytest.mark.parametrize("change", CHANGES)
def test_tensors_that_cannot_be(kept: tuple[Path, Dataset], name: str, change: str) -> None:
    facts, tensors = read_tensors(kept[0])
    value = CHANGES[change](tensors.get(name, tensors["parameter.ctx"].clone()))
    tensors = {n: x for n, x in tensors.items() if n != name}
    read_again(*kept, facts, tensors if value is None else tensors | {name: value})


def test_training_inside_inference_mode(tmp_path: Path) -> None:
    data, config = make_data(tmp_path / "data"), dataclasses.replace(CONFIG, epochs=1)
    outside, inside = make_model("CoOp"), make_model("CoOp")
    train(outside, data, config)
    for block in (torch.inference_mode, torch.no_grad):
        inside.load_prompt_state(make_model("CoOp").prompt_state())
        with block():
            train(inside, data, config)
        assert torch.equal(inside.ctx, outside.ctx)
    with torch.inference_mode():
        made = make_model("CoOp")
    with pytest.raises(TrainingError, match=r"made in torch\.inference_mode"):
        train(made, data, config)
