"""The figures of chapter 9: effects with intervals, both halves of many methods, a spring."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cocoop_tutorial.book.plots import BASE, NEW, STYLE, colour, figure, legend_above
from cocoop_tutorial.experiments.summary import Difference

VERDICTS = {
    "holds here": ("#0072B2", "o"),
    "cannot tell": ("#595959", "s"),
    "does not hold here": ("#D55E00", "X"),
}


@plt.rc_context(STYLE)
def effects_figure(found: Mapping[str, tuple[Difference, int]]) -> Figure:
    """Differences with their intervals, turned so that a claim that holds is on the right of 0.

    Args:
        found: A claim to its difference and side, 1 or -1, as `Difference.verdict` takes it.

    Returns:
        The figure. Each claim stands above its own interval, so that it can be read on a phone.
    """
    fig, ax = figure(figsize=(5.4, 0.5 * len(found) + 1.0))
    for i, (text, (d, side)) in enumerate(found.items()):
        hue, marker = VERDICTS[d.verdict(side)]
        ends = sorted((side * d.low, side * d.high))
        ax.hlines(i, *ends, color=hue)
        ax.plot(side * d.effect, i, marker, color=hue, label=d.verdict(side))
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        ax.annotate(text, (0, i), (2, 8), fontsize=9, va="center", bbox=ground, **place)
    ax.axvline(0, color="black", linewidth=1)
    ax.set(yticks=[], ylim=(len(found) - 0.6, -0.9))
    ax.set_xlabel("percentage points in the direction of the claim")
    ax.grid(axis="y", visible=False)
    _legend_without_repeats(ax)
    return fig


def _legend_without_repeats(ax: plt.Axes) -> None:
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    legend_above(ax, len(handles))
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "columnspacing": 1.0}
    ax.legend(handles.values(), handles.keys(), ncols=3, handletextpad=0.3, **place)


@plt.rc_context(STYLE)
def behind_figure(new: Mapping[str, pd.Series]) -> Figure:
    """How far CoCoOp is above CLIP on new classes, data set by data set, one panel per world.

    Args:
        new: A world to the differences by data set.

    Returns:
        The figure.
    """
    rows = max(len(gaps) for gaps in new.values())
    size = 5.2, 0.24 * rows * len(new) + 1.2
    fig, axes = figure(len(new), 1, figsize=size, sharex=True, squeeze=False)
    for ax, (world, gaps) in zip(axes.flat, new.items(), strict=True):
        gaps = gaps.sort_values()[::-1]
        hues = [colour("CoCoOp") if gap > 0 else VERDICTS["does not hold here"][0] for gap in gaps]
        ax.barh(gaps.index, gaps, color=hues)
        ax.axvline(0, color="black", linewidth=1)
        ax.tick_params(axis="y", labelsize=8)
        ax.set_title(f"{world}: behind CLIP on {(gaps < 0).sum()} of {len(gaps)}", loc="left")
        ax.grid(axis="y", visible=False)
    axes.flat[-1].set_xlabel("CoCoOp minus CLIP on new classes (points)")
    return fig


@plt.rc_context(STYLE)
def halves_figure(table: pd.DataFrame, level: str) -> Figure:
    """Base and new accuracy of many methods, a line each, from the lowest to the highest H.

    Args:
        table: Indexed by method: "base", "new" and "H" (%).
        level: The method that dotted lines mark.

    Returns:
        The figure.
    """
    table = table.sort_values("H", kind="stable")
    fig, ax = figure(figsize=(5.4, 0.27 * len(table) + 1.0))
    ax.hlines(table.index, table.new, table.base, color="#bbbbbb")
    for half, hue, marker in (("base", BASE, "^"), ("new", NEW, "o")):
        ax.axvline(table.loc[level, half], color=hue, linestyle=":", linewidth=1.2)
        ax.plot(table[half], table.index, marker, color=hue, label=half)
    ax.plot(table.H, table.index, "|", color="black", markersize=10, mew=1.5, label="H")
    ax.set(xlabel="accuracy (%)", ylim=(-0.6, len(table) - 0.4))
    legend_above(ax, 3)
    return fig


@plt.rc_context(STYLE)
def spring_figure() -> Figure:
    """Text features on a circle: CoOp's drifts to the images, KgCoOp's is held by its words."""
    fig, axes = figure(1, 2, figsize=(6.4, 3.2))
    turn = np.linspace(-0.15, 1.85, 100)
    for ax, (title, angle) in zip(axes, {"CoOp": 1.45, "KgCoOp": 0.75}.items(), strict=True):
        ax.plot(np.cos(turn), np.sin(turn), color="#bbbbbb", linewidth=1)
        for at, text, hue in ((0.2, "words", "#595959"), (angle, "learned", colour("CoOp"))):
            end = np.array([np.cos(at), np.sin(at)])
            ax.annotate("", end, (0, 0), arrowprops={"arrowstyle": "->", "color": hue, "lw": 2})
            ax.text(*(end * 1.06), text, color=hue, va="center")
        shots = 1.62 + np.array([-0.14, -0.05, 0.06, 0.15])
        ax.plot(0.9 * np.cos(shots), 0.9 * np.sin(shots), "o", color=BASE)
        ax.text(-0.22, 0.72, "shots", color=BASE, ha="center")
        if title == "KgCoOp":
            along = np.linspace(0.2, angle, 60)
            radius = 0.6 + 0.05 * np.sin(np.linspace(0, 12 * np.pi, 60))
            ax.plot(radius * np.cos(along), radius * np.sin(along), color=NEW, linewidth=1.4)
            ax.text(0.5, -0.02, "penalty", color=NEW, ha="center", va="top")
        ax.set(xlim=(-0.5, 1.4), ylim=(-0.15, 1.1), aspect="equal", title=title)
        ax.axis("off")
    return fig
