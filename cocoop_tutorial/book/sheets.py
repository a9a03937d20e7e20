"""Contact sheets: small pictures in rows, to see at a glance what a split holds (chapter 2)."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from cocoop_tutorial.book.plots import BASE, NEW, STYLE, figure
from cocoop_tutorial.datasets.splits import Dataset, Split, open_image

SIDE, GAP = 48, 4  # pixels of a picture, and between two of them
Row = Sequence[Image.Image | None]


def sheet(
    rows: Sequence[Row], side: int = SIDE, gap: int = GAP, empty: str = "white"
) -> Image.Image:
    """Lays pictures out in rows on white.

    Args:
        rows: Pictures of any size; None leaves a place empty.
        side: Width and height of a place, in pixels.
        gap: Pixels between two places.
        empty: Colour of an empty place.

    Returns:
        One RGB image.
    """
    step, columns = side + gap, max(len(row) for row in rows)
    canvas = Image.new("RGB", (columns * step - gap, len(rows) * step - gap), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            if image is None:
                small = Image.new("RGB", (side, side), empty)
            else:
                small = image.resize((side, side), Image.Resampling.LANCZOS)
            canvas.paste(small, (x * step, y * step))
    return canvas


def of_class(split: Split, label: int, limit: int | None = None) -> list[Image.Image]:
    """The first images of one class.

    Args:
        split: Where to look.
        label: The class.
        limit: How many at most; None takes all.
    """
    paths = [path for path, y in split.samples if y == label]
    return [open_image(path) for path in paths[:limit]]


def split_sheet(
    split: Split, labels: Sequence[int], columns: int, side: int = SIDE, empty: str = "white"
) -> Image.Image:
    """One row a class, with its first images; rows that have fewer are left open.

    Args:
        split: Where the images come from.
        labels: The classes, from top to bottom.
        columns: Places in a row.
        side: Pixels of a place.
        empty: Colour of a place without a picture.
    """
    rows = []
    for label in labels:
        images: list[Image.Image | None] = [*of_class(split, label, columns)]
        rows.append(images + [None] * (columns - len(images)))
    return sheet(rows, side, empty=empty)


@plt.rc_context(STYLE)
def protocol_figure(
    data: Dataset,
    base: Sequence[str],
    new: Sequence[str],
    columns: tuple[int, int, int] = (8, 2, 4),
) -> Figure:
    """What a model sees of a few classes: shots, val and test of base, test alone of new.

    Args:
        data: A data set with few shots in `train`, not yet split in base and new.
        base: Some class names of the first half.
        new: Some class names of the second half.
        columns: Pictures to show of train, val and test.

    Returns:
        The figure.
    """
    names = [*base, *new]
    labels = [data.classnames.index(name) for name in names]
    size = (8, 0.5 * len(names) + 0.5)
    fig, axes = figure(1, 3, figsize=size, dpi=200, width_ratios=columns)
    for ax, split, places in zip(axes, ("train", "val", "test"), columns, strict=True):
        shown = labels if split == "test" else labels[: len(base)]
        image = split_sheet(data.split(split), shown, places)
        _show_sheet(ax, image, {"train": "shots"}.get(split, split), len(names))
    step = SIDE + GAP
    halves = ["base"] * len(base) + ["new"] * len(new)
    words = [f"{name} ({half})" for name, half in zip(names, halves, strict=True)]
    axes[0].set_yticks([(i + 0.5) * step - GAP / 2 for i in range(len(names))], words)
    for tick, half in zip(axes[0].get_yticklabels(), halves, strict=True):
        tick.set(color={"base": BASE, "new": NEW}[half], fontweight="bold")
    middle = (len(base) + len(new) / 2) * step
    note = "new classes: no shots, only their names"
    axes[0].text(columns[0] * step / 2, middle, note, ha="center", va="center", style="italic")
    return fig


def _show_sheet(ax: Axes, image: Image.Image, title: str, rows: int) -> None:
    """Draws a sheet at the top of axes that have room for `rows` rows."""
    ax.imshow(image, interpolation="lanczos")
    ax.set(xticks=[], yticks=[], ylim=(rows * (SIDE + GAP) - GAP, 0), title=title)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
