"""Whole numbers of any integral type, switches, and seeds."""

import operator

import numpy as np

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


def check_whole(name: str, value: object, least: int = 1) -> int:
    """Checks a whole number that counts something.

    Args:
        name: What it is called, for the message.
        value: Any integral number.
        least: The smallest that is allowed.

    Returns:
        It as Python's int.

    Raises:
        SettingError: It is not a whole number from `least` to 2**31 - 1.
    """
    number = as_int(value)
    if number is None or not least <= number < 2**31:
        raise SettingError(
            f"{name} is {value!r}; it must be a whole number from {least} to 2**31 - 1."
        )
    return number


def check_flag(name: str, value: object) -> bool:
    """Checks a switch, because "no" from YAML, being a text, would be true.

    Args:
        name: What it is called, for the message.
        value: True or False, of Python or NumPy.

    Returns:
        It as Python's bool.

    Raises:
        SettingError: It is anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise SettingError(f"{name} is {value!r}; it must be True or False.")
    return bool(value)


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
