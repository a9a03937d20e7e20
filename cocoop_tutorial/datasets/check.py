"""`cocoop data check`: whether a data set on disk is the published one (chapter 2).

A folder of one's own images is checked too: nothing was published, so each class is counted.
"""

import hashlib
import os
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.folder import ImageFolder, kinds_of
from cocoop_tutorial.datasets.icons import making
from cocoop_tutorial.datasets.images import check_images, shared_images
from cocoop_tutorial.datasets.load import data_root, load_dataset, means_folder
from cocoop_tutorial.datasets.paper import LAYOUT, NAMES, SOURCES, folder_of
from cocoop_tutorial.datasets.splits import Dataset
from cocoop_tutorial.errors import CocoopError
from cocoop_tutorial.results import load_result

SPLITS = ("train", "val", "test")


@dataclass
class Report:
    """What is on disk, beside what was published.

    Attributes:
        dataset: The data set's name.
        folder: Where it is.
        here: Number of classes, and of images by split.
        published: The same numbers as published; None where there is none.
        split_file: The digest (SHA-256) of the split file; "" if the data set has none.
        official_split_file: The official file's digest; "" if it is not known.
        unreadable: Images that cannot be decoded.
        in_several_splits: Groups of images with the same content that are not all in one split.
            Published data sets have some, so they are a problem only in a folder of one's own.
        by_class: For a folder of one's own, class name to number of images by split.
        left_out: For such a folder, the files in it that are no images of the data set.
        problems: What is wrong; empty if the data set is as published.
    """

    dataset: str
    folder: Path
    here: dict[str, int] = field(default_factory=dict)
    published: dict[str, int | None] = field(default_factory=dict)
    split_file: str = ""
    official_split_file: str = ""
    unreadable: list[Path] = field(default_factory=list)
    in_several_splits: list[list[Path]] = field(default_factory=list)
    by_class: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check(name: str, root: Path | str | None = None) -> Report:
    """Compares a data set with what was published, and decodes every image.

    Args:
        name: A data set of either world, or a folder that `ImageFolder` reads.
        root: As for `load_dataset`.

    Returns:
        The report. Missing files and damaged split files are among its problems.

    Raises:
        UnknownNameError: No such data set.
    """
    own = means_folder(name)
    if not own and name not in (*icons.NAMES, *NAMES):
        load_dataset(name)  # raises the error that suggests similar names
    if own:
        folder = Path(os.path.expanduser(name))
        report = Report(folder.absolute().name, folder)
    elif name in icons.NAMES:
        report = Report(name, Path(root or making.folder(name).parent) / name)
        report.problems = [] if root else icons.verify((name,))
    else:
        report = Report(name, data_root(root) / folder_of(name))
        (row,) = (row for row in load_result("paper_datasets")["data"] if row["name"] == name)
        report.published = {key: row[key] for key in ("classes", *SPLITS)}
    if report.problems:
        return report
    try:
        with warnings.catch_warnings():  # that the split is our own is among the problems
            warnings.simplefilter("ignore")
            data = ImageFolder(name) if own else load_dataset(name, root)
        _compare(report, data)
        if own:
            _look_closer(report, data)
    except CocoopError as error:
        report.problems.append(str(error))
    return report


def _compare(report: Report, data: Dataset) -> None:
    report.here = {"classes": len(data.classnames)} | {s: len(data.split(s)) for s in SPLITS}
    for key, number in report.published.items():
        if number not in (None, report.here[key]):
            what = key if key == "classes" else f"{key} images"
            report.problems.append(f"{report.here[key]} {what} instead of {number}")
    if source := SOURCES.get(report.dataset):
        _check_split_file(report, report.folder / source.split, source.sha256)
    images, kept = (
        {path for name in SPLITS for path, _ in some.split(name).samples}
        for some in (data, check_images(data, skip=True))
    )
    report.unreadable = sorted(images - kept)
    if report.unreadable:
        number, first = len(report.unreadable), report.unreadable[0]
        report.problems.append(f"{number} images are unreadable, the first {first}")
    report.in_several_splits = shared_images(data)


def _look_closer(report: Report, data: Dataset) -> None:
    """Reports what only the owner of a folder can judge."""
    counts = {split: Counter(data.split(split).labels) for split in SPLITS}
    for label, name in enumerate(data.classnames):
        report.by_class[name] = {split: counts[split][label] for split in SPLITS}
    images = {path for split in SPLITS for path, _ in data.split(split).samples}
    there = {Path(where, file) for where, _, files in os.walk(report.folder) for file in files}
    report.left_out = sorted(there - images)
    if n := len(report.in_several_splits):
        report.problems.append(f"{n} images are in several splits; keep each in one")


def _check_split_file(report: Report, path: Path, official: str) -> None:
    report.official_split_file = official
    if not path.is_file():
        report.problems.append(
            f"{path.name} is missing, so the split is our own and its numbers do not compare with "
            f"the paper's. It is linked from {LAYOUT}"
        )
        return
    report.split_file = hashlib.sha256(path.read_bytes()).hexdigest()
    if official not in ("", report.split_file):
        report.problems.append(
            f"{path.name} is not the official file, which is linked from {LAYOUT}"
        )


def describe(report: Report) -> str:
    """A report as text for the terminal."""
    lines = [f"{report.dataset} in {report.folder}"]
    for key, number in report.here.items():
        published = report.published.get(key)
        lines.append(f"{key:<8}{number:>9}" + (f" of {published}" if published is not None else ""))
    width = max(map(len, report.by_class), default=0)
    for name, counts in report.by_class.items():
        lines.append(f"  {name:<{width}}" + "".join(f"{counts[s]:>7} {s}" for s in SPLITS))
    if files := report.left_out:
        lines.append(f"left out: {kinds_of(files)}, for example {files[0]}")
    if report.split_file:
        same = "the official one" if report.split_file == report.official_split_file else "SHA-256"
        lines.append(f"split file: {same}, {report.split_file}")
    if groups := report.in_several_splits:
        first = " = ".join(str(path.relative_to(report.folder)) for path in groups[0])
        lines.append(f"the same image in several splits: {len(groups)}, for example {first}")
    lines += [f"problem: {problem}" for problem in report.problems]
    return "\n".join([*lines, *([] if report.problems else ["Nothing is wrong."])])
