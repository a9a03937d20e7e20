"""The checkers of chapter 7 pass the right answers and refuse the likely mistakes."""

from math import comb

import numpy as np
import pytest
from torch import Tensor
from torch.nn import functional as F

from cocoop_tutorial.book.checks import ch7


def average(accuracies: dict[str, float], source: str) -> float:
    return np.mean([value for name, value in accuracies.items() if name != source])


def test_average() -> None:
    ch7.check_average(average)
    with pytest.raises(AssertionError, match="no target"):
        ch7.check_average(lambda a, source: sum(a.values()) / len(a))
    with pytest.raises(AssertionError, match="not 55"):
        ch7.check_average(lambda a, source: max(v for k, v in a.items() if k != source))


def tidy(name: str) -> str:
    return name.lower().replace("-", " ").replace("_", " ")


def test_shared() -> None:
    def shared(source: list[str], target: list[str]) -> list[str]:
        known = {tidy(name) for name in source}
        return [name for name in target if tidy(name) in known]

    ch7.check_shared(shared)
    with pytest.raises(AssertionError, match="two classes"):
        ch7.check_shared(lambda s, t: [n for n in t if any(tidy(n) in tidy(m) for m in s)])
    with pytest.raises(AssertionError, match="as the target spells"):
        ch7.check_shared(lambda s, t: {tidy(n) for n in s} & {tidy(n) for n in t})
    with pytest.raises(AssertionError, match="should not count"):
        ch7.check_shared(lambda s, t: set(s) & set(t))
    with pytest.raises(AssertionError, match="share nothing"):
        ch7.check_shared(lambda s, t: shared(s, t) or t)


def sign_test(ahead: int, n: int) -> float:
    far = abs(ahead - n / 2)
    return sum(comb(n, k) for k in range(n + 1) if abs(k - n / 2) >= far) / 2**n


def doubled(ahead: int, n: int) -> float:
    return 2 * sum(comb(n, k) for k in range(max(ahead, n - ahead), n + 1)) / 2**n


def test_sign_test() -> None:
    ch7.check_sign_test(sign_test)
    from scipy.stats import binomtest

    ch7.check_sign_test(lambda ahead, n: binomtest(ahead, n).pvalue)
    with pytest.raises(AssertionError, match="one side"):
        ch7.check_sign_test(lambda a, n: sum(comb(n, k) for k in range(a, n + 1)) / 2**n)
    with pytest.raises(AssertionError, match="above 1"):
        ch7.check_sign_test(
            lambda a, n: 2 * sum(comb(n, k) for k in range(max(a, n - a), n + 1)) / 2**n
        )
    with pytest.raises(AssertionError, match="binomial"):
        ch7.check_sign_test(lambda a, n: a / n)


def cosines(source: Tensor, target: Tensor) -> Tensor:
    return F.normalize(target, dim=1) @ F.normalize(source, dim=1).T


def test_nearness() -> None:
    ch7.check_nearness(lambda s, t: cosines(s.double(), t.double()).amax(dim=1).mean())
    ch7.check_nearness(lambda s, t: cosines(s, t).numpy().max(axis=1).mean())
    with pytest.raises(AssertionError, match="other way round"):
        ch7.check_nearness(lambda s, t: cosines(s, t).amax(dim=0).mean())
    with pytest.raises(AssertionError, match="all pairs"):
        ch7.check_nearness(lambda s, t: cosines(s, t).mean())
    with pytest.raises(AssertionError, match="length 1"):
        ch7.check_nearness(lambda s, t: (t @ s.T).amax(dim=1).mean())
