"""The few-shot draw and the base/new split: properties, and the official code's own draw."""

import json
import math
import os
import random
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cocoop_tutorial import Dataset, Split, base_new, few_shot, load_dataset
from cocoop_tutorial.errors import DataError

FIXTURE = Path(__file__).parents[1] / "fixtures" / "caltech101_draw.json"
Entry = tuple[str, int, str, list[int]]


@st.composite
def datasets(draw: st.DrawFn, smallest: int = 1) -> Dataset:
    """Any data set: 1 to 9 classes of any size, shuffled, labels in any order of first sight."""
    k = draw(st.integers(smallest, 9))

    def split(name: str, least: int) -> Split:
        sizes = draw(st.lists(st.integers(least, 25), min_size=k, max_size=k))
        samples = [(Path(f"{name}/{y}/{i}.png"), y) for y, n in enumerate(sizes) for i in range(n)]
        draw(st.randoms(use_true_random=False)).shuffle(samples)
        return Split(samples)

    parts = split("train", 1), split("val", 0), split("test", 0)
    return Dataset("any", [f"class {y}" for y in range(k)], *parts, template="a {}.")


def quiet_shots(data: Dataset, shots: int, seed: int) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return few_shot(data, shots, seed)


def official_draw(splits: list[Split], shots: int, seed: int) -> list[list[tuple[Path, int]]]:
    """The official code's steps, with Python's global generator as there."""
    state = random.getstate()
    random.seed(seed)
    drawn = []
    for split, n in zip(splits, (shots, min(shots, 4)), strict=True):
        tracker = defaultdict(list)
        for path, label in split.samples:
            tracker[label].append((path, label))
        part = []
        for items in tracker.values():
            part.extend(random.sample(items, n) if len(items) >= n else items)
        drawn.append(part)
    random.setstate(state)
    return drawn


@given(datasets(), st.integers(1, 20), st.integers(0, 5))
def test_draw_equals_the_official_one(data: Dataset, shots: int, seed: int) -> None:
    ours = quiet_shots(data, shots, seed)
    assert [ours.train.samples, ours.val.samples] == official_draw(
        [data.train, data.val], shots, seed
    )


@given(datasets(), st.integers(1, 20), st.integers(0, 5))
def test_draw_takes_the_shots_and_nothing_else(data: Dataset, shots: int, seed: int) -> None:
    ours = quiet_shots(data, shots, seed)
    for drawn, whole, n in [(ours.train, data.train, shots), (ours.val, data.val, min(shots, 4))]:
        had, got = Counter(whole.labels), Counter(drawn.labels)
        assert got == Counter({y: min(n, c) for y, c in had.items()})
        assert len(set(drawn.samples)) == len(drawn)
        assert set(drawn.samples) <= set(whole.samples)
    assert ours.test is data.test and ours.classnames == data.classnames
    assert quiet_shots(data, shots, seed).train == ours.train


@given(datasets(smallest=2))
def test_base_and_new_divide_the_classes_and_lose_nothing(data: Dataset) -> None:
    base, new = base_new(data)
    assert len(base.classnames) - len(new.classnames) in (0, 1)
    assert base.classnames + new.classnames == data.classnames
    shift = len(base.classnames)
    for name in ("train", "val", "test"):
        assert set(base.split(name).labels) <= set(range(shift))
        back = base.split(name).samples + [(p, y + shift) for p, y in new.split(name).samples]
        assert Counter(back) == Counter(data.split(name).samples)
        in_order = [s for s in data.split(name).samples if s[1] < shift]
        assert base.split(name).samples == in_order
    assert (base.subset, new.subset, base.template) == ("base", "new", "a {}.")


@given(datasets(smallest=2), st.integers(1, 16))
def test_shots_then_halves_keeps_the_draw(data: Dataset, shots: int) -> None:
    drawn = quiet_shots(data, shots, 1)
    base, new = base_new(drawn)
    assert len(base.train) + len(new.train) == len(drawn.train)
    assert {p for p, _ in base.train.samples}.isdisjoint(p for p, _ in new.train.samples)


def test_seeds_differ_and_the_global_generator_is_left_alone() -> None:
    samples = [(Path(f"{y}/{i}"), y) for y in range(3) for i in range(50)]
    data = Dataset("d", ["a", "b", "c"], Split(samples), Split(), Split())
    state = random.getstate()
    draws = [few_shot(data, 16, seed).train.samples for seed in (1, 2, 3)]
    assert random.getstate() == state
    assert draws[0] != draws[1] != draws[2] != draws[0]


