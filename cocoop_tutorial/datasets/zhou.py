"""Reading split files in the format of the CoOp code ("split_zhou_*.json"; chapter 2)."""

import json
import os
from itertools import count
from pathlib import Path, PureWindowsPath
from typing import Any

from cocoop_tutorial.classnames import check_classnames
from cocoop_tutorial.datasets.splits import Split
from cocoop_tutorial.errors import DataError, MissingDataError, first_line
from cocoop_tutorial.seeds import as_int

Splits = tuple[Split, Split, Split, list[str]]


def read_zhou_split(json_path: Path | str, image_dir: Path | str) -> Splits:
    """Reads `{"train": [[path, label, class name], ...], "val": ..., "test": ...}`.

    Args:
        json_path: The split file.
        image_dir: The folder that its paths are relative to.

    Returns:
        Train, val, test, and the class names by label.

    Raises:
        MissingDataError: The file, or an image that it lists, is not there.
        DataError: It is not JSON, lacks a key, gives a label two names or two labels the same
            name, leaves out a label, or points outside `image_dir`.
    """
    json_path, image_dir = (Path(os.path.expanduser(p)) for p in (json_path, image_dir))
    content = _read(json_path)
    splits, names = [], {}
    for key in ("train", "val", "test"):
        if key not in content:
            raise DataError(f'{json_path} has no key "{key}". A split has train, val and test.')
        if not isinstance(content[key], list):
            raise DataError(f'{json_path}: "{key}" must be a list, not {content[key]!r:.40}.')
        items = [_item(json_path, key, i, item) for i, item in enumerate(content[key])]
        for path, label, name in items:
            if names.setdefault(label, name) != name:
                raise DataError(
                    f"{json_path}: label {label} has two names, {names[label]!r} and {name!r} "
                    f"(at {path}). Give each class its own label."
                )
        splits.append(Split([(image_dir / path, label) for path, label, _ in items]))
    classnames = _by_label(json_path, names)
    check_exist([path for split in splits for path, _ in split.samples], str(json_path))
    return splits[0], splits[1], splits[2], classnames


def _read(json_path: Path) -> dict[str, Any]:
    if not os.path.isfile(json_path):
        raise MissingDataError(f"There is no split file {json_path}.")
    try:
        content = json.loads(read_text(json_path))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{json_path} is not JSON ({first_line(error)}). Download it again; perhaps a web page "
            "was saved in its place."
        ) from error
    if not isinstance(content, dict):
        raise DataError(f'{json_path} must be an object with the keys "train", "val", "test".')
    return content


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        DataError: It cannot be read, or is in another encoding.
    """
    try:
        data = path.read_bytes()
        return data.decode(json.detect_encoding(data))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read as text ({error}). Save it again in UTF-8."
        ) from error


def _item(json_path: Path, key: str, i: int, item: Any) -> tuple[str, int, str]:
    """Checks an entry: a path inside the image folder, a label from 0, a name."""
    path, label, name = item if isinstance(item, list) and len(item) == 3 else (None, None, None)
    label = as_int(label)
    if label is None or not isinstance(path, str) or not isinstance(name, str):
        raise DataError(
            f"{json_path}: entry {i} of {key} is {item!r:.200}; it must be [path, label, class "
            "name], that is a string, a whole number and a string."
        )
    pure = PureWindowsPath(path)  # knows slashes of both kinds and drives
    if pure.anchor or ".." in pure.parts:
        raise DataError(f"{json_path}: {path!r} points outside the image folder.")
    if label < 0:
        raise DataError(f"{json_path}: {path!r} has the label {label}; labels start at 0.")
    return pure.as_posix(), label, name


def _by_label(json_path: Path, names: dict[int, str]) -> list[str]:
    missing = next(label for label in count() if label not in names)
    if missing < len(names) or not names:
        what = f"no image has the label {missing}" if names else "it lists no images"
        raise DataError(f"{json_path}: {what}. Labels must run from 0 without gaps.")
    classnames = [names[label] for label in range(len(names))]
    return check_classnames(classnames, where=str(json_path))


def check_exist(paths: list[Path], where: str) -> None:
    """Checks that every file exists, by listing folders, which is faster on network drives.

    Raises:
        MissingDataError: Some do not exist; the message names the first.
    """
    listings: dict[Path, set[str]] = {}
    for folder in {path.parent for path in paths}:
        listings[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    missing = [path for path in paths if path.name not in listings[path.parent]]
    if missing:
        raise MissingDataError(
            f"{where} lists {len(missing)} images that do not exist, the first {missing[0]}. "
            "Unpack the images again, or correct the split."
        )
