"""One progress bar for notebooks and terminals, which is off during tests."""

import os
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def quiet() -> bool:
    """Whether bars are off, because COCOOP_QUIET is 1 or because a test is running."""
    return os.environ.get("COCOOP_QUIET", "0") != "0" or "PYTEST_CURRENT_TEST" in os.environ


def bar(
    items: Iterable[Any] | None = None, text: str = "", total: int | None = None, **options: Any
) -> tqdm:
    """A tqdm bar with this project's defaults.

    Args:
        items: What to iterate over; None for a bar that you update yourself.
        text: What is being done, shown before the bar.
        total: Number of items, when `items` has no length.
        options: Other options of tqdm.

    Returns:
        The bar, to loop over or to update.
    """
    options = {"leave": False, "disable": quiet(), **options}
    return tqdm(items, desc=text, total=total, **options)
