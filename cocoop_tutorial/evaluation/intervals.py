"""Confidence intervals of an accuracy, for independent images and for images grouped by class.

Both are in percent, for one model on one test set. The spread over seeds is something else: it
shows how much the result depends on the shots (chapter 2).
"""

from math import sqrt
from numbers import Real
from statistics import NormalDist

import numpy as np

from cocoop_tutorial.errors import DataError, SettingError
from cocoop_tutorial.evaluation.accuracy import Evaluation
from cocoop_tutorial.seeds import check_seed, check_whole


def check_level(level: float) -> float:
    """Returns the level of an interval if there can be one.

    Raises:
        SettingError: It is not a number above 0 and below 1.
    """
    if not isinstance(level, Real) or not 0 < level < 1:
        raise SettingError(f"level is {level!r}; it must be a number above 0 and below 1.")
    return float(level)


def wilson_interval(correct: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of an accuracy, if the images are independent (Wilson 1927).

    Unlike the normal approximation, it stays between 0 and 100 and is valid near both ends.

    Args:
        correct: Images that were classified correctly.
        total: All images.
        level: Share of such intervals that contain the true accuracy.

    Returns:
        Low and high, in percent.

    Raises:
        DataError: There are no images, or more correct ones than images.

    Introduced in chapter 2.
    """
    if not 0 <= correct <= total or total == 0:
        raise DataError(f"{correct} of {total} images cannot be right.")
    z = NormalDist().inv_cdf(0.5 + check_level(level) / 2)
    share, stretch = correct / total, 1 + z * z / total
    middle = (share + z * z / (2 * total)) / stretch
    half = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / stretch
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def bootstrap_by_class(
    result: Evaluation, level: float = 0.95, repeats: int = 2000, seed: int = 1
) -> tuple[float, float]:
    """Interval of an accuracy, if the results for images of one class are correlated.

    Draws K classes with replacement, many times, and takes each class with all its images
    (Efron 1979, by cluster). This treats the classes as a sample of all that might be tested.

    Args:
        result: An evaluation of N images of K classes.
        level: Approximate share of such intervals that contain the true accuracy.
        repeats: Number of draws.
        seed: For the draws.

    Returns:
        Low and high, in percent.

    Introduced in chapter 2.
    """
    k = len(result.classnames)
    total = np.bincount(result.labels.numpy(), minlength=k)
    right = np.bincount(result.labels[result.correct].numpy(), minlength=k)
    there = np.flatnonzero(total)
    rng = np.random.default_rng(check_seed(seed))
    drawn = rng.choice(there, (check_whole("repeats", repeats), len(there)))  # [repeats, K]
    accuracies = 100 * right[drawn].sum(axis=1) / total[drawn].sum(axis=1)
    level = check_level(level)
    low, high = np.quantile(accuracies, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
