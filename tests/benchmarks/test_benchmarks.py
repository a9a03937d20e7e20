"""`make bench` from end to end on cells of a few classes; no check depends on a time."""

import json
import sys
from pathlib import Path

import pytest
import torch
from small_clips import random_features, small_clip
from torch._dynamo import register_backend
from train_jobs import make_data

from benchmarks import end_to_end, interleaved, switches, text_encoder
from cocoop_tutorial import CoCoOp, CoOp
from cocoop_tutorial.book.speed_results import (
    AS_IT_IS,
    PARTS,
    bench_table,
    cost_table,
    epoch_table,
    load_bench,
    switch_table,
)
from cocoop_tutorial.measure import saved_bytes
from cocoop_tutorial.text_encoder.packed import attention as packed_attention
from cocoop_tutorial.text_encoder.packed import encode as packed
from cocoop_tutorial.text_encoder.packed import tower as packed_tower
from cocoop_tutorial.training import loop as training

NAMES = ["cat", "hot dog", "hot air balloon", "aeroplane", "wall"]


def cocoop(**options: object) -> CoCoOp:
    options |= {"n_ctx": 2, "ctx_init": None, "allow_duplicates": True}
    return CoCoOp(small_clip(), NAMES, **options)


def bench(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *options: str, device: str = "cpu"
) -> dict:
    argv = ["bench", "--device", device, "--folder", str(folder), *options]
    monkeypatch.setattr(sys, "argv", argv)
    text_encoder.main()
    return json.loads((folder / f"bench_text_encoder_{device}.json").read_text())


def test_quick_run_and_what_is_read_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # However slow the machine is, nothing is skipped.
    quick = ("--quick", "--repeats", "2", "--patience", "1e6", "--budget", "1e6")
    first = bench(monkeypatch, tmp_path, *quick, "--only", "3x1")
    assert "K=3 B=1" in capsys.readouterr().out
    result = bench(monkeypatch, tmp_path, *quick)  # continues with the other cell
    assert [(c["classes"], c["images"]) for c in result["data"]["cells"]] == text_encoder.QUICK
    assert result["data"]["cells"][0] == first["data"]["cells"][0]
    assert "K=3 B=1" not in capsys.readouterr().out
    assert result["provenance"]["threads"] == torch.get_num_threads()
    for cell in result["data"]["cells"]:
        for facts in [*cell["methods"].values(), *cell["coop"].values()]:
            assert facts["skipped"] is None and facts["saved_bytes"] > 0
            for kind in interleaved.KINDS:
                times = facts[kind]
                assert 0 < times["low"] <= times["median"] <= times["high"]
                assert times["repeats"] == 2
        packed = cell["methods"]["packed"]
        assert all(d < 1e-5 for d in packed["differences"].values())
        assert packed["saved_bytes"] < cell["methods"]["truncated"]["saved_bytes"]
    assert float(bench_table(load_bench("cpu", tmp_path)).published[5, 2].replace(",", "")) > 0
    costs = cost_table("cpu", tmp_path)
    step = cell["methods"]["packed"]["train"]["median"]
    assert costs.loc[5, ("CoCoOp", "B = 2")] == pytest.approx(1e3 * step / 2)
    assert costs.loc[3, ("CoOp", "B = 1")] > 0
    assert (tmp_path / "bench_text_encoder_cpu.svg").read_text().startswith("<?xml")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_replay_is_the_same_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = ("--quick", "--only", "3x2", "--repeats", "2")
    (cell,) = bench(monkeypatch, tmp_path, *options, device="cuda")["data"]["cells"]
    assert cell["methods"]["replayed"]["differences"] == {"gradients": 0, "logits": 0}
    assert cell["methods"]["replayed"]["inference"]["median"] > 0
    assert cell["coop"]["replayed"]["train"]["median"] > 0


def test_too_slow_is_counted_and_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    options = ("--quick", "--only", "3x2", "--repeats", "1", "--patience", "0")
    (cell,) = bench(monkeypatch, tmp_path, *options)["data"]["cells"]
    published = cell["methods"]["published"]
    assert "s a turn" in published["skipped"] and "train" not in published
    assert published["train_operations"] > 0 and published["saved_bytes_counted"]
    assert cell["methods"]["packed"]["train"]["repeats"] == 1
    assert bench_table(load_bench("cpu", tmp_path)).published[3, 2].endswith(" T]")


def test_no_minutes_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--quick", "--minutes", "0", "--repeats", "1")
    assert len(bench(monkeypatch, tmp_path, *options)["data"]["cells"]) == 1
    assert "cells left: 1" in capsys.readouterr().out


@pytest.mark.parametrize("encoder", ["reference", "truncated"])
def test_counted_bytes_are_those_of_the_whole_graph(encoder: str) -> None:
    model = cocoop(encoder=encoder)
    features = random_features(model.clip, 1)
    whole = saved_bytes(lambda: model.logits_from_features(features), model)
    assert interleaved.counted_saved_bytes(model, encoder) == whole


