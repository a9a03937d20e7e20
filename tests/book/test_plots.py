"""Figures: legible on any background, one colour per method, no value missing."""

import io
from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from cocoop_tutorial import Evaluation
from cocoop_tutorial.book import (
    analysis_figures,
    experiment_figures,
    plots,
    sheets,
    transfer_figures,
)
from cocoop_tutorial.book.clip_figures import cosine_figure, template_figure, template_table_figure
from cocoop_tutorial.book.coop_figures import class_page, over_epochs
from cocoop_tutorial.experiments.summary import Difference

mpl.use("Agg")


def pixels(figure: Figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file))


def evaluation(seed: int = 0) -> Evaluation:
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(100, 4, generator=g)
    return Evaluation(logits, torch.randint(0, 4, (100,), generator=g), list("abcd"))


def over_two_epochs() -> Figure:
    places = [(m, e, h) for m in ("CoOp", "rate 1") for e in (1, 200) for h in ("base", "new")]
    rows = pd.DataFrame(places, columns=["method", "epoch", "split"])
    return over_epochs(rows.assign(accuracy=range(60, 68)), {"base": 62.0, "new": 70.0})


FIGURES = {
    "bars": lambda: plots.bars({"CLIP": 70.0, "CoOp": 80.0}),
    "curves": lambda: plots.curves({"CoOp": np.random.default_rng(0).random((3, 5))}),
    "over epochs": over_two_epochs,
    "reliability": lambda: plots.reliability_diagram({"CLIP": evaluation()}),
    "grid": lambda: plots.image_grid([Image.new("RGB", (8, 8), "red")] * 3, ["a", "b", "c"]),
}


@pytest.mark.parametrize("kind", FIGURES)
def test_background_is_opaque_white_and_the_figure_is_not_empty(kind: str) -> None:
    image = pixels(FIGURES[kind]())
    assert image.shape[2] == 3 or (image[..., 3] == 255).all()
    corners = image[[0, 0, -1, -1], [0, -1, 0, -1], :3]
    assert (corners == 255).all()
    assert (image[..., :3].min(axis=2) < 128).mean() > 0.002


@pytest.mark.parametrize("kind", FIGURES)
def test_figures_are_closed_and_change_no_setting(kind: str) -> None:
    before = dict(mpl.rcParams)
    plt.close("all")
    FIGURES[kind]()
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def test_a_method_has_one_colour_under_all_its_names() -> None:
    same = {plots.colour(n) for n in ("CLIP", "ZeroShotCLIP", "zero-shot", "Zero-shot CLIP")}
    assert len(same) == 1
    assert plots.colour("cocoop") == plots.colour("CoCoOp") != plots.colour("CoOp")
    assert plots.colour("my own method") == plots.colour("my own method")


# Machado, Oliveira and Fernandes (2009): what people without one kind of cone see.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def linear(colour: str) -> np.ndarray:
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_three_main_methods_differ_for_everyone(kind: str) -> None:
    seen = [
        np.clip(np.array(BLINDNESS[kind]) @ linear(plots.colour(m)), 0, 1) ** (1 / 2.2)
        for m in ("CLIP", "CoOp", "CoCoOp")
    ]
    assert all(np.abs(a - b).max() > 0.2 for a, b in combinations(seen, 2))
    markers = {plots.style_of(m)[1] for m in plots.METHOD_STYLES}
    assert len(markers) == len(plots.METHOD_STYLES)


@pytest.mark.parametrize("method", plots.METHOD_STYLES)
def test_colours_stand_out_from_white(method: str) -> None:
    luminance = linear(plots.colour(method)) @ [0.2126, 0.7152, 0.0722]
    assert 1.05 / (luminance + 0.05) > 2  # the contrast ratio of WCAG


def test_bars_show_the_mean_of_the_seeds_and_their_deviation() -> None:
    groups = ["base", "new"] * 2  # two seeds
    frame = pd.DataFrame({"CoOp": [78.0, 60, 82, 64], "CoCoOp": [79.0, 71, 79, 73]}, index=groups)
    (ax,) = plots.bars(frame).axes
    assert [bar.get_height() for bar in ax.patches] == [80, 62, 79, 72]
    assert [text.get_text() for text in ax.texts] == ["80.0", "62.0", "79.0", "72.0"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["base", "new"]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["CoOp", "CoCoOp"]
    assert [{bar.get_hatch() for bar in bars} for bars in ax.containers] == [{"//"}, {"\\\\"}]
    ends = sorted(y for line in ax.lines for y in (min(line.get_ydata()), max(line.get_ydata())))
    spread = np.sqrt([8, 8, 0, 2])
    middle = np.array([80, 62, 79, 72])
    np.testing.assert_allclose(ends, sorted([*(middle - spread), *(middle + spread)]))


def test_curves_show_the_mean_and_the_whole_range() -> None:
    runs = np.array([[1.0, 2.0], [3.0, 6.0]])
    (ax,) = plots.curves({"CoOp": runs}, x=[10, 20], xlabel="step").axes
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[10, 2], [20, 4]])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == 1 and band.max() == 6


def test_reliability_shows_each_model_beside_the_diagonal() -> None:
    (ax,) = plots.reliability_diagram({"CoOp": evaluation(), "CLIP": evaluation(1)}).axes
    assert len(ax.lines) == 3
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [f"CoOp (ECE {evaluation().ece:.1f}%)", f"CLIP (ECE {evaluation(1).ece:.1f}%)"]


def test_logarithmic_axes_have_plain_numbers() -> None:
    figure, ax = plots.figure()
    ax.plot([1, 1000], [0.01, 10])
    plots.log_scales(ax)
    figure.canvas.draw()
    for axis in (ax.xaxis, ax.yaxis):
        assert {"1", "10"} <= {label.get_text() for label in axis.get_ticklabels()}
        assert not any("$" in label.get_text() for label in axis.get_ticklabels(which="both"))


