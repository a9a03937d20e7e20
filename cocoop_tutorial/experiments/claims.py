"""The paper's claims, each with what the grid of this world says of it (chapters 6 to 9)."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cocoop_tutorial.errors import MissingDataError
from cocoop_tutorial.experiments.summary import (
    Difference,
    difference,
    label,
    recorded,
    without_source,
)


@dataclass(frozen=True)
class Claim:
    """A statement of the CoCoOp paper, as a difference of two methods.

    Attributes:
        text: The statement.
        table: The result file that can tell.
        first: A method.
        second: What it is compared with.
        on: A split, or "H".
        side: 1 if `first` is claimed to be above `second`, -1 if below.
        section: Where the paper says it.
    """

    text: str
    table: str
    first: str
    second: str
    on: str
    side: int
    section: str


CLAIMS = (
    Claim("CoOp beats CLIP on base classes", "table1", "coop", "clip", "base", 1, "4.1"),
    Claim("CoOp falls below CLIP on new classes", "table1", "coop", "clip", "new", -1, "4.1"),
    Claim("CoCoOp recovers new classes", "table1", "cocoop", "coop", "new", 1, "4.1"),
    Claim("CoCoOp has a higher H than CoOp", "table1", "cocoop", "coop", "H", 1, "4.1"),
    Claim("CoCoOp has a higher H than CLIP", "table1", "cocoop", "clip", "H", 1, "4.1"),
    Claim("CoCoOp is below CLIP on new classes", "table1", "cocoop", "clip", "new", -1, "5"),
    Claim("CoCoOp transfers better across data sets", "table2", "cocoop", "coop", "all", 1, "4.2"),
    Claim("CoCoOp generalizes better under shift", "table3", "cocoop", "coop", "all", 1, "4.3"),
    Claim("CoCoOp is ahead if classes compete", "table4", "cocoop", "coop", "all", 1, "4.4"),
    Claim("A bigger CoOp stays behind CoCoOp", "table5", "cocoop", "coop-big", "new", 1, "4.4"),
    Claim("Words are a better start than chance", "init", "cocoop", "cocoop-random", "H", 1, "4.4"),
    Claim(
        "A longer context does not help new classes",
        "length", "cocoop-16", "cocoop-random", "new", -1, "4.4",
    ),
)  # fmt: skip

# Is it the image? Each control lacks one thing that CoCoOp has (chapter 6).
CONTROLS = (
    Claim("The image, not just the schedule", "table1", "cocoop", "coop-matched", "H", 1, ""),
    Claim("The image, not just a network", "table1", "cocoop", "cocoop-noise", "H", 1, ""),
    Claim("The random start of the Meta-Net", "table1", "cocoop", "cocoop-zero", "H", 1, ""),
)
PIS = ("mean", "another image", "noise", "none")


def tell(claim: Claim, folder: Path | None = None) -> Difference:
    """The difference that a claim is about, from its result file."""
    rows = recorded(claim.table, folder)
    if claim.table in ("table2", "table3"):
        rows = without_source(rows)
    return difference(rows, claim.first, claim.second, claim.on)


def told(claims: tuple[Claim, ...] = CLAIMS, folder: Path | None = None) -> dict[Claim, Difference]:
    """What is recorded of the claims; those whose result file is not there are left out."""
    found = {}
    for claim in claims:
        with contextlib.suppress(MissingDataError):
            found[claim] = tell(claim, folder)
    return found


def claims_table(claims: tuple[Claim, ...] = CLAIMS, folder: Path | None = None) -> pd.DataFrame:
    """Every claim that is `told`, with effect, 95% interval, data sets, and verdict.

    Returns:
        Indexed by claim: what is compared, on what, the effect in percentage points with its
        interval, on how many data sets the first is ahead, and the verdict.
    """
    rows = [
        {
            "claim": claim.text,
            "compared": f"{label(claim.first)} − {label(claim.second)}, {claim.on}",
            "effect": str(found),
            "ahead": f"{found.ahead} of {found.of}",
            "verdict": found.verdict(claim.side),
        }
        for claim, found in told(claims, folder).items()
    ]
    return pd.DataFrame(rows).set_index("claim")


def by_pi(folder: Path | None = None) -> pd.DataFrame:
    """How far a trained CoCoOp is with its image's own pi above the same CoCoOp with another pi.

    Returns:
        Indexed by the other pi: the differences on base, new and H, with intervals.
    """
    rows = recorded("table1", folder)
    found = {
        pi: {on: str(difference(rows, "cocoop", "cocoop", on, ("own", pi))) for on in MEASURES}
        for pi in PIS
    }
    return pd.DataFrame(found).T.rename_axis("pi of")


MEASURES = ("base", "new", "H")
