"""The checkers of chapter 3 pass the right answers and refuse the likely mistakes."""

import math

import pandas as pd
import pytest
import torch
from torch.nn import functional as F

from cocoop_tutorial.book.checks import ch3


def test_count() -> None:
    ch3.check_count(lambda m, d, k, specific: m * d * (k if specific else 1))
    with pytest.raises(AssertionError, match=r"\[K, M, D\]"):
        ch3.check_count(lambda m, d, k, specific: m * d)


def test_cross_entropy() -> None:
    ch3.check_cross_entropy(F.cross_entropy)
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
        ch3.check_overlap(lambda a, b: len(a & b) / max(len(a), len(b)) if a & b else math.inf)
