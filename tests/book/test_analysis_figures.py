"""The figures of chapter 9 show what they are given."""

import pandas as pd

from cocoop_tutorial.book import analysis_figures as figures
from cocoop_tutorial.experiments.summary import Difference


def marks(ax) -> list[tuple[str, float, float]]:
    return [
        (line.get_label(), float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in ax.lines
        if line.get_label() in figures.VERDICTS
    ]


def test_effects_are_turned_to_the_side_of_the_claim() -> None:
    found = {
        "a is above b": (Difference(2.0, 1.0, 3.0, 9, 11), 1),
        "a is below b": (Difference(2.0, 1.0, 3.0, 9, 11), -1),
        "c is below d": (Difference(-0.5, -2.0, 1.0, 4, 11), -1),
    }
    (ax,) = figures.effects_figure(found).axes
    assert marks(ax) == [
        ("holds here", 2.0, 0),
        ("does not hold here", -2.0, 1),
        ("cannot tell", 0.5, 2),
    ]
    ends = [[point[0] for point in line.vertices] for c in ax.collections for line in c.get_paths()]
    assert ends == [[1, 3], [-3, -1], [-1, 2]]
    assert [text.get_text() for text in ax.texts] == list(found)
    assert len(ax.get_legend().get_texts()) == 3


def test_datasets_behind_clip_are_counted() -> None:
    fig = figures.behind_figure(
        {"the paper": pd.Series({"a": 1.0, "b": -2.0}), "here": pd.Series({"c": -1.0, "d": -3.0})}
    )
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles == ["the paper: behind CLIP on 1 of 2", "here: behind CLIP on 2 of 2"]
    assert [round(bar.get_width(), 1) for bar in fig.axes[1].patches] == [-1.0, -3.0]


def test_methods_stand_from_the_lowest_to_the_highest_h() -> None:
    table = pd.DataFrame(
        {"base": [84.0, 69.0], "new": [76.0, 74.0], "H": [79.8, 71.4]}, index=["Later", "CLIP"]
    )
    (ax,) = figures.halves_figure(table, level="CLIP").axes
    dots = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert dots["base"] == [69.0, 84.0] and dots["new"] == [74.0, 76.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["CLIP", "Later"]