def compact_dataset(entries: dict[str, list[Entry]]) -> Dataset:
    def split(name: str) -> Split:
        lines = entries[name]
        return Split([(Path(f, f"image_{n:04d}.jpg"), y) for f, y, _, ns in lines for n in ns])

    names = {y: name for _, y, name, _ in entries["train"]}
    counts = enumerate(entries["test_counts"])
    test = Split([(Path(f"test/{y}/{i}"), y) for y, n in counts for i in range(n)])
    return Dataset(
        "caltech101", [names[y] for y in sorted(names)], split("train"), split("val"), test
    )


def as_items(split: Split, names: list[str]) -> list[tuple[str, int, str]]:
    return [(path.as_posix(), y, names[y]) for path, y in split.samples]


def expand(entries: list[Entry]) -> list[tuple[str, int, str]]:
    return [(f"{f}/image_{n:04d}.jpg", y, name) for f, y, name, ns in entries for n in ns]


@pytest.mark.parametrize("subset", ["all", "base", "new"])
def test_caltech101_equals_what_the_official_code_drew(subset: str) -> None:
    content = json.loads(FIXTURE.read_text())
    drawn = few_shot(compact_dataset(content), shots=16, seed=1)
    ours = dict(zip(["base", "new"], base_new(drawn), strict=True)).get(subset, drawn)
    official = content["drawn"][f"seed1-{subset}"]
    assert as_items(ours.train, ours.classnames) == expand(official["train"])
    assert as_items(ours.val, ours.classnames) == expand(official["val"])
    assert len(ours.test) == official["n_test"]


@pytest.mark.parametrize("subset", ["all", "base", "new"])
def test_the_real_caltech101_draws_the_same(caltech_root: Path, subset: str) -> None:
    content = json.loads(FIXTURE.read_text())["drawn"][f"seed1-{subset}"]
    data = load_dataset("caltech101", caltech_root)
    drawn = few_shot(data, 16, 1)
    ours = dict(zip(["base", "new"], base_new(drawn), strict=True)).get(subset, drawn)
    images = caltech_root / "caltech-101" / "101_ObjectCategories"
    for name in ("train", "val"):
        items = [(p.relative_to(images), y) for p, y in ours.split(name).samples]
        assert as_items(Split(items), ours.classnames) == expand(content[name])
    assert len(ours.test) == content["n_test"]


def test_the_fixture_is_the_official_record() -> None:
    if "COCOOP_PARITY" not in os.environ:
        pytest.skip("COCOOP_PARITY names no folder; the record lies beside it")
    record = Path(os.environ["COCOOP_PARITY"]).parent / "caltech101_16shot_seed1.json"
    for subset, official in json.loads(record.read_text()).items():
        ours = json.loads(FIXTURE.read_text())["drawn"][subset]
        for name in ("train", "val"):
            assert expand(ours[name]) == [tuple(item) for item in official[name]]
        assert ours["n_test"] == official["n_test"]


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_other_seeds_and_shots_on_caltech101(seed: int, shots: int) -> None:
    data = compact_dataset(json.loads(FIXTURE.read_text()))
    ours = few_shot(data, shots, seed)
    assert [ours.train.samples, ours.val.samples] == official_draw(
        [data.train, data.val], shots, seed
    )


def official_half(items: list[tuple[Path, int]], half: str) -> list[tuple[Path, int]]:
    """The official code's `subsample_classes`, for one list of items."""
    labels = sorted({y for _, y in items})
    m = math.ceil(len(labels) / 2)
    selected = labels[:m] if half == "base" else labels[m:]
    new_label = {y: i for i, y in enumerate(selected)}
    return [(path, new_label[y]) for path, y in items if y in new_label]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_other_seeds_on_the_real_caltech101(caltech_root: Path, seed: int) -> None:
    data = load_dataset("caltech101", caltech_root)
    drawn = few_shot(data, 16, seed)
    train, val = official_draw([data.train, data.val], 16, seed)
    assert [drawn.train.samples, drawn.val.samples] == [train, val]
    official = {"train": train, "val": val, "test": data.test.samples}
    for half, ours in zip(("base", "new"), base_new(drawn), strict=True):
        for name, items in official.items():
            assert ours.split(name).samples == official_half(items, half)


