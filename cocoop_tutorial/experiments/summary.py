"""From rows of runs to tables, differences with intervals, and verdicts (chapters 6 to 9).

Images of a class are not independent, and a run depends on its shots. So intervals come from
drawing classes with all of their images, and seeds, with replacement; what is compared is compared
on the same draws. The data sets stay as they are: an interval speaks of these, not of others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cocoop_tutorial.errors import DataError
from cocoop_tutorial.evaluation.accuracy import harmonic_mean
from cocoop_tutorial.experiments.methods import METHODS
from cocoop_tutorial.experiments.protocols import ends
from cocoop_tutorial.results import load_result
from cocoop_tutorial.seeds import check_seed

REPEATS = 2000
HALVES = ["base", "new"]
Draws = dict[str, np.ndarray]  # by split: mean accuracy (%) over data sets, of each draw


def recorded(name: str, folder: Path | None = None) -> pd.DataFrame:
    """The rows of a result file of `cocoop reproduce NAME`, as the protocols return them.

    Args:
        name: Such as "table1".
        folder: Of the result file; None takes the results folder.

    Raises:
        MissingDataError: The command has not been run.
    """
    return pd.DataFrame(load_result(name, folder)["data"])


def per_dataset(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (%) of trained models, the mean over seeds.

    Args:
        rows: Of a protocol.

    Returns:
        Indexed by `target` and `method`; a column per split, and "H" if there are both halves.
    """
    index = ["target", "method"]
    found = ends(rows).pivot_table("accuracy", index, "split", sort=False)
    return _with_h(found)


