"""Checkers for the exercises of chapter 5."""

import random
import statistics
from collections.abc import Callable, Sequence


def check_tokens(count: Callable[[int, int, Sequence[int], int], tuple[int, int]]) -> None:
    """Exercise 1: `count(images, n_ctx, names, length)` is (published, packed) tokens.

    `names` has each class's tokens, without the full stop and the end token.
    """
    for images, n_ctx, names, length in [
        (1, 4, [1, 2, 3], 77),
        (8, 4, [2] * 5, 77),
        (3, 16, [7], 32),
    ]:
        published = images * len(names) * length
        packed = images * (1 + n_ctx + sum(n + 2 for n in names))
        got = count(images, n_ctx, names, length)
        assert got[0] == published, (
            f"count({images}, {n_ctx}, {names}, {length}) gives {got[0]} published tokens, not "
            f"{published}. Each image sends one padded row of `length` tokens for each class."
        )
        assert got[1] != images * sum(1 + n_ctx + n + 2 for n in names) or len(names) == 1, (
            "You count the prefix once per class. All classes share it, so count it once per image."
        )
        assert got[1] == packed, (
            f"count({images}, {n_ctx}, {names}, {length}) gives {got[1]} packed tokens, not "
            f"{packed}. An image has 1 start token, n_ctx context tokens, and for each class its "
            "name, the full stop and the end token."
        )
    print("passed: right for published and packed, in three sizes")


class SlowQueue:
    """A GPU with a clock of its own: `run` only queues work, and the first call takes longer.

    Attributes:
        now: What its clock shows, in seconds.
        calls: How often `run` was called.
    """

    LAUNCH, WORK, WARM_UP = 0.001, 1.0, 30.0

    def __init__(self, seed: int = 0) -> None:
        self.now, self.done, self.calls = 0.0, 0.0, 0
        self._random = random.Random(seed)
        self.work: list[float] = []

    def run(self) -> None:
        """Queues one piece of work and returns at once."""
        self.now += self.LAUNCH
        lasts = self.WORK * self._random.uniform(0.95, 1.05) + (not self.calls) * self.WARM_UP
        self.done = max(self.done, self.now) + lasts
        self.work.append(lasts)
        self.calls += 1

    def synchronize(self) -> None:
        """Waits until the queue is empty."""
        self.now = max(self.now, self.done)

    def clock(self) -> float:
        """The time now."""
        return self.now


def check_timing(measure: Callable[..., float]) -> None:
    """Exercise 2: `measure(run, synchronize, clock, repeats)`, the honest median of a queue."""
    gpu = SlowQueue()
    got = measure(gpu.run, gpu.synchronize, gpu.clock, 5)
    assert got > 10 * gpu.LAUNCH, (
        f"You measured {got:.3f} s, which is the time to queue the work. Synchronise before "
        "you read the clock again."
    )
    assert gpu.calls > 5, (
        "Call `run` once before you begin to measure, because the first call is slower."
    )
    wanted = statistics.median(gpu.work[1:6]) + gpu.LAUNCH
    assert got < 1.5 * wanted, (
        f"You measured {got:.2f} s, and a call takes {wanted:.2f} s. Warm up, synchronise before "
        "the first clock too, and do not divide a time that has the warm-up in it."
    )
    assert abs(got - wanted) < 1e-6, (
        f"You measured {got:.4f} s; the median of five calls is {wanted:.4f} s."
    )
    print("passed: you warm up, synchronise, and take the median")


def check_pieces(pieces: Callable[[int, int, int], int]) -> None:
    """Exercise 3: `pieces(budget, images, per_image)`, passes that each fit in `budget` bytes."""
    for budget, images, per_image, wanted in [
        (100, 8, 10, 1),
        (100, 8, 30, 3),
        (90, 9, 30, 3),
        (35, 8, 30, 8),
    ]:
        got = pieces(budget, images, per_image)
        assert got == wanted, (
            f"pieces({budget}, {images}, {per_image}) gives {got}, not {wanted}. As many images as "
            "fit go into one pass. Then count the passes, of which the last one may be smaller."
        )
    try:
        pieces(10, 8, 30)
    except ValueError:
        print("passed: right for four budgets, with a clear error if not even one image fits")
        return
    raise AssertionError("One image needs 30 bytes and there are 10: raise a ValueError.")
