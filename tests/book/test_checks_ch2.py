"""The checkers of chapter 2 pass what is right and say what is wrong."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from cocoop_tutorial.book.checks import ch2
from cocoop_tutorial.datasets.splits import Sample

Drawn = tuple[list[Sample], list[Sample]]


def draw(train: list[Sample], val: list[Sample], shots: int, seed: int) -> Drawn:
    rng = random.Random(seed)
    return one(train, shots, rng), one(val, min(shots, 4), rng)


def one(samples: list[Sample], n: int, rng: random.Random, ordered: bool = False) -> list[Sample]:
    groups: dict[int, list[Sample]] = {}
    for sample in sorted(samples, key=lambda s: s[1]) if ordered else samples:
        groups.setdefault(sample[1], []).append(sample)
    return [s for g in groups.values() for s in (rng.sample(g, n) if len(g) >= n else g)]


def test_right_draw_passes(capsys: pytest.CaptureFixture[str]) -> None:
    ch2.check_draw(draw)
    assert capsys.readouterr().out.startswith("passed")


def label_order(train: list[Sample], val: list[Sample], shots: int, seed: int) -> Drawn:
    rng = random.Random(seed)
    return one(train, shots, rng, True), one(val, min(shots, 4), rng, True)


def new_generator(train: list[Sample], val: list[Sample], shots: int, seed: int) -> Drawn:
    fresh = random.Random(seed)
    return one(train, shots, random.Random(seed)), one(val, min(shots, 4), fresh)


def full_val(train: list[Sample], val: list[Sample], shots: int, seed: int) -> Drawn:
    rng = random.Random(seed)
    return one(train, shots, rng), one(val, shots, rng)


def no_short_class(train: list[Sample], val: list[Sample], shots: int, seed: int) -> Drawn:
    few = [s for s in train if [y for _, y in train].count(s[1]) >= shots]
    return draw(few, val, shots, seed)


def spares_exact(train: list[Sample], val: list[Sample], shots: int, seed: int) -> Drawn:
    """Keeps a class that has exactly enough images, in place of drawing from it."""
    rng, drawn = random.Random(seed), []
    for samples, n in ((train, shots), (val, min(shots, 4))):
        groups: dict[int, list[Sample]] = {}
        for sample in samples:
            groups.setdefault(sample[1], []).append(sample)
        drawn.append([s for g in groups.values() for s in (rng.sample(g, n) if len(g) > n else g)])
    return drawn[0], drawn[1]


def test_lists_and_strings_are_as_good_as_tuples_and_paths() -> None:
    def in_lists(train: list[Sample], val: list[Sample], shots: int, seed: int) -> Any:
        return [[[str(p), y] for p, y in part] for part in draw(train, val, shots, seed)]

    ch2.check_draw(in_lists)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (spares_exact, "exactly enough"),
        (label_order, "order in which the list first shows"),
        (new_generator, "same generator"),
        (full_val, r"min\(shots, 4\)"),
        (no_short_class, "keeps them all"),
    ],
)
def test_wrong_draws_are_told_why(wrong: ch2.Draw, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        ch2.check_draw(wrong)


def needed(base: float, h: float) -> float | None:
    new = h * base / (2 * base - h) if 2 * base > h else None
    return new if new is not None and new <= 100 else None


def test_needed_new() -> None:
    ch2.check_needed_new(needed)
    ch2.check_needed_new(lambda b, h: None if (n := needed(b, h)) is None else np.float64(n))
    with pytest.raises(AssertionError, match="Solve H"):
        ch2.check_needed_new(lambda base, h: 2 * h - base)  # of the arithmetic mean
    with pytest.raises(AssertionError, match="return None"):
        ch2.check_needed_new(lambda b, h: h * b / (2 * b - h) if 2 * b != h else None)
    with pytest.raises(AssertionError, match="there is an answer"):
        ch2.check_needed_new(lambda base, h: None)


def thumbnails(images: list[Image.Image], centred: bool = True, side: int = 16) -> Tensor:
    small = [torch.tensor(list(i.resize((side, side)).tobytes())).float() for i in images]
    x = torch.stack(small)
    return F.normalize(x - x.mean(dim=1, keepdim=True) if centred else x, dim=1)


def pairs(similar: Tensor, above: float) -> set[tuple[int, int]]:
    return {(i, j) for i, j in (similar > above).nonzero().tolist()}


def test_near_copies() -> None:
    ch2.check_near_copies(lambda a, b: pairs(thumbnails(a) @ thumbnails(b).T, 0.9))
    with pytest.raises(AssertionError, match="not copies"):
        ch2.check_near_copies(
            lambda a, b: pairs(thumbnails(a, False) @ thumbnails(b, False).T, 0.8)
        )
    with pytest.raises(AssertionError, match="made darker"):
        ch2.check_near_copies(lambda a, b: {(i, j) for i, j in found(a, b) if not darker(b[j])})


def found(a: list[Image.Image], b: list[Image.Image]) -> set[tuple[int, int]]:
    return pairs(thumbnails(a) @ thumbnails(b).T, 0.9)


def darker(image: Image.Image) -> bool:
    return float(np.asarray(image).max()) < 200


def test_near_copies_may_come_as_arrays_and_lists() -> None:
    def by_numpy(a: list[Image.Image], b: list[Image.Image]) -> list[np.ndarray]:
        alike = thumbnails(a).double().numpy() @ thumbnails(b).double().numpy().T
        return list(np.argwhere(alike > 0.9))

    ch2.check_near_copies(by_numpy)


def test_no_fixed_answer_finds_the_copies() -> None:
    """The planted pairs of either collection, as a constant, are wrong for the other."""
    for seed in (0, 1):
        answer = set(ch2._with_copies(seed)[2])
        with pytest.raises(AssertionError, match="not copies"):
            ch2.check_near_copies(lambda a, b, answer=answer: answer)


def probe(features: Tensor, labels: Tensor, test: Tensor) -> Tensor:
    layer = torch.nn.Linear(features.shape[1], int(labels.max()) + 1)
    torch.nn.init.zeros_(layer.weight)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(100 * layer(features), labels) + 1e-3 * layer.weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return layer(test).detach()


def test_linear_probe(capsys: pytest.CaptureFixture[str]) -> None:
    ch2.check_linear_probe(probe)
    assert capsys.readouterr().out.startswith("passed")


def by_scikit_learn(x: Tensor, y: Tensor, t: Tensor) -> np.ndarray:
    """Another optimiser, in float64, on standardised features, as a NumPy array."""
    mean, scale = x.mean(dim=0).numpy(), x.std(dim=0).numpy()
    model = LogisticRegression(C=100, max_iter=2000).fit((x.numpy() - mean) / scale, y.numpy())
    return model.decision_function((t.numpy() - mean) / scale).astype(np.float64)


def least_squares(x: Tensor, y: Tensor, t: Tensor) -> list[list[float]]:
    """A linear layer too, with another loss, as lists."""
    ones = torch.ones(len(x), 1, dtype=torch.float64)
    inputs = torch.cat([x.double(), ones], dim=1)
    weights = torch.linalg.lstsq(inputs, F.one_hot(y, 5).double()).solution
    return (torch.cat([t.double(), ones[:1].expand(len(t), 1)], dim=1) @ weights).tolist()


def log_probabilities(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return probe(x, y, t).log_softmax(dim=1)


@pytest.mark.parametrize("right", [by_scikit_learn, least_squares, log_probabilities])
def test_other_linear_probes_pass(right: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    ch2.check_linear_probe(right)


def nearest_shot(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return F.one_hot(y[(t @ x.T).argmax(dim=1)], 5).float()


def nearest_similarity(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """The similarity to the nearest shot of each class: right on its shots, and not linear."""
    return torch.stack([(t @ x[y == k].T).amax(dim=1) for k in range(5)], dim=1)


def class_means(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return t @ F.normalize(F.one_hot(y, 5).float().T @ x, dim=1).T


def probabilities(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    return (100 * probe(x, y, t)).softmax(dim=1)


def greedy(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    x.mul_(2)
    return probe(x, y, t)


def shuffled(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Right on the shots, wrong elsewhere: the test rows are those of other images."""
    logits = probe(x, y, t)
    return torch.cat([logits[: len(x)], logits[len(x) :].flip(0)])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda x, y, t: t, r"\[280, 5\]"),
        (lambda x, y, t: torch.zeros(len(t), 5), "own shots"),
        (lambda x, y, t: torch.zeros(len(t), 5, requires_grad=True), "detach"),
        (nearest_shot, "linear layer"),
        (nearest_similarity, "linear layer"),
        (class_means, "own shots"),
        (probabilities, "linear layer"),
        (greedy, "frozen"),
        (shuffled, "linear layer"),
    ],
)
def test_what_is_no_linear_probe_is_told_why(
    wrong: Callable[[Tensor, Tensor, Tensor], Any], words: str
) -> None:
    with pytest.raises(AssertionError, match=words):
        ch2.check_linear_probe(wrong)
