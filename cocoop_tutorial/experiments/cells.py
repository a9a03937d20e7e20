"""Many short runs on a CPU, in parallel, into one result file; after a stop, it continues later.

A cell is one run: a dataset, a method, a seed. `first_look` fills cells for chapters 3 and 4.
The processes are joblib's: on this machine, or on a Dask cluster.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed, parallel_config

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.load import load_clip
from cocoop_tutorial.errors import MissingDataError, UnknownNameError, needs_extra, suggest
from cocoop_tutorial.progress import bar
from cocoop_tutorial.results import load_result, save_result
from cocoop_tutorial.training.loop import TrainConfig

Row = dict[str, Any]
ENGINES = ("local", "dask")


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        dataset: Its name.
        method: Its name.
        seed: For the shots, the order of the images, and the Meta-Net's first weights.
        config: How to train; None for zero-shot.
    """

    dataset: str
    method: str
    seed: int
    config: TrainConfig | None = None

    def key(self, clip: FrozenCLIP) -> tuple[str, str, int, str]:
        """What a recorded row must match; otherwise it is made again."""
        return self.dataset, self.method, self.seed, made_by(clip, self.config)


def made_by(clip: FrozenCLIP, config: TrainConfig | None) -> str:
    """The start of a digest of the backbone's weights, and the settings, as text."""
    weights = clip.text_tower.text_projection.detach().float().cpu().numpy()
    digest = hashlib.sha256(weights.tobytes()).hexdigest()[:8]
    settings = f", {config.epochs} x {config.batch_size} at {config.lr:g}" if config else ""
    return f"weights {digest}{settings}"


def run_cells(
    clip: FrozenCLIP,
    name: str,
    command: str,
    cells: Sequence[Cell],
    work: Callable[[FrozenCLIP, Cell], list[Row]],
    methods: Sequence[str],
    folder: Path | None,
    jobs: int,
    engine: str = "local",
) -> Path:
    """Runs the cells that a result file lacks and writes the file after each, so it can be stopped.

    Args:
        clip: The backbone; with more than one job, one that `load_clip` finds by its name.
        name: Of the result file.
        command: What makes it.
        cells: All that belong in the file; rows of other weights or settings are dropped from it.
        work: Makes a cell's rows.
        methods: Only cells of these methods run now.
        folder: Where the file goes; None takes the results folder.
        jobs: Processes, of one thread each.
        engine: Where the processes run, as for `processes`.

    Returns:
        The path of the file.
    """
    wanted = {cell.key(clip): cell for cell in cells}
    fields = ("dataset", "method", "seed", "made_by")
    rows = {key: [] for key in wanted}
    for row in _earlier(name, folder):
        rows.get(tuple(row[f] for f in fields), []).append(row)
    todo = [c for key, c in wanted.items() if not rows[key] and c.method in methods]
    path = None
    _at_hand[clip.name] = clip
    with processes(engine, jobs) as run, bar(None, name, len(todo), unit="run") as progress:
        for cell, made in run(delayed(_run)(clip.name, work, cell) for cell in todo):
            key = cell.key(clip)
            rows[key] = [dict(zip(fields, key, strict=True)) | row for row in made]
            path = _save(name, rows, command, folder)
            last = {k: round(v, 2) for k, v in made[-1].items() if isinstance(v, float)}
            progress.write(f"{cell.dataset} {cell.method} seed {cell.seed}: {last}")
            progress.update()
    return path or _save(name, rows, command, folder)


@contextlib.contextmanager
def processes(engine: str, jobs: int) -> Iterator[Parallel]:
    """Processes of joblib, which hand back each result as soon as it is there.

    Args:
        engine: "local" for this machine, or "dask" for the cluster whose scheduler Dask's settings
            name (`DASK_SCHEDULER_ADDRESS`); if they name none, a cluster is started here.
        jobs: Processes, of one thread each; a cluster that runs already has its own number.

    Raises:
        UnknownNameError: Another engine.
        MissingDataError: Dask is not installed.
    """
    if engine not in ENGINES:
        raise UnknownNameError(f"Unknown engine {engine!r}. {suggest(engine, ENGINES)}")
    if engine == "local":
        yield Parallel(n_jobs=jobs, return_as="generator_unordered")
        return
    with needs_extra("cluster"):
        import dask
        from distributed import Client
    here = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None}
    options = {} if dask.config.get("scheduler-address", None) else here
    with Client(**options), parallel_config(backend="dask"):
        yield Parallel(return_as="generator_unordered")


_at_hand: dict[str, FrozenCLIP] = {}  # each process loads a backbone only once


def _run(
    name: str, work: Callable[[FrozenCLIP, Cell], list[Row]], cell: Cell
) -> tuple[Cell, list[Row]]:
    if name not in _at_hand:  # a new process: its parent has the bar and the other cores
        os.environ["COCOOP_QUIET"] = "1"
        torch.set_num_threads(1)
        _at_hand[name] = load_clip(name, device="cpu")
    return cell, work(_at_hand[name], cell)


def _earlier(name: str, folder: Path | None) -> list[Row]:
    try:
        return load_result(name, folder)["data"]
    except MissingDataError:
        return []


def _save(name: str, rows: dict[Any, list[Row]], command: str, folder: Path | None) -> Path:
    seeds = sorted({key[2] for key in rows})
    flat = [row for part in rows.values() for row in part]
    return save_result(name, flat, command, seeds, "cpu", folder)
