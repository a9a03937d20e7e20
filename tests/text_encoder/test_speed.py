"""What chapter 5 counts, reads and draws."""

from pathlib import Path

import pandas as pd
import pytest
from small_clips import small_clip

from cocoop_tutorial import CoCoOp, CoOp, save_result
from cocoop_tutorial.book import speed_figures as figures
from cocoop_tutorial.book.speed_results import (
    bench_table,
    cost_table,
    load_bench,
    ratios,
)
from cocoop_tutorial.book.widgets import SLIDERS, token_counter
from cocoop_tutorial.text_encoder.cost import (
    STEPS,
    distinct_tokens,
    ladder,
    plan_for,
    text_tokens,
)

NAMES = ["cat", "hot dog", "hot air balloon", "aeroplane"]


def model() -> CoCoOp:
    return CoCoOp(small_clip(), NAMES, n_ctx=2, ctx_init=None)


def test_ladder_agrees_with_the_counted_tokens() -> None:
    own = model()
    steps = ladder(own.clip, own.prompts, images=3)
    for step, encoder in ((STEPS[0], "reference"), (STEPS[1], "truncated"), (STEPS[3], "packed")):
        assert steps.tokens[step] == text_tokens(own.prompts, 3, encoder)[0]
    layers, D = len(own.clip.text_tower.transformer.resblocks), own.clip.text_width
    tokens = steps.tokens.iloc[0]
    assert steps.operations.iloc[0] == 2 * layers * 24 * D * D * tokens
    assert (steps.operations.diff().dropna() <= 0).all()
    assert steps.tokens[STEPS[6]] - steps.tokens[STEPS[7]] == 3  # "hot", for each of three images


def test_trie_shares_beginnings_only() -> None:
    assert distinct_tokens([[1, 2, 3], [1, 2, 4], [2, 1, 3]]) == 7


@pytest.mark.parametrize("kind", [CoCoOp, CoOp])
def test_plan_grows_with_memory(kind: type) -> None:
    learner = kind(small_clip(), NAMES, n_ctx=2, ctx_init=None)
    small, large = (plan_for(learner.clip, learner.prompts, 64, n) for n in (2**20, 2**34))
    assert large.images == 64 and large.class_chunks == 1
    assert small.images < 64


def facts(seconds: float | None, tokens: int) -> dict:
    counted = {"tokens": tokens, "train_operations": tokens * 10**9, "saved_bytes": tokens * 1000}
    if seconds is None:
        return counted | {"skipped": "about 99 s a step"}
    times = {"median": seconds, "low": seconds / 2, "high": 2 * seconds, "repeats": 3}
    return counted | {"skipped": None, "train": times, "inference": times}


def test_recorded_benchmark(tmp_path: Path) -> None:
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
    assert table.published[10, 1] == "4,000"
    assert table.published[1000, 1] == "[0.8 T]"


def test_memory_figure_shows_what_was_counted_and_what_was_recorded() -> None:
    rows = [(K, 1, m, K * n) for K in (10, 1000) for m, n in (("published", 20e6), ("packed", 1e6))]
    bench = pd.DataFrame(rows, columns=["classes", "images", "method", "saved_bytes"])
    ax = figures.memory_figure(bench[bench.classes == 10], bench, 2**34).axes[0]
    published, packed, ceiling = (ax.lines[i].get_ydata() for i in (0, 1, -1))
    assert published[1] / packed[1] == pytest.approx(20)
    assert len(ax.collections[0].get_offsets()) == 2 and ceiling[0] == 16


def test_recorded_benchmark_of_a_gpu(tmp_path: Path) -> None:
    replayed = {"skipped": None, "train": facts(0.05, 50)["train"]}
    methods = {"published": facts(4.0, 770), "truncated": facts(0.5, 100)}
    methods |= {"packed": facts(0.2, 50), "replayed": replayed}
    coop = {"packed": facts(0.04, 50), "replayed": {"train": facts(0.08, 50)["train"]}}
    cell = {"classes": 10, "images": 2, "rates": {"torch": 1e9, "ours": 1e9}}
    cell |= {"methods": methods, "coop": coop}
    save_result("bench_text_encoder_cuda", {"cells": [cell]}, device="cpu", folder=tmp_path)
    bench = load_bench("cuda", tmp_path)
    assert bench_table(bench).replayed[10, 2] == "50.0"
    assert ratios(bench, "train", "replayed").to_dict() == pytest.approx({(10, 2): 80.0})
    costs = cost_table("cuda", tmp_path).loc[10]  # the quicker of the two
    assert costs.to_dict() == pytest.approx({("CoCoOp", "B = 2"): 25.0, ("CoOp", "B = 2"): 20.0})


def test_squares_draw_each_token() -> None:
    row = figures.prompt_row(2, 3, 8)
    assert row == ["start", "context", "context", "name", "name", "end", "padding", "padding"]
    fig = figures.squares([row, ["not computed"] * 3], ["cat", "dog"])
    assert len(fig.axes[0].patches) == 11
    assert [text.get_text() for text in fig.legends[0].texts] == list(figures.SQUARES)


def test_counter_knows_its_sliders() -> None:
    page = token_counter().data
    assert all(f'data-role="{role}"' in page for role in SLIDERS)
    assert "__" not in page