def test_grid_shows_each_image_with_its_caption() -> None:
    images = [Image.new("RGB", (4, 4), (i, 0, 0)) for i in range(5)]
    figure = plots.image_grid(images, [f"c{i}" for i in range(5)], columns=3)
    assert len(figure.axes) == 6
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in shown] == ["c0", "c1", "c2", "c3", "c4"]
    assert [int(ax.images[0].get_array()[0, 0, 0]) for ax in shown] == list(range(5))
    tensor = plots.image_grid([torch.zeros(3, 4, 4)]).axes[0].images[0].get_array()
    assert tensor.shape == (4, 4, 3)


def test_class_names_are_drawn_as_they_are() -> None:
    """Names with dollar signs are neither formulas nor errors of a formula."""
    names = ["a$b", "$x^", r"$\frac$", "{{ 7 * 7 }}"]
    grid = plots.image_grid([Image.new("RGB", (8, 8), "red")] * 4, names)
    bars = plots.bars(pd.DataFrame({"CLIP": [1.0, 2, 3, 4]}, index=names))
    templates = template_figure(dict.fromkeys(names, 1.0), {"$": 2.0})
    for figure in (grid, bars, templates):
        pixels(figure)  # formulas are read when the figure is drawn
    values = pd.Series([1.0, 2, 3, 4], index=names)
    assert class_page(values, values[::-1], "base", 1).startswith("<img")
    assert [ax.get_title() for ax in grid.axes] == names
    assert [label.get_text() for label in bars.axes[0].get_xticklabels()] == names


ODD = ["a$b", "$x^", r"$\frac$", "<script>{{ 7 * 7 }}</script>", "100%s {}", "two\nlines"]
SIX = pd.Series(range(1, 7), index=ODD, dtype=float)
THREE = pd.DataFrame({"base": SIX, "new": SIX[::-1].to_numpy(), "H": SIX})
RUN = ["target", "method", "seed"]
EFFECT = Difference(1.0, 0.5, 1.5, 1, 1)
RUNS = pd.DataFrame({"method": ODD, "seed": 1, "accuracy": 1.0, "epoch": 1})
NAMED = {
    "sheet": lambda: sheets.labelled_rows({n: [Image.new("RGB", (9, 9))] for n in ODD}, ["$a^"]),
    "halves_and_h": lambda: experiment_figures.halves_and_h({"$x^": THREE}),
    "gain_bars": lambda: experiment_figures.gain_bars({"$x^": SIX}),
    "forest": lambda: experiment_figures.forest({"$x^": dict.fromkeys(ODD, EFFECT)}),
    "every_seed": lambda: experiment_figures.every_seed(
        THREE.set_index(pd.MultiIndex.from_product([ODD, ["$m^"], [1]], names=RUN)), ["$m^"]
    ),
    "along": lambda: experiment_figures.along(
        pd.concat([RUNS.assign(split=s) for s in ("base", "new")]), "epoch", [1]
    ),
    "effects": lambda: analysis_figures.effects_figure(dict.fromkeys(ODD, (EFFECT, 1))),
    "behind": lambda: analysis_figures.behind_figure({"$x^": -SIX}),
    "halves": lambda: analysis_figures.halves_figure(THREE, ODD[0]),
    "templates": lambda: template_table_figure(pd.DataFrame(dict.fromkeys(ODD, SIX))),
    "cosines": lambda: cosine_figure([Image.new("RGB", (9, 9))] * 6, ODD, torch.ones(6, 6)),
    "transfer": lambda: transfer_figures.gain_figure(
        RUNS.rename(columns={"accuracy": "points"}).assign(target=ODD)
    ),
    "matrix": lambda: transfer_figures.matrix_figure(pd.DataFrame(dict.fromkeys(ODD, SIX))),
    "shifts": lambda: transfer_figures.shifts_figure(
        {n: [Image.new("RGB", (9, 9))] for n in ODD}, pd.DataFrame({"$m^": SIX})
    ),
    "path": lambda: transfer_figures.path_figure(pd.DataFrame({n: [1.0, 2.0] for n in ODD}), "a$b"),
    "curves": lambda: plots.curves({n: [1.0, 2.0] for n in ODD}),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_odd_names_are_drawn_as_they_are(name: str) -> None:
    """A figure is drawn after its style is gone, as a page does it, and no name is a formula."""
    figure = NAMED[name]()
    with plt.rc_context({"text.parse_math": True}):
        pixels(figure)
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert not any(text.get_parse_math() for text in texts if "$" in text.get_text())
    assert any("$" in text.get_text() for text in texts)


def test_odd_names_on_pages_that_are_leafed_through() -> None:
    table = pd.DataFrame([SIX, SIX], index=["icons_<script>", "$x^"])
    _, _, shelf = experiment_figures.dataset_pages({"<b>": table, "$y^": table}).children
    for page in (page.value for stack in shelf.children for page in stack.children):
        assert page.count("<") == 1 and page.startswith("<img alt="), "one tag, with its name told"


def test_over_epochs_shows_each_method_on_each_half_beside_the_hand_written_prompt() -> None:
    base, new = over_two_epochs().axes
    for ax, values, flat in ((base, [[60, 62], [64, 66]], 62), (new, [[61, 63], [65, 67]], 70)):
        drawn = [list(line.get_ydata()) for line in ax.lines if len(line.get_ydata()) == 2]
        assert drawn[0] == [flat, flat] and drawn[1:] == values
    shown = [text.get_text() for text in base.get_legend().get_texts()]
    assert shown == ["hand-written", "CoOp", "rate 1"]
