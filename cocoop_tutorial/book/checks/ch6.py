"""Checkers for the exercises of chapter 6."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cocoop_tutorial.evaluation.accuracy import harmonic_mean
from cocoop_tutorial.training.batches import epoch_batches
from cocoop_tutorial.training.config import TrainConfig


def check_two_h(two_h: Callable[[Sequence[float], Sequence[float]], Any]) -> None:
    """Exercise 1: `two_h(base, new)` is H of the means, and the mean of each data set's H."""
    cases = [([90.0, 50.0], [50.0, 90.0]), ([80.0, 60.0, 95.0], [70.0, 66.0, 20.0])]
    for base, new in cases:
        got = [float(value) for value in two_h(base, new)]
        of_means = harmonic_mean(np.mean(base), np.mean(new))
        mean_of = np.mean([harmonic_mean(b, n) for b, n in zip(base, new, strict=True)])
        assert len(got) == 2, f"Return two numbers: H of the means, mean of the H. Yours: {got}."
        assert not np.allclose(got, [mean_of, of_means]), "Right numbers, the other way round."
        for name, value, wanted in zip(
            ("H of the means", "mean of the H"), got, (of_means, mean_of), strict=True
        ):
            assert abs(value - wanted) < 1e-6, (
                f"With base {base} and new {new} the {name} is {wanted:.2f}, not {value:.2f}. "
                "H is 2 b n / (b + n), and never the arithmetic mean."
            )
    print("passed: two tables, both ways")


def check_three(three: Callable[[Tensor, Tensor, int], Any]) -> None:
    """Exercise 2: `three(logits [N, K], labels [N], n_base)` is base, new, and all together, %."""
    for seed, (n_base, n_new) in enumerate(((4, 3), (3, 3), (2, 5))):
        logits, labels = _scores(seed, n_base, n_new)
        got = [float(value) for value in three(logits.clone(), labels.clone(), n_base)]
        wanted = _three(logits, labels, n_base)
        assert len(got) == 3, f"Return three accuracies: base, new, all. You return {len(got)}."
        if np.allclose(got, np.array(wanted) / 100, atol=1e-6):
            raise AssertionError("These are shares; give percent.")
        for name, value, right in zip(("base", "new", "all"), got, wanted, strict=True):
            assert abs(value - right) < 1e-4, _hint(name, value, right, logits, labels, n_base)
    print("passed: three sets of logits, with halves of equal and of different sizes")


def _scores(seed: int, n_base: int, n_new: int) -> tuple[Tensor, Tensor]:
    """Logits that prefer base names, as those of a prompt do that has learned base classes."""
    rng = torch.Generator().manual_seed(seed)
    k = n_base + n_new
    labels = torch.arange(k).repeat(30)
    logits = torch.randn(len(labels), k, generator=rng)
    logits[torch.arange(len(labels)), labels] += 1.5
    logits[:, :n_base] += 1.0
    return logits, labels


def _three(logits: Tensor, labels: Tensor, n_base: int) -> list[float]:
    is_base = labels < n_base
    base = logits[is_base, :n_base].argmax(dim=1) == labels[is_base]
    new = logits[~is_base, n_base:].argmax(dim=1) + n_base == labels[~is_base]
    whole = logits.argmax(dim=1) == labels
    return [100 * right.float().mean().item() for right in (base, new, whole)]


def _hint(
    name: str, value: float, right: float, logits: Tensor, labels: Tensor, n_base: int
) -> str:
    text = f"{name} is {right:.1f}%, not {value:.1f}%."
    if name == "all":
        return f"{text} All images are scored among all K names."
    mine = (labels < n_base) == (name == "base")
    among_all = 100 * (logits.argmax(dim=1) == labels)[mine].float().mean().item()
    if abs(value - among_all) < 1e-4:
        return f"{text} You scored these images among all names; take the names of their half."
    return f"{text} Take the images and the names of one half; the first new name is {n_base}."