def test_class_with_too_few_images_is_kept_whole_and_named() -> None:
    samples = [(Path(f"a/{i}"), 0) for i in range(20)] + [(Path(f"b/{i}"), 1) for i in range(3)]
    data = Dataset("zoo", ["ape", "bat"], Split(samples), Split(), Split())
    with pytest.warns(UserWarning, match=r"zoo: fewer than 16.*'bat' \(3\)"):
        drawn = few_shot(data, 16)
    assert Counter(drawn.train.labels) == {0: 16, 1: 3}


def test_class_without_any_training_image_is_named() -> None:
    data = Dataset("zoo", ["ape", "bat"], Split([(Path("a"), 0)]), Split(), Split())
    with pytest.warns(UserWarning, match=r"'bat' \(0\)"):
        few_shot(data, 1)


def test_val_that_is_the_test_split_stays_whole() -> None:
    test = Split([(Path(f"t/{i}"), i % 2) for i in range(30)])
    train = Split([(Path(f"{i}"), i % 2) for i in range(30)])
    data = Dataset("imagenet", ["a", "b"], train, test, test)
    drawn = few_shot(data, 4)
    assert drawn.val is drawn.test is test
    base, _ = base_new(drawn)
    assert base.val is base.test and len(base.test) == 15


@pytest.mark.parametrize("shots", [0, -1])
def test_impossible_number_of_shots(shots: int) -> None:
    data = Dataset("zoo", ["ape"], Split([(Path("a"), 0)]), Split(), Split())
    with pytest.raises(DataError, match=f"shots is {shots}"):
        few_shot(data, shots)


def test_nothing_to_draw_from_or_to_divide() -> None:
    empty = Dataset("imagenet_a", ["ape"], Split(), Split(), Split())
    with pytest.raises(DataError, match="imagenet_a has no training images"):
        few_shot(empty)
    with pytest.raises(DataError, match="imagenet_a has 1 class"):
        base_new(empty)


def test_unknown_split_and_empty_class_name() -> None:
    data = Dataset("zoo", ["ape"], Split(), Split(), Split())
    with pytest.raises(DataError, match="'testing'"):
        data.split("testing")
    with pytest.raises(DataError, match="class 1 has an empty name"):
        Dataset("zoo", ["ape", " "], Split(), Split(), Split())


@pytest.mark.parametrize("label", [np.int64(1), np.uint8(1), np.array(1), torch.tensor(1)])
def test_samples_of_other_types_become_paths_and_ints(label: object) -> None:
    plain = Split([(Path("a.png"), 0), (Path("b.png"), 1)])
    assert Split([("a.png", 0), ["b.png", label]]) == plain
    assert Split(zip(["a.png", "b.png"], [0, label], strict=True)) == plain
    assert Split(plain.samples).samples is plain.samples


WRONG_LABELS = ["0", 0.0, np.float32(1), None, True, np.True_, [0]]


@pytest.mark.parametrize("label", WRONG_LABELS, ids=repr)
def test_labels_are_whole_numbers(label: object) -> None:
    with pytest.raises(DataError, match=r"Sample 1 \(b\) has the label .*whole number"):
        Split([("a", 0), ("b", label)])


@pytest.mark.parametrize("sample", [("a",), "ab.png", None, (None, 0), ("a", 0, "ape")], ids=repr)
def test_samples_are_pairs(sample: object) -> None:
    with pytest.raises(DataError, match=r"Sample 0 is .*pair"):
        Split([sample])


@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([1, 2], r"has the label 2 \(at 1\.png\).*from 0 to 1\. Subtract 1"),
        ([0, -1], "has the label -1"),
        ([0, 7], "has the label 7 .*2 class names"),
    ],
)
def test_every_label_has_a_class_name(part: str, labels: list[int], words: str) -> None:
    parts = dict.fromkeys(("train", "val", "test"), Split())
    parts[part] = Split([(f"{i}.png", label) for i, label in enumerate(labels)])
    with pytest.raises(DataError, match=f"zoo: {part} {words}"):
        Dataset("zoo", ["ape", "bat"], **parts)
    with pytest.raises(DataError, match="0 class names"):
        Dataset("zoo", [], **parts)


def test_repr_is_one_readable_line() -> None:
    data = Dataset("zoo", ["a", "b"], Split([(Path("a"), 0)]), Split(), Split())
    assert repr(data) == "Dataset(zoo: 2 classes, 1 train, 0 val, 0 test)"
    both = Dataset("zoo", ["a", "b"], data.train, Split(), Split([(Path("b"), 1)]))
    assert repr(base_new(both)[1]) == "Dataset(zoo, new classes: 1 classes, 0 train, 0 val, 1 test)"
    assert repr(data.train) == "Split(1 images)"
