"""The figures of chapter 6: who is scored among what, seeds, gains, and differences."""

from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cocoop_tutorial.book.plots import (
    BASE,
    NEW,
    RANGE,
    STYLE,
    colour,
    figure,
    style_of,
)
from cocoop_tutorial.book.widgets import flip_book, picture
from cocoop_tutorial.experiments.summary import Difference

HALVES = {"base": BASE, "new": NEW}
MARKS = {"base": "o", "new": "s"}
GREY = "#e4e4e4"


@plt.rc_context(STYLE)
def scored_blocks() -> Figure:
    """Test images against the names that they are scored among: base to new takes two blocks."""
    fig, ax = figure(figsize=(4.6, 3.2))
    ax.set(xlim=(0, 10), ylim=(0, 10), xticks=[], yticks=[])
    ax.grid(False)
    texts = {
        (0, 5): ("base accuracy", BASE), (5, 0): ("new accuracy", NEW),
        (5, 5): ("not scored", GREY), (0, 0): ("not scored", GREY),
    }  # fmt: skip
    for (x, y), (text, face) in texts.items():
        ax.add_patch(Rectangle((x, y), 5, 5, facecolor=face, edgecolor="white", alpha=0.75))
        ax.text(x + 2.5, y + 2.5, text, ha="center", va="center")
    ax.set_xticks([2.5, 7.5], ["base names", "new names"])
    ax.set_yticks([7.5, 2.5], ["images of\nbase classes", "images of\nnew classes"])
    ax.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    return fig


