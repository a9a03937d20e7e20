"""Errors that name the cause and say what to do.

Every error of this library is a `CocoopError` and also the built-in exception that a Python
programmer would expect, so that `except ValueError` and `except CocoopError` both work.
"""

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class CocoopError(Exception):
    """Base of every error that this library raises on purpose."""

    def __str__(self) -> str:
        """The message; file names that are not UTF-8 are escaped, so that it can be printed."""
        return super().__str__().encode("utf-8", "backslashreplace").decode()


class UnknownNameError(CocoopError, ValueError):
    """A backbone, data set or option that does not exist."""


class SettingError(CocoopError, ValueError):
    """A setting that is of the wrong type or out of its range."""


class BackboneError(CocoopError, ValueError):
    """A backbone whose files are damaged, or that is of a kind this library cannot use."""


class DeviceError(CocoopError, RuntimeError):
    """The device does not exist, or cannot compute in the requested precision."""


class DataError(CocoopError, ValueError):
    """A split file, image, archive or list of classes that is damaged or inconsistent."""


class MissingDataError(CocoopError, FileNotFoundError):
    """Files that are needed and do not exist."""


class PromptError(CocoopError, ValueError):
    """A class name or template that no prompt can be made from."""


class ClassNameError(PromptError, DataError):
    """A class name that is empty, or reads the same as another one."""


class CheckpointError(CocoopError, ValueError):
    """A saved prompt that is damaged, unsafe, or made for another backbone."""


class FileError(CheckpointError, OSError):
    """A file that cannot be read or written: a full disk, a missing permission, and the like."""


class TrainingError(CocoopError, RuntimeError):
    """Training that cannot continue, for example because the loss is not a number."""


class MemoryLimitError(CocoopError, RuntimeError):
    """Not enough memory; the message says which setting to lower."""


def suggest(name: str, known: Iterable[str]) -> str:
    """The existing names most similar to `name`, as a sentence for an error message.

    Args:
        name: The name that was given.
        known: The names that exist.

    Returns:
        `"Did you mean 'a' or 'b'?"`, or, if nothing is similar, the list of what exists
        (shortened if it is long).
    """
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), by_lower, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(repr(by_lower[n]) for n in near)}?"
    names = list(by_lower.values())
    shown = ", ".join(names[:20]) + (" and others" if len(names) > 20 else "")
    return f"There are: {shown}."


def check_known(kind: str, name: str, known: Iterable[str]) -> str:
    """Returns the name if it exists.

    Args:
        kind: What it names, for the message: "backbone", "table".
        name: The name that was given.
        known: The names that exist.

    Raises:
        UnknownNameError: There is none; the message suggests similar names.
    """
    known = list(known)
    if name not in known:
        raise UnknownNameError(f"Unknown {kind} {name!r}. {suggest(str(name), known)}")
    return name


def first_line(error: BaseException) -> str:
    """The first line of an error's message without its full stop, or the name of its class."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:300] if lines else type(error).__name__


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turns a missing package into an error that names the extra which brings it.

    Args:
        extra: For example "embedded".

    Raises:
        MissingDataError: The block imported a package that is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise MissingDataError(
            f"The package {error.name} is not installed. "
            f'Run: pip install "cocoop_tutorial[{extra}]"'
        ) from error


@contextlib.contextmanager
def memory_advice(advice: str) -> Iterator[None]:
    """Turns "out of memory", on CPU or GPU, into an error that says which setting to lower.

    Args:
        advice: What to do, for example "Lower batch_size (now 128).".

    Raises:
        MemoryLimitError: The block ran out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error).lower()
        if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
            raise MemoryLimitError(f"Out of memory. {advice}") from error
        raise
