"""Whole numbers of any integral type, and seeds."""

import operator

from cocoop_tutorial.errors import SettingError

MAX_SEED = 2**64 - 1  # PyTorch takes no larger one


def as_int(value: object) -> int | None:
    """A whole number as Python's int.

    Args:
        value: An int, or an integer of NumPy or PyTorch.

    Returns:
        The same number, or None if `value` is anything else, such as 1.0, "1" or True.
    """
    if isinstance(value, bool):  # is an int to Python, but more likely a mistake
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def check_seed(seed: object) -> int:
    """Checks a seed, because `random.Random` would take 1, "1" and 1.5 for three different ones.

    Args:
        seed: Any integral number. It cannot be negative, because `random.Random` draws the same
            for -1 and 1.

    Returns:
        The seed as Python's int, so that 1 and `numpy.int64(1)` draw the same.

    Raises:
        SettingError: It is not a whole number from 0 to 2**64 - 1.
    """
    number = as_int(seed)
    if number is None or not 0 <= number <= MAX_SEED:
        raise SettingError(
            f"seed is {seed!r}, of type {type(seed).__name__}; it must be a whole number from 0 "
            "to 2**64 - 1."
        )
    return number
