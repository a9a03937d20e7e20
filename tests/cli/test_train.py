"""`cocoop train` and `cocoop evaluate`, as programs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from program import Cocoop
from train_jobs import held, make_data

from cocoop_tutorial import ImageFolder, load_clip, load_prompts, save_official


@pytest.fixture
def small(tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options for a run of a second: three classes, a tiny backbone."""
    make_data(tmp_path / "noise")
    monkeypatch.chdir(tmp_path)
    return ["--backbone", f"local-dir:{model_dir}", "--data", "noise", "--device", "cpu"]


TRAIN = ["--shots", "2", "--epochs", "1", "--batch-size", "2", "--lr", "0.05"]


def test_train_then_evaluate(cocoop: Cocoop, small: list[str], tmp_path: Path) -> None:
    trained = cocoop("train", *small, *TRAIN)
    assert trained.status == 0, trained.err
    assert "base" in trained.out and "zero-shot" in trained.out and "CoCoOp" in trained.out
    folder = tmp_path / "runs" / "noise-cocoop-1"
    result = json.loads((folder / "result.json").read_text())
    for scores in result["scores"].values():
        assert scores.keys() == {"base", "new", "H"}
    assert len(result["history"]) == 1 and result["lr"] == 0.05 and result["batch_size"] == 2

    again = cocoop("evaluate", folder, "--device", "cpu", "--json")
    assert again.status == 0, again.err
    assert json.loads(again.out)["scores"] == {"CoCoOp": result["scores"]["CoCoOp"]}
    model = load_prompts(folder / "prompts.safetensors")
    assert model.n_ctx == 4 and model.ctx_init == "a photo of a"
    assert len(model.classnames) == 2


def test_same_command_goes_on(cocoop: Cocoop, small: list[str], tmp_path: Path) -> None:
    command = ["train", *small, *TRAIN, "--out", "run", "--json"]
    first, again = cocoop(*command), cocoop(*command)
    assert json.loads(again.out) == json.loads(first.out)  # even the seconds: nothing was redone
    assert "finished" in again.err and "--restart" in again.err
    other = cocoop(*command, "--seed", "2")
    assert other.status == 1 and "seed 1 (now 2)" in other.err
    fresh = cocoop(*command, "--seed", "2", "--restart")
    assert fresh.status == 0 and json.loads(fresh.out)["seed"] == 2


