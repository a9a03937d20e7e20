"""Contact sheets: small pictures in rows that show at a glance what a split holds (chapter 2)."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from cocoop_tutorial.book.plots import BASE, NEW, STYLE, figure
from cocoop_tutorial.datasets.splits import Dataset, Split, open_image

SIDE, GAP = 64, 5  # pixels of a picture, and between two of them
PictureRow = Sequence[Image.Image | None]


def sheet(
    rows: Sequence[PictureRow], side: int = SIDE, gap: int = GAP, empty: str = "white"
) -> Image.Image:
    """Lays pictures out in rows on white.

    Args:
        rows: Pictures of any size; None leaves its place empty.
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


@plt.rc_context(STYLE)
def labelled_rows(rows: Mapping[str, PictureRow], columns: Sequence[str] = ()) -> Figure:
    """Pictures in rows, each with a label to its left; narrow enough for a phone.

    Args:
        rows: Label to pictures.
        columns: One name per picture of a row, written below the last row; or none.

    Returns:
        The figure.
    """
    image, step = sheet(list(rows.values())), SIDE + GAP
    fig, ax = figure(figsize=(5, 5 * 0.78 * image.height / image.width + 0.5 * bool(columns)))
    _show_sheet(ax, image)
    ax.set_yticks([i * step + SIDE / 2 for i in range(len(rows))], list(rows))
    if columns:
        places = [i * step + SIDE / 2 for i in range(len(columns))]
        ax.set_xticks(places, columns, rotation=30, ha="right", rotation_mode="anchor")
    return fig


@plt.rc_context(STYLE)
def protocol_figure(
    data: Dataset,
    base: Sequence[str],
    new: Sequence[str],
    columns: tuple[int, int, int] = (4, 1, 2),
) -> Figure:
    """What a model sees of a few classes: shots, val and test of base, only test of new.

    Args:
        data: A dataset with few shots in `train`, not yet split into base and new.
        base: Some class names of the first half.
        new: Some class names of the second half.
        columns: Pictures to show of train, val and test.

    Returns:
        The figure.
    """
    names, step = [*base, *new], SIDE + GAP
    labels = [data.classnames.index(name) for name in names]
    parts = []
    for split, places in zip(("train", "val", "test"), columns, strict=True):
        shown = labels if split == "test" else labels[: len(base)]
        rows = [of_class(data.split(split), label, places) for label in shown]
        parts.append(sheet([[*row, *[None] * (places - len(row))] for row in rows]))
    image, starts = _side_by_side(parts, 4 * GAP)
    size = (5, 5 * 0.78 * image.height / image.width + 0.3)
    fig, ax = figure(figsize=size, dpi=200)  # it may stand before the notebook's set-up
    _show_sheet(ax, image)
    for part, start, title in zip(parts, starts, ("shots", "val", "test"), strict=True):
        ax.text(start + part.width / 2, -2 * GAP, title, ha="center")
    halves = ["base"] * len(base) + ["new"] * len(new)
    words = [f"{name}\n({half})" for name, half in zip(names, halves, strict=True)]
    ax.set_yticks([i * step + SIDE / 2 for i in range(len(names))], words)
    for tick, half in zip(ax.get_yticklabels(), halves, strict=True):
        tick.set(color={"base": BASE, "new": NEW}[half], fontweight="bold")
    middle = (len(base) + len(new) / 2) * step
    note = "new classes:\nno shots, only their names"
    ax.text(starts[2] / 2, middle, note, ha="center", va="center", style="italic")
    return fig


def _side_by_side(images: Sequence[Image.Image], gap: int) -> tuple[Image.Image, list[int]]:
    """The images on one white canvas, their upper edges in line, and where each starts."""
    starts = [sum(image.width + gap for image in images[:i]) for i in range(len(images))]
    size = (starts[-1] + images[-1].width, max(image.height for image in images))
    canvas = Image.new("RGB", size, "white")
    for image, start in zip(images, starts, strict=True):
        canvas.paste(image, (start, 0))
    return canvas, starts


def _show_sheet(ax: Axes, image: Image.Image) -> None:
    """Draws a sheet without any frame."""
    ax.imshow(image, interpolation="lanczos")
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
