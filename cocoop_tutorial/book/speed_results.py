"""Reading what `make bench` has recorded (chapter 5 and the benchmarks page)."""

from pathlib import Path

import pandas as pd

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
    """The rows of `results/bench_text_encoder_DEVICE.json`.

    Args:
        device: "cpu" or "cuda"; or another machine's file, such as "cpu_avx512".
        folder: Of the result file; None takes the results folder.

    Returns:
        One row for each number of `classes`, of `images` and `method`: `train` and `inference`
        (median seconds), `train_low` and so on, `saved_bytes`, `peak_process_bytes`, `tokens`,
        `train_operations`, `rate` (operations per second, measured with the cell) and `skipped`
        (why there is no time).
    """
    rows = []
    for cell in load_result(f"bench_text_encoder_{device}", folder)["data"]["cells"]:
        where = {"classes": cell["classes"], "images": cell["images"]}
        for method, found in cell["methods"].items():
            facts = dict(found)
            for kind in ("train", "inference"):
                times = facts.pop(kind, {})
                facts[kind] = times.get("median")
                facts |= {f"{kind}_{end}": times.get(end) for end in ("low", "high")}
            rows.append(where | {"method": method, "rate": cell["rates"]["ours"]} | facts)
    return pd.DataFrame(rows)


def ratios(bench: pd.DataFrame, column: str, over: str = "packed") -> pd.Series:
    """How many times more the published encoder takes than `over`, by classes and images.

    Args:
        bench: From `load_bench`.
        column: "train", "inference", "saved_bytes" or another number.
        over: "truncated", "packed" or "replayed".
    """
    wide = bench.pivot(index=["classes", "images"], columns="method", values=column).astype(float)
    return (wide["published"] / wide[over]).dropna()


def bench_table(bench: pd.DataFrame) -> pd.DataFrame:
    """Training steps in milliseconds, side by side.

    Args:
        bench: From `load_bench`.

    Returns:
        Text cells: the median, or in square brackets the counted operations if it was not timed.
    """

    def cell(row: pd.Series) -> str:
        if pd.isna(row.train):
            return f"[{row.train_operations / 1e12:.1f} T]"
        return f"{1e3 * row.train:,.{0 if row.train >= 0.1 else 1}f}"

    text = bench.assign(cell=bench.apply(cell, axis=1))
    wide = text.pivot(index=["classes", "images"], columns="method", values="cell")
    return wide[[method for method in (*ENCODER_NAMES, REPLAYED) if method in wide]]


def cost_table(device: str, folder: Path | None = None) -> pd.DataFrame:
    """CoOp's and CoCoOp's training step, both with the packed encoder, in ms per image.

    On a GPU, the faster of the plain and the replayed step counts, as in training.

    Args:
        device: "cpu" or "cuda".
        folder: Of the result file; None takes the results folder.

    Returns:
        Median milliseconds by classes (rows) and by method and images (columns).
    """
    rows: dict[int, dict[tuple[str, str], float]] = {}
    for cell in load_result(f"bench_text_encoder_{device}", folder)["data"]["cells"]:
        B, both = cell["images"], {"CoCoOp": cell["methods"], "CoOp": cell["coop"]}
        for method, found in both.items():
            steps = [found[m]["train"]["median"] for m in ("packed", REPLAYED) if m in found]
            rows.setdefault(cell["classes"], {})[method, B] = 1e3 * min(steps) / B
    frame = pd.DataFrame.from_dict(rows, orient="index").sort_index().sort_index(axis=1)
    return frame.rename(columns=lambda B: f"B = {B}", level=1).rename_axis("K")


def switch_table(device: str, folder: Path | None = None) -> pd.DataFrame:
    """What each switch did to the packed encoder; `results/bench_switches_DEVICE.json`.

    Args:
        device: As for `load_bench`.
        folder: Of the result file; None takes the results folder.

    Returns:
        By `classes`, `images` and `switch`: median seconds of `train` and `inference`, how many
        times faster than `AS_IT_IS` they are (`train gain`, `inference gain`), `first call` with
        what it compiles (seconds), the largest relative `logits` difference, and `failed`: why it
        did not run.
    """
    rows = []
    for cell in load_result(f"bench_switches_{device}", folder)["data"]["cells"]:
        plain = cell["switches"][AS_IT_IS]
        for name, facts in cell["switches"].items():
            row = {"classes": cell["classes"], "images": cell["images"], "switch": name}
            for kind in ("train", "inference"):
                row[kind] = facts.get(kind, {}).get("median")
                row[f"{kind} gain"] = row[kind] and plain[kind]["median"] / row[kind]
            row["first call"] = facts.get("first_seconds")
            row["logits"] = facts.get("differences", {}).get("logits")
            rows.append(row | {"failed": facts.get("failed", "")})
    return pd.DataFrame(rows).set_index(["classes", "images", "switch"])


def epoch_table(device: str, folder: Path | None = None) -> pd.DataFrame:
    """Where the time of one epoch goes; `results/bench_end_to_end_DEVICE.json`.

    Args:
        device: "cpu" or "cuda".
        folder: Of the result file; None takes the results folder.

    Returns:
        Milliseconds per image: one column for each recorded case, rows for `PARTS` that took any
        time, `other`, the `whole`, and the processor time of the threads that decode.
    """
    columns = {}
    for case in load_result(f"bench_end_to_end_{device}", folder)["data"]["cells"]:
        seconds = pd.Series(case["seconds"]).reindex([*PARTS, "whole", "decoding"], fill_value=0)
        seconds["other"] = seconds["whole"] - seconds[list(PARTS)].sum()
        views = {"test": "fixed view", "train": "random crops"}[case["transform"]]
        columns[f"{views}, B = {case['batch_size']}"] = 1e3 * seconds / case["images"]
    table = pd.DataFrame(columns).loc[[*PARTS, "other", "whole", "decoding"]]
    table = table.rename({"decoding": "decoding, in threads beside it"})
    return table[(table > 0).any(axis=1)]
