"""The checkers of chapter 5 pass the right answers and refuse the likely mistakes."""

import statistics
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from cocoop_tutorial.book.checks import ch5

Run = Callable[[], None]


def count(images: int, n_ctx: int, names: Sequence[int], length: int) -> tuple[int, int]:
    return images * len(names) * length, images * (1 + n_ctx + sum(n + 2 for n in names))


def test_tokens() -> None:
    ch5.check_tokens(count)
    ch5.check_tokens(lambda *sizes: np.array(count(*sizes), dtype=float))
    with pytest.raises(AssertionError, match="padded row"):
        ch5.check_tokens(lambda b, m, names, n: (len(names) * n, count(b, m, names, n)[1]))
    with pytest.raises(AssertionError, match="once per image"):
        ch5.check_tokens(
            lambda b, m, names, n: (b * len(names) * n, b * sum(m + 3 + k for k in names))
        )
    with pytest.raises(AssertionError, match="full stop"):
        ch5.check_tokens(lambda b, m, names, n: (b * len(names) * n, b * (1 + m + sum(names))))


def honest(run: Run, synchronize: Run, clock: Callable[[], float], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        synchronize()
        start = clock()
        run()
        synchronize()
        times.append(clock() - start)
    return statistics.median(times)


def test_timing() -> None:
    ch5.check_timing(honest)

    def queued(run: Run, synchronize: Run, clock: Callable[[], float], repeats: int) -> float:
        return honest(run, lambda: None, clock, repeats)

    def cold(run: Run, synchronize: Run, clock: Callable[[], float], repeats: int) -> float:
        start = clock()
        for _ in range(repeats):
            run()
        synchronize()
        return (clock() - start) / repeats

    def behind(run: Run, synchronize: Run, clock: Callable[[], float], repeats: int) -> float:
        run()
        start = clock()
        for _ in range(repeats):
            run()
        synchronize()
        return (clock() - start) / repeats

    for wrong, message in ((queued, "queue the work"), (cold, "once before"), (behind, "Warm up")):
        with pytest.raises(AssertionError, match=message):
            ch5.check_timing(wrong)


def test_pieces() -> None:
    def right(budget: int, images: int, per_image: int) -> int:
        if budget < per_image:
            raise ValueError("not even one image fits")
        return -(-images // (budget // per_image))

    ch5.check_pieces(right)
    ch5.check_pieces(lambda *sizes: float(right(*sizes)))
    with pytest.raises(AssertionError, match="count the passes"):
        ch5.check_pieces(lambda budget, images, per_image: -(-images * per_image // budget))
    with pytest.raises(AssertionError, match="ValueError"):
        ch5.check_pieces(lambda b, n, p: right(b, n, p) if b >= p else n)
