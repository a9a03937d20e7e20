"""Many runs, on all cores or on a cluster, each kept in a file of its own (chapter 6).

A grid that is cut off loses at most the runs in flight, and goes on where it was. Two grids at once
may both make a run; they then return the rows of the one that ended first.
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from joblib import Parallel, cpu_count, delayed, parallel_config
from tqdm.auto import tqdm

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.identity import settled_weights, weights_digest
from cocoop_tutorial.clip.load import load_clip
from cocoop_tutorial.datasets.load import load_dataset
from cocoop_tutorial.errors import (
    DataError,
    SettingError,
    TrainingError,
    check_known,
    needs_extra,
)
from cocoop_tutorial.experiments.runs import Row, Run, data_digest, digest, finish, is_row
from cocoop_tutorial.files import cache_root, check_folder, read_json, write_json
from cocoop_tutorial.progress import bar
from cocoop_tutorial.seeds import check_whole

ENGINES = ("local", "dask")
MOST = 6  # runs trained together: more are hardly faster, and are lost together
_at_hand: dict[str, FrozenCLIP] = {}  # each process loads a backbone only once


@dataclass(frozen=True)
class How:
    """How a grid is run; none of it changes a result.

    Attributes:
        jobs: Processes, of one thread each, at most one per core; None takes as many. On a GPU, 1.
        engine: "local" for this machine, "dask" for the cluster that DASK_SCHEDULER_ADDRESS names.
        folder: Where finished runs are kept; None takes `runs` in the cache.
        root: Folder of the paper's data; None takes $COCOOP_DATA, else ./data.
        shard: (i, n): only every n-th group of runs, beginning with the i-th, from 1.
    """

    jobs: int | None = None
    engine: str = "local"
    folder: Path | None = None
    root: Path | None = None
    shard: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        """Finds what cannot be, before anything is loaded.

        Raises:
            SettingError: Not a number of processes, or no such shard.
            UnknownNameError: No such engine.
        """
        if self.jobs is not None:
            check_whole("jobs", self.jobs)
        i, n = (check_whole("shard", number) for number in self.shard)
        if i > n:
            raise SettingError(f"There is no shard {i} of {n}. Count from 1.")
        check_known("engine", self.engine, ENGINES)

    @property
    def cells(self) -> Path:
        """Where finished runs are kept."""
        return self.folder or cache_root() / "runs"


def make(clip: FrozenCLIP, runs: Sequence[Run], how: How | None = None) -> list[Row]:
    """Makes the runs that are not there yet, and returns the rows of all.

    Args:
        clip: The backbone; with more than one process, one that `load_clip` finds by its name.
        runs: What to make.
        how: Where and how.

    Returns:
        The rows of each run in turn, as `runs.finish` gives them. With a shard, of those runs that
        are there.

    Raises:
        TrainingError: A run failed, or a process has another backbone.
        DataError: The file of a finished run is damaged, or holds another run.
        FileError: The folder of finished runs cannot be written to.
    """
    how = how or How()
    check_folder(how.cells)
    data_digest.cache_clear()  # because files may have changed since the last grid
    with settled_weights():
        digests = {run: digest(clip, run, how.root) for run in dict.fromkeys(runs)}
    files = {run: how.cells / f"{known}.json" for run, known in digests.items()}
    i, n = how.shard
    most = 1 if clip.device.type == "cuda" else MOST  # `train` replays a recorded step there
    mine = group(list(files), how, most)[i - 1 :: n]  # of all runs: shards must agree on the groups
    todo = [[run for run in part if not files[run].is_file()] for part in mine]
    todo, same = [part for part in todo if part], weights_digest(clip.model)
    _at_hand[clip.name] = clip
    jobs = how.jobs or (1 if clip.device.type == "cuda" else cpu_count())
    todo = spread(todo, jobs, how)
    jobs = max(min(jobs, len(todo)), 1)  # more would have nothing to do
    task = delayed(_finish)
    total = sum(_total(part, how) for part in todo)
    with processes(how.engine, jobs) as parallel, _bar(total) as progress:
        where = clip.name, str(clip.device), clip.precision, same, how.root
        for part, found in parallel(task(*where, part) for part in todo):
            for run, rows in zip(part, found, strict=True):
                if not files[run].is_file():  # of two grids on the same cells, the first counts
                    write_json(files[run], {"rows": rows})
                progress.update(cost(run, how.root))
            progress.set_postfix_str(f"{part[0].dataset} {part[0].method}")
    return [row for run, file in files.items() if file.is_file() for row in _read(file, run)]


def group(runs: Sequence[Run], how: How, most: int = MOST) -> list[list[Run]]:
    """Runs that are trained together, at most so many; those that end last come first."""
    alike: dict[object, list[Run]] = defaultdict(list)
    for run in runs:
        alike[run.company() if run.config else (run.dataset, run.method)].append(run)
    groups = [part[k : k + most] for part in alike.values() for k in range(0, len(part), most)]
    return sorted(groups, key=lambda part: -_total(part, how))


def spread(groups: Sequence[list[Run]], jobs: int, how: How) -> list[list[Run]]:
    """Halves the longest groups until none is more than half of one process's share of the work.

    Otherwise one process could still be busy with a long group after the others have ended.

    Args:
        groups: As `group` gives them, without the runs that are there.
        jobs: Processes; one takes the groups as they are.
        how: Where the data is.

    Returns:
        The same runs, in groups that end last first.
    """
    bound = sum(_total(part, how) for part in groups) / (2 * jobs)
    done, waiting = [], list(groups)
    while waiting:
        part = waiting.pop()
        half = len(part) // 2
        if jobs > 1 and half and _total(part, how) > bound:
            waiting += [part[:half], part[half:]]
        else:
            done.append(part)
    return sorted(done, key=lambda part: -_total(part, how))


def _total(runs: Sequence[Run], how: How) -> float:
    return sum(cost(run, how.root) for run in runs)


def cost(run: Run, root: Path | None) -> float:
    """About how long a run takes, in prompts that are encoded in training; never 0."""
    if run.config is None:
        return 1.0
    classes = len(load_dataset(run.dataset, root).classnames) / (2 if run.subset == "base" else 1)
    contexts = run.config.epochs * run.shots * classes
    return contexts * classes / (run.config.batch_size if run.method.startswith("coop") else 1)


def _bar(total: float) -> tqdm:
    layout = "{desc}: {percentage:3.0f}% [{elapsed}<{remaining}]{postfix}"
    return bar(None, "runs", round(total), bar_format=layout, leave=True)


def _read(file: Path, run: Run) -> list[Row]:
    remedy = "Delete it; the run is repeated."
    content = read_json(file, remedy)
    rows = content.get("rows") if isinstance(content, dict) else content  # once a list, no digest
    if not isinstance(rows, list) or not rows or not all(is_row(row, run) for row in rows):
        raise DataError(f"{file} is damaged (it does not hold the rows of this run). {remedy}")
    return rows


def _finish(
    name: str, device: str, precision: str, same: str, root: Path | None, runs: list[Run]
) -> tuple[list[Run], list[list[Row]]]:
    if name not in _at_hand:  # a new process: its parent has the bar and the other cores
        os.environ["COCOOP_QUIET"] = "1"
        torch.set_num_threads(1)
        _at_hand[name] = load_clip(name, device, precision)
    clip = _at_hand[name]
    if weights_digest(clip.model) != same:
        raise TrainingError(f"{name} has other weights in another process. Set jobs to 1.")
    return runs, finish(clip, runs, root)


@contextlib.contextmanager
def processes(engine: str, jobs: int) -> Iterator[Parallel]:
    """Processes of joblib, which hand back each result as soon as it is there.

    Args:
        engine: "local" for this machine, or "dask" for the cluster whose scheduler Dask's settings
            name (`DASK_SCHEDULER_ADDRESS`); if they name none, a cluster is started here.
        jobs: Processes, of one thread each, at most one per core; a cluster that runs already has
            its own number.

    Raises:
        UnknownNameError: Another engine.
        MissingDataError: Dask is not installed.
    """
    jobs = min(jobs, cpu_count())  # more would only take memory
    if check_known("engine", engine, ENGINES) == "local":
        yield Parallel(n_jobs=jobs, return_as="generator_unordered")
        return
    with needs_extra("cluster"):
        import dask
        from distributed import Client
    here = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None}
    options = {} if dask.config.get("scheduler-address", None) else here
    with Client(**options), parallel_config(backend="dask"):
        yield Parallel(return_as="generator_unordered")
