"""Checkers for the exercises of chapter 9."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def check_vectors(vectors: Callable[[int, int, int], int]) -> None:
    """Exercise 1: `vectors(n_ctx, joint, width)`, the longest CoOp no larger than that CoCoOp."""
    for case, wanted in (((4, 512, 512), 69), ((4, 256, 192), 42), ((16, 1024, 512), 209)):
        got = vectors(*case)
        assert got != wanted + 1, f"{got} vectors have more parameters than CoCoOp: round down."
        assert got != wanted - case[0], (
            "CoCoOp has context vectors besides the Meta-Net: count them too."
        )
        assert got == wanted, (
            f"vectors{case} gives {got}, not {wanted}. The Meta-Net has two linear layers with "
            "biases and a middle of joint // 16; divide the sum by the width of a vector."
        )
    print("passed: as many context vectors as CoCoOp's parameters allow")


def check_taken(taken: Callable[[Tensor, Tensor, int], Any]) -> None:
    """Exercise 2: `taken(logits [N, K], labels [N], n_base)`, % of new images named as base."""
    logits = torch.tensor(
        [[9.0, 0, 0, 1], [0, 9, 1, 0], [0, 0, 9, 1], [5, 0, 1, 4], [0, 1, 8, 2], [1, 0, 2, 9]]
    )
    labels = torch.tensor([1, 0, 3, 3, 2, 2])
    got = float(taken(logits, labels, 2))
    assert got != 0.25, "Give percent, not a share."
    assert abs(got - 50) > 1e-6, "Divide by the number of new images, not of all images."
    assert abs(got - 75) > 1e-6, (
        "Not every mistake counts: a new image may also get the name of another new class."
    )
    assert abs(got - 25) < 1e-6, (
        f"You find {got:.1f}%; of the four new images one gets a base name, so it is 25%. New "
        "images have labels from n_base on."
    )
    print("passed: new images under base names")


def check_prograd(prograd: Callable[[Tensor, Tensor], Any]) -> None:
    """Exercise 3: `prograd(task, clip)` drops from `task [M, D]` what conflicts with `clip`."""
    generator = torch.Generator().manual_seed(0)
    task, clip = torch.randn(2, 4, 6, generator=generator, dtype=torch.float64)
    clip = clip * torch.sign((task * clip).sum())
    agreed = torch.as_tensor(prograd(task.clone(), clip.clone())).double()
    assert torch.allclose(agreed, task, atol=1e-5), (
        "These gradients agree (their inner product is positive), so `task` must stay as it is."
    )
    left = torch.as_tensor(prograd(task.clone(), -clip)).double()
    assert left.shape == task.shape, f"Return a gradient of shape {list(task.shape)}."
    assert not torch.allclose(left, task, atol=1e-5), (
        "These gradients conflict (their inner product is negative): something must be dropped."
    )
    over = (left * clip).sum() / clip.square().sum()
    assert abs(over) < 1e-5, (
        f"What is left still has {over:+.2f} times CLIP's gradient in it. Subtract the projection "
        "(task . clip) / (clip . clip) * clip, with inner products over all M x D numbers."
    )
    along = task - (task * clip).sum() / clip.square().sum() * clip
    assert torch.allclose(left, along, atol=1e-5), "Drop the conflicting part and nothing else."
    print("passed: agreeing gradients kept, conflicting parts dropped")


def check_swap(swap: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    """Exercise 4: `swap(gradient [D], old [D], table [V, D])`, the token that lowers most."""
    gradient, old = torch.tensor([1.0, -2.0]), torch.tensor([1.0, 1.0])
    table = torch.tensor([[3.0, 0.0], [0.0, 1.5], [1.0, 1.0], [-1.0, 0.5]])
    got = int(swap(gradient, old, table))
    assert got != 0, "Token 0 raises the loss most: a step against the gradient lowers it."
    assert got != 2, "Token 2 is the old one, which changes nothing."
    assert got == 1, (
        f"You chose token {got}. To first order the loss changes by (new - old) . gradient, which "
        "is lowest for token 1."
    )
    print("passed: the token with the best first-order estimate")