def test_images_one_by_one_are_the_same_step() -> None:
    model = cocoop()
    features, labels = random_features(model.clip, 3), torch.tensor([0, 4, 1])
    rivals = [interleaved.Contender(model, "reference", features, labels) for _ in range(2)]
    rivals[0].one_by_one = True
    for rival in rivals:
        rival.train_and_count()
        rival.inference()
    assert all(d < 1e-5 for d in interleaved.differences(*rivals).values())
    one, all_at_once = (rival.facts["saved_bytes"] for rival in rivals)
    assert abs(one / all_at_once - 1) < 0.01


def test_coop_runs_its_text_tower_once() -> None:
    features, labels = random_features(small_clip(), 3), torch.tensor([0, 4, 1])
    coop = interleaved.Contender(CoOp(small_clip(), NAMES, n_ctx=2), "packed", features, labels)
    conditional = interleaved.Contender(cocoop(), "packed", features, labels)
    assert conditional.operations() == 3 * coop.operations()


def test_headlines_are_part_of_the_grid() -> None:
    assert set(text_encoder.HEADLINES) <= set(text_encoder.GRID)
    names = text_encoder.imagenet_names(1000)
    assert text_encoder.imagenet_names(50) == names[:50] and len(names) == 1000


def epoch(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: object) -> list[dict]:
    argv = ["epoch", "--device", "cpu", "--folder", folder, *options]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    end_to_end.main()
    return json.loads((folder / "bench_end_to_end_cpu.json").read_text())["data"]["cells"]


def test_epoch_by_part(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    model_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_data(tmp_path / "noise")
    real = training.train
    options = ["--data", tmp_path / "noise", "--backbone", f"local-dir:{model_dir}", "--shots", 2]
    (first,) = epoch(monkeypatch, tmp_path, *options, "--minutes", 0)
    assert "No time left for transform train" in capsys.readouterr().out
    cases = epoch(monkeypatch, tmp_path, *options)  # continues with the random crops
    assert cases[0] == first and [case["transform"] for case in cases] == ["test", "train"]
    for case in cases:
        assert (case["classes"], case["images"]) == (2, 4)
        spent = case["seconds"]
        elsewhere = ("checking images", "text tower, recording", "text tower, replayed")
        assert all(spent[part] > 0 for part in PARTS if part not in elsewhere)
        assert sum(spent[part] for part in PARTS) <= spent["whole"]
        assert spent["decoding"] > 0
    assert cases[0]["seconds"]["checking images"] == 0 < cases[1]["seconds"]["checking images"]
    assert training.train is real  # no stopwatch is left in the library
    table = epoch_table("cpu", tmp_path)
    assert list(table.columns) == ["fixed view, B = 1", "random crops, B = 1"]
    parts = table.drop(["whole", "decoding, in threads beside it"])
    assert parts.sum().tolist() == pytest.approx(
        [1e3 * case["seconds"]["whole"] / case["images"] for case in cases]
    )


def turn_switches(monkeypatch: pytest.MonkeyPatch, folder: Path, *options: object) -> list[dict]:
    argv = ["switches", "--device", "cpu", "--folder", folder, "--repeats", "1", *options]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    switches.main()
    return json.loads((folder / "bench_switches_cpu.json").read_text())["data"]["cells"]


def library() -> list[object]:
    """What the switches change."""
    kinds = packed_attention.ExplicitAttention, packed_attention.FusedAttention
    return [packed.encode_classes, packed_tower.ONEDNN, *kinds]


def test_switches_change_no_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_dir: Path
) -> None:
    before = library()
    options = ["--backbone", f"local-dir:{model_dir}", "--compiler", "eager", "--only"]
    (cell,) = turn_switches(monkeypatch, tmp_path, *options, "3x2")
    assert library() == before
    found = cell["switches"]
    assert {AS_IT_IS, "the other attention", "torch.compile", "bf16"} <= found.keys()
    for name, facts in found.items():
        assert facts["train"]["median"] > 0 and facts["first_seconds"] > 0
        assert all(d < (0.5 if name == "bf16" else 1e-4) for d in facts["differences"].values())
    assert turn_switches(monkeypatch, tmp_path, *options, "3x2", "2x1")[0] == cell
    table = switch_table("cpu", tmp_path)
    assert len(table) == 2 * len(found) and not table.failed.any()
    assert (table.xs(AS_IT_IS, level="switch")["train gain"] == 1).all()


def test_switch_that_does_not_work_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model_dir: Path
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("there is no C++ compiler")

    register_backend(broken)
    options = ["--backbone", f"local-dir:{model_dir}", "--compiler", "broken", "--only", "3x1"]
    turn_switches(monkeypatch, tmp_path, *options)
    table = switch_table("cpu", tmp_path).xs((3, 1))
    assert "no C++ compiler" in table.failed["torch.compile"]
    assert table.train.isna().sum() == 1
