"""What `cocoop reproduce` prints: this grid's numbers beside the paper's."""

import json

import pandas as pd

from cocoop_tutorial.errors import MissingDataError
from cocoop_tutorial.evaluation.accuracy import harmonic_mean
from cocoop_tutorial.experiments.protocols import ends
from cocoop_tutorial.experiments.summary import HALVES, label, means
from cocoop_tutorial.experiments.tables import table
from cocoop_tutorial.results import load_result

PAPERS = {"table2": "table2_cross_dataset", "table3": "table3_domain_generalization"}
GROUPS = {"shots": ["shots"], "search": ["batch_size", "lr"]}  # tables with means for each of them


def as_rows(rows: pd.DataFrame) -> list[dict]:
    """One dict per run: dataset, method, seed, and base, new, h in percent, or the accuracy."""
    found = ends(rows)
    columns = ["dataset", "method", "seed", "target", "shots", "batch_size", "lr"]
    known = [c for c in columns if c in found and found[c].notna().any()]
    wide = found.pivot_table("accuracy", known, "split", sort=False, dropna=False).dropna(how="all")
    out = []
    for key, row in zip(wide.index, wide.to_dict("records"), strict=True):
        facts = {k: v for k, v in zip(known, key, strict=True) if v == v}
        scores = {split: value for split, value in row.items() if value == value}
        if set(HALVES) <= scores.keys():
            scores["h"] = harmonic_mean(scores["base"], scores["new"])
        out.append(facts | {"accuracy" if k == "all" else k: v for k, v in scores.items()})
    return out


def show(name: str, rows: pd.DataFrame, as_json: bool = False) -> str:
    """A table for the terminal, or JSON for programs.

    Args:
        name: Of the table.
        rows: Of `tables.reproduce`.
        as_json: JSON instead: a list of `as_rows`.
    """
    if as_json:
        return json.dumps(as_rows(rows), indent=1)
    by = GROUPS.get(name, [])
    parts = rows.groupby(by) if by else [((), rows)]
    found = {key: means(part) for key, part in parts}
    text = pd.concat(found, names=by) if by else found[()]
    text = text.rename(index=label, level="method") if by else text.rename(index=label)
    shown = text.to_string(float_format="{:.1f}".format, na_rep="-")
    return f"{table(name).title}, mean over data sets, %\n{shown}\n{papers(name)}".rstrip()


def papers(name: str) -> str:
    """The paper's means, where they are on record."""
    if name not in {"table1", *PAPERS}:
        return ""
    try:
        data = load_result("paper_tables")["data"]
    except MissingDataError:  # another results folder
        return ""
    if name == "table1":
        rows = data["table1_base_to_new"]["values"]["average"]
        found = pd.DataFrame(rows, index=["base", "new", "H"]).T
    else:
        values = data[PAPERS[name]]["values"]
        whole = {m: v["source"] | v["target"] if "source" in v else v for m, v in values.items()}
        found = pd.DataFrame(whole).T
    return f"\nThe paper, ViT-B/16 on photographs, %\n{found.to_string()}"
