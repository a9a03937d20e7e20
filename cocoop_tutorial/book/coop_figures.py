"""The figures of chapters 3 and 4: where gradients flow, and who gains where."""

import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from cocoop_tutorial.book.plots import BASE, NEW, STYLE, colour, figure
from cocoop_tutorial.book.widgets import picture

FROZEN, LEARNED, LINE = "#e8eef4", "#ffd9c2", "#333333"
GRADIENT = "#D55E00"


def flow_figure() -> Figure:
    """Forward in black, backward in orange: the gradient passes the text tower to the context."""
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
    hue = {"base": BASE, "new": NEW}[half]
    order = before.sort_values(kind="stable").index
    rows = range(len(order))
    fig, ax = figure(figsize=(5.2, 0.19 * len(order) + 1.1))
    ax.hlines(rows, before[order], now[order], color=hue, linewidth=3, alpha=0.6)
    ax.scatter(before[order], rows, s=22, facecolor="white", edgecolor="#595959", label="zero-shot")
    ax.scatter(now[order], rows, s=22, color=hue, label="CoOp", zorder=3)
    ax.set_yticks(rows, order, fontsize=8)
    ax.set(xlim=(-4, 104), xlabel="test accuracy of the class (%)")
    means = f"mean {before.mean():.1f} → {now.mean():.1f}"
    ax.set_title(f"{half} classes, epoch {epoch}: {means}", pad=24)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=8)
    alt = (
        f"Accuracy of each {half} class before training and after epoch {epoch}: the mean goes "
        f"from {before.mean():.1f} to {now.mean():.1f} percent."
    )
    return picture(_image(fig), alt, width=560)


def _image(fig: Figure) -> Image.Image:
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=150)
    return Image.open(buffer).convert("RGB")


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


def gain_figure(gains: pd.DataFrame, places: Mapping[str, str], ylabel: str) -> Figure:
    """Changes on base and on new classes, in several places: a dot a dataset, a bar their mean.

    Args:
        gains: From `prompt_results.gains`.
        places: Split to its label, from left to right.
        ylabel: What is compared.
    """
    fig, ax = figure(figsize=(6.8, 3.6))
    means = gains.groupby(["split", "dataset"])[["base", "new"]].mean()  # over seeds
    for i, split in enumerate(places):
        for half, shift, hue in (("base", -0.18, BASE), ("new", 0.18, NEW)):
            dots = means.loc[split, half]
            ax.bar(i + shift, dots.mean(), 0.32, color=hue, alpha=0.45, label=None if i else half)
            beside = [i + shift + 0.2 * (j / len(dots) - 0.4) for j in range(len(dots))]
            ax.scatter(beside, dots, color=hue, edgecolor="#333333", s=22, zorder=3)
    ax.axhline(0, color=LINE, linewidth=1)
    ax.set_xticks(range(len(places)), list(places.values()))
    ax.grid(axis="x", visible=False)
    ax.set_ylabel(ylabel)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, title="classes")
    return fig


def curve_figure(rows: pd.DataFrame, methods: Sequence[str], places: Mapping[str, str]) -> Figure:
    """Change against CLIP while training: a row of panels a place, base left and new right.

    Args:
        rows: From `prompt_results.recorded`; the datasets are averaged within each seed.
        methods: A line each, with a band from the lowest to the highest seed.
        places: Split to its label, from top to bottom.
    """
    size = (7.6, 2.5 * len(places) + 0.3)
    fig, axes = figure(len(places), 2, figsize=size, sharex=True, sharey="row", squeeze=False)
    means = rows.groupby(["split", "method", "epoch", "seed"], observed=True)[
        ["base", "new"]
    ].mean()
    for panels, (split, label) in zip(axes, places.items(), strict=True):
        for ax, half in zip(panels, ("base", "new"), strict=True):
            clip = means[half][split, "CLIP", 0]
            ax.axhline(0, color=colour("CLIP"), linestyle="--", label="CLIP")
            for method in methods:
                lines = means[half][split, method].unstack("epoch").sub(clip, axis=0)  # [seeds, T]
                done = 100 * lines.columns / lines.columns.max()
                ax.plot(done, lines.mean(), color=colour(method), label=method)
                ax.fill_between(
                    done, lines.min(), lines.max(), color=colour(method), alpha=0.2, lw=0
                )
            ax.set_title(f"{half} classes: {label}", fontsize=9)
        panels[0].set_ylabel("points above CLIP")
    for ax in axes[-1]:
        ax.set_xlabel("training done (%)")
    axes[0, 0].legend(fontsize=8)
    return fig
