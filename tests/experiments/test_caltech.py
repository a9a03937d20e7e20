"""The paper's protocols on the real Caltech101, with a small backbone and tiny settings."""

from pathlib import Path

import pytest
from small_clips import small_clip

from cocoop_tutorial.experiments.grid import How
from cocoop_tutorial.experiments.summary import means, recorded
from cocoop_tutorial.experiments.tables import ask, reproduce
from cocoop_tutorial.experiments.worlds import PAPER


@pytest.mark.slow
def test_every_protocol_that_one_data_set_allows(caltech_root: Path, tmp_path: Path) -> None:
    methods = ("clip", "coop", "cocoop")
    how = How(1, folder=tmp_path / "cells", root=caltech_root)
    for name, source in (("table1", None), ("table2", "caltech101"), ("table4", None)):
        asked = ask(PAPER, ("caltech101",), methods, (1,), source, shots=1, epochs=1)
        reproduce(name, small_clip("resnet"), asked, how, tmp_path)
    halves, transfer, both = (
        recorded(f"{t}_paper", tmp_path) for t in ("table1", "table2", "table4")
    )
    assert list(means(halves).index) == list(methods)
    assert means(halves)[["base", "new", "H"]].notna().all(axis=None)
    images = {
        split: sum(map(int, rows.images.iloc[0].split()))
        for split, rows in halves[halves.right.notna()].groupby("split")
    }
    assert images == {"base": 1549, "new": 916}  # the official halves of the official test split
    for rows in (transfer, both):
        assert {len(text.split()) for text in rows.images.dropna()} == {100}
        assert set(rows.method) == set(methods) and set(rows.target) == {"caltech101"}
