"""The checkers of chapter 2 pass what is right and say what is wrong."""

import random

import pytest
import torch
from PIL import Image
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


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
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
    with pytest.raises(AssertionError, match="no copies"):
        ch2.check_near_copies(
            lambda a, b: pairs(thumbnails(a, False) @ thumbnails(b, False).T, 0.8)
        )
    exact = {(2, 5), (9, 11)}
    with pytest.raises(AssertionError, match="made darker"):
        ch2.check_near_copies(lambda a, b: exact)


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


def test_linear_probe() -> None:
    ch2.check_linear_probe(probe)
    with pytest.raises(AssertionError, match=r"\[200, 5\]"):
        ch2.check_linear_probe(lambda x, y, t: t)
    with pytest.raises(AssertionError, match="own shots"):
        ch2.check_linear_probe(lambda x, y, t: torch.zeros(len(t), 5))
    with pytest.raises(AssertionError, match="detach"):
        ch2.check_linear_probe(lambda x, y, t: torch.zeros(len(t), 5, requires_grad=True))

    def greedy(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        x.mul_(2)
        return probe(x, y, t)

    with pytest.raises(AssertionError, match="frozen"):
        ch2.check_linear_probe(greedy)

    def forgets(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """Right on the shots, wrong elsewhere."""
        same = (t[:, None] == x[None]).all(dim=2)
        return F.one_hot(y[same.float().argmax(dim=1)], 5).float()

    with pytest.raises(AssertionError, match="test points"):
        ch2.check_linear_probe(forgets)
