"""Checkers for the exercises of chapter 10."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from math import isclose


def check_group_split(group_split: Callable[[list[str], float], Sequence[bool]]) -> None:
    """Exercise 1: `group_split(groups, share)` says which images are test images."""
    even = [f"maker {n % 20}" for n in range(200)]
    uneven = ["large"] * 60 + [f"small {n // 2}" for n in range(140)]
    for groups, share in ((even, 0.3), (uneven, 0.3), (even, 0.5)):
        got = [bool(chosen) for chosen in group_split(list(groups), share)]
        assert len(got) == len(groups), f"There are {len(groups)} images, but {len(got)} answers."
        sides = defaultdict(set)
        for group, chosen in zip(groups, got, strict=True):
            sides[group].add(chosen)
        torn = [group for group, both in sides.items() if len(both) == 2]
        assert not torn, f"{torn[0]!r} has images on both sides. Decide for each group, not image."
        part = sum(got) / len(got)
        sizes = Counter(groups)
        assert abs(part - share) < 0.1, (
            f"{part:.0%} of the images are test images, but about {share:.0%} were wanted. Groups "
            f"have from {min(sizes.values())} to {max(sizes.values())} images, so count images."
        )
    print("passed: no group is on both sides, and the share of images is right")


def check_images_needed(images_needed: Callable[[float, float], float]) -> None:
    """Exercise 2: `images_needed(accuracy, width)`, both in percent."""
    for accuracy, width, wanted in ((50, 5, 385), (80, 5, 246), (80, 1, 6147), (95, 2, 457)):
        got = images_needed(accuracy, width)
        assert not isclose(got, wanted / 1e4, rel_tol=0.1), "Divide the percentages by 100 first."
        assert not isclose(got, wanted / 4, rel_tol=0.02), (
            f"{got} images would be enough if {width} points were the whole width, but it is the "
            "distance to each side."
        )
        assert not isclose(got, wanted / 1.96**2, rel_tol=0.02), (
            f"{got} images give a standard error of {width} points; a 95% interval reaches 1.96 "
            "standard errors to each side."
        )
        assert got == wanted, (
            f"At {accuracy}%, {width} points to each side need {wanted} images, but you say {got}. "
            "Solve width = 1.96 * sqrt(p (1 - p) / N) for N, and round up."
        )
    print("passed: half the width needs four times as many images")


Threshold = Callable[[list[float], list[bool], float], float]


def check_threshold(threshold: Threshold) -> None:
    """Exercise 3: `threshold(confidence, correct, wanted)`, the lowest that keeps the promise."""
    confidence = [0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    correct = [True, True, False, True, True, True, False, False]
    cases = [(1.0, 0.9), (0.8, 0.5), (0.75, 0.5), (0.6, 0.3), (0.0, 0.3)]
    for wanted, lowest in cases:
        for order in (range(8), reversed(range(8))):
            at = list(order)
            got = threshold([confidence[i] for i in at], [correct[i] for i in at], wanted)
            kept = [good for c, good in zip(confidence, correct, strict=True) if c >= got]
            share = sum(kept) / len(kept) if kept else 1.0
            assert share >= wanted, (
                f"From {got} on, {share:.0%} are correct, but {wanted:.0%} were wanted. Answers "
                "with exactly this confidence count too."
            )
            assert isclose(got, lowest), (
                f"For {wanted:.0%} you say {got}, but {lowest} keeps the promise as well and "
                "answers more images. Go through the thresholds from the lowest."
            )
    never = threshold([0.9, 0.8], [False, False], 0.5)
    assert isclose(never, 1.1), f"No threshold reaches 50% here, so return 1.1, not {never}."
    print("passed: the lowest threshold that keeps the promise")
