"""What `cocoop train` and `cocoop evaluate` share: the data, the scores, the table of them."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:  # --help must not wait for PyTorch
    from cocoop_tutorial.datasets.splits import Dataset

Subsets = dict[str, "Dataset"]  # "base" and "new", or "all"
SplitName = StrEnum("SplitName", ["train", "val", "test"])


def load_data(name: str, root: Path | None) -> "Dataset":
    """A data set by name, or a folder of images."""
    from cocoop_tutorial.datasets.folder import ImageFolder
    from cocoop_tutorial.datasets.load import load_dataset, means_folder

    return ImageFolder(name) if means_folder(name) else load_dataset(name, root)


def subsets_of(data: "Dataset", halves: bool, skip_unreadable: bool) -> Subsets:
    """What is scored: base and new classes, or all."""
    from cocoop_tutorial.datasets.splits import base_new

    data = _readable(data) if skip_unreadable else data
    return dict(zip(("base", "new"), base_new(data), strict=True)) if halves else {"all": data}


def _readable(data: "Dataset") -> "Dataset":
    """`data` without its broken images; says how many there were."""
    from cocoop_tutorial.datasets.images import check_images
    from cocoop_tutorial.distributed import is_main

    kept = check_images(data, skip=True)
    lost = sum(len(data.split(s)) - len(kept.split(s)) for s in SplitName)
    if lost and is_main():
        typer.echo(f"Unreadable images left out: {lost}", err=True)
    return kept


def has_duplicate_names(data: "Dataset") -> bool:
    """Whether two classes share a name by design, as in the official ImageNet list."""
    return data.name.startswith("imagenet")


def label(model: Any) -> str:
    """What results call a model: CoOp, CoCoOp or zero-shot."""
    from cocoop_tutorial.models.zero_shot import ZeroShotCLIP

    return "zero-shot" if isinstance(model, ZeroShotCLIP) else type(model).__name__


def score(model: Any, subsets: Subsets, split: str = "test", **batches: int) -> dict[str, float]:
    """Accuracy (%) on each subset among its own names, and H if there are base and new."""
    from cocoop_tutorial.evaluation.accuracy import evaluate, harmonic_mean

    scores = {}
    for name, subset in subsets.items():
        if list(model.classnames) == subset.classnames:
            here = model
        elif getattr(model, "class_specific", False):
            continue  # such a context is of no use for other classes
        else:
            here = model.with_classnames(subset.classnames)
        scores[name] = evaluate(here, subset, split, **batches).accuracy
    if "base" in scores and "new" in scores:
        scores["H"] = harmonic_mean(scores["base"], scores["new"])
    return scores


def show_scores(result: dict[str, Any], as_json: bool) -> None:
    """Prints a result as JSON, or its scores as a table."""
    if as_json:
        typer.echo(json.dumps(result, indent=1))
        return
    scores: dict[str, dict[str, float]] = result["scores"]
    columns = list(dict.fromkeys(name for row in scores.values() for name in row))
    lines = [f"{result['data']}, {result['backbone']}: accuracy in % on {result['split']} images"]
    lines.append(" " * 10 + "".join(f"{c:>8}" for c in columns))
    for name, row in scores.items():
        cells = (f"{row[c]:8.1f}" if c in row else f"{'-':>8}" for c in columns)
        lines.append(f"{name:<10}" + "".join(cells))
    if "history" in result:
        lines.append(f"The learned prompt is in {result['prompts']}")
    typer.echo("\n".join(lines))
