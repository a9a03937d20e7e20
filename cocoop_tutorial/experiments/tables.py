"""Which runs make which table of the paper, and `reproduce`, which makes them (chapters 6 to 9).

Everything here was fixed before the first test score of the eleven data sets was seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.datasets.load import load_dataset
from cocoop_tutorial.errors import SettingError, check_known
from cocoop_tutorial.experiments.grid import How, make
from cocoop_tutorial.experiments.methods import method
from cocoop_tutorial.experiments.protocols import SEEDS, at_shots, frame, halves, transfers
from cocoop_tutorial.experiments.runs import Run
from cocoop_tutorial.experiments.tuning import candidates, tuned
from cocoop_tutorial.experiments.worlds import EMBEDDED, PAPER, World, world
from cocoop_tutorial.results import load_result, save_result
from cocoop_tutorial.seeds import check_seed

SHOTS = (1, 2, 4, 8, 16)
CONTROLS = ("coop-matched", "cocoop-noise", "cocoop-zero", "kgcoop")


@dataclass(frozen=True)
class Asked:
    """What is asked of a table.

    Attributes:
        world: In which world.
        datasets: Of the eleven; for transfer, the targets among them.
        seeds: Which seeds.
        methods: Which methods; empty takes the table's own.
        shots: Training images per class.
        epochs: Of every method; None takes the paper's.
    """

    world: World
    datasets: tuple[str, ...]
    seeds: tuple[int, ...] = SEEDS
    methods: tuple[str, ...] = ()
    shots: int = 16
    epochs: int | None = None

    @property
    def source(self) -> str:
        """What transfer learns from."""
        return self.world.source

    @property
    def usual(self) -> "Asked":
        """The same table as it stands in `results`."""
        return Asked(world(self.world.name), self.world.datasets)

    @property
    def whole(self) -> bool:
        """Whether this is the table as it stands in `results`, not a part or a trial of it."""
        return self == self.usual

    def shortened(self, runs: list[Run]) -> list[Run]:
        """The runs with this many epochs."""
        if self.epochs is None:
            return runs
        return [replace(r, config=r.config and replace(r.config, epochs=self.epochs)) for r in runs]


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        title: What it shows.
        methods: Those it compares.
        runs: The runs that it needs.
        keep: Which of their rows it holds.
        fixed: What cannot be asked of it, by the names of `Asked`.
        papers: Those it compares in the paper's world, if they are others.
    """

    title: str
    methods: tuple[str, ...]
    runs: Callable[[Asked], list[Run]]
    keep: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
    fixed: tuple[str, ...] = ()
    papers: tuple[str, ...] = ()

    def compared_in(self, here: World) -> tuple[str, ...]:
        """The methods that it compares in a world."""
        return (self.papers if here.name == PAPER.name else ()) or self.methods


def base_runs(asked: Asked) -> list[Run]:
    """Each data set's base classes."""
    return halves(asked.datasets, asked.methods, asked.seeds, asked.shots, asked.world)


def source_runs(asked: Asked) -> list[Run]:
    """The source, scored on all that it may transfer to."""
    here, home = asked.world, world(asked.world.name).source
    shifts = here.shifts if here.source == home else ()  # they are shifts of that source alone
    targets = [t for t in here.targets if t in (*asked.datasets, here.source, *shifts)]
    return transfers(
        asked.world.source, targets, asked.methods, asked.seeds, asked.shots, asked.world
    )


def matrix_runs(asked: Asked) -> list[Run]:
    """Every data set as the source, one seed: which knowledge carries where?"""
    one = replace(asked, seeds=asked.seeds[:1])
    runs = source_runs(one)
    for source in asked.datasets:
        if source != asked.world.source:
            runs += transfers(
                source, asked.datasets, asked.methods, one.seeds, asked.shots, asked.world
            )
    return runs


def shots_runs(asked: Asked) -> list[Run]:
    """The base classes with fewer and fewer shots."""
    return [run for n in SHOTS for run in at_shots(base_runs(asked), n)]


def search_runs(asked: Asked) -> list[Run]:
    """All settings on the data sets for settings, one seed."""
    return candidates(asked.world, asked.methods, asked.seeds[:1])


def tuned_runs(asked: Asked) -> list[Run]:
    """The settings that "search" found best, on the eleven."""
    rows = pd.DataFrame(load_result("search" + suffix(asked.world))["data"])
    return tuned(rows, asked.world, asked.datasets, asked.methods, asked.seeds)


def two_halves(rows: pd.DataFrame) -> pd.DataFrame:
    """Base and new classes, each by itself, and what is told of training."""
    return rows[rows.split != "all"]


def together(rows: pd.DataFrame) -> pd.DataFrame:
    """Base and new classes in competition."""
    return rows[rows.split == "all"]


