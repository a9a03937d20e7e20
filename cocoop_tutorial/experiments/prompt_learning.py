"""CoOp and CoCoOp on the smaller emoji datasets, three seeds each: chapters 3 and 4.

No dataset was picked for its numbers. Of those with fewer than fifty classes, one is used to choose
the learning rates, and the others give the results. In all of them, shots, validation and test show
different drawings. The paper's validation images come from the same source as the shots. Here this
is true only of other poses of the shots' drawings, so the loss on those chooses the rate.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.datasets import Dataset, Split, base_new, few_shot, load_dataset
from cocoop_tutorial.evaluation.accuracy import evaluate, harmonic_mean
from cocoop_tutorial.experiments.cells import Cell, Row, run_cells
from cocoop_tutorial.experiments.prompt_results import CHOICE, RESULT, rate_losses
from cocoop_tutorial.models.cocoop import CoCoOp
from cocoop_tutorial.models.coop import CoOp
from cocoop_tutorial.models.zero_shot import ZeroShotCLIP
from cocoop_tutorial.training.loop import TrainConfig, train

MAIN = "emoji_food"  # for the chapters' live runs, because it is of middle size
CHOSEN_ON = "emoji_transport"  # only for choosing learning rates, never for results
DATASETS = (
    MAIN,
    "emoji_places",
    "emoji_activities",
    "emoji_office",
    "emoji_sky",
    "emoji_plants",
    "emoji_clothing",
)
SEEDS = (1, 2, 3)
RATES = (0.002, 0.006, 0.02, 0.06, 0.2)
MEASUREMENTS = 10  # during a run; one per epoch would take CoOp longer than its training
METHODS = ("CoCoOp", "CoOp", "zero-shot")  # the long runs first

# The optimiser, schedule and warm-up are those of the released code. CoCoOp's batch is 8 instead of
# 1, because it fits with the packed encoder. CoOp has as many epochs as the paper's on ImageNet, a
# quarter of those on the other datasets.
SETTINGS = {
    "CoOp": TrainConfig(epochs=50, batch_size=32, lr=0.02),
    "CoCoOp": TrainConfig(epochs=10, batch_size=8, lr=0.02),
}


def settings(method: str, folder: Path | None = None) -> TrainConfig:
    """How the chapters train: `SETTINGS`, at the rate with the lowest recorded loss on poses.

    Args:
        method: "CoOp" or "CoCoOp".
        folder: Of the result files; None takes the results folder.
    """
    losses = rate_losses(method, folder)
    chosen = SETTINGS[method]
    return chosen if losses.empty else replace(chosen, lr=float(losses.poses.idxmin()))


@cache
def _whole(dataset: str) -> Dataset:
    return load_dataset(dataset)  # cached, because every measurement needs it


def few_shot_halves(dataset: str, seed: int) -> tuple[Dataset, Dataset]:
    """The base and new halves of a dataset with 16 shots, which are drawn before the split."""
    return base_new(few_shot(_whole(dataset), shots=16, seed=seed))


def other_poses(half: Dataset) -> Split:
    """The training images that are not shots: other poses of the shots' drawings."""
    whole, shots = _whole(half.name), {path for path, _ in half.train.samples}
    label = {name: i for i, name in enumerate(half.classnames)}
    rest = [(path, whole.classnames[y]) for path, y in whole.train.samples if path not in shots]
    return Split([(path, label[name]) for path, name in rest if name in label])


def images_of(half: Dataset, split: str) -> Split:
    """The images of a split: "val", "test", or "poses" for `other_poses`."""
    return other_poses(half) if split == "poses" else half.split(split)


def start_words(data: Dataset) -> str:
    """The words that a context starts from: those before the name in the dataset's template."""
    return data.template.split("{}")[0].strip() or "a photo of a"


def build(method: str, clip: FrozenCLIP, data: Dataset, seed: int) -> nn.Module:
    """A model of one method for the classes of `data`; only the Meta-Net needs the seed."""
    if method == "zero-shot":
        return ZeroShotCLIP(clip, data.classnames, data.template)
    torch.manual_seed(seed)
    kind = {"CoOp": CoOp, "CoCoOp": CoCoOp}[method]
    return kind(clip, data.classnames, n_ctx=None, ctx_init=start_words(data))


