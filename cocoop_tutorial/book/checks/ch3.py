"""Checkers for the exercises of chapter 3."""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

Sizes = Callable[[int, int, int, bool], int]


def check_count(count: Sizes) -> None:
    """Exercise 1: `count(n_ctx, width, classes, class_specific)` gives the trained numbers."""
    cases = [(4, 192, 10, False), (16, 512, 50, False), (16, 512, 50, True), (1, 8, 2, True)]
    for m, d, k, specific in cases:
        wanted, got = m * d * (k if specific else 1), count(m, d, k, specific)
        assert got == wanted, (
            f"count({m}, {d}, {k}, {specific}) gives {got}, not {wanted}. The context is "
            f"{'[K, M, D]' if specific else '[M, D]'}: multiply its sizes."
        )
    print("passed: unified and class-specific contexts counted")


def check_cross_entropy(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Exercise 2: `loss(logits [B, K], labels [B])` is the mean cross-entropy, without overflow."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 7, generator=generator) * 3
    labels = torch.tensor([0, 6, 3, 3, 1])
    got, wanted = torch.as_tensor(loss(logits, labels)).float(), F.cross_entropy(logits, labels)
    assert got.shape == (), f"The loss is one number; yours has shape {list(got.shape)}. Average."
    assert torch.isclose(got, wanted, atol=1e-5), (
        f"Your loss is {got:.4f}, but it should be {wanted:.4f}. Take minus the log-probability of "
        "the right class of each image, then the mean over the images."
    )
    large = loss(logits * 100, labels)  # exp(1000) is infinite in float32
    assert torch.isfinite(torch.as_tensor(large)), (
        "Your loss overflows for large logits, which CLIP's scale produces. Use logsumexp or "
        "log_softmax; do not exponentiate first."
    )
    print("passed: the value is right, and nothing overflows")


def check_choose_epoch(choose: Callable[[pd.DataFrame], int]) -> None:
    """Exercise 3: `choose(rows)` picks the first epoch with the best base accuracy."""
    rows = pd.DataFrame(
        {"epoch": [0, 1, 2, 3], "base": [60.0, 72.0, 72.0, 71.0], "new": [70.0, 60.0, 65.0, 80.0]}
    )
    got = choose(rows)
    assert got != 3, "Your choice uses the new classes, which nobody has while training: use base."
    assert got in (1, 2), f"You chose epoch {got}; the best base accuracy is at epoch 1."
    assert got == 1, (
        "Epochs 1 and 2 are equally good, so take the earlier one, which needs less training."
    )
    assert choose(rows.iloc[::-1]) == 1, "Your choice depends on the order of the rows."
    print("passed: you chose by base classes only")


def check_overlap(overlap: Callable[[set[str], set[str]], float]) -> None:
    """Exercise 4: `overlap(a, b)` is the share of words in common, intersection over union."""
    cases = [
        ({"a", "b"}, {"a", "b"}, 1.0),
        ({"a", "b"}, {"c"}, 0.0),
        ({"a", "b", "c"}, {"b", "c", "d"}, 0.5),
    ]
    for a, b, wanted in cases:
        got = overlap(a, b)
        assert abs(got - wanted) < 1e-9, (
            f"overlap({sorted(a)}, {sorted(b)}) gives {got}, not {wanted}. Divide the number of "
            "words in both by the number of words in either."
        )
    print("passed: intersection over union")
