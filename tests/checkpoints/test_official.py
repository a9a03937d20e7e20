"""The official code's checkpoint files; that their numbers are right is in test_parity.py."""

import contextlib
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learners import MODELS, NAMES, assert_same, shaken
from parity_world import load_world
from small_clips import small_clip

from cocoop_tutorial import CoCoOp, CoOp, load_official, save_official
from cocoop_tutorial.checkpoints.official import read_official
from cocoop_tutorial.errors import CheckpointError, MissingDataError


@pytest.mark.parametrize("kind", sorted(set(MODELS) - {"cocoop-separate", "cocoop-twins"}))
def test_round_trip(kind: str, tmp_path: Path) -> None:
    model = shaken(MODELS[kind]())
    path = save_official(model, tmp_path / "prompt_learner" / "model.pth.tar-10", epoch=10)
    loaded = load_official(path, model.clip, model.classnames, model.prompts.class_token_position)
    loaded.ctx_init = model.ctx_init  # the only fact that official files do not hold
    assert_same(loaded, model)


@pytest.mark.parametrize("name", ["cocoop_words", "coop_words"])
def test_export_equals_the_official_file(name: str, tmp_path: Path) -> None:
    world = load_world("fixture")
    official = world.checkpoint(name, tmp_path)
    model = load_official(official, world.clip, world.classnames)
    ours = save_official(model, tmp_path / "ours", epoch=10)
    theirs = torch.load(official, weights_only=True)
    content = torch.load(ours, weights_only=True)
    assert content.keys() == theirs.keys()
    assert content["epoch"] == theirs["epoch"]
    assert list(content["state_dict"]) == list(theirs["state_dict"])
    for key, value in theirs["state_dict"].items():
        assert torch.equal(content["state_dict"][key], value), key


def written(tmp_path: Path, content: object) -> Path:
    torch.save(content, tmp_path / "model.pth.tar-1")
    return tmp_path / "model.pth.tar-1"


def content(model: CoOp | CoCoOp) -> dict[str, object]:
    return {"state_dict": model.prompt_state(), "epoch": 1}


class RAdam(torch.optim.Adam):
    """Dassl's own optimiser, as far as a pickle shows it."""

    __module__ = "dassl.optim.radam"


OPTIMISERS = [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, RAdam]


