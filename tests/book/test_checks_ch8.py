"""The checkers of chapter 8 pass the right answers and refuse the likely mistakes."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from cocoop_tutorial.book.checks import ch8


def by_group(correct: list[bool], groups: list[str]) -> pd.Series:
    return 100 * pd.Series(correct).groupby(groups).mean()


def test_by_group() -> None:
    ch8.check_by_group(by_group)
    with pytest.raises(AssertionError, match="percent"):
        ch8.check_by_group(lambda c, g: by_group(c, g) / 100)
    with pytest.raises(AssertionError, match="images of the group"):
        ch8.check_by_group(lambda c, g: 100 * pd.Series(c).groupby(g).sum() / len(c))
    with pytest.raises(AssertionError, match="a, b and c"):
        ch8.check_by_group(lambda c, g: {"a": 50.0})


def among(logits: Tensor, labels: Tensor, classes: list[int]) -> float:
    kept = torch.isin(labels, torch.tensor(classes))
    guesses = torch.tensor(classes)[logits[kept][:, classes].argmax(dim=1)]
    return 100 * (guesses == labels[kept]).double().mean().item()


def with_numpy(logits: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    kept = np.isin(labels, classes)
    guesses = classes[logits[kept][:, classes].argmax(axis=1)]
    return 100 * (guesses == labels[kept]).mean()


def test_among() -> None:
    ch8.check_among(among)
    ch8.check_among(lambda x, y, c: with_numpy(x.double().numpy(), y.numpy(), np.array(c)))
    with pytest.raises(AssertionError, match="all four names"):
        ch8.check_among(
            lambda x, y, c: 100 * (x.argmax(1) == y)[torch.isin(y, torch.tensor(c))].float().mean()
        )
    with pytest.raises(AssertionError, match="all six images"):
        ch8.check_among(lambda x, y, c: among(x, y, c) * 5 / 6)
    with pytest.raises(AssertionError, match="in percent"):
        ch8.check_among(lambda x, y, c: among(x, y, c) / 100)
    with pytest.raises(AssertionError, match="translate it back"):
        ch8.check_among(lambda x, y, c: _untranslated(x, y, c))


def _untranslated(logits: Tensor, labels: Tensor, classes: list[int]) -> float:
    kept = torch.isin(labels, torch.tensor(classes))
    guesses = logits[kept][:, classes].argmax(dim=1)
    return 100 * (guesses == labels[kept]).float().mean().item()


def paired(a: np.ndarray, b: np.ndarray, images: np.ndarray) -> tuple[float, float]:
    drawn = np.random.default_rng(1).integers(0, len(a), (4000, len(a)))
    points = 100 * (a[drawn].sum(1) - b[drawn].sum(1)) / images[drawn].sum(1)
    low, high = np.quantile(points, [0.025, 0.975])
    return low, high


def test_interval() -> None:
    ch8.check_interval(paired)
    ch8.check_interval(lambda a, b, n: tuple(map(float, paired(a, b, n))))


def test_interval_refuses_unpaired_draws() -> None:
    def unpaired(a: np.ndarray, b: np.ndarray, images: np.ndarray) -> tuple[float, float]:
        rng = np.random.default_rng(1)
        draws = [rng.integers(0, len(a), (2000, len(a))) for _ in range(2)]
        means = [100 * x[d].sum(1) / images[d].sum(1) for x, d in zip((a, b), draws, strict=True)]
        return tuple(np.quantile(means[0] - means[1], [0.025, 0.975]))

    with pytest.raises(AssertionError, match="same drawn classes"):
        ch8.check_interval(unpaired)


def test_interval_refuses_other_widths_and_means_of_classes() -> None:
    with pytest.raises(AssertionError, match="quantiles"):
        ch8.check_interval(lambda a, b, n: _stretched(a, b, n, 2))
    with pytest.raises(AssertionError, match="low end comes first"):
        ch8.check_interval(lambda a, b, n: paired(a, b, n)[::-1])
    with pytest.raises(AssertionError, match="outside"):
        ch8.check_interval(lambda a, b, n: paired(b, a, n))
    with pytest.raises(AssertionError, match="then divide"):
        ch8.check_interval(lambda a, b, n: _of_fixed_total(a, b, n))


def _stretched(a: np.ndarray, b: np.ndarray, n: np.ndarray, by: float) -> tuple[float, float]:
    low, high = paired(a, b, n)
    middle = (low + high) / 2
    return middle + by * (low - middle), middle + by * (high - middle)


def _of_fixed_total(a: np.ndarray, b: np.ndarray, n: np.ndarray) -> tuple[float, float]:
    low, high = paired(a, b, np.full(len(n), n.mean()))
    return low, high
