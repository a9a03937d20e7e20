"""The published text encoder, the truncated one and the packed one, side by side in one run.

    python -m benchmarks.text_encoder                        # 20 cells, some 15 minutes a run
    python -m benchmarks.text_encoder --only 50x1 100x8      # classes x images

Writes bench_text_encoder_DEVICE.json and a figure, cell by cell, the book's own cells first. A run
that was stopped, or whose minutes are over, continues where it was, on the same machine with the
same versions. Names are ImageNet's, in a random order; weights are random. The published code runs
one image after another. If the graphs of all images do not fit in memory, each image gets its own
backward pass, which is the same arithmetic. If even one turn would take too long, operations and
bytes are counted instead.
"""

import argparse
import math
import random
import statistics
import time
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

from benchmarks.interleaved import (
    LONG,
    TURN,
    Contender,
    bench_parser,
    compete,
    differences,
    earlier_cells,
)
from cocoop_tutorial import CoCoOp, CoOp, FrozenCLIP, load_clip
from cocoop_tutorial.allocator import keep_freed_memory
from cocoop_tutorial.book.plots import figure
from cocoop_tutorial.book.speed_figures import HUES
from cocoop_tutorial.book.speed_results import ENCODER_NAMES, load_bench
from cocoop_tutorial.clip.identity import settled_weights
from cocoop_tutorial.results import save_result
from cocoop_tutorial.text_encoder.cost import product_rate
from cocoop_tutorial.text_encoder.packed import tower as packed_tower

ENCODERS = dict(zip(ENCODER_NAMES, ("reference", "truncated", "packed"), strict=True))
COOP = {"packed": "CoOp", "replayed": "CoOp replayed"}
SEED, CONTEXT = 1, 4
Size = tuple[int, int]  # classes, images
# The cells that the book names come first.
HEADLINES: list[Size] = [(50, 1), (100, 8), (1000, 8)]
PATIENCE = {(50, 1): 8, (100, 8): 8}  # how many times longer the published code may take here
GRID: list[Size] = [(K, B) for K in (10, 50, 100, 500, 1000) for B in (1, 4, 8, 32)]
QUICK: list[Size] = [(3, 1), (5, 2)]


def imagenet_names(n: int) -> list[str]:
    """The same n names in every run; the first 50 are among the first 100, and so on."""
    names = list(open_clip.IMAGENET_CLASSNAMES)
    random.Random(SEED).shuffle(names)
    return names[:n]


def contenders(clip: FrozenCLIP, size: Size) -> dict[str, Contender]:
    """CoCoOp with each encoder, and "CoOp" with the packed one, on the same features.

    On a GPU also both from a recorded CUDA graph, as `train` runs them: "replayed" and
    "CoOp replayed".
    """
    K, B = size
    generator = torch.Generator().manual_seed(SEED)
    features = torch.randn(B, clip.embed_dim, generator=generator)
    features = F.normalize(features, dim=-1).to(clip.device)
    labels = torch.randint(K, (B,), generator=generator).to(clip.device)
    names = imagenet_names(K)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        cocoop = CoCoOp(clip, names, n_ctx=CONTEXT, allow_duplicates=True)
        coop = CoOp(clip, names, n_ctx=CONTEXT, allow_duplicates=True)
    found = {m: Contender(cocoop, encoder, features, labels) for m, encoder in ENCODERS.items()}
    found["CoOp"] = Contender(coop, "packed", features, labels)
    if clip.device.type == "cuda":
        for name, model in (("replayed", cocoop), ("CoOp replayed", coop)):
            found[name] = Contender(model, "packed", features, labels, recorded=True)
    return found


@settled_weights()  # as in training
def measure_cell(
    clip: FrozenCLIP, size: Size, cells: list[dict[str, Any]], options: argparse.Namespace
) -> dict[str, Any]:
    """One cell of the table: what is too slow is only counted, the rest takes turns."""
    rates: dict[str, list[float]] = {"ours": [], "torch": []}

    def measure_rates() -> None:
        for name, found in rates.items():
            found.append(product_rate(clip.device, clip.dtype, ours=name == "ours", repeats=8))

    measure_rates()
    rivals = contenders(clip, size)
    headline = size in HEADLINES
    patience = options.patience * PATIENCE.get(size, 1)
    for name, rival in rivals.items():
        expected = expected_seconds(rival.operations(), name, cells, rates["torch"][0])
        if rival.encoder != "packed" and expected > patience:
            rival.facts["skipped"] = rival.facts["skipped"] or f"about {expected:.0f} s a turn"
    budget = options.budget * (1 + headline)
    compete(rivals, 2 if headline else 1, options.repeats, budget, measure_rates)
    if not rivals["published"].facts["skipped"]:
        ours = rivals["packed"]
        ours.facts["differences"] = differences(ours, rivals["published"])
    if "replayed" in rivals:
        replayed = rivals["replayed"]
        replayed.facts["differences"] = differences(replayed, rivals["packed"])
    return {
        "classes": size[0],
        "images": size[1],
        "rates": {name: statistics.median(found) for name, found in rates.items()},
        "methods": {name: r.facts for name, r in rivals.items() if "CoOp" not in name},
        "coop": {name: rivals[m].facts for name, m in COOP.items() if m in rivals},
    }


def expected_seconds(
    operations: int, method: str, cells: list[dict[str, Any]], rate: float
) -> float:
    """How long a turn will take, by the pace of the last cell or by the machine's rate."""
    for cell in reversed(cells):
        facts = cell["methods"].get(method, {})
        if "train" in facts:
            return operations * facts["train"]["median"] / facts["train_operations"]
    return operations / rate


