"""The figures of chapter 3: where gradients flow, and how single classes fare."""

import io
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from .plots import BASE, NEW, figure
from .widgets import picture

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
    ax.text(x + width / 2, y + 7, text, ha="center", va="center", fontsize=9)


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
    colour = {"base": BASE, "new": NEW}[half]
    order = before.sort_values(kind="stable").index
    rows = range(len(order))
    fig, ax = figure(figsize=(5.2, 0.19 * len(order) + 1.1))
    ax.hlines(rows, before[order], now[order], color=colour, linewidth=3, alpha=0.6)
    ax.scatter(before[order], rows, s=22, facecolor="white", edgecolor="#595959", label="zero-shot")
    ax.scatter(now[order], rows, s=22, color=colour, label="CoOp", zorder=3)
    ax.set_yticks(rows, order, fontsize=8)
    ax.set(xlim=(-4, 104), xlabel="test accuracy of the class (%)")
    ax.set_title(f"{half} classes, epoch {epoch}: mean {before.mean():.1f} → {now.mean():.1f}")
    ax.legend(loc="lower right", fontsize=8, frameon=True)
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
