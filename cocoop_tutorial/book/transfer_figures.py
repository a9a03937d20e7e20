"""The figures of chapters 7 and 8: what a prompt gains on other data sets and under shift."""

from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from cocoop_tutorial.book.plots import (
    OTHERS,
    STYLE,
    colour,
    figure,
    legend_above,
    palette,
    style_of,
)
from cocoop_tutorial.book.sheets import GAP, SIDE, labelled_rows, sheet
from cocoop_tutorial.book.widgets import flip_book, picture
from cocoop_tutorial.datasets.splits import Dataset, open_image
from cocoop_tutorial.evaluation.accuracy import Evaluation

FRAME = "#d55e00"  # of a wrong answer


@plt.rc_context(STYLE)
def gain_figure(gains: pd.DataFrame, width: float = 5.0) -> Figure:
    """How far methods are above or below CLIP on each test set: a mark per seed, and their mean.

    Args:
        gains: Columns `target`, `method` (as `METHOD_STYLES` has it), `seed` and `points`.
        width: In inches.
    """
    targets, methods = (list(dict.fromkeys(gains[c])) for c in ("target", "method"))
    fig, ax = figure(figsize=(width, 0.34 * len(targets) + 1.0))
    ax.axvline(0, color=colour("CLIP"), linewidth=1.2)
    look = {"x": "points", "y": "target", "hue": "method", "order": targets, "ax": ax}
    look |= {
        "hue_order": methods,
        "palette": palette(methods),
        "dodge": 0.4 * (len(methods) > 1),
        "legend": False,
    }
    marks = [style_of(method)[1] for method in methods]
    sns.stripplot(gains, **look | {"dodge": True}, jitter=False, size=3.5, alpha=0.55)
    dots = {"linestyle": "none", "errorbar": None, "markersize": 7, "markeredgewidth": 0}
    sns.pointplot(gains, **look | {"legend": "auto"}, markers=marks, **dots)
    ax.set(xlabel="points above or below CLIP", ylabel="")
    ax.margins(y=0)
    ax.set_ylim(len(targets) - 0.5, -0.5)
    legend_above(ax, len(methods))
    return fig


@plt.rc_context(STYLE)
def groups_figure(classes: pd.DataFrame, xlabel: str) -> Figure:
    """The mean of what classes gain in each of a few groups, with its 95% interval.

    Args:
        classes: Columns `group`, in order, `method` and `points`; one row per class and method.
        xlabel: What the groups are.
    """
    methods = list(dict.fromkeys(classes.method))
    fig, ax = figure(figsize=(5.0, 3.2))
    ax.axhline(0, color=colour("CLIP"), linewidth=1.2)
    look = {"palette": palette(methods), "markers": [style_of(m)[1] for m in methods]}
    look |= {
        "dodge": 0.2 * (len(methods) > 1),
        "linestyle": "none",
        "errorbar": ("ci", 95),
        "seed": 1,
        "ax": ax,
    }
    sns.pointplot(classes, x="group", y="points", hue="method", err_kws={"linewidth": 1.2}, **look)
    ax.set(xlabel=xlabel, ylabel="points above or below CLIP")
    legend_above(ax, len(methods))
    return fig


@plt.rc_context(STYLE)
def matrix_figure(table: pd.DataFrame) -> Figure:
    """Differences in points, one row per source and one column per target.

    Args:
        table: Of `experiments.summary.sources`, with short names.
    """
    fig, ax = figure(figsize=(5.4, 0.34 * len(table) + 1.2))
    reach = table.abs().stack().quantile(0.95)  # one extreme would make all others pale
    look = {"cmap": "PuOr_r", "center": 0, "vmin": -reach, "vmax": reach, "cbar": False}
    sns.heatmap(table, annot=True, fmt="+.0f", annot_kws={"size": 7}, ax=ax, **look)
    ax.xaxis.tick_top()
    ax.tick_params(length=0, axis="both")
    ax.set_xticks(ax.get_xticks(), list(table), rotation=60, ha="left")
    ax.xaxis.set_label_position("top")
    ax.set(xlabel="target", ylabel="source")
    ax.grid(visible=False)
    return fig


