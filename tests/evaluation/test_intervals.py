"""Intervals: what they say about images that are independent, and about images that are not."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cocoop_tutorial.errors import SettingError
from cocoop_tutorial.evaluation.accuracy import Evaluation
from cocoop_tutorial.evaluation.intervals import bootstrap_by_class, wilson_interval


def evaluation(right: list[list[bool]]) -> Evaluation:
    """One list per class: which of its images are right."""
    k = len(right)
    labels = [y for y, images in enumerate(right) for _ in images]
    guesses = [y if ok else (y + 1) % k for y, images in enumerate(right) for ok in images]
    logits = torch.nn.functional.one_hot(torch.tensor(guesses), k).float()
    return Evaluation(logits, torch.tensor(labels), [f"class {y}" for y in range(k)])


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_solves_its_equation(case: tuple[int, int]) -> None:
    """Its ends are the shares p from which the observed one lies 1.96 standard errors away."""
    correct, total = case
    low, high = wilson_interval(correct, total)
    observed = correct / total
    assert 0 <= low <= 100 * observed + 1e-9 and 100 * observed - 1e-9 <= high <= 100
    for p in (low / 100, high / 100):
        if 1e-12 < p < 1 - 1e-12:
            error = math.sqrt(p * (1 - p) / total)
            assert abs(observed - p) / error == pytest.approx(1.959964, rel=1e-4)


def test_wilson_interval_refuses_nonsense() -> None:
    for correct, total in ((3, 2), (-1, 5), (0, 0)):
        with pytest.raises(ValueError, match=f"{correct} of {total}"):
            wilson_interval(correct, total)


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, math.nan, "0.95", None])
def test_levels_that_cannot_be(level: object) -> None:
    for interval in (
        lambda: wilson_interval(1, 2, level),
        lambda: bootstrap_by_class(evaluation([[True], [False]]), level),
    ):
        with pytest.raises(SettingError, match="level is"):
            interval()


def test_classes_that_stand_or_fall_together_are_one_sample_each() -> None:
    """Ten equal answers a class: the interval is that of the classes, not of the images."""
    together = evaluation([[y % 2 == 0] * 10 for y in range(60)])
    low, high = bootstrap_by_class(together)
    wide = 2 * 196 * math.sqrt(0.25 / 60)
    assert high - low == pytest.approx(wide, rel=0.1)
    naive = wilson_interval(300, 600)
    assert high - low > 2.5 * (naive[1] - naive[0])


def test_independent_images_give_about_the_usual_interval() -> None:
    rng = random.Random(0)
    apart = evaluation([[rng.random() < 0.5 for _ in range(10)] for _ in range(60)])
    low, high = bootstrap_by_class(apart)
    naive = wilson_interval(int(apart.correct.sum()), 600)
    assert high - low == pytest.approx(naive[1] - naive[0], rel=0.25)
    assert low < apart.accuracy < high
    assert bootstrap_by_class(apart, seed=2) != (low, high) == bootstrap_by_class(apart)


def test_bootstrap_skips_classes_without_images() -> None:
    some = evaluation([[True] * 4, [True] * 4, []])
    assert bootstrap_by_class(some) == (100.0, 100.0)
