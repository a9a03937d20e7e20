"""What chapter 2 is made with: contact sheets, prototypes, intervals, figures that move."""

import math
import random
import re
from collections.abc import Callable
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cocoop_tutorial import ImageFolder, evaluate, load_clip
from cocoop_tutorial.book.clip_figures import pretraining_figure
from cocoop_tutorial.book.sheets import labelled_rows, protocol_figure, sheet
from cocoop_tutorial.book.widgets import flip_book, harmonic_ladders, picture
from cocoop_tutorial.clip.features import image_features
from cocoop_tutorial.evaluation.accuracy import Evaluation
from cocoop_tutorial.evaluation.intervals import bootstrap_by_class, wilson_interval
from cocoop_tutorial.models.prototypes import Prototypes


def evaluation(right: list[list[bool]]) -> Evaluation:
    """One list a class: which of its images are right."""
    k = len(right)
    labels = [y for y, images in enumerate(right) for _ in images]
    guesses = [y if ok else (y + 1) % k for y, images in enumerate(right) for ok in images]
    logits = torch.nn.functional.one_hot(torch.tensor(guesses), k).float()
    return Evaluation(logits, torch.tensor(labels), [f"class {y}" for y in range(k)])


# --- intervals ---


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_solves_its_equation(case: tuple[int, int]) -> None:
    """Its ends are the shares p from which the observed one lies 1.96 standard errors away."""
    correct, total = case
    low, high = wilson_interval(correct, total)
    observed = correct / total
    assert 0 <= low <= 100 * observed + 1e-9 and 100 * observed - 1e-9 <= high <= 100
    for p in (low / 100, high / 100):
        if 1e-12 < p < 1 - 1e-12:
            error = math.sqrt(p * (1 - p) / total)
            assert abs(observed - p) / error == pytest.approx(1.959964, rel=1e-4)


def test_wilson_interval_refuses_nonsense() -> None:
    for correct, total in ((3, 2), (-1, 5), (0, 0)):
        with pytest.raises(ValueError, match=f"{correct} of {total}"):
            wilson_interval(correct, total)


def test_classes_that_stand_or_fall_together_are_one_sample_each() -> None:
    """Ten equal answers a class: the interval is that of the classes, not of the images."""
    together = evaluation([[y % 2 == 0] * 10 for y in range(60)])
    low, high = bootstrap_by_class(together)
    wide = 2 * 196 * math.sqrt(0.25 / 60)
    assert high - low == pytest.approx(wide, rel=0.1)
    naive = wilson_interval(300, 600)
    assert high - low > 2.5 * (naive[1] - naive[0])


def test_independent_images_give_about_the_usual_interval() -> None:
    rng = random.Random(0)
    apart = evaluation([[rng.random() < 0.5 for _ in range(10)] for _ in range(60)])
    low, high = bootstrap_by_class(apart)
    naive = wilson_interval(int(apart.correct.sum()), 600)
    assert high - low == pytest.approx(naive[1] - naive[0], rel=0.25)
    assert low < apart.accuracy < high
    assert bootstrap_by_class(apart, seed=2) != (low, high) == bootstrap_by_class(apart)


def test_bootstrap_skips_classes_without_images() -> None:
    some = evaluation([[True] * 4, [True] * 4, []])
    assert bootstrap_by_class(some) == (100.0, 100.0)


# --- prototypes ---


def test_prototypes_are_class_means(model_dir: Path, image_folder: Path) -> None:
    clip, data = load_clip(f"local-dir:{model_dir}", device="cpu"), ImageFolder(image_folder)
    features, labels = image_features(clip, data.train)
    model = Prototypes(clip, data.classnames, features, labels)
    for y in range(3):
        mean = features[labels == y].mean(dim=0)
        assert torch.allclose(model.weights[y], mean / mean.norm(), atol=1e-6)
    logits = model.logits_from_features(features)
    assert logits.shape == (len(data.train), 3)
    assert torch.allclose(logits, clip.logit_scale * features @ model.weights.T)
    images = torch.stack([clip.preprocess(image) for image, _ in data.test])
    assert torch.equal(model(images).argmax(1), evaluate(model, data).predictions)


def test_a_class_without_shots_has_no_prototype(model_dir: Path, image_folder: Path) -> None:
    clip, data = load_clip(f"local-dir:{model_dir}", device="cpu"), ImageFolder(image_folder)
    features, labels = image_features(clip, data.train)
    some = labels != 1
    with pytest.raises(ValueError, match="'dog' has no training image"):
        Prototypes(clip, data.classnames, features[some], labels[some])


