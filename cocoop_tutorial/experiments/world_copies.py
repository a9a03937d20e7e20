"""Whether any drawing of the embedded world is seen twice (chapter 2).

The data's own test for copies decides, on thumbnails. It is put to the finished datasets, image by
image, and also to what the data's build does not compare: drawings under different names.
"""

from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.icons import drawings, making, names
from cocoop_tutorial.datasets.icons.copies import SAME, correlations
from cocoop_tutorial.datasets.icons.names import Drawing
from cocoop_tutorial.datasets.splits import Dataset, Split
from cocoop_tutorial.experiments.runs import Row
from cocoop_tutorial.experiments.world_results import ANY_NAME, SAME_NAME, SPLIT

ROWS = 256  # evaluation drawings compared at a time, with all of pretraining


def drawn(split: Split) -> list[Drawing]:
    """What the images of a split of an icon dataset show."""
    facts = [icons.facts(path) for path, _ in split.samples]
    keys = ("package", "icon", "house", "concept", "medium")
    return [Drawing(*(fact[key] for key in keys)) for fact in facts]


def within_classes(data: Dataset, pool: ProcessPoolExecutor) -> int:
    """Test images that copy a training or validation image of their class."""
    before = Split(data.train.samples + data.val.samples)
    if not before.samples:
        return 0
    seen, asked = (drawings.thumbnails(drawn(part), pool) for part in (before, data.test))
    same_class = np.equal.outer(data.test.labels, before.labels)
    return int((same_class & (correlations(asked, seen) > SAME)).any(axis=1).sum())


def with_pretraining(
    data: Dataset, known: list[Drawing], pool: ProcessPoolExecutor
) -> tuple[list[bool], list[bool]]:
    """Which images copy a drawing that the backbone learned from.

    Args:
        data: An icon dataset; all its images are asked, split after split.
        known: The drawings of pretraining.
        pool: Renders thumbnails.

    Returns:
        For each image whether it copies one of a name of its class, and one of any name.
    """
    whole = Split(data.train.samples + data.val.samples + data.test.samples)
    asked, seen = (drawings.thumbnails(some, pool) for some in (drawn(whole), known))
    concepts = making.table()[making.base(data.name)]
    own = np.array([[d.concept in concepts[c] for d in known] for c in data.classnames])
    same, any_name = [], []
    for start in range(0, len(asked), ROWS):
        alike = correlations(asked[start : start + ROWS], seen) > SAME
        same += (alike & own[whole.labels[start : start + ROWS]]).any(axis=1).tolist()
        any_name += alike.any(axis=1).tolist()
    return same, any_name


def count_copies(data: Dataset, known: list[Drawing], pool: ProcessPoolExecutor) -> list[Row]:
    """Rows of one dataset: `between`, `count`, and `classes`, how many images of which class."""
    same, any_name = with_pretraining(data, known, pool)
    labels = data.train.labels + data.val.labels + data.test.labels
    rows = [{"between": SPLIT, "count": within_classes(data, pool), "classes": {}}]
    for between, copied in ((SAME_NAME, same), (ANY_NAME, any_name)):
        found = Counter(data.classnames[y] for y, yes in zip(labels, copied, strict=True) if yes)
        rows.append({"between": between, "count": sum(copied), "classes": dict(found)})
    return [{"dataset": data.name, "images": len(labels), **row} for row in rows]


def all_copies() -> list[Row]:
    """The rows of every icon dataset, shifts included."""
    known = names.drawings("pretrain")
    with drawings.workers() as pool:
        return [row for name in icons.NAMES for row in count_copies(icons.load(name), known, pool)]
