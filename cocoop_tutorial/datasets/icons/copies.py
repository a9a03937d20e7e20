"""Which drawings are copies of one another, by their thumbnails (chapter 2)."""

import numpy as np

SAME = 0.95  # correlation of two thumbnails above which they count as one drawing


def correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Correlation of every thumbnail of one stack with every one of another.

    The sums are whole numbers, so they are exact in 64-bit floating point, whatever the order
    of addition: every machine finds the same copies.

    Args:
        one: [N, P] uint8.
        other: [M, P] uint8.

    Returns:
        [N, M]; 0 for an empty thumbnail.
    """
    x, y = one.astype(np.float64), other.astype(np.float64)
    pixels = x.shape[1]
    covariance = pixels * (x @ y.T) - np.outer(x.sum(1), y.sum(1))
    spread_x = pixels * (x * x).sum(1) - x.sum(1) ** 2
    spread_y = pixels * (y * y).sum(1) - y.sum(1) ** 2
    return covariance / np.sqrt(np.maximum(np.outer(spread_x, spread_y), 1))


def distinct(thumbnails: np.ndarray, forbidden: np.ndarray | None = None) -> list[int]:
    """Positions of the drawings to keep: the first of each group of copies.

    Args:
        thumbnails: [N, P] uint8, in the order in which they are preferred.
        forbidden: [M, P] uint8; what equals one of these goes as well.

    Returns:
        Positions in rising order.
    """
    alike = correlations(thumbnails, thumbnails) > SAME
    free = thumbnails.any(axis=1)
    if forbidden is not None and len(forbidden):
        free &= (correlations(thumbnails, forbidden) <= SAME).all(axis=1)
    kept: list[int] = []
    for i in np.flatnonzero(free):
        if not alike[i, kept].any():
            kept.append(int(i))
    return kept