# --- pictures ---


def test_sheet_puts_pictures_in_their_places() -> None:
    red, blue = (Image.new("RGB", (9, 9), c) for c in ("red", "blue"))
    pixels = np.asarray(sheet([[red, None], [None, blue]], side=10, gap=2))
    assert pixels.shape == (22, 22, 3)
    assert pixels[5, 5].tolist() == [255, 0, 0] and pixels[17, 17].tolist() == [0, 0, 255]
    assert (pixels[5, 17] == 255).all() and (pixels[17, 5] == 255).all()


def test_labelled_rows_name_every_row_and_column() -> None:
    square = Image.new("RGB", (9, 9), "red")
    (ax,) = labelled_rows({"one": [square, square], "two": [square]}, ["left", "right"]).axes
    assert [t.get_text() for t in ax.get_yticklabels()] == ["one", "two"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["left", "right"]
    pixels = ax.images[0].get_array()
    for y, row in zip(ax.get_yticks(), ([True, True], [True, False]), strict=True):
        here = [pixels[int(y), int(x)].tolist() == [255, 0, 0] for x in ax.get_xticks()]
        assert here == row


def test_protocol_figure_hides_the_shots_of_new_classes(
    tmp_path: Path, make_image: Callable[[Path, int], Path]
) -> None:
    for k, name in enumerate(["ant", "bee", "cat", "dog"]):
        for i in range(10):
            make_image(tmp_path / "zoo" / name / f"{i}.png", 10 * k + i)
    fig = protocol_figure(ImageFolder(tmp_path / "zoo"), ["ant", "bee"], ["dog"], (4, 1, 2))
    shots, val, test = fig.axes
    assert [t.get_text() for t in shots.get_yticklabels()] == [
        "ant\n(base)",
        "bee\n(base)",
        "dog\n(new)",
    ]
    heights = [ax.images[0].get_array().shape[0] for ax in (shots, val, test)]
    assert heights[0] == heights[1] < heights[2]
    assert "no shots" in shots.texts[0].get_text()


def test_pretraining_figure_marks_where_bank_and_rounds_begin() -> None:
    history = [{"step": 100 * i, "loss": 5 - i, "val": 20 * i} for i in range(1, 5)]
    fig = pretraining_figure(
        {"history": history, "recipe": {"begins": [0, 200, 300, 400], "bank_from": 0.25}}
    )
    for ax, column in zip(fig.axes, ("loss", "val"), strict=True):
        curve, *dotted = ax.lines
        assert curve.get_xydata().tolist() == [[row["step"], row[column]] for row in history]
        assert [list(line.get_xdata()) for line in dotted] == [[50, 50], [200, 200], [300, 300]]


# --- widgets ---


def test_picture_is_self_contained() -> None:
    text = picture(Image.new("RGB", (8, 8), "red"), 'A red "square".')
    assert re.search(r'alt="A red &quot;square&quot;\."', text)
    assert 'src="data:image/jpeg;base64,' in text and "http" not in text


def test_flip_book_links_run_in_the_browser() -> None:
    books = {"1": {"a": "1a", "b": "1b"}, "2": {"a": "2a", "b": "2b"}}
    turn, choose, shelf = flip_book(books, "page", "book").children
    assert isinstance(shelf, ipywidgets.Stack) and len(shelf.children) == 2
    assert [h.value for h in shelf.children[1].children] == ["2a", "2b"]
    assert list(turn.options) == ["a", "b"] and list(choose.options) == ["1", "2"]
    links = [w for w in ipywidgets.widgets.widget._instances.values() if hasattr(w, "source")]
    ends = {(*link.source, *link.target) for link in links}
    assert (choose, "index", shelf, "selected_index") in ends
    for stack in shelf.children:
        assert (turn, "index", stack, "selected_index") in ends


def test_ladders_carry_their_numbers_and_ask_nobody() -> None:
    text = harmonic_ladders({"CLIP": (69.3, 74.2), "A < B": (80, 60)}).data
    assert 'value="69.3"' in text and 'data-n="60"' in text and "A &lt; B" in text
    assert "__" not in text
    assert not re.search(r"(src|href|import|fetch)\s*[=(]", text)
