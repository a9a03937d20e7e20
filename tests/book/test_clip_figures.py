"""The figures of chapter 1 and of the appendix on pretraining show what they are given."""

import pandas as pd
import pytest
import torch

from cocoop_tutorial.book import clip_figures, pretraining_figures
from cocoop_tutorial.datasets.icons import names
from cocoop_tutorial.evaluation.accuracy import Evaluation


def evaluation(guesses: list[int], labels: list[int], classes: int) -> Evaluation:
    logits = torch.nn.functional.one_hot(torch.tensor(guesses), classes).float()
    return Evaluation(logits, torch.tensor(labels), [f"class {k}" for k in range(classes)])


def test_examples_are_right_and_differ_in_class_and_medium() -> None:
    labels = [0, 0, 1, 1, 2, 2, 3, 3]
    media = ["line", "solid", "line", "solid", "line", "emoji", "solid", "line"]
    result = evaluation([1, 0, 1, 1, 2, 2, 3, 3], labels, 4)  # the first is wrong
    assert clip_figures.right_examples(result, media, count=4) == [1, 2, 5, 6]
    # One medium: the first right one of each part, and none where all are wrong.
    result = evaluation([0, 0, 0, 0, 2, 2, 2, 3], labels, 4)
    assert clip_figures.right_examples(result, ["line"] * 8, count=4) == [0, 4, 7]
    assert clip_figures.right_examples(result, ["line"] * 8, count=2) == [0, 4]


def test_template_figure_has_a_dot_per_template_from_best_to_worst() -> None:
    fig = clip_figures.template_figure({"{}": 60.0, "a {}.": 62.5}, {"both averaged": 63.0})
    (ax,) = fig.axes
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["a {}.", "{}", "both averaged"]
    dots = [xy for dots in ax.collections for xy in dots.get_offsets().tolist()]
    assert sorted(dots, key=lambda xy: xy[1]) == [[62.5, 0], [60, 1], [63, 2]]
    assert ax.get_xlim()[0] > 50  # single points can be seen


def test_template_table_frames_the_best_of_each_dataset() -> None:
    table = pd.DataFrame({"icons_a": [50.0, 54.0], "icons_b": [40.0, 30.0]}, index=["{}", "a {}."])
    (ax,) = clip_figures.template_table_figure(table).axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b"]
    assert [text.get_text() for text in ax.texts] == ["-2", "5", "2", "-5"]
    assert [frame.get_xy() for frame in ax.patches] == [(0, 1), (1, 0)]


def test_pretraining_figure_draws_the_history() -> None:
    history = [{"step": s, "loss": 5 - s, "emoji": 9 * s, "icon": 8 * s} for s in range(1, 5)]
    left, right = pretraining_figures.pretraining_figure({"history": history}).axes
    assert left.lines[0].get_xydata().tolist() == [[row["step"], row["loss"]] for row in history]
    drawn = [line.get_xydata().tolist() for line in right.lines if len(line.get_xydata())]
    assert drawn == [[[r["step"], r[kind]] for r in history] for kind in ("emoji", "icon")]


def test_captions_of_one_name_are_true_by_their_subject() -> None:
    def mouse(package: str) -> names.Drawing:
        return next(d for d in names.read(package) if d.concept == "mouse")

    table = pretraining_figures.caption_table([mouse("icon-park"), mouse("twemoji")], each=8)
    for caption, verdicts in table.iterrows():
        device, animal = verdicts
        if caption.endswith("animal"):
            assert device == "false" != animal
        if caption.endswith("device"):
            assert device != "false" == animal
    assert table.index.str.endswith("animal").any() and table.index.str.endswith("device").any()


@pytest.mark.slow
def test_house_figure_divides_the_roles() -> None:
    fig = pretraining_figures.house_figure(["key", "umbrella"], others=2)
    (ax,) = fig.axes
    colours = [label.get_color() for label in ax.get_yticklabels()]
    assert list(dict.fromkeys(colours)) == list(pretraining_figures.ROLES.values())
    assert colours.count(pretraining_figures.ROLES["source"]) == 2
    assert len(ax.lines) == 2  # one under each role but the last
