"""Reading what `cocoop reproduce first-look` has recorded (chapters 3 and 4)."""

from pathlib import Path

import pandas as pd

from cocoop_tutorial.experiments.first_look import RESULT
from cocoop_tutorial.results import load_result

MEASURES = ["base", "new", "H"]
RUN = ["dataset", "seed"]  # what methods are compared within


def recorded(folder: Path | None = None) -> pd.DataFrame:
    """All rows: `dataset, method, seed, when, pi, base, new, H` and more.

    Args:
        folder: Of the result file; None takes the results folder.

    Raises:
        MissingDataError: The command has not been run.
    """
    return pd.DataFrame(load_result(RESULT, folder)["data"])


def ends(rows: pd.DataFrame) -> pd.DataFrame:
    """The trained models with their own pi: one row per dataset, seed and method."""
    return rows[(rows.when == "end") & rows.pi.isin(["fixed", "image"])]


def gains(rows: pd.DataFrame, method: str, over: str) -> pd.DataFrame:
    """How far the trained `method` is above `over`, in percentage points.

    Args:
        rows: From `recorded`.
        method: A method.
        over: Another.

    Returns:
        `base`, `new` and `H`, indexed by dataset and seed: the same shots are compared.
    """
    by_method = ends(rows).set_index([*RUN, "method"])[MEASURES].unstack("method")
    return pd.DataFrame({m: by_method[m][method] - by_method[m][over] for m in MEASURES}).dropna()


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy as text "mean ± standard deviation over seeds", by dataset and method."""
    grouped = ends(rows).groupby(["dataset", "method"], sort=False)[MEASURES]
    mean, spread = grouped.mean(), grouped.std().fillna(0)
    # no-break spaces: on a phone, a cell must not fall apart
    return mean.map("{:.1f}\u00a0±\u00a0".format) + spread.map("{:.1f}".format)


def points(change: float) -> str:
    """A change in percentage points with its sign, for prose; never "-0.0"."""
    return f"{round(change, 1) + 0.0:+.1f}"
