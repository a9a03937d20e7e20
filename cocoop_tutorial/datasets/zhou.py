"""Reading split files in the format of the CoOp code ("split_zhou_*.json"; chapter 2)."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

from cocoop_tutorial.datasets.splits import Split
from cocoop_tutorial.errors import DataError, MissingDataError

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
        DataError: It is no JSON, lacks a key, gives a label two names or two labels one name,
            leaves a label out, or points outside `image_dir`.
    """
    json_path, image_dir = Path(json_path), Path(image_dir)
    content = _read(json_path)
    splits, names = [], {}
    for key in ("train", "val", "test"):
        if key not in content:
            raise DataError(f'{json_path} has no key "{key}". A split has train, val and test.')
        items = [_item(json_path, key, i, item) for i, item in enumerate(content[key])]
        for path, label, name in items:
            if names.setdefault(label, name) != name:
                raise DataError(
                    f"{json_path}: label {label} has two names, {names[label]!r} and {name!r} "
                    f"(at {path}). Give each class a label of its own."
                )
        splits.append(Split([(image_dir / path, label) for path, label, _ in items]))
    classnames = _by_label(json_path, names)
    check_exist([path for split in splits for path, _ in split.samples], str(json_path))
    return splits[0], splits[1], splits[2], classnames


def _read(json_path: Path) -> dict[str, Any]:
    if not json_path.is_file():
        raise MissingDataError(f"There is no split file {json_path}.")
    try:
        content = json.loads(json_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{json_path} is not JSON ({error}). Fetch it again: a web page may have been saved."
        ) from error
    if not isinstance(content, dict):
        raise DataError(f'{json_path} must be an object with the keys "train", "val", "test".')
    return content


def _item(json_path: Path, key: str, i: int, item: Any) -> tuple[str, int, str]:
    """One entry, checked: a path inside the image folder, a label from 0, a name."""
    try:
        path, label, name = item
        path, label, name = str(path), int(label), str(name)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{json_path}: entry {i} of {key} is {item!r}; it must be [path, label, class name]."
        ) from error
    pure = PurePosixPath(path.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts:
        raise DataError(f"{json_path}: {path!r} points outside the image folder.")
    if label < 0:
        raise DataError(f"{json_path}: {path!r} has the label {label}; labels start at 0.")
    return path, label, name


def _by_label(json_path: Path, names: dict[int, str]) -> list[str]:
    missing = sorted(set(range(max(names, default=-1) + 1)) - set(names))
    if missing or not names:
        what = f"no image has the label {missing[0]}" if names else "it lists no images"
        raise DataError(f"{json_path}: {what}. Labels must run from 0 without a gap.")
    classnames = [names[label] for label in range(len(names))]
    check_classnames(classnames, str(json_path))
    return classnames


def check_classnames(names: list[str], where: str) -> None:
    """Refuses empty names, and names that CLIP's tokenizer cannot tell apart.

    Args:
        names: Class names by label.
        where: The file or folder that they come from, for the message.

    Raises:
        DataError: A name is empty, or two classes have one name.
    """
    seen: dict[str, int] = {}
    for label, name in enumerate(names):
        key = " ".join(name.replace("_", " ").lower().split())
        if not key:
            raise DataError(f"{where}: class {label} has an empty name. Give it one.")
        if key in seen:
            raise DataError(
                f"{where}: classes {seen[key]} ({names[seen[key]]!r}) and {label} ({name!r}) have "
                "the same name. Rename one, or merge them."
            )
        seen[key] = label


def check_exist(paths: list[Path], where: str) -> None:
    """Looks for every file, one folder listing at a time (a network drive is slow otherwise).

    Raises:
        MissingDataError: Some are not there; the message names the first.
    """
    listings: dict[Path, set[str]] = {}
    for folder in {path.parent for path in paths}:
        listings[folder] = {f.name for f in folder.iterdir()} if folder.is_dir() else set()
    missing = [path for path in paths if path.name not in listings[path.parent]]
    if missing:
        raise MissingDataError(
            f"{where} lists {len(missing)} images that do not exist, the first {missing[0]}. "
            "Unpack the images again, or mend the split."
        )