@pytest.mark.parametrize("kind", OPTIMISERS, ids=lambda kind: kind.__name__)
def test_schedulers_kept_as_objects_are_passed_over(
    kind: type[torch.optim.Optimizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shaken(CoCoOp(small_clip(), NAMES))
    optimizer = kind(model.prompt_parameters().values(), lr=0.1)
    model.ctx.sum().backward()
    optimizer.step()
    inner = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    scheduler = {"successor": inner, "last_epoch": 1, "base_lrs": [0.1]}
    extra = {"optimizer": optimizer.state_dict(), "scheduler": scheduler}
    with monkeypatch.context() as patch:  # Dassl is installed where the file is written only
        for name in ("dassl", "dassl.optim", "dassl.optim.radam"):
            patch.setitem(sys.modules, name, sys.modules[__name__])
        path = written(tmp_path, content(model) | extra)
    loaded = load_official(path, model.clip, NAMES)
    loaded.ctx_init = model.ctx_init
    assert_same(loaded, model)


@pytest.mark.parametrize("prefix", ["module.", "prompt_learner.", "module.prompt_learner."])
def test_prefixes_of_names(prefix: str, tmp_path: Path) -> None:
    model = shaken(CoCoOp(small_clip(), NAMES))
    state = {prefix + name: value for name, value in model.prompt_state().items()}
    loaded = load_official(written(tmp_path, {"state_dict": state}), model.clip, NAMES)
    loaded.ctx_init = model.ctx_init
    assert_same(loaded, model)


def test_a_file_of_kgcoop_is_a_coop(tmp_path: Path) -> None:
    """Its authors' code also saves a layer and a vector, 512 wide, that nothing reads."""
    model = shaken(CoOp(small_clip(), NAMES, 4))
    path = save_official(model, tmp_path / "model", 100)
    state = torch.load(path, weights_only=True)["state_dict"]
    state |= {"bias_vectors": torch.zeros(1, 512), "meta_net.linear1.bias": torch.zeros(512)}
    state["meta_net.linear1.weight"] = torch.zeros(512, 512)
    assert_same(load_official(written(tmp_path, {"state_dict": state}), model.clip, NAMES), model)


class Bomb:
    """Runs a command when a careless reader unpickles it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("key", ["scheduler", "val_result", "state_dict"])
def test_a_pickle_that_would_run_something_is_refused(key: str, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    model = CoOp(small_clip(), NAMES)
    path = written(tmp_path, content(model) | {key: Bomb(f"touch {mark}")})
    with pytest.raises(CheckpointError, match=r"refused and nothing in it was run.*system"):
        load_official(path, model.clip, NAMES)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the file was live"


def test_objects_of_unknown_classes_are_refused(tmp_path: Path) -> None:
    model = CoOp(small_clip(), NAMES)
    path = written(tmp_path, content(model) | {"val_result": Path("innocent")})
    with pytest.raises(CheckpointError, match="more than tensors"):
        read_official(path)


@pytest.mark.parametrize(
    "wrong",
    [
        [1, 2],
        {"epoch": 3},
        {"state_dict": 3},
        {"state_dict": {"weight": torch.zeros(2)}},
        {"state_dict": {"ctx": torch.zeros(2)}},
    ],
)
def test_no_prompt_learner(wrong: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no state_dict with a context"):
        read_official(written(tmp_path, wrong))


def test_another_width_or_context_length(tmp_path: Path) -> None:
    path = save_official(CoCoOp(small_clip(), NAMES), tmp_path / "model", 1)
    with pytest.raises(CheckpointError, match=r"made for context length 32 \(here 77\)\."):
        load_official(path, small_clip(context_length=77), NAMES)
    world = load_world("fixture")
    with pytest.raises(CheckpointError) as caught:
        load_official(path, world.clip, world.classnames)
    for part in ("text width 32 (here 64)", "joint width 48 (here 64)", "context length 32"):
        assert part in str(caught.value)


def test_a_class_specific_context_of_other_classes(tmp_path: Path) -> None:
    model = CoOp(small_clip(), NAMES, 4, class_specific=True)
    path = save_official(model, tmp_path / "model", 1)
    with pytest.raises(CheckpointError, match=r"ctx is \[4, 4, 32\].*\[2, 4, 32\]"):
        load_official(path, model.clip, NAMES[:2])


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no file"):
        read_official(tmp_path / "none")
    path = save_official(CoOp(small_clip(), NAMES), tmp_path / "model", 1)
    data = path.read_bytes()
    for damaged in (b"", b"text", data[:50], data[: len(data) // 2], data[:-30]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=str(path)):
            read_official(path)


def test_a_tensor_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    model = CoOp(small_clip(), NAMES)
    ctx = torch.zeros(1).as_strided((10**6, 10**9), (0, 0))  # some kilobytes on disk
    with pytest.raises(CheckpointError, match="ctx claims to be larger"):
        load_official(written(tmp_path, {"state_dict": {"ctx": ctx}}), model.clip, NAMES)


KINDS = {
    "sparse": lambda x: x.to_sparse(),
    "compressed": lambda x: x.to_sparse_csr(),
    "without values": lambda x: x.to("meta"),
    "complex": lambda x: x.to(torch.complex64),
    "integers": lambda x: x.long(),
    "tiny floats": lambda x: x.to(torch.float8_e4m3fn),
}


@pytest.mark.filterwarnings("ignore:.*[Ss]parse")
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_other_kinds(kind: str, tmp_path: Path) -> None:
    model = CoOp(small_clip(), NAMES)
    ctx = KINDS[kind](model.ctx.detach())
    with pytest.raises(CheckpointError, match=r"ctx|refused"):
        load_official(written(tmp_path, {"state_dict": {"ctx": ctx}}), model.clip, NAMES)


SHAPES = [(), (3,), (4, 32), (2, 4, 32), (1, 1, 1, 1)]


@pytest.mark.parametrize("name", ["ctx", "token_suffix", "meta_net.linear1.weight"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tensors_of_any_shape(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    model = CoCoOp(small_clip(), NAMES)
    state = model.prompt_state() | {name: torch.zeros(shape)}
    with contextlib.suppress(CheckpointError):
        load_official(written(tmp_path, {"state_dict": state}), model.clip, NAMES)


@settings(max_examples=200)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1)
)
def test_damage_anywhere_is_named(
    changes: list[tuple[float, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A mutated file is refused, or what changed is not part of the prompt."""
    model = shaken(CoOp(small_clip(), NAMES, 2))
    path = save_official(model, tmp_path_factory.mktemp("mutated") / "model", 1)
    data = bytearray(path.read_bytes())
    for place, flip in changes:
        data[int(place * len(data))] ^= flip
    path.write_bytes(data)
    try:
        state = read_official(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:
        assert torch.equal(state["ctx"], model.ctx)


def test_a_prompt_that_is_not_finite(tmp_path: Path) -> None:
    model = CoOp(small_clip(), NAMES)
    path = written(tmp_path, {"state_dict": {"ctx": model.ctx.detach() * float("nan")}})
    with pytest.raises(CheckpointError, match="ctx has values that are not finite"):
        load_official(path, model.clip, NAMES)
