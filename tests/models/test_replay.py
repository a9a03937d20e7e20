"""Scores that are replayed are the model's own, and follow it when it trains."""

import pytest
import torch
from small_clips import random_features, small_clip

from cocoop_tutorial import CoCoOp, CoOp
from cocoop_tutorial.errors import SettingError
from cocoop_tutorial.models.replay import RecordedScores, can_be_recorded

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
NAMES = ["crane", "tower crane", "mouse"]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("kind", [CoOp, CoCoOp])
def test_scores_are_the_models(kind: type[CoOp] | type[CoCoOp], device: str) -> None:
    clip = small_clip("resnet").to(device)
    model = kind(clip, NAMES, 4)
    score = RecordedScores(model)
    assert score.recorded == (device == "cuda") == can_be_recorded(model, 1)
    features = random_features(clip, 3).to(device)
    for step in range(2):
        wanted = model.logits_from_features(features).detach()
        for image, logits in zip(features, wanted, strict=True):
            assert torch.allclose(score(image[None]), logits[None], atol=1e-4), step
        assert torch.allclose(score(features), wanted, atol=1e-4)  # another number of images
        assert not score(features[:1]).requires_grad
        with torch.no_grad():
            model.ctx.mul_(2)


def test_no_image() -> None:
    with pytest.raises(SettingError, match="images"):
        RecordedScores(CoOp(small_clip("resnet"), NAMES, 4), images=0)
