"""The checkers of chapter 6 pass what is right and say what is wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cocoop_tutorial.book.checks import ch6


def two_h(base: Any, new: Any) -> tuple[float, float]:
    b, n = np.asarray(base, dtype=float), np.asarray(new, dtype=float)
    h = 2 * b * n / (b + n)
    return 2 * b.mean() * n.mean() / (b.mean() + n.mean()), h.mean()


def test_two_h() -> None:
    ch6.check_two_h(two_h)
    ch6.check_two_h(lambda b, n: torch.tensor(two_h(b, n), dtype=torch.float64))
    ch6.check_two_h(lambda b, n: list(two_h(b, n)))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda b, n: two_h(b, n)[::-1], "other way round"),
        (lambda b, n: two_h(b, n)[:1], "two numbers"),
        (lambda b, n: (two_h(b, n)[0],) * 2, "mean of the H is"),
        (lambda b, n: ((np.mean(b) + np.mean(n)) / 2,) * 2, "H of the means is|mean of the H is"),
    ],
)
def test_wrong_two_h_is_told_why(wrong: Callable[..., Any], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        ch6.check_two_h(wrong)


def three(logits: Tensor, labels: Tensor, n_base: int) -> list[float]:
    found = []
    for mine, names in (
        (labels < n_base, slice(0, n_base)),
        (labels >= n_base, slice(n_base, None)),
        (labels >= 0, slice(None)),
    ):
        start = names.start or 0
        right = logits[mine][:, names].argmax(dim=1) + start == labels[mine]
        found.append(100 * right.double().mean().item())
    return found


def masked(logits: Tensor, labels: Tensor, n_base: int) -> np.ndarray:
    """The other half's names at minus infinity instead of cut off, in NumPy."""
    x, y = logits.double().numpy(), labels.numpy()
    names = np.arange(x.shape[1])
    own = np.where((names < n_base) == (y[:, None] < n_base), x, -np.inf)
    right, whole = own.argmax(axis=1) == y, x.argmax(axis=1) == y
    return 100 * np.array([right[y < n_base].mean(), right[y >= n_base].mean(), whole.mean()])


@pytest.mark.parametrize("right", [three, masked])
def test_three(right: Callable[..., Any]) -> None:
    ch6.check_three(right)


def among_all(logits: Tensor, labels: Tensor, n_base: int) -> list[float]:
    right = (logits.argmax(dim=1) == labels).float()
    return [100 * right[m].mean() for m in (labels < n_base, labels >= n_base, labels >= 0)]


def not_shifted(logits: Tensor, labels: Tensor, n_base: int) -> list[float]:
    base, _, whole = three(logits, labels, n_base)
    new = labels >= n_base
    right = logits[new][:, n_base:].argmax(dim=1) == labels[new]
    return [base, 100 * right.float().mean().item(), whole]


def average(logits: Tensor, labels: Tensor, n_base: int) -> list[float]:
    base, new, _ = three(logits, labels, n_base)
    return [base, new, (base + new) / 2]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (among_all, "among all names"),
        (not_shifted, "first new name"),
        (average, "all K names"),
        (lambda *a: [x / 100 for x in three(*a)], "percent"),
        (lambda *a: three(*a)[:2], "three accuracies"),
    ],
)
def test_wrong_three_is_told_why(wrong: Callable[..., Any], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        ch6.check_three(wrong)


def budget(classes: int, shots: int, epochs: int, size: int) -> tuple[int, int]:
    n = classes * shots
    steps = max(n // size, 1)
    return epochs * min(n, steps * size), epochs * steps


def test_budget() -> None:
    ch6.check_budget(budget)
    ch6.check_budget(lambda *a: np.array(budget(*a), dtype=np.float64))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda k, n, e, b: (k * n * e, e * -(-k * n // b)),  # keeps the last batch
        lambda k, n, e, b: (e * (k * n // b) * b, e * (k * n // b)),  # nothing if one is not full
        lambda k, n, e, b: (k * n * e, k * n * e // b),  # batches that go on into the next epoch
    ],
)
def test_wrong_budgets_are_told_why(wrong: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match="last batch"):
        ch6.check_budget(wrong)


def interval(
    first: Any, second: Any, images: Any, repeats: int, tail: float = 0.025
) -> tuple[float, float]:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(repeats):
        drawn = rng.integers(0, len(images), len(images))
        a, b = (np.sum(right[drawn]) / np.sum(images[drawn]) for right in (first, second))
        found.append(100 * (a - b))
    return tuple(np.quantile(found, [tail, 1 - tail]))


def in_torch(first: Any, second: Any, images: Any, repeats: int) -> Tensor:
    a, b, n = (torch.as_tensor(v, dtype=torch.float64) for v in (first, second, images))
    rows = torch.randint(len(n), (repeats, len(n)), generator=torch.Generator().manual_seed(5))
    apart = 100 * (a[rows].sum(dim=1) - b[rows].sum(dim=1)) / n[rows].sum(dim=1)
    return apart.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))


@pytest.mark.parametrize("right", [interval, in_torch])
def test_interval(right: ch6.Interval) -> None:
    ch6.check_interval(right)


def unpaired(first: Any, second: Any, images: Any, repeats: int) -> tuple[float, float]:
    rng, k = np.random.default_rng(4), len(images)
    draws = [rng.multinomial(k, np.full(k, 1 / k), repeats) for _ in range(2)]
    a, b = (d @ right / (d @ images) for d, right in zip(draws, (first, second), strict=True))
    return tuple(np.quantile(100 * (a - b), [0.025, 0.975]))


def by_image(first: Any, second: Any, images: Any, repeats: int) -> tuple[float, float]:
    rng, n = np.random.default_rng(4), images.sum()
    a, b = (rng.binomial(n, right.sum() / n, repeats) / n for right in (first, second))
    return tuple(np.quantile(100 * (a - b), [0.025, 0.975]))


def of_classes(first: Any, second: Any, images: Any, repeats: int) -> tuple[float, float]:
    """Without drawing: the smallest and largest difference of a class."""
    apart = 100 * (first - second) / images
    return apart.min(), apart.max()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (unpaired, "Draw once"),
        (by_image, "whole classes"),
        (lambda *a: interval(*a, tail=0.05), "90%"),
        (lambda *a: tuple(v / 100 for v in interval(*a)), "percentage points"),
        (lambda a, b, n, r: interval(b, a, n, r), "from the second"),
        (of_classes, "with replacement"),
    ],
)
def test_wrong_intervals_are_told_why(wrong: ch6.Interval, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        ch6.check_interval(wrong)
