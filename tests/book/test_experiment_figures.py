"""The figures of chapter 6 show what they are given."""

from collections.abc import Iterator

import ipywidgets
import pandas as pd
from matplotlib.colors import to_hex

from cocoop_tutorial.book import experiment_figures as figures
from cocoop_tutorial.book.plots import colour
from cocoop_tutorial.experiments.summary import Difference


def test_an_interval_that_holds_zero_is_grey() -> None:
    found = {"clear": Difference(2.0, 1.0, 3.0, 9, 11), "open": Difference(0.5, -1.0, 2.0, 6, 11)}
    (ax,) = figures.forest({"H": found}).axes
    _, clear, dot, open_, _ = ax.lines
    assert list(clear.get_xdata()) == [1.0, 3.0] and list(dot.get_xdata()) == [2.0]
    assert to_hex(clear.get_color()) == colour("CoCoOp").lower()
    assert to_hex(open_.get_color()) == "#8c8c8c"
    assert [t.get_text() for t in ax.get_yticklabels()] == ["clear", "open"]


def test_gains_are_sorted_and_their_mean_is_told() -> None:
    gains = pd.Series({"files": -3.0, "games": 5.0, "people": 1.0})
    ax = figures.gain_bars({"over CoOp, new": gains}).axes[0]
    assert [bar.get_width() for bar in ax.patches] == [5.0, 1.0, -3.0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["games", "people", "files"]
    assert ax.get_title(loc="left") == "over CoOp, new: +1.0"


def test_every_seed_has_a_mark() -> None:
    index = pd.MultiIndex.from_product(
        [["files", "games"], ["CoOp", "CoCoOp"], [1, 2, 3]], names=["target", "method", "seed"]
    )
    runs = pd.DataFrame({"base": range(12), "new": range(12)}, index=index, dtype=float)
    for ax in figures.every_seed(runs, ["CoOp", "CoCoOp"]).axes:
        seeds, means = ax.collections[0], ax.collections[1]  # of CoOp
        assert sorted(seeds.get_offsets()[:, 0]) == [0, 1, 2, 6, 7, 8]
        assert sorted(means.get_offsets()[:, 0]) == [1, 7]


def test_lines_along_epochs_are_means_over_seeds() -> None:
    rows = pd.DataFrame(
        [("CoOp", s, half, e, 10.0 * e + s) for s in (1, 3) for half in ("base", "new")
         for e in (1, 2)], columns=["method", "seed", "split", "epoch", "accuracy"],
    )  # fmt: skip
    for ax in figures.along(rows, "epoch", [1, 2]).axes:
        assert list(ax.lines[0].get_ydata()) == [12.0, 22.0]


def test_every_dataset_has_its_page() -> None:
    table = pd.DataFrame({"CLIP": [50.0, 60.0], "CoOp": [70.0, 40.0]}, ["icons_a", "icons_b"])
    book = figures.dataset_pages({"base": table, "new": table + 1})
    pages = " ".join(str(child) for child in walk(book))
    for told in ("base, icons_a: CLIP 50.0, CoOp 70.0", "new, icons_b: CLIP 61.0, CoOp 41.0"):
        assert told in pages


def walk(widget: ipywidgets.Widget) -> Iterator[str]:
    """All that a widget and its children hold as text."""
    yield from (str(v) for v in widget.get_state().values())
    for child in getattr(widget, "children", ()):
        yield from walk(child)
