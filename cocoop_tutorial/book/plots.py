"""Figures in one style, with one colour for each method from the first chapter to the last.

The colours are Okabe and Ito's, which people with any kind of colour blindness can tell apart;
markers and hatches differ as well. The background is white and opaque, so that a figure reads on
a dark page. Every function returns the figure and shows nothing: in a notebook, let it be the
last line of the cell.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cocoop_tutorial.evaluation.accuracy import Evaluation
from cocoop_tutorial.evaluation.calibration import reliability

# Method -> colour, marker, hatch.
METHODS: dict[str, tuple[str, str, str]] = {
    "CLIP": ("#595959", "s", ""),
    "CoOp": ("#D55E00", "^", "//"),
    "CoCoOp": ("#0072B2", "o", "\\\\"),
    "CLIP ensemble": ("#999999", "D", ".."),
    "Linear probe": ("#E69F00", "v", "xx"),
    "CoOp class-specific": ("#CC79A7", "<", "++"),
    "CoCoOp M networks": ("#009E73", ">", "--"),
}
SAME = {
    "clip": "CLIP",
    "zeroshotclip": "CLIP",
    "zeroshot": "CLIP",
    "zeroshot clip": "CLIP",
    "zero shot": "CLIP",
    "zero shot clip": "CLIP",
    "clip (zero shot)": "CLIP",
}
OTHERS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#000000")
BASE, NEW = "#009E73", "#CC79A7"  # the two halves of the classes
STYLE: dict[str, Any] = {
    "figure.figsize": (6.4, 3.6),
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": "medium",
    "grid.color": "#e0e0e0",
    "grid.linewidth": 0.6,
    "font.size": 10,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "text.parse_math": False,  # a class name may hold "$"; our own formulas ask for it
}


def use_style() -> None:
    """Makes this style the default of every figure that follows."""
    plt.rcParams.update(STYLE)


def style_of(method: str) -> tuple[str, str, str]:
    """Colour, marker and hatch of a method, the same all through the book.

    Args:
        method: "CLIP" (or "ZeroShotCLIP", "zero-shot"), "CoOp", "CoCoOp" ...; another name gets a
            colour of its own, always the same one.
    """
    key = " ".join(method.lower().replace("-", " ").replace("_", " ").split())
    known = {name.lower(): name for name in METHODS} | SAME
    if key in known:
        return METHODS[known[key]]
    return OTHERS[sum(key.encode()) % len(OTHERS)], "P", ""


def colour(method: str) -> str:
    """The colour of a method."""
    return style_of(method)[0]


def figure(rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure in this style, and its axes, as `plt.subplots` gives them.

    It is closed at once, so that a notebook shows it where it is returned and not twice.

    Args:
        rows: Rows of axes.
        columns: Columns of axes.
        options: Anything for `plt.subplots`.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(rows, columns, **options)
    plt.close(fig)
    return fig, axes


def _axes(ax: Axes | None, **options: Any) -> tuple[Figure, Axes]:
    return (ax.figure, ax) if ax is not None else figure(**options)


@plt.rc_context(STYLE)
def image_grid(
    images: Sequence[Image.Image | Tensor],
    captions: Sequence[str] = (),
    columns: int = 8,
    size: float = 1.0,
    title: str = "",
) -> Figure:
    """Small pictures in rows, with a caption under each.

    Args:
        images: PIL images, or tensors `[3, H, W]` with values from 0 to 1.
        captions: One text an image, or none.
        columns: Pictures in a row.
        size: Width of a picture in inches.
        title: Text over all of them.

    Returns:
        The figure.
    """
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    lines = max((c.count("\n") + 1 for c in captions), default=0)
    height = rows * (size + 0.16 * lines) + (0.3 if title else 0)
    fig, axes = figure(rows, columns, figsize=(columns * size, height), squeeze=False)
    for i, ax in enumerate(axes.flat):
        ax.axis("off")
        if i < len(images):
            ax.imshow(_pixels(images[i]), interpolation="lanczos")
        if i < len(captions):
            ax.set_title(captions[i], fontsize=8, y=0, va="top", pad=-2)
    if title:
        fig.suptitle(title, fontsize=10)
    return fig


def _pixels(image: Image.Image | Tensor) -> np.ndarray:
    if isinstance(image, Tensor):
        return image.detach().float().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    return np.asarray(image.convert("RGB"))


@plt.rc_context(STYLE)
def bars(
    values: pd.DataFrame | Mapping[str, float],
    errors: pd.DataFrame | Mapping[str, float] | None = None,
    ylabel: str = "accuracy (%)",
    title: str = "",
    numbers: bool = True,
    ax: Axes | None = None,
) -> Figure:
    """Bars of methods, in groups, with error bars.

    Args:
        values: A frame with one column a method and one row a group, or `{method: value}`.
        errors: Half lengths of the error bars, in the same shape.
        ylabel: What is measured, with its unit.
        title: Text over the axes.
        numbers: Whether to write each value on its bar.
        ax: Where to draw; None makes a figure.

    Returns:
        The figure.
    """
    frame = _frame(values)
    spread = _frame(errors).reindex_like(frame) if errors is not None else None
    fig, ax = _axes(ax)
    width, places = 0.8 / frame.shape[1], np.arange(len(frame))
    for i, method in enumerate(frame.columns):
        face, _, hatch = style_of(method)
        x = places + (i - (frame.shape[1] - 1) / 2) * width
        error = spread[method].to_numpy() if spread is not None else None
        drawn = ax.bar(
            x, frame[method].to_numpy(), width * 0.92, label=method, color=face, hatch=hatch,
            edgecolor="white", yerr=error, capsize=2, error_kw={"elinewidth": 1},
        )  # fmt: skip
        if numbers:
            ax.bar_label(drawn, fmt="%.1f", fontsize=7, padding=1)
    ax.set_xticks(places, frame.index)
    ax.grid(axis="x", visible=False)
    ax.set(ylabel=ylabel, title=title)
    if frame.shape[1] > 1:
        _legend_above(ax, frame.shape[1])
    return fig


def _frame(values: pd.DataFrame | Mapping[str, float]) -> pd.DataFrame:
    return values if isinstance(values, pd.DataFrame) else pd.DataFrame([dict(values)], index=[""])


def _legend_above(ax: Axes, columns: int) -> None:
    """Over the axes, where it hides nothing and stays legible on a phone."""
    below_title = ax.get_title()
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(columns, 4), borderaxespad=0.2)
    ax.set_title(below_title, pad=22)


@plt.rc_context(STYLE)
def curves(
    lines: Mapping[str, Any],
    x: Sequence[float] | None = None,
    xlabel: str = "epoch",
    ylabel: str = "",
    title: str = "",
    ax: Axes | None = None,
) -> Figure:
    """One line a method; a band from the lowest to the highest of several seeds.

    Args:
        lines: Method to values `[T]`, or `[S, T]` for S seeds.
        x: The T places; None counts from 1.
        xlabel: What runs along.
        ylabel: What is measured.
        title: Text over the axes.
        ax: Where to draw; None makes a figure.

    Returns:
        The figure.
    """
    fig, ax = _axes(ax)
    for method, values in lines.items():
        runs = np.atleast_2d(np.asarray(values, dtype=float))
        places = np.arange(1, runs.shape[1] + 1) if x is None else np.asarray(x)
        face, marker, _ = style_of(method)
        few = marker if runs.shape[1] <= 30 else None
        ax.plot(places, runs.mean(axis=0), color=face, marker=few, label=method)
        if len(runs) > 1:
            ax.fill_between(places, runs.min(axis=0), runs.max(axis=0), color=face, alpha=0.2, lw=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    _legend_above(ax, len(lines))
    return fig


@plt.rc_context(STYLE)
def reliability_diagram(
    results: Evaluation | Mapping[str, Evaluation], bins: int = 15, ax: Axes | None = None
) -> Figure:
    """Accuracy against confidence; on the diagonal a model is as sure as it is right.

    Args:
        results: One evaluation, or several by method.
        bins: Bins over 0 to 1; empty ones are left out.
        ax: Where to draw; None makes a figure.

    Returns:
        The figure.
    """
    named = {"CLIP": results} if isinstance(results, Evaluation) else dict(results)
    fig, ax = _axes(ax, figsize=(4.4, 4.2))
    ax.plot([0, 1], [0, 1], color="#000000", linestyle=":", linewidth=1)
    for method, result in named.items():
        table = reliability(result.logits, result.labels, bins).dropna()
        face, marker, _ = style_of(method)
        label = f"{method} (ECE {result.ece:.1f}%)"
        ax.plot(table.confidence, table.accuracy, color=face, marker=marker, label=label)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.legend(loc="upper left", fontsize=8)
    return fig