def per_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (%) of every run: as `per_dataset`, indexed by `target`, `method` and `seed`."""
    index = ["target", "method", "seed"]
    return _with_h(ends(rows).pivot_table("accuracy", index, "split", sort=False))


def gains(rows: pd.DataFrame, methods: Sequence[str], over: str = "clip") -> pd.DataFrame:
    """How far every run of some methods is above another method's mean on the same test set.

    Args:
        rows: Of a protocol; only those of split "all" are read.
        methods: Which methods; those that are not in the rows are left out.
        over: What they are compared with.

    Returns:
        `target`, `method`, `seed`, and `points`, the difference in percentage points.
    """
    found = ends(rows[rows.split == "all"])
    zero = found[found.method == over].groupby("target").accuracy.mean()
    mine = found[found.method.isin(methods)]
    mine = mine.assign(points=mine.accuracy - mine.target.map(zero))
    return mine[["target", "method", "seed", "points"]].reset_index(drop=True)


def class_gains(rows: pd.DataFrame, method: str, over: str = "clip") -> pd.Series:
    """How far a method is above another on each class, all seeds together.

    Args:
        rows: Of a protocol; only those of split "all" are read.
        method: A method in it.
        over: What it is compared with.

    Returns:
        Percentage points, indexed by `target` and `class`, a label of the target.
    """
    return _per_class(rows, method) - _per_class(rows, over)


def _per_class(rows: pd.DataFrame, method: str) -> pd.Series:
    mine, found = ends(rows[(rows.method == method) & (rows.split == "all")]), {}
    for target, part in mine.groupby("target", sort=False):
        right, images = (np.sum([_ints(t) for t in part[c]], axis=0) for c in ("right", "images"))
        found[target] = pd.Series(100 * right / images)
    return pd.concat(found, names=["target", "class"])


def _with_h(found: pd.DataFrame) -> pd.DataFrame:
    if set(HALVES) <= set(found.columns):
        found = found.assign(H=2 * found.base * found.new / (found.base + found.new))
    return found.rename_axis(columns=None)


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """The means over data sets and seeds, as the paper's tables have them.

    Args:
        rows: Of a protocol.

    Returns:
        Indexed by method. Per split the mean, and "sd", the standard deviation over seeds of that
        mean; with both halves also "H", of the two means, as in the paper's text, and "mean_H", the
        mean of the H of each data set. The two differ.
    """
    sets, order = per_dataset(rows), list(dict.fromkeys(rows.method))
    found = sets.groupby("method").mean().reindex(order)
    by_seed = per_seed(rows).groupby(["method", "seed"]).mean()
    if "H" in found:
        found = _with_h(found.rename(columns={"H": "mean_H"}))
        by_seed = _with_h(by_seed.drop(columns="H"))
    spread = by_seed.groupby("method").std().add_prefix("sd_")
    return found.join(spread)


def draws(
    rows: pd.DataFrame, method: str, pi: str = "own", repeats: int = REPEATS, seed: int = 1
) -> Draws:
    """Draws classes and seeds with replacement and takes the mean accuracy over the data sets.

    Args:
        rows: Of a protocol.
        method: A method in it.
        pi: Its own, or that of a control.
        repeats: How many draws.
        seed: The same seed gives the same classes and seeds for every method, so that differences
            of two methods' draws are paired.

    Returns:
        By split: `[repeats]`.

    Raises:
        DataError: There are no such rows.
    """
    mine = rows[(rows.method == method) & (rows.pi == pi) & rows.epoch.isna() & rows.right.notna()]
    if mine.empty:
        raise DataError(f"There are no rows of {method!r} with pi {pi!r}.")
    found: dict[str, list[np.ndarray]] = {}
    for (split, target), part in mine.groupby(["split", "target"], sort=False):
        # Every method gets the same draws, and both halves of a data set the same seeds.
        own_seeds, own = (
            np.random.default_rng([check_seed(seed), *text.encode()])
            for text in (target, f"{target} {split}")
        )
        part = part.sort_values("seed")
        right, images = (np.array([_ints(t) for t in part[c]]) for c in ("right", "images"))
        there = np.flatnonzero(images[0])
        n, k = len(part), len(there)
        classes = own.multinomial(k, np.full(k, 1 / k), repeats)  # [repeats, k]
        seeds = own_seeds.multinomial(n, np.full(n, 1 / n), repeats)
        accuracy = (classes @ right[:, there].T) / (classes @ images[:, there].T)  # [repeats, n]
        found.setdefault(split, []).append(100 * (accuracy * seeds).sum(axis=1) / n)
    return {split: np.mean(parts, axis=0) for split, parts in found.items()}


def _ints(text: str) -> list[int]:
    return [int(word) for word in text.split()]


Measure = Callable[[Draws], np.ndarray]


def measure(name: str) -> Measure:
    """What to compare: the mean accuracy on a split, or "H" of the means of both halves."""
    if name != "H":
        return lambda d: d[name]
    return lambda d: 2 * d["base"] * d["new"] / (d["base"] + d["new"])


@dataclass(frozen=True)
class Difference:
    """How far one method is above another, in percentage points.

    Attributes:
        effect: The difference of the means.
        low: Lower end of the 95% interval.
        high: Upper end.
        ahead: Data sets on which the first is ahead (mean over seeds).
        of: How many data sets there are.
    """

    effect: float
    low: float
    high: float
    ahead: int
    of: int

    def verdict(self, side: int) -> str:
        """Whether a claim holds: that the difference is above 0 (side 1) or below it (-1)."""
        low, high = sorted((side * self.low, side * self.high))
        return "holds here" if low > 0 else "does not hold here" if high < 0 else "cannot tell"

    def __str__(self) -> str:
        return f"{self.effect:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def difference(
    rows: pd.DataFrame,
    first: str,
    second: str,
    on: str,
    pis: tuple[str, str] = ("own", "own"),
) -> Difference:
    """How far the method `first` is above `second`.

    Args:
        rows: Of a protocol.
        first: A method.
        second: Another, or the same with another pi.
        on: A split, or "H".
        pis: The pi of each.

    Returns:
        Of the data sets that have rows of both.
    """
    sets = [set(_own(rows, m, pi).target) for m, pi in ((first, pis[0]), (second, pis[1]))]
    rows = rows[rows.target.isin(set.intersection(*sets))]
    a, b = (measure(on)(draws(rows, m, pi)) for m, pi in ((first, pis[0]), (second, pis[1])))
    low, high = np.quantile(a - b, [0.025, 0.975])
    table = [_of(rows, m, pi, on) for m, pi in ((first, pis[0]), (second, pis[1]))]
    apart = table[0] - table[1]
    if on == "H":
        effect = _mean_h(rows, first, pis[0]) - _mean_h(rows, second, pis[1])
    else:
        effect = apart.mean()
    return Difference(float(effect), float(low), float(high), int((apart > 0).sum()), len(apart))


def _own(rows: pd.DataFrame, method: str, pi: str) -> pd.DataFrame:
    mine = rows[(rows.method == method) & (rows.pi == pi) & rows.accuracy.notna()]
    return mine.assign(pi="own")


def _of(rows: pd.DataFrame, method: str, pi: str, on: str) -> pd.Series:
    return per_dataset(_own(rows, method, pi))[on].droplevel("method")


def _mean_h(rows: pd.DataFrame, method: str, pi: str) -> float:
    found = per_dataset(_own(rows, method, pi)).mean()
    return harmonic_mean(found["base"], found["new"])


def label(method: str) -> str:
    """A method as tables show it."""
    return METHODS[method].label if method in METHODS else method


def without_source(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of transfer that are not of the source's own test images."""
    return rows[rows.target != rows.dataset]


def sources(rows: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """How far the first method is above the second, source by target (`cocoop reproduce matrix`).

    Args:
        rows: Of "matrix".
        methods: Two of its methods.
    """
    first, second = (
        ends(rows[rows.method == m]).pivot_table("accuracy", "dataset", "target", sort=False)
        for m in methods
    )
    return first - second
