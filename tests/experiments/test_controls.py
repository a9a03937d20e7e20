"""CoCoOp with one thing changed."""

import numpy as np
import pytest
import torch
from small_clips import random_features, small_clip

from cocoop_tutorial import CoCoOp
from cocoop_tutorial.experiments.controls import (
    NoiseCoCoOp,
    ZeroStartCoCoOp,
    explained,
    other_pis,
    sizes,
)
from cocoop_tutorial.models.prompt_learner import PromptLearner

NAMES = ["hammer", "wrench", "bell", "key"]


def learner(kind: type[CoCoOp]) -> PromptLearner:
    torch.manual_seed(1)
    return kind(small_clip(), NAMES, 4, "a photo of a")


def test_noise_tells_no_images_apart() -> None:
    model, features = learner(NoiseCoCoOp), random_features(small_clip(), 6)
    assert model.context_of(features).shape[0] == 1
    with torch.no_grad():
        text = model.text_features(features)
        torch.testing.assert_close(
            model.logits_from_features(features), model.scaled_cosines(features, text[0])
        )
        fixed = dict(other_pis(model, features))["noise"]
        torch.testing.assert_close(
            model.logits_from_features(features), fixed.logits_from_features(features)
        )


def test_zero_start_begins_at_the_words() -> None:
    model, features = learner(ZeroStartCoCoOp), random_features(small_clip(), 6)
    assert sizes(model, features)["mean"] == 0 < sizes(learner(CoCoOp), features)["mean"]
    ids = model.clip.tokenizer.encode("a photo of a")
    words = model.clip.text_tower.token_embedding.weight[ids]
    torch.testing.assert_close(model.context_of(features)[3, 0], words)


@torch.no_grad()
def test_other_pis_are_what_they_say() -> None:
    model, features = learner(CoCoOp), random_features(small_clip(), 6)
    others = dict(other_pis(model, features[:1].repeat(6, 1)))
    one = model.logits_from_features(features[:1])
    torch.testing.assert_close(others["mean"].logits_from_features(features[:1]), one)
    swapped = others["another image"].logits_from_features(features)
    text = model.text_features(features.roll(3, 0))
    torch.testing.assert_close(swapped, model.scaled_cosines(features, text))
    assert not torch.allclose(model.logits_from_features(features), swapped)
    torch.testing.assert_close(others["none"].ctx, model.ctx)


def test_explained() -> None:
    groups = ["a", "a", "b", "b"]
    apart = torch.tensor([[1.0], [1.0], [3.0], [3.0]])
    assert explained(apart, groups) == pytest.approx(1)
    assert explained(torch.tensor([[1.0], [3.0], [1.0], [3.0]]), groups) == pytest.approx(0)
    assert np.isnan(explained(torch.full((4, 3), 0.1) + 1e-7 * torch.rand(4, 3), groups))
