"""The checkers of chapter 9 pass the right answers and refuse the likely mistakes."""

import numpy as np
import pytest
import torch

from cocoop_tutorial.book.checks import ch9


def longest(n_ctx: int, joint: int, width: int) -> int:
    hidden = joint // 16
    return n_ctx + ((joint + 1) * hidden + (hidden + 1) * width) // width


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (lambda m, e, d: longest(m, e, d) - m, "context vectors besides"),
        (lambda m, e, d: longest(m, e, d) + 1, "round down"),
        (lambda m, e, d: m + (e * (e // 16) + (e // 16) * d) // d, "biases"),
    ],
)
def test_vectors(vectors, message: str) -> None:
    ch9.check_vectors(longest)
    with pytest.raises(AssertionError, match=message):
        ch9.check_vectors(vectors)


def named_base(logits, labels, n_base):
    guesses = np.asarray(logits).argmax(axis=1)[np.asarray(labels) >= n_base]
    return np.float64(100 * (guesses < n_base).mean())


@pytest.mark.parametrize(
    ("taken", "message"),
    [
        (lambda x, y, n: named_base(x, y, n) / 100, "percent"),
        (lambda x, y, n: 100.0 * (x.argmax(1) < n)[y >= n - 1].float().mean(), "25%"),
        (lambda x, y, n: 100.0 * (x.argmax(1) < n).float().mean(), "of all images"),
        (lambda x, y, n: 100.0 * (x.argmax(1) != y)[y >= n].float().mean(), "another new class"),
    ],
)
def test_taken(taken, message: str) -> None:
    ch9.check_taken(named_base)
    with pytest.raises(AssertionError, match=message):
        ch9.check_taken(taken)


def without_conflict(task, clip):
    task, clip = np.asarray(task), np.asarray(clip)
    inner = (task * clip).sum()
    return task if inner >= 0 else task - inner / (clip**2).sum() * clip


@pytest.mark.parametrize(
    ("prograd", "message"),
    [
        (lambda g, c: g, "must be dropped"),
        (lambda g, c: g - (g * c).sum() / c.square().sum() * c, "agree"),
        (lambda g, c: g if (g * c).sum() > 0 else g - c, "still has"),
        (lambda g, c: g if (g * c).sum() > 0 else torch.zeros_like(g), "nothing else"),
        (lambda g, c: g if (g * c).sum() > 0 else g.flatten(), "shape"),
    ],
)
def test_prograd(prograd, message: str) -> None:
    ch9.check_prograd(without_conflict)
    ch9.check_prograd(lambda g, c: torch.as_tensor(without_conflict(g, c)).float())
    with pytest.raises(AssertionError, match=message):
        ch9.check_prograd(prograd)


@pytest.mark.parametrize(
    ("swap", "message"),
    [
        (lambda g, old, table: (table @ g).argmax(), "against the gradient"),
        (lambda g, old, table: (table - old).norm(dim=1).argmin(), "changes nothing"),
        (lambda g, old, table: 3, "first order"),
    ],
)
def test_swap(swap, message: str) -> None:
    ch9.check_swap(lambda g, old, table: int(np.argmin(np.asarray(table) @ np.asarray(g))))
    with pytest.raises(AssertionError, match=message):
        ch9.check_swap(swap)
