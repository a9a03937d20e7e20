"""The linear probe."""

import pytest
import torch
from small_clips import small_clip

from cocoop_tutorial.errors import DataError
from cocoop_tutorial.models.probe import STRENGTHS, LinearProbe


def test_val_chooses_how_strongly_to_regularise() -> None:
    few, many = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.9, 0.44]])
    shots = torch.cat([many.repeat(30, 1), few]), torch.tensor([0] * 30 + [1])
    rare, common = (few, torch.tensor([1])), (many, torch.tensor([0]))
    probe = LinearProbe(small_clip(), ["a", "b"], shots, val=rare)
    assert probe.logits_from_features(few).argmax() == 1
    assert probe.strength > min(STRENGTHS)  # held back, it says 0 to all
    probe = LinearProbe(small_clip(), ["a", "b"], shots, val=common)
    assert probe.logits_from_features(few).argmax() == 0
    assert probe.strength == min(STRENGTHS)  # the smallest of equals


A, B, NONE = (
    (torch.eye(2)[:1], torch.tensor([0])),
    (torch.eye(2), torch.tensor([0, 1])),
    torch.zeros,
)


@pytest.mark.parametrize(
    ("names", "shots", "val", "told"),
    [
        (["a", "b", "c"], B, B, "'c' has no training image"),  # its columns would be another's
        (["a", "b"], A, B, "'b' has no training image"),
        (["a"], B, B, "Label 1 has no name among 1"),
        (["a"], A, A, "needs two classes"),
        (["a", "b"], B, (NONE(0, 2), NONE(0)), "some val images"),
        (["a", 2], B, B, "2 is a number"),
    ],
)
def test_what_cannot_be_fitted(names: list, shots: tuple, val: tuple, told: str) -> None:
    with pytest.raises(DataError, match=told):
        LinearProbe(small_clip(), names, shots, val)
