"""The checkers of chapter 10 pass the right answers and refuse the likely mistakes."""

import random
from collections import Counter
from math import ceil

import pytest

from cocoop_tutorial.book.checks import ch10


def group_split(groups: list[str], share: float) -> list[bool]:
    sizes, test = Counter(groups), set()
    for group in sorted(sizes, key=lambda g: (sizes[g], g)):
        if sum(sizes[g] for g in test) + sizes[group] / 2 <= share * len(groups):
            test.add(group)
    return [group in test for group in groups]


def by_image(groups: list[str], share: float) -> list[bool]:
    drawn = random.Random(1)
    return [drawn.random() < share for _ in groups]


def by_number_of_groups(groups: list[str], share: float) -> list[bool]:
    names = sorted(set(groups))
    test = names[: round(share * len(names))]
    return [group in test for group in groups]


def test_group_split() -> None:
    ch10.check_group_split(group_split)
    with pytest.raises(AssertionError, match="both sides"):
        ch10.check_group_split(by_image)
    with pytest.raises(AssertionError, match="count images"):
        ch10.check_group_split(by_number_of_groups)
    with pytest.raises(AssertionError, match="200 images, but 0"):
        ch10.check_group_split(lambda groups, share: [])
    with pytest.raises(AssertionError, match="0% of the images"):
        ch10.check_group_split(lambda groups, share: [False] * len(groups))


def images_needed(accuracy: float, width: float) -> int:
    share = accuracy / 100
    return ceil(round(1.96**2 * share * (1 - share) / (width / 100) ** 2, 6))


def test_images_needed() -> None:
    ch10.check_images_needed(images_needed)
    with pytest.raises(AssertionError, match="by 100"):
        ch10.check_images_needed(lambda a, w: 1.96**2 * a / 100 * (1 - a / 100) / w**2)
    with pytest.raises(AssertionError, match="to each side"):
        ch10.check_images_needed(lambda a, w: images_needed(a, 2 * w))
    with pytest.raises(AssertionError, match=r"1\.96"):
        ch10.check_images_needed(lambda a, w: images_needed(a, 1.96 * w))
    with pytest.raises(AssertionError, match="round up"):
        ch10.check_images_needed(lambda a, w: images_needed(a, w) - 1)


def threshold(confidence: list[float], correct: list[bool], wanted: float) -> float:
    for limit in sorted(set(confidence)):
        kept = [good for c, good in zip(confidence, correct, strict=True) if c >= limit]
        if sum(kept) >= wanted * len(kept):
            return limit
    return 1.1


def test_threshold() -> None:
    ch10.check_threshold(threshold)
    with pytest.raises(AssertionError, match="from the lowest"):
        ch10.check_threshold(lambda c, g, w: max(c) if w <= 1 else 1.1)
    with pytest.raises(AssertionError, match="were wanted"):
        ch10.check_threshold(lambda c, g, w: min(c))
    with pytest.raises(AssertionError, match=r"return 1\.1"):
        ch10.check_threshold(lambda c, g, w: 1.0 if not any(g) else threshold(c, g, w))
