"""The linear probe."""

import torch
from small_clips import small_clip

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
