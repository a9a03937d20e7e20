"""Figures in one style, with one colour for each method from the first chapter to the last.

seaborn draws them. The colours are Okabe and Ito's, which people with any kind of colour blindness
can tell apart; markers and hatches differ as well. The background is white and opaque, so a figure
can also be read on a dark page. Every function returns its figure and shows nothing, so in a
notebook it should be the last line of the cell.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cocoop_tutorial.evaluation.accuracy import Evaluation
from cocoop_tutorial.evaluation.calibration import reliability

# Method -> colour, marker, hatch.
METHOD_STYLES: dict[str, tuple[str, str, str]] = {
    "CLIP": ("#595959", "s", ""),
    "CoOp": ("#D55E00", "^", "//"),
    "CoCoOp": ("#0072B2", "o", "\\\\"),
    "CLIP ensemble": ("#999999", "D", ".."),
    "Linear probe": ("#E69F00", "v", "xx"),
    "Class means": ("#56B4E9", "P", "oo"),
    "Nearest shot": ("#000000", "X", "**"),
    "CoOp class-specific": ("#CC79A7", "<", "++"),
    "CoCoOp M networks": ("#009E73", ">", "--"),
}
ZERO_SHOT = {"zeroshot", "zeroshotclip", "clip(zeroshot)"}  # other names of CLIP
OTHERS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#000000")
BASE, NEW = "#009E73", "#CC79A7"  # the two halves of the classes
RANGE = ("pi", 100)  # seaborn's name for an error band from the lowest to the highest value
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
    """Colour, marker and hatch of a method, the same throughout the book.

    Args:
        method: "CLIP" (or "ZeroShotCLIP", "zero-shot"), "CoOp", "CoCoOp" ...; any other name gets a
            colour of its own, always the same one.
    """
    key = _squeezed(method)
    known = {_squeezed(name): look for name, look in METHOD_STYLES.items()}
    known |= dict.fromkeys(ZERO_SHOT, METHOD_STYLES["CLIP"])
    return known.get(key, (OTHERS[sum(key.encode()) % len(OTHERS)], "P", ""))


def _squeezed(name: str) -> str:
    return "".join(c for c in name.lower() if c not in " -_")


def colour(method: str) -> str:
    """The colour of a method."""
    return style_of(method)[0]


def palette(methods: Iterable[str]) -> dict[str, str]:
    """The colour of each method, as seaborn takes them."""
    return {method: colour(method) for method in methods}


class _Figure(Figure):
    """A figure in which the labels of ticks, most of which are made in drawing, are no formulas."""

    def draw(self, renderer: RendererBase) -> None:
        """Draws it, in a notebook or to a file."""
        with plt.rc_context({"text.parse_math": STYLE["text.parse_math"]}):
            super().draw(renderer)


def figure(rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure in this style, and its axes, as `plt.subplots` gives them.

    It is closed at once, so that a notebook shows it where it is returned and not twice.

    Args:
        rows: Rows of axes.
        columns: Columns of axes.
        options: Anything for `plt.subplots`.
    """
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(rows, columns, FigureClass=_Figure, **options)
    plt.close(fig)
    return fig, axes


@plt.rc_context(STYLE)
def image_grid(
    images: Sequence[Image.Image | Tensor],
    captions: Sequence[str] = (),
    columns: int = 8,
    size: float = 1.0,
) -> Figure:
    """Small pictures in rows, with a caption under each.

    Args:
        images: PIL images, or tensors `[3, H, W]` with values from 0 to 1.
        captions: One text per image, or none.
        columns: Pictures in a row.
        size: Width of a picture in inches.

    Returns:
        The figure.
    """
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    lines = max((c.count("\n") + 1 for c in captions), default=0)
    height = rows * (size + 0.16 * lines)
    fig, axes = figure(rows, columns, figsize=(columns * size, height), squeeze=False)
    for i, ax in enumerate(axes.flat):
        ax.axis("off")
        if i < len(images):
            ax.imshow(_pixels(images[i]), interpolation="lanczos")
        if i < len(captions):
            ax.set_title(captions[i], fontsize=8, y=0, va="top", pad=-2)
    return fig


