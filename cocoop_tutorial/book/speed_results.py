"""Reading what `make bench` has recorded (chapter 5)."""

from pathlib import Path
from typing import Any

import pandas as pd

from cocoop_tutorial.errors import MissingDataError
from cocoop_tutorial.results import load_result

ENCODER_NAMES = ("published", "truncated", "packed")
REPLAYED = "replayed"  # the packed encoder's training step from a CUDA graph
AS_IT_IS = "as it is"  # the packed encoder with no switch turned
# What an epoch spends its time on, in the order of the work.
PARTS = (
    "checking images",
    "waiting for images",
    "image tower",
    "text tower, forward",
    "text tower, backward",
    "text tower, recording",  # as a CUDA graph
    "text tower, replayed",
    "optimiser",
)


def load_bench(device: str, folder: Path | None = None) -> pd.DataFrame:
    """The rows of `results/bench_text_encoder_DEVICE.json`; or a note that there is no such file.

    Args:
        device: "cpu" or "cuda"; or another machine's file, as "cpu_avx512".
        folder: Of the result file; None takes the results folder.

    Returns:
        One row for each number of `classes`, of `images` and `method`: `train` and `inference`
        (median seconds), `train_low` and so on, `saved_bytes`, `peak_process_bytes`, `tokens`,
        `train_operations`, `rate` (operations per second, measured with the cell) and `skipped`
        (why there is no time). Empty if nothing is recorded.
    """
    data = _recorded(f"bench_text_encoder_{device}", device, folder)
    rows = []
    for cell in data.get("cells", []):
        where = {"classes": cell["classes"], "images": cell["images"]}
        for method, found in cell["methods"].items():
            facts = dict(found)
            for kind in ("train", "inference"):
                times = facts.pop(kind, {})
                facts[kind] = times.get("median")
                facts |= {f"{kind}_{end}": times.get(end) for end in ("low", "high")}
            rows.append(where | {"method": method, "rate": cell["rates"]["ours"]} | facts)
    return pd.DataFrame(rows)


def _recorded(name: str, device: str, folder: Path | None) -> dict[str, Any]:
    """The data of a result; if there is none, an empty dictionary and a note to the reader."""
    try:
        return load_result(name, folder)["data"]
    except MissingDataError:
        place = " on a machine with a GPU" if device == "cuda" else ""
        print(f"{name}: not recorded yet; `make bench` writes it{place}.")
        return {}


def load_epoch(device: str, folder: Path | None = None) -> pd.DataFrame:
    """The cases of `results/bench_end_to_end_DEVICE.json`; or a note that there is no such file.

    Args:
        device: "cpu" or "cuda".
        folder: Of the result file; None takes the results folder.

    Returns:
        One row for each `transform` ("test": fixed, "train": random crops), number of `shots` and
        `batch_size`, with `classes`, `images`, and seconds: `PARTS`, `other` and the `whole`;
        `decoding` is processor time of threads beside them. Empty if nothing is recorded.
    """
    cases = _recorded(f"bench_end_to_end_{device}", device, folder).get("cells", [])
    frame = pd.DataFrame([case | case["seconds"] for case in cases])
    if len(frame):
        frame = frame.reindex(columns=[*frame, *(p for p in PARTS if p not in frame)], fill_value=0)
        frame["other"] = frame["whole"] - frame[list(PARTS)].sum(axis=1)
        frame = frame.drop(columns="seconds").set_index(["transform", "shots", "batch_size"])
    return frame


def epoch_table(epoch: pd.DataFrame) -> pd.DataFrame:
    """Where an epoch's time goes: in seconds, and in milliseconds per image.

    Args:
        epoch: From `load_epoch`.
    """
    parts = [*PARTS, "other", "whole", "decoding"]
    columns = {}
    for (transform, shots, size), row in epoch.iterrows():
        views = {"test": "fixed view", "train": "random crops"}[transform]
        case = f"{views}, {shots} shots, B = {size}"
        seconds = row[parts].astype(float)
        columns[case, "s"] = seconds
        columns[case, "ms per image"] = 1e3 * seconds / row.images
    table = pd.DataFrame(columns).rename({"decoding": "decoding, in threads beside it"})
    return table[(table > 0).any(axis=1)]  # without the parts that this machine does not have


