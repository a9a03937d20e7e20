"""Checkers for the exercises of chapter 2."""

import io
import random
import warnings
from collections.abc import Callable
from pathlib import Path

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
    for case, (shots, seed, short) in enumerate([(2, 1, 0), (8, 3, 0), (6, 2, 4)], start=1):
        data = _toy(seed, short)
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
        assert list(train) == wanted.train.samples, (
            f"Case {case}: right numbers, other images. Make one random.Random(seed), and go "
            "through the classes in the order in which the list first shows them."
        )
        size = min(shots, 4)
        assert len(val) == 3 * size, (
            f"Case {case}: val has {len(val)} images, not {3 * size}: min(shots, 4) a class."
        )
        assert list(val) == wanted.val.samples, (
            f"Case {case}: train is right, val is not. Go on with the same generator, do not "
            "start a new one."
        )
    print("passed: three draws, one of them with a class that is too small")


def _toy(seed: int, short: int) -> Dataset:
    """Three classes in shuffled order; the class `short` has that many training images, if any."""
    rng = random.Random(100 + seed)
    parts = []
    for split, n in (("train", 12), ("val", 6)):
        sizes = [short if short and split == "train" and y == 1 else n for y in range(3)]
        samples = [(Path(f"{split}/{y}-{i}.png"), y) for y in range(3) for i in range(sizes[y])]
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
    print("passed: four that can be reached, three that cannot")


def check_near_copies(find: Callable[[list[Image.Image], list[Image.Image]], set]) -> None:
    """Exercise 3: `find(train, test)` gives the pairs (i, j) of pictures that are nearly equal."""
    train = [_blobs(seed) for seed in range(12)]
    test = [_blobs(seed) for seed in range(50, 62)]
    planted = {(2, 5), (7, 0), (9, 11)}
    test[5] = _as_jpeg(train[2])
    test[0] = ImageEnhance.Brightness(train[7]).enhance(0.7)
    test[11] = train[9].resize((40, 40))
    found = {(int(i), int(j)) for i, j in find(train, test)}
    extra, missed = sorted(found - planted), sorted(planted - found)
    assert not extra, (
        f"{len(extra)} pairs are no copies, for example train {extra[0][0]} and test "
        f"{extra[0][1]}. Take out each thumbnail's mean and length, and ask for more than 0.9."
    )
    ways = {(2, 5): "stored as JPEG", (7, 0): "made darker", (9, 11): "made smaller"}
    assert not missed, (
        f"Train {missed[0][0]} and test {missed[0][1]} are the same picture, {ways[missed[0]]}. "
        "Bring all to one size first, and compare after taking out mean and length."
    )
    print("passed: three planted copies found, nothing else")


def _blobs(seed: int) -> Image.Image:
    """A smooth random picture, 64 pixels, RGB."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)


def _as_jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def check_linear_probe(probe: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Exercise 4: `probe(features [N, E], labels [N], test [T, E])` fits, gives logits `[T, K]`."""
    generator = torch.Generator().manual_seed(0)
    centres = F.normalize(torch.randn(5, 32, generator=generator), dim=-1)
    # Two centres are close: their means differ by little, a fitted line still tells them apart.
    centres[1] = F.normalize(centres[0] + 0.4 * centres[1], dim=-1)

    def sample(n: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(5).repeat_interleave(n)
        noise = 0.06 * torch.randn(len(labels), 32, generator=generator)
        return F.normalize(centres[labels] + noise, dim=-1), labels

    (train, labels), (test, truth) = sample(16), sample(40)
    kept = train.clone()
    logits = probe(train, labels, test)
    assert torch.equal(train, kept), "Your probe changes the features. They are frozen: leave them."
    assert logits.shape == (200, 5), (
        f"The logits must be [T, K] = [200, 5]; yours are {list(logits.shape)}."
    )
    assert not logits.requires_grad, "Return plain numbers: call .detach() on the logits."
    right = (probe(train, labels, train).argmax(dim=1) == labels).float().mean().item()
    assert right > 0.98, (
        f"Only {100 * right:.0f}% of its own shots are right after fitting. Take more steps, a "
        "higher learning rate, or less weight decay."
    )
    right = (logits.argmax(dim=1) == truth).float().mean().item()
    assert right > 0.95, (
        f"{100 * right:.0f}% of the test points are right; a fitted probe has more than 95%. "
        "Check that labels and rows belong together."
    )
    print(f"passed: {100 * right:.1f}% of points that the probe has not seen are right")