def report(cell: dict[str, Any]) -> str:
    """A cell for the terminal."""
    ours, published = cell["methods"]["packed"], cell["methods"]["published"]
    lines = [f"K={cell['classes']} B={cell['images']}"]
    for kind in ("train", "inference"):
        floor = ours[f"{kind}_operations"] / cell["rates"]["ours"]
        line = f"{kind} {ours[kind]['median']:.3f} s, {ours[kind]['median'] / floor:.2f} x floor"
        if kind in published:
            line += f", published {published[kind]['median'] / ours[kind]['median']:.1f} x"
        lines.append(line)
    line = f"saved {ours['saved_bytes'] / 2**20:.0f} MiB"
    lines.append(line + f", published {published['saved_bytes'] / ours['saved_bytes']:.1f} x")
    lines.append(f"peak {ours['peak_process_bytes'] / 2**30:.2f} GiB")
    if replayed := cell["methods"].get("replayed"):
        gain = ours["train"]["median"] / replayed["train"]["median"]
        lines.append(f"replayed {gain:.2f} x faster")
    coop = cell["coop"]["packed"]["train"]["median"]
    lines.append(f"an image: CoCoOp / CoOp {ours['train']['median'] / coop:.1f} x")
    lines += [f"{what} differ by {d:.1e}" for what, d in ours.get("differences", {}).items()]
    return "; ".join(lines)


def draw(bench: pd.DataFrame) -> Figure:
    """Training steps against classes, one panel for each number of images.

    Args:
        bench: From `load_bench`.
    """
    sizes = sorted(bench.images.unique())
    options = {"figsize": (2.2 + 2.4 * len(sizes), 3.4), "sharey": True, "squeeze": False}
    fig, axes = figure(1, len(sizes), **options)
    for ax, B in zip(axes[0], sizes, strict=True):
        for method in HUES:
            rows = bench[(bench.images == B) & (bench.method == method)].dropna(subset="train")
            spread = [rows.train - rows.train_low, rows.train_high - rows.train]
            if rows.empty:
                continue
            look = {"color": HUES[method], "marker": "o", "ms": 4, "label": method}
            ax.errorbar(rows.classes, rows.train, yerr=spread, **look)
        ours = bench[(bench.images == B) & (bench.method == "packed")]
        floor = ours.train_operations / ours.rate
        ax.plot(ours.classes, floor, ":", color="#000000", label="packed, arithmetic floor")
        ax.set(xscale="log", yscale="log", xlabel="classes K", title=f"B = {B}")
        ax.set_xlim(bench.classes.min() / 1.3, bench.classes.max() * 1.3)
    axes[0, 0].set_ylabel("training step (s)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8)
    return fig


def size(text: str) -> Size:
    """Reads "50x1"."""
    K, B = map(int, text.split("x"))
    return K, B


def arguments() -> argparse.Namespace:
    parser = bench_parser("benchmarks.text_encoder", __doc__)
    parser.add_argument("--only", type=size, nargs="+", metavar="KxB", help="only these cells")
    parser.add_argument("--quick", action="store_true", help="tiny cells, into _build/bench")
    parser.add_argument("--minutes", type=float, default=15, help="then stop (default 15)")
    parser.add_argument("--repeats", type=int, default=5, help="at most (default 5)")
    parser.add_argument("--budget", type=float, default=20, help="seconds of repeats, each method")
    parser.add_argument("--patience", type=float, default=45, help="seconds a turn may take")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    options = parser.parse_args()
    options.backbone = "icon-clip" if options.quick else "ViT-B-16/random"
    if options.quick:
        options.folder = options.folder or Path("_build/bench")
    return options


@keep_freed_memory()  # as training does, for all alike
def main() -> None:
    """Measures what is missing and saves after each cell."""
    options, start = arguments(), time.monotonic()
    label = options.device + ("" if options.precision == "fp32" else f"_{options.precision}")
    name = f"bench_text_encoder_{label}"
    cells = earlier_cells(name, options, "backbone")
    rest = sorted(set(GRID) - set(HEADLINES), key=math.prod)
    sizes = options.only or (QUICK if options.quick else HEADLINES + rest)
    done = {(cell["classes"], cell["images"]) for cell in cells}
    left = [size for size in sizes if size not in done]
    clip = load_clip(options.backbone, device=options.device, precision=options.precision)
    while left:
        spent = time.monotonic() - start
        if cells and spent + cell_seconds(left[0], cells, options) > 60 * options.minutes:
            print(f"Time is over; cells left: {len(left)}. Run it again to go on.")
            break
        cells.append(measure_cell(clip, left.pop(0), cells, options))
        data = {
            "backbone": options.backbone,
            "precision": options.precision,
            "context": CONTEXT,
            "onednn": packed_tower.ONEDNN,
            "cells": cells,
        }
        path = save_result(name, data, seeds=[SEED], device=options.device, folder=options.folder)
        draw(load_bench(label, options.folder)).savefig(path.with_suffix(".svg"))
        print(report(cells[-1]), flush=True)


def cell_seconds(size: Size, cells: list[dict[str, Any]], options: argparse.Namespace) -> float:
    """About how long a cell takes: two turns of each method that will run, at its last pace."""
    total = 0.0
    for method in ENCODER_NAMES:
        timed = [cell for cell in cells if "train" in cell["methods"][method]]
        if not timed:
            continue
        work = math.prod(size) / (timed[-1]["classes"] * timed[-1]["images"])
        step = work * timed[-1]["methods"][method]["train"]["median"]
        turn = TURN * step * (2 if step < LONG else 1)
        if method == "packed" or turn <= options.patience * PATIENCE.get(size, 1):
            total += 2 * turn
    return total


if __name__ == "__main__":
    main()
