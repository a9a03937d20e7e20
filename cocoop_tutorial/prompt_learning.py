"""CoOp and CoCoOp on three emoji datasets, three seeds each: the curves of chapters 3 and 4.

The schedule is far shorter than the papers'. Its learning rates were chosen by `choose_settings`,
on a data set that the grid leaves out, by what a user could measure: the loss on validation
images of the base classes.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from .datasets import Dataset, base_new, few_shot, load_dataset
from .errors import MissingDataError
from .evaluation import evaluate, harmonic_mean
from .frozen_clip import FrozenCLIP
from .models import CoCoOp, CoOp, ZeroShotCLIP
from .results import load_result, save_result
from .training import TrainConfig, train

NAME = "coop_cocoop"
DATASETS = ("emoji_animals", "emoji_food", "emoji_objects")
SEEDS = (1, 2, 3)
CHOSEN_ON = "emoji_transport"  # for settings only: none of its numbers is reported
CTX_INIT = "an emoji of"  # the hand-made template's words
Row = dict[str, Any]


# No warm-up: a short run cannot spare an epoch. Otherwise the released code's optimiser.
SETTINGS = {
    "CoOp": TrainConfig(epochs=20, batch_size=32, lr=0.02, warmup_epochs=0),
    "CoCoOp": TrainConfig(epochs=2, batch_size=8, lr=0.02, warmup_epochs=0),
}
RATES = (0.02, 0.06, 0.2)


def few_shot_halves(dataset: str, seed: int) -> tuple[Dataset, Dataset]:
    """Base and new half of a data set with 16 shots; the draw comes before the split."""
    return base_new(few_shot(load_dataset(dataset), shots=16, seed=seed))


def build(method: str, clip: FrozenCLIP, data: Dataset, seed: int) -> nn.Module:
    """A model of one method for the classes of `data`; only a Meta-Net needs the seed."""
    if method == "zero-shot":
        return ZeroShotCLIP(clip, data.classnames, data.template)
    torch.manual_seed(seed)
    kind = {"CoOp": CoOp, "CoCoOp": CoCoOp}[method]
    return kind(clip, data.classnames, n_ctx=None, ctx_init=CTX_INIT)


def score(model: nn.Module, base: Dataset, new: Dataset, split: str) -> dict[str, float]:
    """Accuracy (%) on both halves, each among its own names, and their harmonic mean."""
    b = evaluate(model, base, split).accuracy
    n = evaluate(model.with_classnames(new.classnames), new, split).accuracy
    return {"base": b, "new": n, "H": harmonic_mean(b, n)}


def points(change: float) -> str:
    """A change in percentage points with its sign, for prose; never "-0.0"."""
    return f"{round(change, 1) + 0.0:+.1f}"


def run_cell(clip: FrozenCLIP, dataset: str, method: str, seed: int) -> list[Row]:
    """Trains and scores one method on one data set with one seed.

    Returns:
        Rows with `dataset, method, seed, epoch, split, base, new, H, train_seconds`: one an epoch
        on val images, and one on test images with epoch -1, the only one for zero-shot.
    """
    base, new = few_shot_halves(dataset, seed)
    model = build(method, clip, base, seed)
    cell = {"dataset": dataset, "method": method, "seed": seed}
    rows = [{**cell, "epoch": 0, "split": "val", **score(model, base, new, "val")}]
    seconds = 0.0
    if method != "zero-shot":
        config = replace(SETTINGS[method], seed=seed)
        history = train(model, base, config, measure=lambda m: score(m, base, new, "val"))
        seconds = float(history.seconds.sum())
        for row in history[["epoch", "base", "new", "H"]].to_dict("records"):
            rows.append({**cell, **row, "epoch": int(row["epoch"]), "split": "val"})
    rows.append({**cell, "epoch": -1, "split": "test", **score(model, base, new, "test")})
    return [{**row, "train_seconds": seconds} for row in rows]


def run_grid(clip: FrozenCLIP, methods: tuple[str, ...], folder: Path | None = None) -> Path:
    """Runs what is not yet in the result file, and writes the file after each cell.

    Args:
        clip: The backbone, emoji-clip.
        methods: Of "zero-shot", "CoOp", "CoCoOp".
        folder: Where the file goes; None takes the results folder.

    Returns:
        The path of the file.
    """
    stamps = {m: stamp(clip, m) for m in ("zero-shot", *SETTINGS)}
    rows = [row for row in _earlier(folder) if row["made_by"] == stamps.get(row["method"])]
    done = {(r["dataset"], r["method"], r["seed"]) for r in rows if r["epoch"] == -1}
    path = None
    for cell in _cells(methods):
        if cell in done:
            continue
        dataset, method, seed = cell
        cell_rows = run_cell(clip, dataset, method, seed)
        rows += [{**row, "made_by": stamps[method]} for row in cell_rows]
        path = _save(rows, folder)
        last = cell_rows[-1]
        print(f"{dataset} {method} {seed}: base {last['base']:.1f}, new {last['new']:.1f}")
    return path or _save(rows, folder)


def stamp(clip: FrozenCLIP, method: str) -> str:
    """Changes with the backbone's weights and the method's settings: old rows are not reused."""
    digest = hashlib.sha256(clip.text_tower.text_projection.detach().float().cpu().numpy())
    config = SETTINGS.get(method)
    settings = f", {config.epochs} x {config.batch_size} at {config.lr}" if config else ""
    return f"weights {digest.hexdigest()[:8]}{settings}"


def choose_settings(clip: FrozenCLIP) -> list[Row]:
    """Accuracy and loss on base classes' val images of `CHOSEN_ON`, by method, rate and seed.

    The lowest mean loss decides: with so few images, many rates tie in accuracy.
    """
    rows = []
    for method, chosen in SETTINGS.items():
        for lr, seed in product(RATES, SEEDS):
            base, _ = few_shot_halves(CHOSEN_ON, seed)
            model = build(method, clip, base, seed)
            train(model, base, replace(chosen, lr=lr, seed=seed))
            result = evaluate(model, base, "val")
            loss = F.cross_entropy(result.logits, result.labels).item()
            row = {"method": method, "lr": lr, "seed": seed, "base_val_loss": loss}
            rows.append({**row, "base_val": result.accuracy})
    return rows


def rows_or_run(
    clip: FrozenCLIP, method: str, datasets: tuple[str, ...], folder: Path | None = None
) -> pd.DataFrame:
    """The recorded rows of a method, or rows made now where none fit this backbone.

    Args:
        clip: The backbone.
        method: "zero-shot", "CoOp" or "CoCoOp".
        datasets: What to run if nothing is recorded; recorded rows are all returned.
        folder: Of the result file; None takes the results folder.

    Returns:
        The rows of `run_cell`, and `recorded`, which says whether they come from the file.
    """
    made_by = stamp(clip, method)
    rows = [r for r in _earlier(folder) if r["made_by"] == made_by and r["method"] == method]
    recorded = {(d, s) for d in DATASETS for s in SEEDS} <= {
        (r["dataset"], r["seed"]) for r in rows if r["epoch"] == -1
    }
    if not recorded:
        rows = [r for d in datasets for s in SEEDS for r in run_cell(clip, d, method, s)]
    return pd.DataFrame(rows).assign(recorded=recorded)


def _cells(methods: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
    for method in methods:
        for seed in SEEDS:
            yield from ((dataset, method, seed) for dataset in DATASETS)


def _earlier(folder: Path | None) -> list[Row]:
    try:
        return load_result(NAME, folder)["data"]
    except MissingDataError:
        return []


def _save(rows: list[Row], folder: Path | None) -> Path:
    command = "cocoop reproduce prompt-learning"
    return save_result(NAME, rows, command, SEEDS, "cpu", folder)