def cost_table(device: str, folder: Path | None = None) -> pd.DataFrame:
    """CoOp's and CoCoOp's training step, both with the packed encoder, in ms per image.

    On a GPU, the faster of the plain and the replayed step counts, as in training.

    Args:
        device: "cpu" or "cuda".
        folder: Of the result file; None takes the results folder.

    Returns:
        Median milliseconds by classes (rows) and by method and images (columns). Empty if nothing
        is recorded.
    """
    rows = {}
    for cell in _recorded(f"bench_text_encoder_{device}", device, folder).get("cells", []):
        B, both = cell["images"], {"CoCoOp": cell["methods"], "CoOp": cell["coop"]}
        for method, found in both.items():
            steps = [found[m]["train"]["median"] for m in ("packed", REPLAYED) if m in found]
            cost = 1e3 * min(steps) / B
            rows.setdefault(cell["classes"], {})[method, B] = cost
    if not rows:
        return pd.DataFrame()
    frame = pd.DataFrame.from_dict(rows, orient="index").sort_index().sort_index(axis=1)
    return frame.rename(columns=lambda B: f"B = {B}", level=1).rename_axis("K")


def ratios(bench: pd.DataFrame, column: str, over: str = "packed") -> pd.Series:
    """How many times more the published encoder takes than `over`, by classes and images.

    Args:
        bench: From `load_bench`.
        column: "train", "inference", "saved_bytes" or another number.
        over: "packed" or "truncated".
    """
    wide = bench.pivot(index=["classes", "images"], columns="method", values=column).astype(float)
    return (wide["published"] / wide[over]).dropna()


def launch_table(bench: pd.DataFrame) -> pd.DataFrame:
    """What a GPU saves when it does not have to wait for launches.

    Args:
        bench: From `load_bench`, of a GPU.

    Returns:
        By classes and images, median seconds of a training step `published`, `packed` and
        `replayed`, and `gain`: how many times faster a replay is than the packed step itself.
    """
    wide = bench.pivot(index=["classes", "images"], columns="method", values="train").astype(float)
    wide = wide[["published", "packed", REPLAYED]]
    return wide.assign(gain=wide.packed / wide[REPLAYED])


def bench_table(bench: pd.DataFrame) -> pd.DataFrame:
    """Training steps in milliseconds, side by side; counts where a method was not timed.

    Args:
        bench: From `load_bench`.

    Returns:
        Text cells: "median (lowest to highest)", "time (once)", or the counted operations.
    """

    def cell(row: pd.Series) -> str:
        if pd.notna(row.train):
            spread = f"{_ms(row.train_low)} to {_ms(row.train_high)}"
            once = row.train_low == row.train_high
            return f"{_ms(row.train)} ({'once' if once else spread})"
        return f"not run: {row.train_operations / 1e12:.1f} T operations"

    text = bench.assign(cell=bench.apply(cell, axis=1))
    wide = text.pivot(index=["classes", "images"], columns="method", values="cell")
    return wide[[method for method in (*ENCODER_NAMES, REPLAYED) if method in wide]]


def _ms(seconds: float) -> str:
    """Milliseconds as text, with a decimal if there are few."""
    return f"{1e3 * seconds:,.{0 if seconds >= 0.1 else 1}f}"


def switch_table(device: str, folder: Path | None = None) -> pd.DataFrame:
    """What each switch did to the packed encoder; `results/bench_switches_DEVICE.json`.

    Args:
        device: As for `load_bench`.
        folder: Of the result file; None takes the results folder.

    Returns:
        By `classes`, `images` and `switch`: median seconds of `train` and `inference`, how many
        times faster than `AS_IT_IS` they are (`train gain`, `inference gain`), `first call` with
        what it compiles (seconds), the largest relative `logits` difference, and `failed`: why it
        did not run. Empty if nothing is recorded.
    """
    rows = []
    for cell in _recorded(f"bench_switches_{device}", device, folder).get("cells", []):
        plain = cell["switches"][AS_IT_IS]
        for name, facts in cell["switches"].items():
            row = {"classes": cell["classes"], "images": cell["images"], "switch": name}
            for kind in ("train", "inference"):
                row[kind] = facts.get(kind, {}).get("median")
                row[f"{kind} gain"] = row[kind] and plain[kind]["median"] / row[kind]
            row["first call"] = facts.get("first_seconds")
            row["logits"] = facts.get("differences", {}).get("logits")
            rows.append(row | {"failed": facts.get("failed", "")})
    frame = pd.DataFrame(rows)
    return frame.set_index(["classes", "images", "switch"]) if len(frame) else frame
