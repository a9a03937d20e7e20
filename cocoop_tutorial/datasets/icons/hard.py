"""Which images a fixed model of another kind gets wrong: the rule of `icons_general_a`.

The model names an image after its nearest neighbour among the training images, by histograms of
oriented gradients (Dalal and Triggs, 2005). It needs no training and no weights, so the choice
can be made again anywhere.
"""

import io
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image

from cocoop_tutorial.datasets.icons.drawings import Picture, png

CELL, BINS = 8, 8  # pixels of a cell; directions


def gradients(grey: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients of an image.

    Edges count the same from dark to light and from light to dark. The histogram of each cell
    is scaled by the norm of its neighbourhood, so faint and strong ink count alike.

    Args:
        grey: [S, S] float64, S a multiple of `CELL`.

    Returns:
        [cells * BINS] whole numbers in float64, of norm near 255.
    """
    down, across = np.gradient(grey)
    strength, angle = np.hypot(down, across), np.arctan2(down, across) % np.pi
    which = np.minimum((angle / np.pi * BINS).astype(int), BINS - 1)
    n = grey.shape[0] // CELL
    cells = np.zeros((n, n, BINS))
    rows, columns = np.indices(grey.shape) // CELL
    np.add.at(cells, (rows, columns, which), strength)
    energy = np.pad((cells**2).sum(-1), 1)
    around = sum(energy[i : i + n, j : j + n] for i in range(3) for j in range(3))
    scaled = cells / np.sqrt(around + 1000)[..., None]
    return np.rint(255 * scaled / max(np.linalg.norm(scaled), 1e-6)).ravel()


def _gradients(svg: str) -> np.ndarray:
    grey = Image.open(io.BytesIO(png(svg))).convert("L")
    return gradients(np.asarray(grey, dtype=np.float64))


def mistaken(
    pictures: list[Picture], known: list[Picture], pool: ProcessPoolExecutor
) -> list[Picture]:
    """The pictures whose nearest neighbour among the known ones is of another class."""
    seen, asked = (
        np.stack(list(pool.map(_gradients, [p.svg() for p in some], chunksize=32)))
        for some in (known, pictures)
    )
    nearest = (asked @ seen.T).argmax(axis=1)
    pairs = zip(pictures, nearest, strict=True)
    return [picture for picture, i in pairs if known[i].classname != picture.classname]
