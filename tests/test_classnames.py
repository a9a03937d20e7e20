"""Class names have one rule, in data and in prompts."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_clips import small_clip

from cocoop_tutorial import CoOp, Dataset, Split, ZeroShotCLIP, read_zhou_split
from cocoop_tutorial.classnames import check_classnames
from cocoop_tutorial.errors import ClassNameError, DataError, PromptError

SAME = [
    ("hot dog", "hot_dog"),
    ("hot dog", "hot  dog"),
    ("Cat", "cat"),
    ("caf\u00e9", "cafe\u0301"),  # composed and decomposed
    ("salt & pepper", "salt &amp; pepper"),
    ("ice-cream", "ice - cream"),
    ("it\u2019s", "it's"),
]
DIFFERENT = [("hot dog", "hotdog"), ("St", "St."), ("\u9e1f", "\u9e45"), ("cafe", "caf\u00e9")]


def split_file(folder: Path, names: tuple[str, ...], make_image) -> Path:
    items = [[f"{i}.png", i, name] for i, name in enumerate(names)]
    for file, i, _ in items:
        make_image(folder / file, i)
    path = folder / "split.json"
    path.write_text(json.dumps({"train": items, "val": [], "test": []}))
    return path


@pytest.mark.parametrize("names", SAME, ids=repr)
def test_names_that_read_the_same_are_refused_everywhere(
    names: tuple[str, str], tmp_path: Path, make_image
) -> None:
    clip = small_clip()
    for build in (CoOp, ZeroShotCLIP):
        with pytest.raises(ClassNameError, match=r"classes 0 .* and 1 .*allow_duplicates"):
            build(clip, names)
        assert build(clip, names, allow_duplicates=True).classnames == list(names)
    path = split_file(tmp_path, names, make_image)
    with pytest.raises(ClassNameError, match=r"split\.json: classes 0 .* the same name"):
        read_zhou_split(path, tmp_path)


@pytest.mark.parametrize("names", DIFFERENT, ids=repr)
def test_names_that_read_differently_are_kept_everywhere(
    names: tuple[str, str], tmp_path: Path, make_image
) -> None:
    assert check_classnames(names) == list(names)
    path = split_file(tmp_path, names, make_image)
    assert read_zhou_split(path, tmp_path)[3] == list(names)


@pytest.mark.parametrize("name", [3, 2.5, np.int64(3)])
def test_names_that_are_numbers(name: object) -> None:
    told = rf"class 1: class names must be text; {name} is a number: write '{name}'"
    with pytest.raises(ClassNameError, match=told):
        check_classnames(["cat", name])
    with pytest.raises(ClassNameError, match="is not a list of names"):
        check_classnames(name)


@pytest.mark.parametrize("name", ["", " ", "_", None, 3, "&nbsp;", "\ufeff"])
def test_names_that_say_nothing(name: object) -> None:
    for error in (DataError, PromptError):  # whoever caught one of these before still does
        with pytest.raises(error, match="class 1"):
            check_classnames(["cat", name])
        with pytest.raises(error, match=r"mine: class 1|of class 1"):
            Dataset("mine", ["cat", name], Split(), Split(), Split())
