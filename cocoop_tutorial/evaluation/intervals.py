"""How sure an accuracy is: intervals for independent images and for images that hang together.

Both return percent, and both are for one model on one test set. The spread over seeds is another
matter: it tells how much the shots decide. (Chapter 2.)
"""

from math import sqrt
from statistics import NormalDist

import numpy as np

from cocoop_tutorial.errors import DataError
from cocoop_tutorial.evaluation.accuracy import Evaluation


def wilson_interval(correct: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of an accuracy, if the images are independent (Wilson 1927).

    Unlike the textbook's plus or minus, it stays between 0 and 100 and works near both ends.

    Args:
        correct: Images that were classified rightly.
        total: All images.
        level: Share of such intervals that hold the true accuracy.

    Returns:
        Low and high, in percent.

    Raises:
        DataError: There are no images, or more right ones than images.

    Introduced in chapter 2.
    """
    if not 0 <= correct <= total or total == 0:
        raise DataError(f"{correct} of {total} images cannot be right.")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, stretch = correct / total, 1 + z * z / total
    middle = (share + z * z / (2 * total)) / stretch
    half = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / stretch
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def bootstrap_by_class(
    result: Evaluation, level: float = 0.95, repeats: int = 2000, seed: int = 1
) -> tuple[float, float]:
    """Interval of an accuracy, if the images of a class stand or fall together.

    Draws K classes with replacement, many times, and takes each class with all its images
    (Efron 1979, by cluster). The classes count as a sample of those that might be asked.

    Args:
        result: An evaluation of N images of K classes.
        level: Share of such intervals that hold the true accuracy, about.
        repeats: Draws.
        seed: Of the draws.

    Returns:
        Low and high, in percent.

    Introduced in chapter 2.
    """
    k = len(result.classnames)
    total = np.bincount(result.labels.numpy(), minlength=k)
    right = np.bincount(result.labels[result.correct].numpy(), minlength=k)
    there = np.flatnonzero(total)
    drawn = np.random.default_rng(seed).choice(there, (repeats, len(there)))  # [repeats, K]
    accuracies = 100 * right[drawn].sum(axis=1) / total[drawn].sum(axis=1)
    low, high = np.quantile(accuracies, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
