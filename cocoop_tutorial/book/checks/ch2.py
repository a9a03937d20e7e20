"""Checkers for the exercises of chapter 2."""

import io
import random
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.nn import functional as F

from cocoop_tutorial.datasets.splits import Dataset, Sample, Split, few_shot
from cocoop_tutorial.evaluation.accuracy import harmonic_mean

Draw = Callable[[list[Sample], list[Sample], int, int], tuple[list[Sample], list[Sample]]]


def check_draw(draw: Draw) -> None:
    """Exercise 1: `draw(train, val, shots, seed)` gives the official shots, train and val."""
    cases = [(2, 1, 12), (8, 3, 12), (6, 2, 4), (6, 4, 6)]
    for case, (shots, seed, size) in enumerate(cases, start=1):
        data = _toy(seed, size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a class that is too small is part of the case
            wanted = few_shot(data, shots, seed)
        train, val = draw(data.train.samples, data.val.samples, shots, seed)
        counts = [[y for _, y in train].count(k) for k in range(3)]
        least = [min(shots, [y for _, y in data.train.samples].count(k)) for k in range(3)]
        assert counts == least, (
            f"Case {case}: your draw has {counts} images of the three classes, not {least}. "
            "A class with fewer images than shots keeps them all."
        )
        exact = " A class with exactly enough images is drawn from, too." * (size == shots)
        assert _plain(train) == wanted.train.samples, (
            f"Case {case}: the numbers are right, but the images differ. Make one "
            "random.Random(seed), and go through the classes in the order in which the list "
            f"first shows them.{exact}"
        )
        few = min(shots, 4)
        assert len(val) == 3 * few, (
            f"Case {case}: val has {len(val)} images, not {3 * few}: min(shots, 4) per class."
        )
        assert _plain(val) == wanted.val.samples, (
            f"Case {case}: train is right, but val is not. Go on with the same generator "
            "instead of starting a new one."
        )
    print("passed: four draws are right, with too few and with just enough images in a class")


def _plain(samples: Iterable[Sequence[Any]]) -> list[Sample]:
    """Pairs of path and label, whether they came as tuples or lists, paths or strings."""
    return [(Path(path), int(label)) for path, label in samples]


def _toy(seed: int, size: int) -> Dataset:
    """Three classes in shuffled order; the middle one has `size` training images."""
    rng = random.Random(100 + seed)
    parts = []
    for split, counts in (("train", (12, size, 12)), ("val", (6, 6, 6))):
        samples = [(Path(f"{split}/{y}-{i}.png"), y) for y in range(3) for i in range(counts[y])]
        rng.shuffle(samples)
        parts.append(Split(samples))
    return Dataset("toy", ["ant", "bee", "cow"], *parts, Split())


def check_needed_new(needed: Callable[[float, float], float | None]) -> None:
    """Exercise 2: `needed(base, h)` is the new accuracy that gives H = h, or None if none can."""
    for base, h in ((80.0, 70.0), (60.0, 60.0), (92.5, 71.3), (50.0, 66.0)):
        got = needed(base, h)
        assert got is not None, f"For base {base} and H {h} there is an answer; you return None."
        made = harmonic_mean(base, got)
        assert abs(made - h) < 1e-6, (
            f"needed({base}, {h}) gives {got:.2f}, but then H is {made:.2f}. "
            "Solve H (base + new) = 2 base new for new."
        )
    for base, h in ((40.0, 60.0), (30.0, 60.0), (25.0, 60.0)):
        assert needed(base, h) is None, (
            f"With base {base} no new accuracy up to 100 reaches H = {h}: return None. "
            "H is never more than twice the smaller of the two."
        )
    print("passed: four values that can be reached, and three that cannot")


def check_near_copies(find: Callable[[list[Image.Image], list[Image.Image]], Any]) -> None:
    """Exercise 3: `find(train, test)` gives the pairs (i, j) of pictures that are nearly equal."""
    for seed in (0, 1):  # the copies lie elsewhere in each, so no fixed answer is right twice
        train, test, planted = _with_copies(seed)
        found = {(int(i), int(j)) for i, j in find(list(train), list(test))}
        extra, missed = sorted(found - planted.keys()), sorted(planted.keys() - found)
        assert not extra, (
            f"{len(extra)} pairs are not copies, for example train {extra[0][0]} and test "
            f"{extra[0][1]}. Subtract each thumbnail's mean, scale it to length 1, and ask for "
            "more than 0.9."
        )
        assert not missed, (
            f"Train {missed[0][0]} and test {missed[0][1]} are the same picture, "
            f"{planted[missed[0]]}. Bring all to one size first, and compare after subtracting "
            "the mean and scaling to length 1."
        )
    print("passed: in two collections, you found all planted copies and nothing else")


def _with_copies(
    seed: int,
) -> tuple[list[Image.Image], list[Image.Image], dict[tuple[int, int], str]]:
    """Twelve pictures, twelve others with three copies among them, and what was done to each."""
    rng = random.Random(seed)
    train = [_blobs(100 * seed + i) for i in range(12)]
    test = [_blobs(100 * seed + 50 + i) for i in range(12)]
    (a, b, c), (x, y, z) = rng.sample(range(12), 3), rng.sample(range(12), 3)
    test[x] = _as_jpeg(train[a])
    test[y] = ImageEnhance.Brightness(train[b]).enhance(0.7)
    test[z] = train[c].resize((40, 40))
    ways = {(a, x): "stored as JPEG", (b, y): "made darker", (c, z): "made smaller"}
    return train, test, ways


def _blobs(seed: int) -> Image.Image:
    """A smooth random picture, 64 pixels, RGB."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)


def _as_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def check_linear_probe(probe: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    """Exercise 4: `probe(features [N, E], labels [N], test [T, E])` fits, gives logits `[T, K]`."""
    (train, labels), (test, truth) = _stretched_clouds()
    kept = train.clone()
    given = probe(train, labels, torch.cat([train, test]))
    assert torch.equal(train, kept), "Your probe changes the features. They are frozen: leave them."
    assert not getattr(given, "requires_grad", False), (
        "Return plain numbers: call .detach() on the logits."
    )
    logits = torch.as_tensor(np.asarray(given), dtype=torch.float64)
    rows = len(train) + len(test)
    assert logits.shape == (rows, CLOUDS), (
        f"The logits must be [T, K] = {[rows, CLOUDS]}; yours are {list(logits.shape)}."
    )
    right = _share_right(logits[: len(train)], labels)
    assert right > 0.98, (
        f"Only {100 * right:.0f}% of its own shots are right after fitting. Take more steps, a "
        "higher learning rate, or less weight decay. (Class means do not fit anything.)"
    )
    assert _is_affine(torch.cat([train, test]), logits), (
        "These are not the outputs of one linear layer: logits must be W x + b, with the same W "
        "and b for every image. Return the layer's outputs, without a softmax and without "
        "comparing with single shots."
    )
    right = _share_right(logits[len(train) :], truth)
    assert right > 0.95, (
        f"{100 * right:.0f}% of the test points are right; a fitted probe has more than 95%. "
        "Check that labels and rows belong together."
    )
    print(f"passed: the probe is right on {100 * right:.1f}% of the points it has not seen")


CLOUDS, WIDTH = 5, 32  # classes and feature width of the toy problem


def _stretched_clouds() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Shots and test points of five classes, unit vectors.

    They differ in four directions with little noise and vary much in another four, so a fitted
    line tells them apart while the nearest class mean is often the wrong one.
    """
    generator = torch.Generator().manual_seed(0)
    centres = torch.zeros(CLOUDS, WIDTH)
    centres[:, :CLOUDS] = 0.3 * torch.eye(CLOUDS)
    centres[:, -1] = 1.0
    noise = torch.full((WIDTH,), 0.02)
    noise[8:12] = 1.0

    def sample(n: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(CLOUDS).repeat_interleave(n)
        points = centres[labels] + noise * torch.randn(len(labels), WIDTH, generator=generator)
        return F.normalize(points, dim=-1), labels

    return sample(16), sample(40)


def _share_right(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(dim=1) == labels).double().mean().item()


def _is_affine(points: Tensor, logits: Tensor) -> bool:
    """Whether one W and b give all logits, up to what softmax ignores: a number per row."""
    wanted = logits - logits.mean(dim=1, keepdim=True)
    inputs = torch.cat([points, torch.ones(len(points), 1)], dim=1).double()
    solved = torch.linalg.lstsq(inputs, wanted).solution
    return bool((inputs @ solved - wanted).norm() < 0.01 * wanted.norm())
