"""The figures of chapter 3: the path of the gradient, accuracy over epochs, single classes."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from cocoop_tutorial.book.plots import (
    BASE,
    METHOD_STYLES,
    NEW,
    OTHERS,
    RANGE,
    STYLE,
    colour,
    figure,
    legend_above,
)
from cocoop_tutorial.book.widgets import picture

FROZEN, LEARNED, LINE = "#e8eef4", "#ffd9c2", "#333333"
GRADIENT = "#D55E00"
HALVES = {"base": BASE, "new": NEW}


def flow_figure() -> Figure:
    """Forward in black, backward in orange: the gradient goes through the text tower."""
    fig, ax = figure(figsize=(7.2, 3.1))
    ax.set(xlim=(0, 100), ylim=(-1, 44))
    ax.axis("off")
    _box(ax, 1, 28, 21, "context\n$v_1 ... v_M$\nlearned", LEARNED)
    _box(ax, 1, 3, 21, "class names\n$t_1 ... t_K$\nfixed", FROZEN)
    _box(ax, 33, 18, 19, "text tower $g$\nfrozen", FROZEN)
    _box(ax, 61, 16, 13, "logits\n[B, K]", "#ffffff")
    _box(ax, 84, 16, 15, "cross-\nentropy", "#ffffff")
    _box(ax, 31, 0, 23, "image features\n[B, E], fixed", FROZEN)
    for start, end in [
        ((22, 33), (33, 27)), ((22, 11), (33, 18)), ((52, 22), (61, 22)), ((74, 22), (84, 22)),
        ((54, 7), (64, 15)),
    ]:  # fmt: skip
        ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": LINE})
    back = {"arrowstyle": "->", "color": GRADIENT, "linewidth": 2.2}
    for start, end in [((84, 27), (74, 27)), ((61, 27), (52, 27)), ((33, 32), (22, 38))]:
        ax.annotate("", end, start, arrowprops=back)
    ax.text(67, 36, "gradient", color=GRADIENT, ha="center", fontweight="bold")
    return fig


def _box(ax: Axes, x: float, y: float, width: float, text: str, face: str) -> None:
    style = {"boxstyle": "round,pad=0,rounding_size=1.5", "facecolor": face, "edgecolor": LINE}
    ax.add_patch(FancyBboxPatch((x, y), width, 14, **style))
    ax.text(x + width / 2, y + 7, text, ha="center", va="center", fontsize=9, parse_math=True)


@plt.rc_context(STYLE)
def over_epochs(rows: pd.DataFrame, zero_shot: Mapping[str, float]) -> Figure:
    """Accuracy while prompts train, base classes above new ones, beside the hand-written prompt.

    Args:
        rows: Columns `method`, `epoch`, `split` ("base", "new") and `accuracy` (%). Several rows
            for a place, one per seed, become their mean with a band from lowest to highest.
        zero_shot: Accuracy (%) of the hand-written prompt on "base" and "new".

    Returns:
        The figure.
    """
    names = list(dict.fromkeys(rows.method))
    hues = {m: colour(m) if m in METHOD_STYLES else OTHERS[i] for i, m in enumerate(names)}
    fig, axes = figure(2, 1, figsize=(5.2, 5.6), sharex=True)
    for ax, half in zip(axes, HALVES, strict=True):
        ax.axhline(zero_shot[half], color=colour("CLIP"), linestyle=":", label="hand-written")
        look = {"style": "method", "dashes": False, "markers": True, "mew": 0, "errorbar": RANGE}
        part = rows[rows.split == half]
        sns.lineplot(part, x="epoch", y="accuracy", hue="method", palette=hues, ax=ax, **look)
        ax.get_legend().remove()
        ax.set(ylabel=f"{half} classes: accuracy (%)")
    axes[1].set_xscale("log")
    axes[1].minorticks_off()
    ticks = sorted(rows.epoch.unique())
    axes[1].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    legend_above(axes[0], columns=2)
    return fig


@plt.rc_context(STYLE)
def class_page(before: pd.Series, now: pd.Series, half: str, epoch: int) -> str:
    """Each class's accuracy before training and now, as one picture in HTML.

    Args:
        before: Accuracy (%) by class, zero-shot.
        now: The same classes after some epochs.
        half: "base" or "new".
        epoch: Epochs done, for the title.

    Returns:
        An image tag with its alternative text.
    """
    table = pd.DataFrame({"zero-shot": before, "CoOp": now})
    table = table.sort_values("zero-shot", ascending=False, kind="stable")
    hues = {"zero-shot": "white", "CoOp": HALVES[half]}
    fig, ax = figure(figsize=(5.2, 0.19 * len(table) + 1.1))
    ax.hlines(table.index, table["zero-shot"], table["CoOp"], color=HALVES[half], lw=3, alpha=0.6)
    dots = table.melt(ignore_index=False, var_name="model", value_name="accuracy")
    look = {"jitter": False, "edgecolor": "#595959", "linewidth": 1, "zorder": 3}
    sns.stripplot(dots, x="accuracy", y=dots.index, hue="model", palette=hues, ax=ax, **look)
    ax.tick_params(axis="y", labelsize=8)
    ax.set(xlim=(-4, 104), xlabel="test accuracy of the class (%)", ylabel="")
    ax.set_title(f"{half} classes, epoch {epoch}: mean {before.mean():.1f} → {now.mean():.1f}")
    legend_above(ax, fontsize=8)
    alt = (
        f"Accuracy of each {half} class before training and after epoch {epoch}: the mean goes "
        f"from {before.mean():.1f} to {now.mean():.1f} percent."
    )
    return picture(fig, alt, width=560)


def class_books(
    before: Mapping[str, pd.Series], snapshots: Mapping[int, Mapping[str, pd.Series]]
) -> dict[str, dict[str, str]]:
    """Pages for `widgets.flip_book`: half to epoch to picture.

    Args:
        before: "base" and "new" to accuracy by class, zero-shot.
        snapshots: Epoch to the same, after that many epochs.
    """
    return {
        half: {str(e): class_page(before[half], s[half], half, e) for e, s in snapshots.items()}
        for half in before
    }
