"""The figures of chapters 7 and 8 show the numbers that they are given."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cocoop_tutorial.book import transfer_figures
from cocoop_tutorial.datasets.splits import Dataset, Split
from cocoop_tutorial.evaluation.accuracy import Evaluation
from cocoop_tutorial.experiments.summary import class_gains, gains


def rows_of(accuracy: dict[tuple[str, str, int], float]) -> pd.DataFrame:
    rows = [
        {"dataset": "s", "target": t, "method": m, "seed": s, "accuracy": a}
        for (t, m, s), a in accuracy.items()
    ]
    return pd.DataFrame(rows).assign(split="all", pi="own", epoch=np.nan)


def test_gains_are_taken_from_the_mean_of_the_same_test_set() -> None:
    rows = rows_of(
        {
            ("a", "clip", 1): 50.0, ("a", "clip", 2): 52.0, ("b", "clip", 1): 80.0,
            ("a", "coop", 1): 54.0, ("a", "coop", 2): 50.0, ("b", "coop", 1): 70.0,
        }
    )  # fmt: skip
    other = rows.tail(1).assign(pi="mean", accuracy=0.0)  # of a control: not the method itself
    found = gains(pd.concat([rows, other]), ["coop", "cocoop"])
    assert found[["target", "seed", "points"]].to_numpy().tolist() == [
        ["a", 1, 3.0],
        ["a", 2, -1.0],
        ["b", 1, -10.0],
    ]


def test_gain_figure_has_a_mark_per_run_and_one_per_mean() -> None:
    points = {"CoOp": (3.0, -1.0), "CoCoOp": (2.0, 4.0)}
    data = [
        {"target": "a", "method": m, "seed": s, "points": p}
        for m, both in points.items()
        for s, p in enumerate(both)
    ]
    (ax,) = transfer_figures.gain_figure(pd.DataFrame(data)).axes
    runs = sorted(x for dots in ax.collections for x, _ in dots.get_offsets())
    assert runs == [-1, 2, 3, 4]
    means = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
    assert sorted(set(means)) == [1, 3]
    assert {t.get_text() for t in ax.get_legend().get_texts()} == {"CoOp", "CoCoOp"}


def test_shifts_figure_writes_the_accuracies_under_their_row() -> None:
    rows = {name: [Image.new("RGB", (8, 8), "red")] * 3 for name in ("source", "R")}
    accuracy = pd.DataFrame({"CLIP": [81.24, 51.7], "CoOp": [83.0, 52.0]}, index=list(rows))
    (ax,) = transfer_figures.shifts_figure(rows, accuracy).axes
    words = {t.get_text(): t.get_position()[1] for t in ax.texts}
    assert list(words) == ["CLIP 81.2%", "CoOp 83.0%", "CLIP 51.7%", "CoOp 52.0%"]
    low, high = (tick.get_position()[1] for tick in ax.get_yticklabels())
    assert low < words["CLIP 81.2%"] < high < words["CLIP 51.7%"]


def test_path_and_matrix() -> None:
    path = pd.DataFrame({"source": [80.0, 82.0], "R": [50.0, 49.0]})
    (ax,) = transfer_figures.path_figure(path, "source").axes
    assert [[0, 0], [2, -1]] in [line.get_xydata().tolist() for line in ax.lines]
    table = pd.DataFrame({"a": [3.4, -1.0], "b": [0.0, 2.0]}, index=["a", "b"])
    (ax,) = transfer_figures.matrix_figure(table).axes
    assert [t.get_text() for t in ax.texts] == ["+3", "+0", "-1", "+2"]


def test_class_gains_add_up_the_images_of_all_seeds() -> None:
    rows = rows_of({("a", m, s): 0.0 for m in ("clip", "coop") for s in (1, 2)})
    rows["images"], rows["right"] = "4 10", ["1 5", "1 5", "4 5", "1 0"]
    found = class_gains(rows, "coop")
    assert found["a"].tolist() == [100 * (5 - 2) / 8, 100 * (5 - 10) / 20]


def test_groups_figure_shows_means() -> None:
    rows = [("far", "CoOp", 1), ("far", "CoOp", 3), ("near", "CoOp", -4), ("near", "CoOp", -6)]
    (ax,) = transfer_figures.groups_figure(
        pd.DataFrame(rows, columns=["group", "method", "points"]), "nearness"
    ).axes
    assert [2, -5] in [list(line.get_ydata()) for line in ax.lines]
    assert ax.get_xlabel() == "nearness"


def test_a_class_page_frames_the_wrong_answers(tmp_path: Path) -> None:
    Image.new("RGB", (80, 80), "white").save(tmp_path / "a.png")
    samples = [(tmp_path / "a.png", y) for y in (0, 1, 1)]
    none = Split()
    here = Dataset("here", ["cat", "dog"], none, none, Split(samples))
    far = Dataset("far", ["dog"], none, none, Split([(tmp_path / "a.png", 0)]))
    said = Evaluation(torch.tensor([[1.0, 0], [1, 0], [0, 1]]), torch.tensor([0, 1, 1]), [])
    sure = Evaluation(torch.tensor([[1.0]]), torch.tensor([0]), [])
    right, pictures = transfer_figures._framed(here, said, "dog", 6)
    assert right == 1
    assert [p.getpixel((0, 0)) == (255, 255, 255) for p in pictures] == [False, True]
    book = transfer_figures.class_pages(
        {"here": here, "far": far}, {"CLIP": {"here": said, "far": sure}}, ["cat", "dog"]
    )
    pages = [page.value for page in book.children[2].children[0].children]
    assert "Pictures of cat. here: 1 of 1 right, far: 0 of 0 right." in pages[0]
    assert "Pictures of dog. here: 1 of 2 right, far: 1 of 1 right." in pages[1]