def on(shifts: bool) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The targets that are shifted images of the source, or those that are not."""

    def keep(rows: pd.DataFrame) -> pd.DataFrame:
        shifted = rows.target.isin([*EMBEDDED.shifts, *PAPER.shifts])
        return rows[(shifted == shifts) | (rows.target == rows.dataset)]

    return keep


MAIN = ("clip", "coop", "cocoop")
RANDOM = ("coop-random", "cocoop-random")
TABLES = {
    "table1": Table(
        "Base to new", ("clip", "ensemble", "probe", "coop", "cocoop", *CONTROLS),
        base_runs, two_halves, ("source",),
    ),
    "table2": Table(
        "Cross-dataset transfer", (*MAIN, "coop-matched", "cocoop-noise"), source_runs, on(False)
    ),
    "table3": Table(
        "Domain generalization", (*MAIN, "coop-matched", "cocoop-noise"), source_runs, on(True)
    ),
    "table4": Table("Class-incremental test", MAIN, base_runs, together, ("source",)),
    "table5": Table(
        "A bigger CoOp", ("coop", "coop-big", "cocoop"), base_runs, two_halves, ("source",),
        papers=("coop", "coop-60", "cocoop"),
    ),
    "init": Table(
        "First words", ("coop", "cocoop", *RANDOM), base_runs, two_halves, ("source",)
    ),
    "length": Table(
        "Length of the context", (*RANDOM, "coop-8", "cocoop-8", "coop-16", "cocoop-16"),
        base_runs, two_halves, ("source",),
    ),
    "shots": Table("Shots", MAIN, shots_runs, two_halves, ("source", "shots")),
    "matrix": Table("Every source", MAIN, matrix_runs),
    "search": Table(
        "Search for settings", ("coop", "cocoop"), search_runs, two_halves,
        ("source", "shots", "datasets"),
    ),
    "tuned": Table(
        "Tuned on other data sets", ("coop", "cocoop"), tuned_runs, two_halves,
        ("source", "shots"),
    ),
}  # fmt: skip


def table(name: str) -> Table:
    """A table by its name.

    Raises:
        UnknownNameError: There is none; the message suggests similar names.
    """
    return TABLES[check_known("table", name, TABLES)]


def check(name: str, asked: Asked) -> None:
    """Finds what a table cannot do, before anything is loaded.

    Raises:
        UnknownNameError: No such table.
        SettingError: An option would be ignored, or there are no settings to choose.
    """
    wanted = table(name)
    for option in wanted.fixed:
        if getattr(asked, option) != getattr(asked.usual, option):
            raise SettingError(f"{name} always has the same {option}. Leave --{option} out.")
    if wanted.runs in (search_runs, tuned_runs):
        if not asked.world.settings:
            raise SettingError(f"The {asked.world.name} world has no data sets to choose settings.")
        for other in asked.methods:
            if method(other).config is None:
                raise SettingError(f"{other} is not trained, so it has no settings to choose.")


def reproduce(
    name: str, clip: FrozenCLIP, asked: Asked, how: How | None = None, out: Path | None = None
) -> pd.DataFrame:
    """Makes a table's runs, as far as they are not there, and writes its result file.

    A part of a table, such as a shard, or a trial with other shots is written only if `out` says
    where, so that it does not take the place of the whole.

    Args:
        name: One of `TABLES`.
        clip: The backbone.
        asked: World, data sets, seeds, methods.
        how: Where and how to run.
        out: Folder of the result file; None takes the results folder.

    Returns:
        The rows, as the protocols return them.
    """
    if clip.device.type == "cpu":
        torch.set_num_threads(1)  # so that sums are added in the same order in every process
    check(name, asked)
    wanted, how = table(name), how or How()
    every = replace(asked, methods=asked.methods or wanted.compared_in(asked.world))
    rows = wanted.keep(frame(make(clip, asked.shortened(wanted.runs(every)), how)))
    if out or (asked.whole and how.shard == How.shard):
        seeds = sorted(rows.seed.unique().tolist())  # some tables take only the first
        save_result(name + suffix(asked.world), rows, None, seeds, clip.device, out)
    return rows


def suffix(world: World) -> str:
    """What the names of result files end with."""
    return "" if world.name == "embedded" else f"_{world.name}"


def quick(name: str, asked: Asked, root: Path | None = None) -> Asked:
    """The same in a few minutes: the smallest data set, one seed, less training on the source.

    Only one shift stays, because CoCoOp's scoring among many names takes longer than its training.
    """
    smallest = min(asked.datasets, key=lambda d: len(load_dataset(d, root).classnames))
    which = asked.datasets if "datasets" in table(name).fixed else (smallest,)
    less = replace(asked, datasets=which, seeds=asked.seeds[:1])
    here = asked.world
    few = replace(here, settings=here.settings[-1:], shifts=here.shifts[:1])
    less = replace(less, world=few)
    on_source = table(name).runs in (source_runs, matrix_runs)
    return replace(less, shots=1, epochs=2) if on_source else less


def ask(
    here: World,
    datasets: Sequence[str] = (),
    methods: Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
    source: str | None = None,
    **trial: Any,
) -> Asked:
    """What is asked, with the world's data sets by default.

    Args:
        here: In which world.
        datasets: Some of its data sets.
        methods: Instead of the table's.
        seeds: Which seeds.
        source: Instead of the world's.
        trial: `shots` and `epochs`, for a trial.

    Raises:
        UnknownNameError: No such data set in this world, or no such method.
        SettingError: A seed that cannot be.
    """
    for name in (*datasets, *([] if source is None else [source])):
        check_known("data set", name, here.datasets)
    for name in methods:
        method(name)
    here = replace(here, source=source) if source else here
    datasets, seeds = tuple(datasets) or here.datasets, [check_seed(seed) for seed in seeds]
    return Asked(here, datasets, tuple(seeds), tuple(methods), **trial)
