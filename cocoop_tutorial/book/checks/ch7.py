"""Checkers for the exercises of chapter 7."""

from collections.abc import Callable, Iterable, Mapping
from math import isclose
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def check_average(average: Callable[[Mapping[str, float], str], float]) -> None:
    """Exercise 1: `average(accuracies, source)` is the mean over the targets."""
    cases = [({"a": 90.0, "b": 50.0, "c": 60.0}, "a", 55.0), ({"x": 10.0, "y": 30.0}, "y", 10.0)]
    for accuracies, source, wanted in cases:
        got = float(average(accuracies, source))
        whole = sum(accuracies.values()) / len(accuracies)
        assert not isclose(got, whole), (
            f"{got} is the mean with the source {source!r} in it. The source is no target, so "
            "leave it out."
        )
        assert isclose(got, wanted), f"You get {got} for {accuracies} and {source!r}, not {wanted}."
    print("passed: this is the mean over the targets, without the source")


def check_shared(shared: Callable[[list[str], list[str]], Iterable[str]]) -> None:
    """Exercise 2: `shared(source, target)` gives the target's names that the source has too."""
    source = ["Golden Retriever", "tennis_ball", "fire truck"]
    target = ["pug", "golden retriever", "Tennis-Ball", "truck"]
    got = set(shared(list(source), list(target)))
    assert "truck" not in got, '"truck" and "fire truck" are two classes, so compare whole names.'
    wanted = {"golden retriever", "Tennis-Ball"}
    assert not got - set(target), (
        f"{sorted(got - set(target))} are not spelled as the target spells them. Tidy the names "
        "only for the comparison."
    )
    assert got == wanted, (
        f"You found {sorted(got)}, but these are shared: {sorted(wanted)}. Capitals, hyphens and "
        "underscores should not count."
    )
    assert not set(shared(["a"], ["b"])), "Two lists without a common name share nothing."
    print("passed: it finds the shared names, however they are spelled")


def check_sign_test(sign_test: Callable[[int, int], float]) -> None:
    """Exercise 3: `sign_test(ahead, n)` is the two-sided p-value of a fair coin."""
    cases = [(9, 10, 22 / 1024), (1, 10, 22 / 1024), (3, 3, 0.25), (5, 10, 1.0), (7, 11, 0.548828)]
    for ahead, n, wanted in cases:
        got = float(sign_test(ahead, n))
        assert not isclose(got, wanted / 2, abs_tol=1e-6), (
            f"sign_test({ahead}, {n}) gives {got:.4f}, which counts one side only. A coin that "
            f"shows {n - ahead} heads would have surprised you as much."
        )
        assert got <= 1, f"sign_test({ahead}, {n}) gives {got:.4f}, but no probability is above 1."
        assert isclose(got, wanted, abs_tol=1e-5), (
            f"sign_test({ahead}, {n}) gives {got:.4f}, not {wanted:.4f}. Add up the binomial "
            "probabilities of all counts at least as far from n / 2."
        )
    print("passed: the probability is two-sided and comes from the binomial distribution")


def check_nearness(nearness: Callable[[Tensor, Tensor], Any]) -> None:
    """Exercise 4: `nearness(source [S, E], target [T, E])` is the mean over target classes."""
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(n, 6, generator=generator) for n in (5, 3))
    cosines = F.normalize(target, dim=1) @ F.normalize(source, dim=1).T  # [T, S]
    wanted, got = cosines.amax(dim=1).mean().item(), float(nearness(source, target))
    assert not isclose(got, cosines.amax(dim=0).mean().item(), abs_tol=1e-4), (
        "You looked for the nearest target class of each source class. Do it the other way round."
    )
    assert not isclose(got, cosines.mean().item(), abs_tol=1e-4), (
        "You averaged over all pairs. Take the nearest source class of each target class first."
    )
    assert isclose(got, wanted, abs_tol=1e-4), (
        f"You get {got:.4f}, but it should be {wanted:.4f}. Scale every vector to length 1, "
        "compare all pairs, take the largest cosine for each target class, and then the mean."
    )
    print("passed: this is the mean cosine of each target class with its nearest source class")
