"""The checkers of chapter 3 pass the right answers and refuse the likely mistakes."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from cocoop_tutorial.book.checks import ch3


def test_count() -> None:
    ch3.check_count(lambda m, d, k, specific: m * d * (k if specific else 1))
    ch3.check_count(lambda m, d, k, specific: np.prod([m, d, k if specific else 1]))
    for wrong in (lambda m, d, k, specific: m * d, lambda m, d, k, specific: m * d * k):
        with pytest.raises(AssertionError, match=r"M, D\]: multiply"):
            ch3.check_count(wrong)


def test_cross_entropy() -> None:
    ch3.check_cross_entropy(F.cross_entropy)
    ch3.check_cross_entropy(lambda x, y: F.cross_entropy(x.double(), y))
    ch3.check_cross_entropy(lambda x, y: F.cross_entropy(x, y).numpy())
    ch3.check_cross_entropy(lambda x, y: F.cross_entropy(x, y).item())
    with pytest.raises(AssertionError, match="should be"):
        ch3.check_cross_entropy(lambda x, y: F.cross_entropy(x, y, reduction="sum"))
    with pytest.raises(AssertionError, match="shape"):
        ch3.check_cross_entropy(lambda x, y: F.cross_entropy(x, y, reduction="none"))
    with pytest.raises(AssertionError, match="should be"):
        ch3.check_cross_entropy(lambda x, y: -F.cross_entropy(x, y))
    with pytest.raises(AssertionError, match="overflows"):
        ch3.check_cross_entropy(lambda x, y: _naive(x, y))


def _naive(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    return -p[range(len(labels)), labels].log().mean()


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda rows: int(rows.loc[rows.new.idxmax(), "epoch"]), "new classes"),
        (lambda rows: int(rows.epoch.max()) - 1, "earlier"),
        (lambda rows: 0, "epoch 0"),
        (lambda rows: int(rows.epoch[rows.base == rows.base.max()].iloc[0]), "order of the rows"),
    ],
)
def test_choose_epoch_refuses(choose, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        ch3.check_choose_epoch(choose)


def test_choose_epoch_and_overlap() -> None:
    def choose(rows: pd.DataFrame) -> int:
        return int(rows.epoch[rows.base == rows.base.max()].min())

    ch3.check_choose_epoch(choose)
    ch3.check_overlap(lambda a, b: len(a & b) / len(a | b))
    with pytest.raises(AssertionError, match="either"):
        ch3.check_overlap(lambda a, b: 2 * len(a & b) / (len(a) + len(b)))
    with pytest.raises(AssertionError, match="either"):
        ch3.check_overlap(lambda a, b: len(a & b) / max(len(a), len(b)) if a & b else math.inf)
