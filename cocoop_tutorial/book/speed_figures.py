"""The figures of chapter 5: tokens as squares, costs as bars, machines as rooflines."""

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cocoop_tutorial.book.plots import colour, figure, legend_above, log_scales

# Kind of square -> face colour. Skipped work is pale and crossed out.
SQUARES = {
    "start": "#595959",
    "context": "#D55E00",
    "name": "#0072B2",
    "end": "#009E73",
    "padding": "#dddddd",
    "constant": "#CC79A7",
    "skipped": "#ffffff",
}
SquareRow = Sequence[str]  # kinds of squares
PUBLISHED, TRUNCATED, PACKED = "#595959", "#E69F00", "#0072B2"
HUES = {"published": PUBLISHED, "truncated": TRUNCATED, "packed": PACKED, "replayed": "#CC79A7"}


def prompt_row(n_ctx: int, own: int, length: int, skipped: Sequence[str] = ()) -> list[str]:
    """One prompt as squares.

    Args:
        n_ctx: M.
        own: Tokens after the context, including the end token.
        length: Squares in all; the rest is padding.
        skipped: Kinds that are drawn as not computed.
    """
    kinds = ["start", *["context"] * n_ctx, *["name"] * (own - 1), "end"]
    kinds += ["padding"] * (length - len(kinds))
    return ["skipped" if kind in skipped else kind for kind in kinds]


def squares(panels: dict[str, Sequence[SquareRow]], names: Sequence[str] = ()) -> Figure:
    """Prompts as rows of squares, one panel above the other.

    Args:
        panels: Title to rows; a row is a list of kinds from `SQUARES`.
        names: Labels to the left of the rows of every panel that has as many rows.

    Returns:
        The figure.
    """
    heights = [len(rows) + 1 for rows in panels.values()]
    widest = max(len(row) for rows in panels.values() for row in rows)
    size = min(0.26, 7.0 / widest)
    height = max(1.4, sum(heights) * max(size, 0.2) + 0.6)
    options = {"figsize": (7.4, height), "height_ratios": heights, "squeeze": False}
    fig, axes = figure(len(panels), 1, **options)
    for ax, (title, rows) in zip(axes[:, 0], panels.items(), strict=True):
        _draw_rows(ax, rows, widest)
        ax.set_title(title, loc="left", fontsize=9)
        if len(names) == len(rows):
            ax.set_yticks([i + 0.5 for i in range(len(rows))], names, fontsize=8)
    used = {kind for rows in panels.values() for row in rows for kind in row}
    handles = [_square(0, 0, kind) for kind in SQUARES if kind in used]
    labels = [{"skipped": "not computed"}.get(k, k) for k in SQUARES if k in used]
    fig.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8)
    return fig


def _square(x: float, y: float, kind: str) -> Rectangle:
    skipped = kind == "skipped"
    hatch, edge = ("////", "#bbbbbb") if skipped else ("", "white")
    face = SQUARES[kind]
    return Rectangle((x, y), 0.92, 0.86, facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0.5)


def _draw_rows(ax: Axes, rows: Sequence[SquareRow], widest: int) -> None:
    for y, row in enumerate(rows):
        for x, kind in enumerate(row):
            if kind:
                ax.add_patch(_square(x, y, kind))
    ax.set(xlim=(0, widest), ylim=(len(rows), 0), xticks=[], yticks=[])
    ax.set_aspect("equal", anchor="W")
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.tick_params(length=0)


def gradient_figure() -> Figure:
    """What a linear layer computes in the forward pass, and the two products of backward."""
    fig, ax = figure(figsize=(7.2, 2.2))
    ax.set(xlim=(0, 100), ylim=(0, 30))
    ax.axis("off")
    boxes = [
        (2, "forward\n$x W^T$", PACKED, "white"),
        (36, "gradient of the input\n$g\\,W$", PACKED, "white"),
        (70, "gradient of the weights\n$g^T x$", "white", "#333333"),
    ]
    for x, text, face, ink in boxes:
        frozen = face == "white"
        hatch = "////" if frozen else ""
        ax.add_patch(Rectangle((x, 8), 28, 16, facecolor=face, edgecolor="#bbbbbb", hatch=hatch))
        label = {"facecolor": face, "edgecolor": "none", "pad": 2}
        words = {"ha": "center", "parse_math": True}
        ax.text(x + 14, 16, text, va="center", color=ink, fontsize=10, bbox=label, **words)
        note = "not needed: $W$ is frozen" if frozen else "needed"
        ax.text(x + 14, 3, note, fontsize=9, color="#333333", **words)
    return fig


def trie_figure(words: Sequence[Sequence[str]]) -> Figure:
    """Names as paths of tokens, with equal beginnings drawn once.

    Args:
        words: For each name its tokens as text.
    """
    fig, ax = figure(figsize=(7.2, 0.6 * len(words) + 0.4))
    ax.set(xlim=(-0.6, max(map(len, words)) - 0.4), ylim=(len(words) - 0.4, -0.6))
    ax.axis("off")
    places: dict[tuple[str, ...], tuple[int, int]] = {}
    for y, path in enumerate(words):
        for x in range(len(path)):
            here = tuple(path[: x + 1])
            if here in places:
                continue
            places[here] = (x, y)
            if x:
                a, b = places[here[:-1]]
                ax.plot([a, a + 0.4, x - 0.4, x], [b, b, y, y], color="#8a8a8a", lw=1, zorder=1)
            box = {"facecolor": SQUARES["end" if path[x] == "end" else "name"], "edgecolor": "none"}
            box |= {"boxstyle": "round,pad=0.35"}
            ax.text(x, y, path[x], ha="center", va="center", color="white", fontsize=9, bbox=box)
    return fig


