"""The grid of chapters 3 and 4, on the real backbone and data, cut to one small step."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_clips import small_clip

from cocoop_tutorial import prompt_learning as grid
from cocoop_tutorial import words

CELLS = ("emoji_plants",)  # the smallest


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    short = {m: replace(c, epochs=1, batch_size=128) for m, c in grid.SETTINGS.items()}
    monkeypatch.setattr(grid, "SETTINGS", short)
    monkeypatch.setattr(grid, "DATASETS", CELLS)


def test_grid_goes_on_where_it_stopped(tiny, tmp_path: Path, capsys) -> None:
    clip = small_clip("resnet")
    path = grid.run_grid(clip, ("zero-shot",), tmp_path)
    rows = json.loads(path.read_text())["data"]
    assert {r["seed"] for r in rows} == set(grid.SEEDS)
    assert {r["epoch"] for r in rows} == {0, -1}
    capsys.readouterr()
    grid.run_grid(clip, ("zero-shot", "CoOp"), tmp_path)
    again = json.loads(path.read_text())["data"]
    assert again[: len(rows)] == rows
    assert "zero-shot" not in capsys.readouterr().out, "a finished cell ran again"
    coop = [r for r in again if r["method"] == "CoOp" and r["seed"] == 1]
    assert [r["epoch"] for r in coop] == [0, 1, -1]
    assert all(r["train_seconds"] > 0 for r in coop)


def test_rows_of_other_weights_are_not_reused(tiny, tmp_path: Path) -> None:
    grid.run_grid(small_clip("resnet"), ("zero-shot",), tmp_path)
    kept = grid.rows_or_run(small_clip("resnet"), "zero-shot", CELLS, tmp_path)
    assert kept.recorded.all()
    other = grid.rows_or_run(small_clip("resnet", seed=1), "zero-shot", CELLS, tmp_path)
    assert not other.recorded.any()


def test_methods_start_as_the_template() -> None:
    clip = small_clip("resnet")
    base, _ = grid.few_shot_halves(CELLS[0], 1)
    features = torch.nn.functional.normalize(torch.randn(3, clip.embed_dim), dim=-1)
    zero, coop = (grid.build(m, clip, base, 1) for m in ("zero-shot", "CoOp"))
    torch.testing.assert_close(
        zero.logits_from_features(features), coop.logits_from_features(features)
    )


def test_nearest_words_of_words_are_themselves() -> None:
    clip = small_clip()
    table = clip.text_tower.token_embedding.weight
    ids = clip.tokenizer.encode("cat piano")
    found = words.nearest_words(clip, table[ids], count=2)
    assert found.query("rank == 1").word.tolist() == ["cat", "piano"]
    assert found.query("rank == 1").distance.max() < 1e-2
    assert set(found.vector) == {1, 2}


def test_random_like_keeps_lengths_only() -> None:
    vectors = torch.randn(4, 32)
    control = words.random_like(vectors, seed=3)
    torch.testing.assert_close(control.norm(dim=1), vectors.norm(dim=1))
    assert torch.nn.functional.cosine_similarity(control, vectors).abs().max() < 0.9
    assert torch.equal(control, words.random_like(vectors, seed=3))
