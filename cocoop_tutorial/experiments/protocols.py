"""The paper's protocols: base to new, cross-dataset, domain generalization, class-incremental.

Each returns a tidy frame, one row per data set, method, seed and split. `accuracy` is in percent;
`right` and `images` are counts per class, for intervals. Chapters 6, 7, 8 and 9.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.experiments.grid import How, make
from cocoop_tutorial.experiments.runs import Run
from cocoop_tutorial.experiments.worlds import EMBEDDED, World

SEEDS = (1, 2, 3)
MAIN = ("clip", "coop", "cocoop")


def halves(
    datasets: Sequence[str],
    methods: Sequence[str] = MAIN,
    seeds: Sequence[int] = SEEDS,
    shots: int = 16,
    world: World = EMBEDDED,
) -> list[Run]:
    """Runs that learn the base classes of each data set, with the paper's settings."""
    return [
        Run(dataset, "base", name, seed, shots, world.config(name, dataset, seed))
        for name in methods
        for dataset in datasets
        for seed in seeds
    ]


def transfers(
    source: str,
    targets: Sequence[str],
    methods: Sequence[str] = MAIN,
    seeds: Sequence[int] = SEEDS,
    shots: int = 16,
    world: World = EMBEDDED,
) -> list[Run]:
    """Runs that learn all classes of the source, with the paper's settings."""
    return [
        Run(source, "all", name, seed, shots, world.config(name, source, seed), tuple(targets))
        for name in methods
        for seed in seeds
    ]


def base_to_new(
    clip: FrozenCLIP,
    datasets: Sequence[str],
    methods: Sequence[str] = MAIN,
    seeds: Sequence[int] = SEEDS,
    *,
    shots: int = 16,
    world: World = EMBEDDED,
    how: How | None = None,
) -> pd.DataFrame:
    """Learns the base classes, tests on base and on new ones. CoCoOp (2203.05557), section 4.1.

    Args:
        clip: The backbone.
        datasets: Names of data sets.
        methods: Names in `METHODS`.
        seeds: Of the shots and of the training.
        shots: Training images per class.
        world: Whose settings to take.
        how: Where and how to run.

    Returns:
        Rows with `split` "base" or "new"; `pi` is "own", or for CoCoOp also that of a control;
        `epoch` is not-a-number at the end of training.
    """
    rows = frame(make(clip, halves(datasets, methods, seeds, shots, world), how))
    return rows[rows.split.isin(["base", "new"])]


def class_incremental(
    clip: FrozenCLIP,
    datasets: Sequence[str],
    methods: Sequence[str] = MAIN,
    seeds: Sequence[int] = SEEDS,
    *,
    shots: int = 16,
    world: World = EMBEDDED,
    how: How | None = None,
) -> pd.DataFrame:
    """Learns the base classes, tests on all: base and new classes compete. Section 4.4.

    The runs are those of `base_to_new`, and so are the arguments; `split` is "all".
    """
    rows = frame(make(clip, halves(datasets, methods, seeds, shots, world), how))
    return rows[rows.split == "all"]


def cross_dataset(
    clip: FrozenCLIP,
    source: str,
    targets: Sequence[str],
    methods: Sequence[str] = MAIN,
    seeds: Sequence[int] = SEEDS,
    *,
    shots: int = 16,
    world: World = EMBEDDED,
    how: How | None = None,
) -> pd.DataFrame:
    """Learns all classes of the source, tests on other data sets. Section 4.2.

    Args:
        clip: The backbone.
        source: What to learn from.
        targets: What to test on, with all classes of each.
        methods: Names in `METHODS`.
        seeds: Of the shots and of the training.
        shots: Training images per class.
        world: Whose settings to take.
        how: Where and how to run.

    Returns:
        Rows with the data set in `target`.
    """
    return frame(make(clip, transfers(source, targets, methods, seeds, shots, world), how))


def domain_generalization(
    clip: FrozenCLIP,
    source: str,
    shifts: Sequence[str],
    methods: Sequence[str] = MAIN,
    seeds: Sequence[int] = SEEDS,
    *,
    shots: int = 16,
    world: World = EMBEDDED,
    how: How | None = None,
) -> pd.DataFrame:
    """Learns all classes of the source, tests on shifted images of these classes. Section 4.3.

    Technically as `cross_dataset`: the shifted sets bring their own lists of classes.
    """
    return cross_dataset(clip, source, shifts, methods, seeds, shots=shots, world=world, how=how)


def frame(rows: Sequence[dict]) -> pd.DataFrame:
    """Rows of runs as a frame that has all columns, however few runs there are."""
    columns = ["dataset", "method", "seed", "target", "split", "pi", "epoch", "accuracy"]
    found = pd.DataFrame(rows)
    return found.reindex(columns=list(dict.fromkeys([*columns, *found.columns])))


def ends(rows: pd.DataFrame) -> pd.DataFrame:
    """The trained models with their own pi: one row per run and split."""
    return rows[rows.epoch.isna() & (rows.pi == "own") & (rows.split != "train")]


def at_shots(runs: Sequence[Run], shots: int) -> list[Run]:
    """The same runs with fewer training images."""
    return [replace(run, shots=shots) for run in runs]