def ladder_figure(frame: pd.DataFrame) -> Figure:
    """The operations that remain after each saving, as bars.

    Args:
        frame: From `ladder`.
    """
    fig, ax = figure(figsize=(6.6, 3.6))
    sns.barplot(x=frame.operations / 1e9, y=frame.index, color=PACKED, saturation=1, ax=ax)
    ax.patches[0].set_facecolor(PUBLISHED)
    labels = [f"{total:.1f}x fewer" if i else "" for i, total in enumerate(frame.total)]
    ax.bar_label(ax.containers[0], labels, padding=3, fontsize=8)
    ax.set(xlabel="operations of a training step (billions)", ylabel="")
    return fig


def memory_figure(measured: pd.DataFrame, bench: pd.DataFrame, ceiling: float) -> Figure:
    """Bytes saved for backward against classes, for one image.

    Args:
        measured: Live counts: `classes`, `method`, `saved_bytes`.
        bench: From `load_bench`, or empty.
        ceiling: Bytes that are free, drawn as a dotted line.
    """
    fig, ax = figure(figsize=(6.6, 4.2))
    largest = measured.sort_values("classes").groupby("method").last()
    line = pd.concat([largest.div(largest.classes, axis=0) * K for K in (1, 1000)])
    look = {"x": "classes", "hue": "method", "palette": HUES, "ax": ax}
    sns.lineplot(line, y=line.saved_bytes / 2**30, ls="--", lw=1, **look)
    found = {"o": measured}
    if "saved_bytes" in bench:
        found["s"] = bench[(bench.images == 1) & bench.method.isin(line.index)]
    for marker, dots in found.items():
        sns.scatterplot(dots, y=dots.saved_bytes / 2**30, marker=marker, legend=False, **look)
    ax.axhline(ceiling / 2**30, color="#000000", ls=":", lw=1.2, label="a GPU of 15 GiB")
    log_scales(ax)
    ax.set(xlabel="classes K", ylabel="saved for backward (GiB)")
    legend_above(ax, 3)
    return fig


def roofline_figure(points: pd.DataFrame, peak: float, bandwidth: float) -> Figure:
    """Measured products under the two limits of a machine: memory and arithmetic.

    Args:
        points: From `product_points`.
        peak: Operations per second in large products.
        bandwidth: Bytes per second in a large copy.
    """
    fig, ax = figure(figsize=(6.4, 3.6))
    low, high = points.intensity.min() / 2, points.intensity.max() * 2
    ridge = peak / bandwidth
    roof = [min(peak, i * bandwidth) / 1e9 for i in (low, ridge, high)]
    ax.plot([low, ridge, high], roof, color="#000000", label="this machine's limits")
    look = {"color": colour("CoCoOp"), "label": "measured products", "zorder": 3}
    sns.scatterplot(x=points.intensity, y=points.rate / 1e9, ax=ax, **look)
    for point in points.itertuples():
        where = {"xytext": (7, -4), "textcoords": "offset points", "fontsize": 8}
        ax.annotate(f"n = {point.rows}", (point.intensity, point.rate / 1e9), **where)
    log_scales(ax)
    ax.set(xlabel="operations per byte moved", ylabel="billion operations per second")
    legend_above(ax, fontsize=8)
    return fig


def gain_figure(counted: pd.Series, timed: dict[str, pd.Series]) -> Figure:
    """How many times less the packed encoder needs: counted, and measured where a time exists.

    Args:
        counted: Factors by (classes, images).
        timed: Label of what was measured to its factors, with the same index; may be empty.
    """
    fig, ax = figure(figsize=(6.6, 3.4))
    name = "operations, counted"
    table = pd.concat({name: counted, **timed}, names=["what", "K", "B"]).rename("factor")
    table = table.reset_index()
    table["case"] = [f"K {k}\nB {b}" for k, b in zip(table.K, table.B, strict=True)]
    look = {"x": "case", "y": "factor", "order": table.case[: len(counted)], "ax": ax}
    look |= {"linestyle": "none", "hue": "what"}
    dash = {"marker": "_", "markersize": 24, "markeredgewidth": 4, "palette": ["#56B4E9"]}
    sns.pointplot(table[table.what == name], **dash, **look)
    marks = {"markers": ["o", "^", "s"][: len(timed)], "markersize": 5, "markeredgewidth": 0}
    marks["palette"] = [PACKED, "#D55E00", "#009E73"][: len(timed)]
    marks["dodge"] = 0.5 if len(timed) > 1 else False
    sns.pointplot(table[table.what != name], **marks, **look)
    ax.tick_params(axis="x", labelsize=8)
    log_scales(ax, "y")
    ax.set(xlabel="", ylim=(table.factor.min() / 1.5, None), ylabel="published over packed")
    ax.set_yticks([10, 20, 50, 100, 200])
    legend_above(ax, handlelength=3, fontsize=8)
    return fig
