"""Contact sheets, the pretraining figure, and widgets that need no kernel."""

import re
from collections.abc import Callable
from pathlib import Path

import ipywidgets
import numpy as np
from PIL import Image

from cocoop_tutorial import ImageFolder
from cocoop_tutorial.book import plots
from cocoop_tutorial.book.sheets import labelled_rows, protocol_figure, sheet
from cocoop_tutorial.book.widgets import flip_book, harmonic_ladders, picture


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
    (ax,) = protocol_figure(ImageFolder(tmp_path / "zoo"), ["ant", "bee"], ["dog"], (4, 1, 2)).axes
    words = [label.get_text() for label in ax.get_yticklabels()]
    assert words == ["ant\n(base)", "bee\n(base)", "dog\n(new)"]
    *titles, note = ax.texts
    assert [title.get_text() for title in titles] == ["shots", "val", "test"]
    assert "no shots" in note.get_text()
    pixels = np.asarray(ax.images[0].get_array())
    x = [int(title.get_position()[0]) for title in titles]  # the middle of each part
    blank = {
        (int(y), part): (pixels[int(y) - 9 : int(y) + 9, at - 30 : at + 30] == 255).all()
        for y in ax.get_yticks()
        for part, at in zip(("shots", "val", "test"), x, strict=True)
    }
    assert [part for (y, part), white in blank.items() if white] == ["shots", "val"]


def test_figure_becomes_a_picture_of_its_size() -> None:
    figure, _ = plots.figure(figsize=(4, 3))
    assert "max-width: 400px" in picture(figure, "Nothing.")
    assert "max-width: 560px" in picture(figure, "Nothing.", width=560)


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


def test_flip_book_opens_where_it_is_told_to() -> None:
    turn, _, shelf = flip_book({"1": {"a": "1a", "b": "1b"}}, "page", "book", start="b").children
    assert turn.value == "b" and shelf.children[0].selected_index == 1


def test_ladders_carry_their_numbers_and_ask_nobody() -> None:
    text = harmonic_ladders({"CLIP": (69.3, 74.2), "A < B": (80, 60)}).data
    assert 'value="69.3"' in text and 'data-n="60"' in text and "A &lt; B" in text
    assert "__" not in text
    assert not re.search(r"(src|href|import|fetch)\s*[=(]", text)