def score(model: nn.Module, base: Dataset, new: Dataset, split: str) -> dict[str, float]:
    """Accuracy (%) on both halves, each among its own names, and their harmonic mean.

    Args:
        model: With the base classes' names.
        base: The half that it trained on.
        new: The other half.
        split: As for `images_of`.
    """
    b = evaluate(model, base, images_of(base, split)).accuracy
    n = evaluate(model.with_classnames(new.classnames), new, images_of(new, split)).accuracy
    return {"base": b, "new": n, "H": harmonic_mean(b, n)}


def measure_cell(clip: FrozenCLIP, cell: Cell) -> list[Row]:
    """Trains and scores one cell.

    Returns:
        Rows with `epoch, split, base, new, H, train_seconds`: for "val" and "poses" one before
        training, with epoch 0, and `MEASUREMENTS` more until its end (or one per epoch, if that is
        less); for "test" only one, of the trained model, with epoch -1.
    """
    base, new = few_shot_halves(cell.dataset, cell.seed)
    model = build(cell.method, clip, base, cell.seed)
    rows: list[Row] = []

    def look(model: nn.Module, *splits: str, epoch: int) -> None:
        rows.extend({"epoch": epoch, "split": s, **score(model, base, new, s)} for s in splits)

    look(model, "val", "poses", epoch=0)
    seconds = 0.0
    if cell.config:
        epochs, last = itertools.count(1), cell.config.epochs
        assert last is not None

        def after_epoch(model: nn.Module) -> dict[str, float]:
            epoch = next(epochs)
            if epoch == last or epoch % max(1, last // MEASUREMENTS) == 0:
                look(model, "val", "poses", epoch=epoch)
            return {}  # no column for the history

        history = train(model, base, cell.config, measure=after_epoch)
        seconds = float(history.seconds.sum())
    look(model, "test", epoch=-1)
    return [{**row, "train_seconds": seconds} for row in rows]


def try_rate(clip: FrozenCLIP, cell: Cell) -> list[Row]:
    """Trains one cell and returns loss and accuracy on base classes, for "poses" and for "val".

    The loss decides, because many rates tie in accuracy with so few images.
    """
    assert cell.config is not None
    base, _ = few_shot_halves(cell.dataset, cell.seed)
    model = build(cell.method, clip, base, cell.seed)
    train(model, base, cell.config)
    rows: list[Row] = []
    for split in ("poses", "val"):
        result = evaluate(model, base, images_of(base, split))
        loss = F.cross_entropy(result.logits, result.labels).item()
        scores = {"split": split, "loss": loss, "base": result.accuracy}
        rows.append({"lr": cell.config.lr, **scores})
    return rows


def run_grid(
    clip: FrozenCLIP,
    methods: Sequence[str] = METHODS,
    folder: Path | None = None,
    jobs: int = 1,
    engine: str = "local",
) -> Path:
    """Runs every method, dataset and seed that the result file lacks; see `run_cells`."""
    configs = {m: settings(m, folder) if m in SETTINGS else None for m in METHODS}
    cells = [
        Cell(dataset, m, seed, config and replace(config, seed=seed))
        for dataset in DATASETS
        for m, config in configs.items()
        for seed in SEEDS
    ]
    command = "cocoop reproduce prompt-learning"
    return run_cells(clip, RESULT, command, cells, measure_cell, methods, folder, jobs, engine)


def choose_settings(
    clip: FrozenCLIP, folder: Path | None = None, jobs: int = 1, engine: str = "local"
) -> Path:
    """Tries every rate of `RATES` for both methods on `CHOSEN_ON`; see `run_cells`."""
    cells = [
        Cell(CHOSEN_ON, m, seed, replace(SETTINGS[m], lr=lr, seed=seed))
        for m in METHODS
        if m in SETTINGS
        for lr in RATES
        for seed in SEEDS
    ]
    command = "cocoop reproduce prompt-settings"
    return run_cells(clip, CHOICE, command, cells, try_rate, METHODS, folder, jobs, engine)
