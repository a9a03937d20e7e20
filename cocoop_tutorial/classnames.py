"""The rule for class names: none is empty, and no two read the same."""

from collections.abc import Iterable, Sequence
from functools import cache
from numbers import Number
from typing import TYPE_CHECKING

from cocoop_tutorial.errors import ClassNameError

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer


def clean_name(name: str) -> str:
    """A class name as it is used in prompts: "_" becomes a space."""
    return name.replace("_", " ").strip()


def check_classnames(
    classnames: Sequence[str], allow_duplicates: bool = False, where: str = "The class names"
) -> list[str]:
    """Refuses empty names, and names that CLIP cannot tell apart.

    Names are compared as CLIP's tokenizer reads them: "Hot_dog", "hot  dog" and "hot dog" are the
    same to it.

    Args:
        classnames: K names, by label.
        allow_duplicates: Two classes may share a name, as they do in the official ImageNet list
            ("missile", "sunglasses"); their logits are then equal.
        where: The file or folder of the names, for the error message.

    Returns:
        The names, unchanged.

    Raises:
        ClassNameError: There are no names, one is empty or not UTF-8, or two are the same.
    """
    if not isinstance(classnames, Iterable):
        raise ClassNameError(f"{where}: {classnames!r} is not a list of names. Give a list.")
    names = [classnames] if isinstance(classnames, str) else list(classnames)
    if not names:
        raise ClassNameError(f"{where}: the list is empty. Give at least one name.")
    seen: dict[tuple[int, ...], int] = {}
    for label, name in enumerate(names):
        tokens = _checked_tokens(name, f"{where}: class {label}")
        first = seen.setdefault(tokens, label)
        if first != label and not allow_duplicates:
            raise ClassNameError(
                f"{where}: classes {first} ({names[first]!r}) and {label} ({name!r}) have the same "
                "name to CLIP, so their prompts would be equal. Rename one or merge them; a model "
                "takes both with allow_duplicates=True."
            )
    return names


def _checked_tokens(name: object, which: str) -> tuple[int, ...]:
    """The token ids of a name that is a text with something to read."""
    # As YAML and JSON read a name that is not in quotes.
    if isinstance(name, Number) and not isinstance(name, bool):
        raise ClassNameError(
            f"{which}: class names must be text; {name} is a number: write '{name}'."
        )
    if not isinstance(name, str):
        raise ClassNameError(
            f"{which} has the name {name!r}, of type {type(name).__name__}. Give it a string."
        )
    if not clean_name(name):
        raise ClassNameError(f"{which} has an empty name ({name!r}). Give it one.")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ClassNameError(
            f"{which} has the name {name!r}, which is not UTF-8. Rename it; if it is a folder, "
            "its name was written in another encoding."
        ) from error
    if not (tokens := _tokens(name)):
        raise ClassNameError(
            f"{which} has the name {name!r}, of which CLIP can read nothing. Give it another name."
        )
    return tokens


@cache
def _tokens(name: str) -> tuple[int, ...]:
    return tuple(_tokenizer().encode(clean_name(name)))


@cache
def _tokenizer() -> "SimpleTokenizer":
    from open_clip.tokenizer import SimpleTokenizer  # slow to import

    return SimpleTokenizer()
