"""One progress bar for notebook and terminal, silent where nobody watches."""

import os
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def quiet() -> bool:
    """Whether bars are off: COCOOP_QUIET=1, or a notebook that is executed by a test run."""
    return os.environ.get("COCOOP_QUIET", "0") != "0" or "PYTEST_CURRENT_TEST" in os.environ


def bar(
    items: Iterable[Any] | None = None, text: str = "", total: int | None = None, **options: Any
) -> tqdm:
    """A tqdm bar with this project's defaults.

    Args:
        items: What to go through; None for a bar that is moved by hand.
        text: What is being done.
        total: Number of items, when `items` has no length.
        options: Anything else for tqdm.

    Returns:
        The bar, to loop over or to update.
    """
    options = {"leave": False, "disable": quiet(), **options}
    return tqdm(items, desc=text, total=total, **options)