def test_a_second_run_does_not_restart_the_first(
    cocoop: Cocoop, small: list[str], tmp_path: Path
) -> None:
    command = ["train", *small, *TRAIN, "--out", "run"]
    assert cocoop(*command).status == 0
    before = {file: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    with held(tmp_path / "run"):
        refused = cocoop(*command, "--seed", "2", "--restart")
    assert refused.status == 1 and "Another run is at work in run" in refused.err
    assert {file: file.read_bytes() for file in (tmp_path / "run").iterdir()} == before


def test_the_same_command_gives_the_same_prompt_file(
    cocoop: Cocoop, small: list[str], tmp_path: Path
) -> None:
    command = ["train", *small, *TRAIN, "--out", "run", "--restart"]
    files = []
    for _ in range(2):
        assert cocoop(*command).status == 0
        files.append((tmp_path / "run" / "prompts.safetensors").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("options", [("--class-specific",), ("--class-token-position", "middle")])
def test_coop_and_its_variants(cocoop: Cocoop, small: list[str], options: tuple[str, ...]) -> None:
    command = ["train", "--method", "coop", *small, *TRAIN, "--n-ctx", "2", *options]
    result = json.loads(cocoop(*command, "--json").out)
    scores = result["scores"]["CoOp"]
    assert set(scores) == ({"base"} if "--class-specific" in options else {"base", "new", "H"})
    assert result["trainable"] == (2 if "--class-specific" in options else 1) * 2 * 16
    refused = cocoop("train", *small, *TRAIN, *options)
    assert refused.status == 2 and "--method coop" in refused.err


def test_zero_shot_and_other_classes(cocoop: Cocoop, small: list[str]) -> None:
    for classes, keys in [("all", {"all"}), ("new", {"new"}), ("halves", {"base", "new", "H"})]:
        done = cocoop("evaluate", "zero-shot", *small, "--classes", classes, "--json")
        assert json.loads(done.out)["scores"]["zero-shot"].keys() == keys
    table = cocoop("evaluate", "zero-shot", *small, "--split", "val")
    assert table.status == 0 and "on val images" in table.out


def test_official_checkpoint(cocoop: Cocoop, small: list[str], tmp_path: Path) -> None:
    trained = cocoop("train", *small, *TRAIN, "--classes", "all", "--out", "run", "--json")
    result = json.loads(trained.out)
    clip = load_clip(result["backbone"], "cpu")
    file = tmp_path / "model.pth.tar-1"
    save_official(load_prompts(tmp_path / "run" / "prompts.safetensors", clip), file, epoch=1)
    scored = cocoop("evaluate", file, *small, "--json")
    assert scored.status == 0, scored.err
    assert json.loads(scored.out)["scores"] == {"CoCoOp": result["scores"]["CoCoOp"]}


def test_official_file_with_the_name_elsewhere(
    cocoop: Cocoop, small: list[str], tmp_path: Path
) -> None:
    place = ["--class-token-position", "front"]
    command = ["train", *small, *TRAIN, "--method", "coop", "--n-ctx", "3", *place]
    result = json.loads(cocoop(*command, "--out", "run", "--json").out)
    model = load_prompts(tmp_path / "run" / "prompts.safetensors")
    file = save_official(model, tmp_path / "model.pth.tar-1", epoch=1)
    scored = cocoop("evaluate", file, *small, *place, "--classes", "base", "--json")
    wanted = result["scores"]["CoOp"]["base"]
    assert json.loads(scored.out)["scores"]["CoOp"] == {"base": wanted}


def test_classes_that_share_a_name(
    cocoop: Cocoop, small: list[str], tmp_path: Path, make_image: Callable[[Path, int], Path]
) -> None:
    root = tmp_path / "imagenet-sketch"
    wnids = {"n01440764": "tench", "n03773504": "missile", "n04008634": "missile"}
    for i, wnid in enumerate(wnids):
        make_image(root / "images" / wnid / "0.JPEG", i)
    (root / "classnames.txt").write_text("".join(f"{w} {n}\n" for w, n in wnids.items()))
    assert cocoop("train", *small, *TRAIN, "--out", "run").status == 0
    options = ["--data", "imagenet_sketch", "--root", tmp_path, "--device", "cpu", "--json"]
    scored = cocoop("evaluate", "run", *options)
    assert scored.status == 0, scored.err
    assert json.loads(scored.out)["scores"]["CoCoOp"].keys() == {"all"}


@pytest.mark.parametrize("part", ["train", "test"])
def test_broken_image(cocoop: Cocoop, small: list[str], tmp_path: Path, part: str) -> None:
    bad, _ = ImageFolder("noise").split(part).samples[0]
    bad.write_bytes(bad.read_bytes()[:40])
    for command in (
        ["train", *small, *TRAIN, "--classes", "all", "--out", "run"],
        ["evaluate", "zero-shot", *small, "--split", part],
    ):
        stopped = cocoop(*command)
        assert stopped.status == 1 and str(bad) in stopped.err
        if command[0] == "train":
            assert not (tmp_path / "run").exists()  # nothing came of it
        done = cocoop(*command, "--skip-unreadable")
        assert done.status == 0 and "Unreadable images left out: 1" in done.err


def test_help_teaches(cocoop: Cocoop) -> None:
    for command in ("train", "evaluate"):
        shown = cocoop(command, "--help")
        assert shown.status == 0 and "Examples" in shown.out
        assert shown.out.count(f"cocoop {command}") >= 3


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["train", "--data", "icons_weathr"], 1, "Did you mean 'icons_weather'"),
        (["train", "--method", "cocop"], 2, "cocop"),
        (["train", "--epochs", "0"], 2, "epochs"),
        (["train", "--lr", "-1"], 2, "lr"),
        (["train", "--lr", "1e30"], 2, "equal to 100"),
        (["train", "--lr", "nan"], 2, "lr"),
        (["train", "--seed", str(2**64)], 2, "seed"),
        (["train", "--n-ctx", "100000000"], 2, "n-ctx"),
        (["train", "--ctx-init", "  "], 2, "no words"),
        # These are found before the data, which are not there.
        (["train", "--data", "my/photos", "--device", "meta"], 1, "no usable device 'meta'"),
        (["train", "--data", "my/photos", "--backbone", "icon-clp"], 1, "icon-clip"),
        (["train", "--data", "my/photos", "--out", "/dev/null"], 1, "/dev/null cannot be made"),
        (["train", "--data", "my/photos", "--out", "/dev/null/x"], 1, "/dev/null/x cannot be made"),
        (["train", "--data", "my/photos"], 1, "no folder my/photos"),
        (["evaluate", "nothing.safetensors"], 1, "nothing.safetensors"),
        (["evaluate"], 2, "PROMPTS"),
    ],
)
def test_mistakes(
    cocoop: Cocoop,
    args: list[str],
    status: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cocoop(*args)
    assert not list(tmp_path.iterdir()), "nothing is left"
    assert done.status == status
    assert words.lower() in done.err.lower()
    assert "Traceback" not in done.err
