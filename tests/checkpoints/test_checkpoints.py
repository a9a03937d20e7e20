import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learners import MODELS, NAMES, assert_same, shaken
from small_clips import small_clip

from cocoop_tutorial import CoCoOp, CoOp
from cocoop_tutorial.checkpoints.prompts import (
    load_prompts,
    read_prompts,
    save_prompts,
    write_atomic,
)
from cocoop_tutorial.errors import CheckpointError, MissingDataError, PromptError


@pytest.mark.parametrize("kind", MODELS)
def test_round_trip(kind: str, tmp_path: Path) -> None:
    model = shaken(MODELS[kind]())
    path = save_prompts(model, tmp_path / "new" / "folder" / "prompt.safetensors")
    state = torch.get_rng_state()
    loaded = load_prompts(path, model.clip)
    assert torch.equal(state, torch.get_rng_state()), "loading draws no random numbers"
    assert_same(loaded, model)
    assert [p.name for p in path.parent.iterdir()] == ["prompt.safetensors"]


@settings(deadline=None, max_examples=20)
@given(
    n_ctx=st.integers(1, 8),
    names=st.lists(st.from_regex(r"[a-z]{1,8}( [a-z]{1,8})?", fullmatch=True), unique=True).filter(
        bool
    ),
    seed=st.integers(0, 99),
)
def test_round_trip_of_any_names(
    n_ctx: int, names: list[str], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = shaken(CoCoOp(small_clip(), names, n_ctx, None), seed)
    path = save_prompts(model, tmp_path_factory.mktemp("any") / "prompt.safetensors")
    assert_same(load_prompts(path, model.clip), model)


def test_the_file_names_its_backbone(tmp_path: Path) -> None:
    clip = small_clip()
    path = save_prompts(CoOp(clip, NAMES), tmp_path / "prompt.safetensors")
    facts, _ = read_prompts(path)
    assert facts["backbone"] == clip.name
    other = small_clip(seed=1)
    other.name = "another"
    with pytest.warns(UserWarning, match="trained on 'small-vit-gelu'.*'another'"):
        load_prompts(path, other)


def test_other_classes(tmp_path: Path) -> None:
    model = shaken(CoCoOp(small_clip(), NAMES))
    path = save_prompts(model, tmp_path / "prompt.safetensors")
    assert_same(load_prompts(path, model.clip, ["ketch"]), model.with_classnames(["ketch"]))
    specific = CoOp(small_clip(), NAMES, 4, class_specific=True)
    path = save_prompts(specific, tmp_path / "specific.safetensors")
    with pytest.raises(PromptError, match="class_specific"):
        load_prompts(path, specific.clip, ["ketch"])


def test_facts_and_training_settings(tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Settings:
        epochs: int = 10
        data: Path = Path("somewhere")

    model = CoCoOp(small_clip(), NAMES)
    for training in (Settings(), {"epochs": 10, "data": "somewhere"}):
        path = save_prompts(model, tmp_path / "prompt.safetensors", training)
        facts, state = read_prompts(path)
        assert facts["training"] == {"epochs": 10, "data": "somewhere"}
    assert facts["method"] == "CoCoOp"
    assert facts["classnames"] == NAMES
    assert facts["options"]["n_ctx"] == 4 and facts["options"]["ctx_init"] == "a photo of a"
    assert facts["sizes"] == {"text width": 32, "joint width": 48, "context length": 32}
    assert sorted(state) == sorted(model.prompt_state()), "the prompt only, not the backbone"


def rewritten(path: Path, **changes: object) -> Path:
    """A copy of a file with other facts in its metadata."""
    facts, state = read_prompts(path)
    target = path.with_name("rewritten.safetensors")
    metadata = {"cocoop_tutorial": json.dumps(facts | changes)}
    safetensors.torch.save_file(state, target, metadata)
    return target


def test_another_width_or_context_length(tmp_path: Path) -> None:
    path = save_prompts(CoCoOp(small_clip(), NAMES), tmp_path / "prompt.safetensors")
    with pytest.raises(CheckpointError, match=r"context length 32 \(here 77\)"):
        load_prompts(path, small_clip(context_length=77))
    wide = rewritten(path, sizes={"text width": 512, "joint width": 48, "context length": 32})
    with pytest.raises(CheckpointError, match=r"text width 512 \(here 32\)\."):
        load_prompts(wide, small_clip())


def test_a_file_that_contradicts_itself(tmp_path: Path) -> None:
    path = save_prompts(CoCoOp(small_clip(), NAMES), tmp_path / "prompt.safetensors")
    options = {"n_ctx": 6, "ctx_init": None}
    with pytest.raises(CheckpointError, match=r"rewritten.*ctx is \[4, 32\].*\[6, 32\]"):
        load_prompts(rewritten(path, options=options), small_clip())
    for changes in ({"version": 99}, {"method": "CoCoOpPlus"}):
        with pytest.raises(CheckpointError, match="Update the library"):
            load_prompts(rewritten(path, **changes), small_clip())


@pytest.mark.parametrize("fact", ["backbone", "sizes", "options", "classnames"])
def test_a_file_that_says_too_little(tmp_path: Path, fact: str) -> None:
    facts, state = read_prompts(save_prompts(CoOp(small_clip(), NAMES), tmp_path / "whole"))
    del facts[fact]
    less = tmp_path / "less"
    safetensors.torch.save_file(state, less, {"cocoop_tutorial": json.dumps(facts)})
    with pytest.raises(CheckpointError, match=f"less does not say its {fact}"):
        load_prompts(less, small_clip())


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no file"):
        load_prompts(tmp_path / "none.safetensors", small_clip())
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"ctx": torch.zeros(4, 32)}, foreign)
    with pytest.raises(CheckpointError, match="another program"):
        load_prompts(foreign, small_clip())
    foreign.write_text("no safetensors")
    with pytest.raises(CheckpointError, match="load_official"):
        load_prompts(foreign, small_clip())


@settings(deadline=None, max_examples=40)
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_named(cut: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    model = CoOp(small_clip(), NAMES)
    path = save_prompts(model, tmp_path_factory.mktemp("cut") / "prompt.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[: int(cut * len(data))])
    with pytest.raises(CheckpointError, match=r"prompt\.safetensors"):
        load_prompts(path, model.clip)


FULL_DISK = """
import resource, signal, sys
from cocoop_tutorial.checkpoints.prompts import write_atomic
from cocoop_tutorial.errors import CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # no file may grow beyond this
try:
    write_atomic(sys.argv[1], b"new" * 1000)
except CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "prompt.safetensors", b"old")
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "could not be written" in run.stdout and str(path) in run.stdout
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["prompt.safetensors"], "no half file stays"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="could not be written"):
        save_prompts(CoOp(small_clip(), NAMES), tmp_path / "file" / "prompt.safetensors")


@pytest.mark.skipif(sys.platform == "win32", reason="Unix permissions")
def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    ours = write_atomic(tmp_path / "ours", b"")
    assert os.stat(ours).st_mode == os.stat(usual).st_mode
