"""Reading what `cocoop reproduce world` has recorded (chapter 2)."""

from pathlib import Path

import pandas as pd

from cocoop_tutorial.experiments.templates import WITH_SUBJECT
from cocoop_tutorial.results import load_result

RESULT = "world"  # name of the result file
# Between which images copies are counted.
SPLIT = "train and test of a class"
SAME_NAME = "pretraining and evaluation, same name"
ANY_NAME = "pretraining and evaluation, any name"


def recorded(part: str, folder: Path | None = None) -> pd.DataFrame:
    """One part of the measurements as a table.

    Args:
        part: "breadth", "headroom", "words", "media", "shifts", "emoji" or "copies".
        folder: Of the result file; None takes the results folder.

    Raises:
        MissingDataError: The command has not been run.
    """
    return pd.DataFrame(load_result(RESULT, folder)["data"][part])


def template_table(folder: Path | None = None) -> pd.DataFrame:
    """Accuracy (%) of each template (rows, the ensemble last) on each dataset (columns)."""
    rows = recorded("words", folder)
    table = rows.pivot_table("accuracy", "template", "dataset", sort=False)
    return table.rename_axis(index=None, columns=None)


def world_table(folder: Path | None = None) -> pd.DataFrame:
    """One row per dataset, and their average: what chapter 2 shows of the world.

    Returns:
        `classes`; zero-shot accuracy (%) on `all` classes, the `base` and the `new` half; `probe`
        on the base half and its `gain` over zero-shot there, means of the seeds; `spread` between
        the best and the worst of twelve templates, and the `best` one; `own medium`, what a
        template gains that names each image's own.
    """
    breadth = recorded("breadth", folder).set_index("dataset")[["classes", "all", "base", "new"]]
    breadth = breadth.astype(float)  # the average of `classes` is no whole number
    shots = recorded("headroom", folder).groupby("dataset", sort=False)[["probe", "gain"]].mean()
    words = template_table(folder).drop("ensemble")
    media = recorded("media", folder).set_index("dataset").gain.rename("own medium")
    spread = (words.max() - words.min()).rename("spread")
    table = pd.concat([breadth, shots, spread, media], axis=1)
    table.loc["average"] = table.mean()
    return table.assign(best=words.idxmax().reindex(table.index, fill_value=""))


def goals(folder: Path | None = None) -> pd.DataFrame:
    """What the world should be, and what it is.

    Returns:
        `measure`, `aim` in words ("" where a figure is told without a goal), `value`, and
        `reached`: True, False, or None without a goal.
    """
    table = world_table(folder).drop("average")
    gain, own, halves = table.gain, table["own medium"], table.base - table.new
    emoji = recorded("emoji", folder).set_index("package").accuracy
    copies = recorded("copies", folder).groupby("between", sort=False)["count"].sum()
    aims = {SPLIT: 0, SAME_NAME: 0}  # under other names there are simple shapes: data/ICONS.md
    words = template_table(folder).drop(["ensemble", *WITH_SUBJECT], errors="ignore")
    plain = words.max() - words.min()
    rows = [
        ("linear probe above zero-shot, base classes, mean (points)", 8, None, gain.mean()),
        (f"datasets (of {len(table)}) with the probe above zero-shot", 9, None, (gain > 0).sum()),
        (f"datasets (of {len(table)}) with it 8 points above", None, None, (gain >= 8).sum()),
        ("zero-shot, all classes, mean (%)", 55, 75, table["all"].mean()),
        ("base and new classes, difference of the means (points)", None, 5, abs(halves.mean())),
        ("base and new classes, mean difference (points)", None, None, halves.abs().mean()),
        ("zero-shot on noto's emoji (%)", 60, None, emoji["noto"]),
        *((f"copies between {where}", None, aims.get(where), n) for where, n in copies.items()),
        ("best above worst of twelve templates, mean (points)", 4, None, table.spread.mean()),
        ("the same without the three that name the subject", None, None, plain.mean()),
        ("templates that are best on at least one dataset", 2, None, table.best.nunique()),
        ("own medium above best single medium, mean (points)", None, None, own.mean()),
    ]
    return pd.DataFrame([_goal(*row) for row in rows])


def _goal(measure: str, low: float | None, high: float | None, value: float) -> dict[str, object]:
    bounds = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
    within = (low is None or value >= low) and (high is None or value <= high)
    reached = bool(within) if bounds else None
    aim = ", ".join(bounds)
    return {"measure": measure, "aim": aim, "value": round(float(value), 1), "reached": reached}
