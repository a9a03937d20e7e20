"""Settings chosen on data sets that serve for nothing else, with equal budgets (chapter 6).

With the paper's settings CoOp sees every shot 200 times and CoCoOp 10 times. Here both see each
shot ten times, and both choose among the same learning rates and batch sizes, by the mean H over
the `settings` data sets of their world. The eleven take no part in the choice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import pandas as pd

from cocoop_tutorial.errors import MissingDataError
from cocoop_tutorial.evaluation.accuracy import harmonic_mean
from cocoop_tutorial.experiments.protocols import ends, halves
from cocoop_tutorial.experiments.runs import Run
from cocoop_tutorial.experiments.worlds import World

EPOCHS = 10
RATES = (0.0005, 0.002, 0.008)
BATCHES = (1, 8, 32)
SETTING = ["batch_size", "lr"]


def _with(runs: Sequence[Run], batch_size: int, lr: float) -> Iterator[Run]:
    for run in runs:
        config = replace(run.config, epochs=EPOCHS, batch_size=int(batch_size), lr=float(lr))
        yield replace(run, config=config)


def candidates(world: World, methods: Sequence[str], seeds: Sequence[int]) -> list[Run]:
    """Each method with all settings, on the data sets for settings."""
    runs = halves(world.settings, methods, seeds, world=world)
    return [run for setting in product(BATCHES, RATES) for run in _with(runs, *setting)]


def scored(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracies (%) of every candidate, best first within a method.

    Args:
        rows: Of the `candidates`.

    Returns:
        Columns method, batch_size, lr, base, new, H; H is of the two means.
    """
    by = ["method", *SETTING]
    means = ends(rows).pivot_table("accuracy", by, "split").reset_index()
    means["H"] = [harmonic_mean(b, n) for b, n in zip(means.base, means.new, strict=True)]
    return means[[*by, "base", "new", "H"]].sort_values(["method", "H"], ascending=[True, False])


def chosen(rows: pd.DataFrame) -> dict[str, tuple[int, float]]:
    """By method, the batch size and learning rate with the best H."""
    best = scored(rows).groupby("method").first()
    return {name: (int(row.batch_size), float(row.lr)) for name, row in best.iterrows()}


def tuned(
    rows: pd.DataFrame,
    world: World,
    datasets: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
) -> list[Run]:
    """Each method with the settings that suit it best, on the benchmark's data sets.

    Args:
        rows: Of the `candidates`.
        world: Where.
        datasets: Of the eleven.
        methods: Which of the methods.
        seeds: Which seeds.

    Raises:
        MissingDataError: The search did not try one of the methods.
    """
    setting = chosen(rows)
    if unknown := [name for name in methods if name not in setting]:
        raise MissingDataError(
            f"The search has no settings for {unknown[0]}. Run: cocoop reproduce search"
        )
    return [
        run
        for name in methods
        for run in _with(halves(datasets, [name], seeds, world=world), *setting[name])
    ]