@plt.rc_context(STYLE)
def halves_and_h(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Base, new and H of each method, a panel per table.

    Args:
        tables: Title to a frame indexed by method with the columns base, new, H (%).

    Returns:
        The figure.
    """
    height = sum(len(t) for t in tables.values()) * 0.3 + 0.5 * len(tables) + 0.4
    fig, axes = figure(len(tables), 1, figsize=(5, height), squeeze=False, sharex=True)
    for ax, (title, table) in zip(axes.flat, tables.items(), strict=True):
        shown = table[::-1]
        ax.hlines(shown.index, shown.base, shown.new, color="#bbbbbb", zorder=1)
        for half, marker in MARKS.items():
            ax.scatter(shown[half], shown.index, c=HALVES[half], marker=marker, label=half, s=45)
        ax.scatter(shown.H, shown.index, color="black", marker="|", label="H", s=80)
        ax.set_title(title, loc="left")
        ax.margins(y=0.5 / len(table))
    _legend(fig, axes.flat[0])
    axes.flat[-1].set(xlabel="test accuracy (%)")
    return fig


@plt.rc_context(STYLE)
def every_seed(runs: pd.DataFrame, methods: Sequence[str]) -> Figure:
    """Every run: one small mark per seed, the large one is their mean, a panel per half.

    Args:
        runs: Indexed by `target`, `method` (labels) and `seed`, with columns base and new (%).
        methods: Labels of those to show.

    Returns:
        The figure.
    """
    order = runs.groupby("target").base.mean().sort_values(ascending=False).index
    fig, axes = figure(1, 2, figsize=(5.4, 5.2), sharey=True)
    for ax, half in zip(axes, HALVES, strict=True):
        for i, method in enumerate(methods):
            mine = runs.xs(method, level="method")[half]
            look = {"color": colour(method), "marker": style_of(method)[1], "linewidth": 0}
            shift = 0.22 * (i - (len(methods) - 1) / 2)
            places = [order.get_loc(name) + shift for name in mine.index.get_level_values("target")]
            ax.scatter(mine, places, s=9, alpha=0.7, **look)
            mean = mine.groupby("target").mean()[order]
            places = [k + shift for k in range(len(order))]
            ax.scatter(mean, places, s=34, label=method, **look)
        ax.set_title(f"{half} classes")
        ax.set(xlabel="test accuracy (%)")
    axes[0].set_yticks(range(len(order)), order)
    axes[0].invert_yaxis()
    _legend(fig, axes[0])
    return fig


@plt.rc_context(STYLE)
def gain_bars(gains: Mapping[str, pd.Series]) -> Figure:
    """Horizontal bars per data set, largest on top, as the paper's figure 3; a panel per series.

    Args:
        gains: Title to points by data set. A title that ends in "base" or "new" has its colour.

    Returns:
        The figure.
    """
    rows = -(-len(gains) // 2)
    fig, axes = figure(rows, 2, figsize=(5.4, 3.1 * rows), squeeze=False, sharex=True)
    for ax, (title, values) in zip(axes.flat, gains.items(), strict=False):
        values = values.sort_values(ascending=False)
        hue = HALVES.get(title.split()[-1], "#595959")
        sns.barplot(x=values.to_numpy(), y=values.index, color=hue, saturation=1, ax=ax)
        ax.axvline(0, color="black", linewidth=1)
        ax.set_title(f"{title}: {values.mean():+.1f}", loc="left")
        ax.set(ylabel="", xlabel="")
        ax.tick_params(axis="y", labelsize=8)
    for ax in axes[-1]:
        ax.set(xlabel="percentage points")
    return fig


@plt.rc_context(STYLE)
def forest(panels: Mapping[str, Mapping[str, Difference]]) -> Figure:
    """Differences with their intervals, one row each, a panel per measure.

    Args:
        panels: Title to label to difference; all panels have the same labels.

    Returns:
        The figure.
    """
    labels = list(next(iter(panels.values())))
    height = 0.34 * len(labels) + 1.2
    fig, axes = figure(
        1, len(panels), figsize=(5.6, height), sharex=True, sharey=True, squeeze=False
    )
    for ax, (title, found) in zip(axes.flat, panels.items(), strict=True):
        ax.axvline(0, color="black", linewidth=1)
        for place, one in enumerate(found.values()):
            hue = "#8c8c8c" if one.low <= 0 <= one.high else colour("CoCoOp")
            ax.plot([one.low, one.high], [place, place], color=hue, linewidth=2)
            ax.plot(one.effect, place, marker="o", color=hue, markersize=6)
        ax.set_title(title)
        ax.tick_params(axis="x", labelsize=8)
    axes.flat[0].set_yticks(range(len(labels)), labels)
    axes.flat[0].invert_yaxis()
    fig.supxlabel("percentage points", fontsize=10)
    return fig


@plt.rc_context(STYLE)
def along(rows: pd.DataFrame, x: str, ticks: Sequence[int]) -> Figure:
    """Base and new accuracy along epochs or shots, with a band over seeds.

    Args:
        rows: Columns `method` (labels), `seed`, `split`, `accuracy` and `x`: means over data sets.
        x: The column that runs along, on a logarithmic axis.
        ticks: Where the axis has numbers.

    Returns:
        The figure.
    """
    fig, axes = figure(1, 2, figsize=(5.4, 3.2), sharey=True)
    for ax, half in zip(axes, HALVES, strict=True):
        part = rows[rows.split == half]
        for method, mine in part.groupby("method", sort=False):
            look = {"color": colour(method), "marker": style_of(method)[1], "mew": 0}
            look |= {"label": method, "legend": False, "errorbar": RANGE, "ax": ax}
            sns.lineplot(mine, x=x, y="accuracy", **look)
        _log_axis(ax, x, ticks)
        ax.set_title(f"{half} classes")
    axes[0].set(ylabel="test accuracy (%)")
    _legend(fig, axes[0])
    return fig


def _legend(fig: Figure, ax: Axes) -> None:
    """One legend for all panels, above them."""
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3)


def _log_axis(ax: Axes, x: str, ticks: Sequence[int]) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, ticks)
    ax.minorticks_off()
    ax.set(xlabel=x)


def dataset_pages(tables: Mapping[str, pd.DataFrame], buttons: str = "classes") -> ipywidgets.VBox:
    """Bars of every data set, to leaf through: a slider turns to a data set, buttons to a table.

    Args:
        tables: Name to accuracy (%), one row per data set and one column per method.
        buttons: What the tables are.

    Returns:
        The widget, which works on the page without a kernel.
    """
    low = min(table.min().min() for table in tables.values()) - 5
    books = {
        name: {
            dataset.removeprefix("icons_"): _page(f"{name}, {dataset}", row, low)
            for dataset, row in table.iterrows()
        }
        for name, table in tables.items()
    }
    return flip_book(books, slider="dataset", buttons=buttons)


@plt.rc_context(STYLE)
def _page(title: str, values: pd.Series, low: float) -> str:
    fig, ax = figure(figsize=(4.6, 0.6 + 0.32 * len(values)))
    bars = ax.barh(values.index[::-1], values[::-1], color=colour("CoCoOp"))
    ax.bar_label(bars, fmt="%.1f", padding=2)
    ax.set(xlim=(low, 105), xlabel="test accuracy (%)")
    told = ", ".join(f"{name} {value:.1f}" for name, value in values.items())
    page = picture(fig, f"{title}: {told}")
    plt.close(fig)
    return page