@plt.rc_context(STYLE)
def shifts_figure(rows: Mapping[str, Sequence[Image.Image]], accuracy: pd.DataFrame) -> Figure:
    """Pictures of the source and of each shift, with the accuracies under each row.

    Args:
        rows: Name of a test set to its pictures, equally many for each.
        accuracy: In percent, one row per test set and one column per method.
    """
    note = 34  # pixels under each row, for the accuracies
    step = SIDE + note
    canvas = Image.new("RGB", (sheet([next(iter(rows.values()))]).width, step * len(rows)), "white")
    for i, pictures in enumerate(rows.values()):
        canvas.paste(sheet([pictures]), (0, i * step))
    fig, ax = figure(figsize=(5, 5 * 0.84 * canvas.height / canvas.width), dpi=200)
    ax.imshow(canvas, interpolation="lanczos")
    for i, name in enumerate(rows):
        _accuracies(ax, accuracy.loc[name], canvas.width, i * step + SIDE + GAP)
    ax.set(xticks=[])
    ax.set_yticks([i * step + SIDE / 2 for i in range(len(rows))], list(rows))
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    return fig


def _accuracies(ax: Axes, values: pd.Series, width: float, y: float) -> None:
    """Writes each method's accuracy in its colour, side by side."""
    for i, (method, value) in enumerate(values.items()):
        look = {"color": colour(str(method)), "fontsize": 8.5, "va": "top", "ha": "left"}
        ax.text(i * width / len(values), y, f"{method} {value:.1f}%", fontweight="bold", **look)


@plt.rc_context(STYLE)
def path_figure(path: pd.DataFrame, source: str) -> Figure:
    """How accuracy under each shift moves with accuracy on the source while a prompt is trained.

    Args:
        path: In percent, one row per look at the model, the first before training; a column for
            the source and one per shift.
        source: The source's column.
    """
    moved = path - path.iloc[0]
    fig, ax = figure(figsize=(5.0, 3.8))
    ax.axline((0, 0), slope=1, color="black", linestyle=":", linewidth=1, label="one for one")
    for shift, hue in zip(moved.columns.drop(source), OTHERS, strict=False):
        ax.plot(moved[source], moved[shift], color=hue, marker="o", label=shift, linewidth=1.4)
    ax.plot(0, 0, "o", markersize=9, mfc="white", mec="black", zorder=3)
    ax.set(xlabel=f"change on the {source} (points)", ylabel="change under shift (points)")
    legend_above(ax, 3, fontsize=8)
    return fig


def class_pages(
    sets: Mapping[str, Dataset],
    results: Mapping[str, Mapping[str, Evaluation]],
    classes: Sequence[str],
    most: int = 6,
) -> ipywidgets.VBox:
    """Test pictures of a class in every test set, to leaf through; wrong answers are framed.

    Args:
        sets: Name to data set.
        results: Method to test set to what it said of the test images; each method has a button.
        classes: Each has a page.
        most: Pictures of a class in each test set.

    Returns:
        The widget, which works on the page without a kernel.
    """
    books = {
        method: {name: _class_page(sets, found, name, most) for name in classes}
        for method, found in results.items()
    }
    return flip_book(books, slider="class", buttons="prompt")


@plt.rc_context(STYLE)
def _class_page(
    sets: Mapping[str, Dataset], results: Mapping[str, Evaluation], name: str, most: int
) -> str:
    rows, told = {}, []
    for shift, data in sets.items():
        right, pictures = _framed(data, results[shift], name, most)
        rows[shift] = [*pictures, *[None] * (most - len(pictures))]
        told.append(f"{shift}: {right} of {len(pictures)} right")
    fig = labelled_rows(rows)
    page = picture(fig, f"Pictures of {name}. {', '.join(told)}.")
    plt.close(fig)
    return page


def _framed(
    data: Dataset, result: Evaluation, name: str, most: int
) -> tuple[int, list[Image.Image]]:
    """The first test pictures of a class, framed where wrong; and how many are right."""
    test = zip(data.test.samples, result.correct.tolist(), strict=True)
    found = [(path, good) for (path, y), good in test if data.classnames[y] == name][:most]
    pictures = []
    for path, good in found:
        small = open_image(path).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        pictures.append(small if good else ImageOps.expand(ImageOps.crop(small, 4), 4, FRAME))
    return sum(good for _, good in found), pictures
