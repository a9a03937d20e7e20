"""The figures of chapter 5: tokens as squares, operations as bars, memory against classes."""

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cocoop_tutorial.book.plots import figure, legend_above, log_scales

# Kind of square -> face colour. What is not computed is pale and crossed out.
SQUARES = {
    "start": "#595959",
    "context": "#D55E00",
    "name": "#0072B2",
    "end": "#009E73",
    "padding": "#dddddd",
    "not computed": "#ffffff",
}
SquareRow = Sequence[str]  # kinds of squares
PUBLISHED, TRUNCATED, PACKED = "#595959", "#E69F00", "#0072B2"
HUES = {"published": PUBLISHED, "truncated": TRUNCATED, "packed": PACKED, "replayed": "#CC79A7"}


def prompt_row(n_ctx: int, own: int, length: int) -> list[str]:
    """One prompt as squares.

    Args:
        n_ctx: M.
        own: Tokens after the context, including the end token.
        length: Squares in all; the rest is padding.
    """
    kinds = ["start", *["context"] * n_ctx, *["name"] * (own - 1), "end"]
    return kinds + ["padding"] * (length - len(kinds))


def squares(rows: Sequence[SquareRow], names: Sequence[str] = ()) -> Figure:
    """Prompts as rows of squares.

    Args:
        rows: Each row is a list of kinds from `SQUARES`.
        names: Labels to the left of the rows.

    Returns:
        The figure.
    """
    widest = max(map(len, rows))
    fig, ax = figure(figsize=(4.8, 0.16 * len(rows) + 0.7))
    for y, row in enumerate(rows):
        for x, kind in enumerate(row):
            ax.add_patch(_square(x, y, kind))
    ax.set(xlim=(0, widest), ylim=(len(rows), 0), xticks=[], yticks=[])
    if names:
        ax.set_yticks([i + 0.5 for i in range(len(rows))], names)
    ax.set_aspect("equal", anchor="W")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    used = [kind for kind in SQUARES if any(kind in row for row in rows)]
    handles = [_square(0, 0, kind) for kind in used]
    fig.legend(
        handles, used, loc="outside lower center", ncols=3 if len(used) > 4 else 4, handlelength=1
    )
    return fig


def _square(x: float, y: float, kind: str) -> Rectangle:
    hatch, edge = ("////", "#bbbbbb") if kind == "not computed" else ("", "white")
    face = SQUARES[kind]
    return Rectangle((x, y), 0.92, 0.86, facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0.5)


def ladder_figure(frame: pd.DataFrame) -> Figure:
    """The operations that remain after each saving, as bars.

    Args:
        frame: From `ladder`; the first row is the published algorithm.
    """
    fig, ax = figure(figsize=(4.8, 0.36 * len(frame) + 0.8))
    sns.barplot(x=frame.operations / 1e9, y=frame.index, color=PACKED, saturation=1, ax=ax)
    ax.patches[0].set_facecolor(PUBLISHED)
    labels = [f"{total:.1f}x fewer" if i else "" for i, total in enumerate(frame.total)]
    ax.bar_label(ax.containers[0], labels, padding=3)
    ax.set(xlabel="operations of a training step (billions)", ylabel="")
    return fig


def memory_figure(counted: pd.DataFrame, bench: pd.DataFrame, ceiling: float) -> Figure:
    """Bytes kept for backward against classes, for one image.

    Args:
        counted: Counted live, drawn as dots: `classes`, `method`, `saved_bytes`.
        bench: From `load_bench`, drawn as lines.
        ceiling: Bytes that are free, drawn as a dotted line.
    """
    fig, ax = figure(figsize=(4.8, 3.8))
    lines = bench[(bench.images == 1) & bench.method.isin(counted.method)]
    look = {"x": "classes", "hue": "method", "palette": HUES, "ax": ax}
    sns.lineplot(lines, y=lines.saved_bytes / 2**30, errorbar=None, **look)
    sns.scatterplot(counted, y=counted.saved_bytes / 2**30, legend=False, **look)
    ax.axhline(ceiling / 2**30, color="#000000", ls=":", lw=1.2, label="free on a T4")
    log_scales(ax)
    ax.set(xlabel="classes K", ylabel="kept for backward (GiB)")
    legend_above(ax, 3)
    return fig