def _pixels(image: Image.Image | Tensor) -> np.ndarray:
    if isinstance(image, Tensor):
        return image.detach().float().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    return np.asarray(image.convert("RGB"))


@plt.rc_context(STYLE)
def bars(values: pd.DataFrame | Mapping[str, float]) -> Figure:
    """Bars of the accuracy of methods, in groups, each with its value.

    Args:
        values: A frame with one column per method and one row per group, or `{method: value}`. A
            group may have several rows, one per seed: its bars then show the mean, and their
            error bars the standard deviation.

    Returns:
        The figure.
    """
    frame = values if isinstance(values, pd.DataFrame) else pd.DataFrame(dict(values), index=[""])
    rows = frame.melt(ignore_index=False, var_name="method").rename_axis("group").reset_index()
    fig, ax = figure()
    look = {"palette": palette(frame), "saturation": 1, "edgecolor": "white", "legend": False}
    look |= {"errorbar": "sd", "capsize": 0.1, "err_kws": {"linewidth": 1, "color": "black"}}
    sns.barplot(rows, x="group", y="value", hue="method", ax=ax, **look)
    for drawn, (method, column) in zip(ax.containers, frame.items(), strict=True):
        drawn.set_label(method)
        spread = column.groupby(level=0, sort=False).std().fillna(0)
        for bar, error in zip(drawn, spread, strict=True):
            bar.set_hatch(style_of(method)[2])
            top = (bar.get_x() + bar.get_width() / 2, bar.get_height() + error)
            ax.text(*top, f"{bar.get_height():.1f}", ha="center", va="bottom", fontsize=8)
    ax.set(xlabel="", ylabel="accuracy (%)")
    if frame.shape[1] > 1:
        legend_above(ax, frame.shape[1])
    return fig


def legend_above(ax: Axes, columns: int = 2, **options: Any) -> None:
    """Puts the legend above the axes, where it hides nothing and stays legible on a phone."""
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2, "title": None}
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles, labels, ncols=min(columns, 4), **place | options)
    ax.set_title(ax.get_title(), pad=22)


def log_scales(ax: Axes, names: str = "xy") -> None:
    """Makes axes logarithmic, with plain numbers: the usual powers are formulas (see `STYLE`)."""
    for name in names:
        ax.set(**{f"{name}scale": "log"})
        axis = getattr(ax, f"{name}axis")
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")


@plt.rc_context(STYLE)
def curves(
    lines: Mapping[str, Any],
    x: Sequence[float] | None = None,
    xlabel: str = "epoch",
    ylabel: str = "",
) -> Figure:
    """One line per method, with a band from the lowest to the highest of several seeds.

    Args:
        lines: Method to values `[places]`, or `[seeds, places]` for several seeds.
        x: The places; None counts from 1.
        xlabel: What runs along.
        ylabel: What is measured.

    Returns:
        The figure.
    """
    fig, ax = figure()
    for method, values in lines.items():
        runs = pd.DataFrame(np.atleast_2d(np.asarray(values, dtype=float)))  # [seeds, places]
        runs.columns = range(1, runs.shape[1] + 1) if x is None else x
        marker = style_of(method)[1] if runs.shape[1] <= 30 else None
        look = {"color": colour(method), "marker": marker, "mew": 0, "errorbar": RANGE}
        look |= {"label": method, "legend": False, "ax": ax}
        sns.lineplot(runs.melt(), x="variable", y="value", **look)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    legend_above(ax, len(lines))
    return fig


@plt.rc_context(STYLE)
def reliability_diagram(results: Mapping[str, Evaluation]) -> Figure:
    """Accuracy against confidence: on the diagonal, a model is right as often as it is confident.

    Args:
        results: Evaluations by method.

    Returns:
        The figure.
    """
    fig, ax = figure(figsize=(4.4, 4.2))
    ax.axline((0, 0), slope=1, color="#000000", linestyle=":", linewidth=1)
    for method, result in results.items():
        table = reliability(result.logits, result.labels).dropna()  # no empty bins
        look = {"color": colour(method), "marker": style_of(method)[1], "mew": 0, "ax": ax}
        look["label"] = f"{method} (ECE {result.ece:.1f}%)"
        sns.lineplot(table, x="confidence", y="accuracy", **look)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.legend(loc="upper left", fontsize=8)
    return fig