def check_budget(budget: Callable[[int, int, int, int], Any]) -> None:
    """Exercise 3: `budget(classes, shots, epochs, batch_size)`: images seen, and updates."""
    cases = [(20, 16, 200, 32), (20, 16, 10, 1), (13, 16, 3, 32), (3, 4, 5, 32)]
    for classes, shots, epochs, size in cases:
        config = TrainConfig(epochs=epochs, batch_size=size)
        batches = [b for e in range(epochs) for b in epoch_batches(classes * shots, e, config)]
        wanted = sum(map(len, batches)), len(batches)
        got = tuple(int(value) for value in budget(classes, shots, epochs, size))
        assert got == wanted, (
            f"budget({classes}, {shots}, {epochs}, {size}) gives {got}, not {wanted}. An epoch "
            "leaves out the images that do not fill its last batch, unless there is only one batch."
        )
    print("passed: both methods' settings, a batch that is left out, and one that is all there is")


Interval = Callable[[Any, Any, Any, int], Any]
REPEATS = 4000


def check_interval(interval: Interval) -> None:
    """Exercise 4: 95% interval of a difference in accuracy, from drawing classes.

    `interval(first, second, images, repeats)` takes counts per class `[K]`: how many images are
    right with the first method, how many with the second, and how many there are.
    """
    for seed in (0, 1):
        first, second, images = _counts(seed)
        low, high = (float(v) for v in interval(first, second, images, REPEATS))
        ways = {way: _drawn(first, second, images, way) for way in WAYS}
        if _near((low, high), ways["right"]):
            continue
        for way, text in WAYS.items():
            assert not _near((low, high), ways[way]), f"[{low:.1f}, {high:.1f}]: {text}"
        a, b = ways["right"]
        raise AssertionError(
            f"Your interval is [{low:.1f}, {high:.1f}], not about [{a:.1f}, {b:.1f}]. Draw K "
            "classes with replacement, take right images over all images of the drawn classes for "
            "both methods, subtract, repeat; then the 2.5% and 97.5% quantiles, in points."
        )
    print("passed: two tables of classes; the same drawn classes served both methods")


WAYS = {
    "right": "",
    "unpaired": "you drew other classes for the second method. Draw once, and use it for both.",
    "images": "you drew single images. Images of a class go together: draw whole classes.",
    "90": "these are the 5% and 95% quantiles, which make a 90% interval.",
    "shares": "these are shares; give percentage points.",
    "swapped": "you subtracted the first from the second.",
}


def _counts(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes that differ much in difficulty, so that pairing matters, and in size."""
    rng = np.random.default_rng(seed)
    images = rng.integers(8, 40, 24)
    share = rng.uniform(0.1, 0.95, 24)
    second = np.round(images * share).astype(int)
    first = np.clip(second + np.round(images * rng.normal(0.05, 0.12, 24)), 0, images).astype(int)
    return first, second, images


def _drawn(
    first: np.ndarray, second: np.ndarray, images: np.ndarray, way: str
) -> tuple[float, float]:
    rng = np.random.default_rng(7)
    k, repeats = len(images), 20_000
    draw = rng.multinomial(k, np.full(k, 1 / k), repeats)
    other = rng.multinomial(k, np.full(k, 1 / k), repeats) if way == "unpaired" else draw
    a, b = ((d @ right) / (d @ images) for d, right in ((draw, first), (other, second)))
    if way == "images":
        n = images.sum()
        a, b = (rng.binomial(n, right.sum() / n, repeats) / n for right in (first, second))
    scale = {"shares": 1, "swapped": -100}.get(way, 100)
    tail = 0.05 if way == "90" else 0.025
    low, high = np.quantile(scale * (a - b), [tail, 1 - tail])
    return float(low), float(high)


def _near(got: tuple[float, float], wanted: tuple[float, float]) -> bool:
    room = 0.06 * (wanted[1] - wanted[0])
    return max(abs(g - w) for g, w in zip(got, wanted, strict=True)) < room
