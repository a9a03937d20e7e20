"""Reading what `cocoop reproduce prompt-learning` has recorded (chapters 3 and 4)."""

from pathlib import Path

import pandas as pd

from cocoop_tutorial.errors import MissingDataError
from cocoop_tutorial.results import load_result

RESULT, CHOICE = "coop_cocoop", "coop_cocoop_settings"  # names of the result files
MEASURES = ["base", "new", "H"]
RUN = ["split", "dataset", "seed"]  # what methods are compared within


def recorded(folder: Path | None = None) -> pd.DataFrame:
    """All rows, with "CLIP" for zero-shot: `dataset, method, seed, epoch, split, base, new, H`.

    Args:
        folder: Of the result file; None takes the results folder.

    Raises:
        MissingDataError: The command has not been run.
    """
    rows = pd.DataFrame(load_result(RESULT, folder)["data"])
    return rows.assign(method=rows.method.replace("zero-shot", "CLIP"))


def rate_losses(method: str, folder: Path | None = None) -> pd.DataFrame:
    """Mean loss on base classes: `poses` and `val`, by learning rate; empty if none is recorded.

    Args:
        method: "CoOp" or "CoCoOp".
        folder: Of the result file; None takes the results folder.
    """
    try:
        rows = pd.DataFrame(load_result(CHOICE, folder)["data"])
    except MissingDataError:
        return pd.DataFrame()
    return rows[rows.method == method].pivot_table("loss", "lr", "split")


def ends(rows: pd.DataFrame) -> pd.DataFrame:
    """The trained model's rows: one per split, dataset, seed and method.

    Args:
        rows: From `recorded`.
    """
    return rows.loc[rows.groupby([*RUN, "method"], observed=True).epoch.idxmax()]


def gains(rows: pd.DataFrame, method: str, over: str) -> pd.DataFrame:
    """How far the trained `method` is above `over`, in percentage points.

    Args:
        rows: From `recorded`.
        method: A method.
        over: Another.

    Returns:
        `base`, `new` and `H`, indexed by split, dataset and seed: the same shots are compared.
    """
    by_method = ends(rows).set_index([*RUN, "method"])[MEASURES].unstack("method")
    return pd.DataFrame({m: by_method[m][method] - by_method[m][over] for m in MEASURES}).dropna()


def summary(gain: pd.DataFrame) -> pd.DataFrame:
    """The mean of gains, and how certain it is.

    The datasets are the sample: seeds of one dataset share its classes and test images.

    Args:
        gain: From `gains`, of one split: indexed by dataset and seed.

    Returns:
        One row per measure (`base`, `new`, `H`) with `mean`, `error` (the standard error over
        datasets; not-a-number for one), `clear` (the mean is more than two errors from 0), and how
        many runs are `above` 0 and `below`.
    """
    by_dataset = gain[MEASURES].groupby("dataset").mean()
    mean, error = by_dataset.mean(), by_dataset.std() / len(by_dataset) ** 0.5
    counts = {"above": (gain[MEASURES] > 0).sum(), "below": (gain[MEASURES] < 0).sum()}
    return pd.DataFrame({"mean": mean, "error": error, "clear": mean.abs() > 2 * error, **counts})


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy, mean and standard deviation over seeds, by dataset and method.

    Args:
        rows: From `recorded`.

    Returns:
        Text cells "mean ± deviation"; the last rows, "average", take the mean of the datasets
        within each seed first.
    """
    test = rows[rows.split == "test"]
    average = test.groupby(["method", "seed"], as_index=False)[MEASURES].mean()
    both = pd.concat([test, average.assign(dataset="average")])
    order = [*test.dataset.unique(), "average"]
    both["dataset"] = pd.Categorical(both.dataset, order).rename_categories(
        lambda name: name.removeprefix("emoji_")
    )
    grouped = both.groupby(["dataset", "method"], observed=True)[MEASURES]
    mean, spread = grouped.mean(), grouped.std()
    # no-break spaces: on a phone, a cell must not fall apart
    return mean.map("{:.1f}\u00a0±\u00a0".format) + spread.map("{:.1f}".format)


def points(change: float) -> str:
    """A change in percentage points with its sign, for prose; never "-0.0"."""
    return f"{round(change, 1) + 0.0:+.1f}"
