"""Prompt learners of every kind, small but real, and how to tell two of them apart."""

import torch
from small_clips import random_features, small_clip

from cocoop_tutorial import CoCoOp, CoOp
from cocoop_tutorial.models.prompt_learner import PromptLearner

NAMES = ["cat", "hot_dog", "Great Wall of China", "鸟"]
MODELS = {
    "coop": lambda: CoOp(small_clip(), NAMES),
    "coop-words": lambda: CoOp(small_clip(), NAMES, 4, "a photo of a"),
    "coop-middle": lambda: CoOp(small_clip(), NAMES, 5, class_token_position="middle"),
    "coop-front": lambda: CoOp(small_clip(), NAMES, 2, class_token_position="front"),
    "coop-specific": lambda: CoOp(small_clip(), NAMES, 4, class_specific=True),
    "cocoop": lambda: CoCoOp(small_clip(), NAMES),
    "cocoop-random": lambda: CoCoOp(small_clip(), NAMES, 6, None),
    "cocoop-separate": lambda: CoCoOp(small_clip(), NAMES, separate_meta_nets=True),
    "cocoop-twins": lambda: CoCoOp(small_clip(), ["cat", "cat"], allow_duplicates=True),
}


def shaken(model: PromptLearner, seed: int = 0) -> PromptLearner:
    """As if trained: every parameter moved."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.prompt_parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model


def assert_same(a: PromptLearner, b: PromptLearner) -> None:
    assert type(a) is type(b)
    assert (a.classnames, a.options()) == (b.classnames, b.options())
    states = a.prompt_state(), b.prompt_state()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    features = random_features(a.clip, 3)
    assert torch.equal(a.logits_from_features(features), b.logits_from_features(features))
