"""Checkers for the exercises of chapter 8."""

from collections.abc import Callable, Mapping, Sequence
from math import isclose
from typing import Any

import numpy as np
import torch
from torch import Tensor


def check_by_group(by_group: Callable[[list[bool], list[str]], Mapping[str, float]]) -> None:
    """Exercise 1: `by_group(correct, groups)` gives the accuracy (%) of each group."""
    correct, groups = [True, False, True, True, False, True], ["a", "a", "b", "b", "b", "c"]
    got = {k: float(v) for k, v in dict(by_group(list(correct), list(groups))).items()}
    assert set(got) == {"a", "b", "c"}, f"There are groups a, b and c, but you have {sorted(got)}."
    wanted = {"a": 50.0, "b": 200 / 3, "c": 100.0}
    for name, value in wanted.items():
        assert not isclose(got[name], value / 100), "Give accuracies in percent."
        assert isclose(got[name], value), (
            f"Group {name!r} has {value:.1f}% right answers, but you say {got[name]:.1f}. "
            "Divide by the number of images of the group."
        )
    print("passed: each accuracy is over the images of its own group")


def check_among(among: Callable[[Tensor, Tensor, Sequence[int]], Any]) -> None:
    """Exercise 2: `among(logits [B, K], labels [B], classes)` keeps some images and some names."""
    logits = torch.tensor(
        [[5.0, 9, 1, 0], [1, 2, 0, 8], [0, 3, 7, 1], [6, 0, 0, 1], [2, 0, 3, 9], [9, 0, 7, 8]]
    )
    labels, classes = torch.tensor([0, 1, 2, 3, 3, 2]), [0, 2, 3]
    got = float(among(logits.clone(), labels.clone(), list(classes)))
    kept = torch.isin(labels, torch.tensor(classes))
    all_names = 100 * (logits.argmax(1) == labels)[kept].float().mean().item()
    assert not isclose(got, all_names, abs_tol=1e-3), (
        f"{got:.1f}% is the accuracy among all four names. Take away the logits of the class "
        "that is left out."
    )
    assert not isclose(got, 50.0, abs_tol=1e-3), (
        "You divided by all six images. The image of the class that is left out does not count."
    )
    assert not isclose(got, 0.6, abs_tol=1e-5), "Give the accuracy in percent."
    assert isclose(got, 60.0, abs_tol=1e-3), (
        f"You get {got:.1f}%, but it should be 60.0%. After columns are removed, argmax counts "
        "the columns that are left, so translate it back to a class."
    )
    print("passed: only the images and the names of these classes are kept")


Interval = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[float, float]]


def check_interval(interval: Interval) -> None:
    """Exercise 3: `interval(right_a, right_b, images)`, per class: paired, classes drawn."""
    images = np.full(40, 10)
    right = np.where(np.arange(40) % 2, 9, 1)
    low, high = interval(right.copy(), right.copy(), images.copy())
    assert abs(low) < 1e-9 and abs(high) < 1e-9, (
        f"A method compared with itself differs by 0 on every draw, but your interval is "
        f"[{low:.1f}, {high:.1f}]. Use the same drawn classes for both methods."
    )
    better = np.where(np.arange(40) % 2, 9, 3)  # 2 of 10 images more, in every other class
    low, high = interval(better, right, images)
    assert low < high, "The low end comes first, and the two ends should differ."
    assert low <= 10 <= high, f"The difference, 10 points, is outside your [{low:.1f}, {high:.1f}]."
    wanted = 2 * 1.96 * 10 / np.sqrt(40)  # each class is 0 or 20 points better, half of them each
    assert abs(high - low - wanted) < 1.2, (
        f"Your interval is {high - low:.1f} points wide, but it should be near {wanted:.1f}. Draw "
        "as many classes as there are, with replacement, and take the 2.5% and 97.5% quantiles."
    )
    sizes = np.array([100] * 10 + [10] * 30)
    low, high = interval(sizes * 3 // 5, sizes // 2, sizes)
    assert abs(low - 10) < 1e-6 and abs(high - 10) < 1e-6, (
        "Every class is 10 points better, so every draw is as well, but your interval is "
        f"[{low:.1f}, {high:.1f}]. Add up the right answers and the images of the drawn classes, "
        "then divide."
    )
    print("passed: classes are drawn, and both methods see the same ones")
