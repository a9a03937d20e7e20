"""What chapter 5 counts, reads and draws."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from small_clips import random_features, small_clip

from cocoop_tutorial import CoCoOp, CoOp, save_result
from cocoop_tutorial.book import speed_figures as figures
from cocoop_tutorial.book.speed_results import (
    bench_table,
    cost_table,
    launch_table,
    load_bench,
    ratios,
)
from cocoop_tutorial.book.widgets import SLIDERS, token_counter
from cocoop_tutorial.text_encoder import cost as speed_counts
from cocoop_tutorial.text_encoder.cost import (
    STEPS,
    distinct_tokens,
    ladder,
    operators,
    plan_for,
    product_points,
    text_tokens,
    time_steps,
)
from cocoop_tutorial.text_encoder.packed import tower as packed_tower

NAMES = ["cat", "hot dog", "hot air balloon", "aeroplane"]


def model() -> CoCoOp:
    return CoCoOp(small_clip(), NAMES, n_ctx=2, ctx_init=None)


def test_ladder_agrees_with_the_counted_tokens() -> None:
    steps, own = ladder(model(), images=3), model()
    for step, encoder in ((STEPS[0], "reference"), (STEPS[1], "truncated"), (STEPS[3], "packed")):
        assert steps.tokens[step] == text_tokens(own, 3, encoder)[0]
    layers, D = len(own.clip.text_tower.transformer.resblocks), own.clip.text_width
    tokens = steps.tokens.iloc[0]
    assert steps.operations.iloc[0] == 2 * layers * 24 * D * D * tokens
    assert (steps.operations.diff().dropna() <= 0).all()
    assert steps.tokens[STEPS[6]] - steps.tokens[STEPS[7]] == 3  # "hot", for each of three images


def test_each_step_of_the_ladder_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    monkeypatch.setattr(speed_counts, "seconds", lambda run, device: run() or len(rows))
    real = packed_tower.Block.finish

    def finish(block: packed_tower.Block, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        if x.requires_grad:  # not the tower's constants
            rows.append(len(x))
        return real(block, x, attended)

    monkeypatch.setattr(packed_tower.Block, "finish", finish)
    steps = ladder(model(), images=3)
    times = time_steps(model(), steps, repeats=2)
    assert list(times.index) == list(STEPS)
    assert rows == 3 * rows[: len(STEPS)]  # one round to warm up, two that count, in turns
    assert rows[:4] == steps.tokens.tolist()[:4]
    assert rows[4] < rows[3] and rows[5] == rows[6]
    assert times.iloc[0] == 1.5 * len(STEPS) + 1  # the median of rounds two and three


def test_trie_shares_beginnings_only() -> None:
    assert distinct_tokens([[1, 2, 3], [1, 2, 4], [2, 1, 3]]) == 7


def test_operators_counts_no_views() -> None:
    x = torch.ones(2, 3)
    assert operators(lambda: x.view(3, 2).t()) == 0
    assert operators(lambda: (x + x) * x) == 2


@pytest.mark.parametrize("kind", [CoCoOp, CoOp])
def test_plan_grows_with_memory(kind: type) -> None:
    learner = kind(small_clip(), NAMES, n_ctx=2, ctx_init=None)
    small, large = plan_for(learner, 64, 2**20), plan_for(learner, 64, 2**34)
    assert large.images == 64 and large.parts == 1
    assert small.images < 64


def test_product_points() -> None:
    points = product_points((1, 64), width=16)
    assert (points.rate > 0).all() and points.intensity.is_monotonic_increasing


def facts(seconds: float | None, tokens: int) -> dict:
    counted = {"tokens": tokens, "train_operations": tokens * 10**9, "saved_bytes": tokens * 1000}
    if seconds is None:
        return counted | {"skipped": "about 99 s a step"}
    times = {"median": seconds, "low": seconds / 2, "high": 2 * seconds, "repeats": 3}
    return counted | {"skipped": None, "train": times, "inference": times}


def test_recorded_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_bench("cpu", tmp_path).empty
    assert "not recorded yet" in capsys.readouterr().out
    cells = [
        {"classes": K, "images": 1, "rates": {"torch": 1e9, "ours": 1e9}, "methods": {
            "published": facts(published, 770), "truncated": facts(0.5, 100),
            "packed": facts(0.25, 50)}}
        for K, published in ((10, 4.0), (1000, None))
    ]  # fmt: skip
    save_result("bench_text_encoder_cpu", {"cells": cells}, device="cpu", folder=tmp_path)
    bench = load_bench("cpu", tmp_path)
    assert len(bench) == 6
    assert ratios(bench, "train").to_dict() == {(10, 1): 16.0}
    assert ratios(bench, "train", "truncated").to_dict() == {(10, 1): 8.0}
    assert ratios(bench, "saved_bytes").to_dict() == {(10, 1): 15.4, (1000, 1): 15.4}
    table = bench_table(bench)
    assert table.published[10, 1] == "4,000 (2,000 to 8,000)"
    assert table.published[1000, 1] == "not run: 0.8 T operations"
    alone = bench.assign(train_low=bench.train, train_high=bench.train)
    assert bench_table(alone).published[10, 1] == "4,000 (once)"
    assert figures.gain_figure(ratios(bench, "tokens"), {"time": ratios(bench, "train")}).axes
    live = pd.DataFrame([(5, "packed", 10)], columns=["classes", "method", "saved_bytes"])
    assert figures.memory_figure(live, bench, 2**34).axes
    assert figures.memory_figure(live, pd.DataFrame(), 2**34).axes


def test_recorded_benchmark_of_a_gpu(tmp_path: Path) -> None:
    replayed = {"skipped": None, "train": facts(0.05, 50)["train"]}
    methods = {"published": facts(4.0, 770), "truncated": facts(0.5, 100)}
    methods |= {"packed": facts(0.2, 50), "replayed": replayed}
    coop = {"packed": facts(0.04, 50), "replayed": {"train": facts(0.08, 50)["train"]}}
    cell = {"classes": 10, "images": 2, "rates": {"torch": 1e9, "ours": 1e9}}
    cell |= {"methods": methods, "coop": coop}
    save_result("bench_text_encoder_cuda", {"cells": [cell]}, device="cpu", folder=tmp_path)
    bench = load_bench("cuda", tmp_path)
    assert bench_table(bench).replayed[10, 2] == "50.0 (25.0 to 100)"
    assert launch_table(bench).loc[(10, 2)].to_dict() == pytest.approx(
        {"published": 4.0, "packed": 0.2, "replayed": 0.05, "gain": 4.0}
    )
    costs = cost_table("cuda", tmp_path).loc[10]  # the quicker of the two
    assert costs.to_dict() == pytest.approx({("CoCoOp", "B = 2"): 25.0, ("CoOp", "B = 2"): 20.0})


def test_squares_draw_each_token() -> None:
    row = figures.prompt_row(2, 3, 8, skipped=["padding"])
    assert row == ["start", "context", "context", "name", "name", "end", "skipped", "skipped"]
    fig = figures.squares({"a": [row], "b": [row[:3]]}, ["cat"])
    assert [len(ax.patches) for ax in fig.axes] == [8, 3]
    assert figures.trie_figure([["hot", "dog", "end"], ["hot", "air", "end"]]).axes[0].texts[3:]
    assert len(figures.trie_figure([["a", "end"], ["a", "b", "end"]]).axes[0].texts) == 4


def test_counter_knows_its_sliders() -> None:
    page = token_counter().data
    assert all(f'data-role="{role}"' in page for role in SLIDERS)
    assert "__" not in page


def test_operators_of_a_step() -> None:
    learner = model()
    features = random_features(learner.clip, 2)
    forward = operators(lambda: learner.logits_from_features(features))
    both = operators(lambda: learner.logits_from_features(features).sum().backward())
    assert 0 < forward < both
