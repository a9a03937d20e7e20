"""What each switch does to the packed encoder: one change at a time, in turns.

    python -m benchmarks.switches            # about two minutes; most of it is compiling

Attention fused or written out, freed memory kept or given back, the other matrix library, half
precision, torch.compile; on CUDA also a recorded step, TF32, and torch.compile with CUDA graphs.
Writes bench_switches_DEVICE.json. The library uses the settings that were fastest; run this again
on a machine where others may be.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.interleaved import KINDS, Contender, bench_parser, differences, earlier_cells
from benchmarks.text_encoder import SEED, Size, contenders, size
from cocoop_tutorial import load_clip
from cocoop_tutorial.allocator import DEFAULT, KEEP, keep_freed_memory, set_thresholds
from cocoop_tutorial.book.speed_results import AS_IT_IS
from cocoop_tutorial.clip.identity import settled_weights
from cocoop_tutorial.measure import Times, seconds
from cocoop_tutorial.results import save_result
from cocoop_tutorial.text_encoder.packed import attention as packed_attention
from cocoop_tutorial.text_encoder.packed import encode as packed
from cocoop_tutorial.text_encoder.packed import tower as packed_tower
from cocoop_tutorial.text_encoder.packed.attention import ExplicitAttention, FusedAttention

SIZES: list[Size] = [(50, 1), (100, 8)]
Change = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass
class Switch:
    """One way to run the packed encoder.

    Attributes:
        contender: Model, features and labels.
        change: What is different, for as long as the context lasts.
        times: Seconds, without the first call, which may compile.
        facts: What is saved.
    """

    contender: Contender
    change: Change = contextlib.nullcontext
    times: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    facts: dict[str, Any] = field(default_factory=dict)

    def turn(self) -> None:
        """A training step and an inference pass."""
        with self.change():
            for kind in KINDS:
                run = getattr(self.contender, kind)
                self.times[kind].append(seconds(run, self.contender.features.device))

    def first_turn(self) -> None:
        """Compiles what has to be compiled, and records if a switch does not work here."""
        try:
            self.turn()
        except RuntimeError as error:  # no C++ compiler, for one
            self.facts["failed"] = " ".join(str(error).split())[:200]
            return
        self.facts["first_seconds"] = sum(times.pop() for times in self.times.values() if times)


def switches(device: str, compiler: str, keeps: bool) -> dict[str, Change]:
    """What each switch changes in the library, without bf16, which is another backbone."""
    swapped = {"ExplicitAttention": FusedAttention, "FusedAttention": ExplicitAttention}
    found: dict[str, Change] = {
        AS_IT_IS: contextlib.nullcontext,
        "the other attention": lambda: patch.multiple(packed_attention, **swapped),
    }
    if device == "cpu" and keeps:
        found["freed memory given back"] = given_back
    if device == "cpu" and packed_tower.ONEDNN:
        found["the other matrix library"] = lambda: patch.object(packed_tower, "ONEDNN", False)
    found["torch.compile"] = compiled(backend=compiler)
    if device == "cuda":
        found["TF32"] = tf32
        found["torch.compile with CUDA graphs"] = compiled(backend=compiler, mode="reduce-overhead")
    return found


@contextlib.contextmanager
def given_back() -> Iterator[None]:
    """Lets the C library give freed memory back at once, as without `keep_freed_memory`."""
    set_thresholds(DEFAULT)
    try:
        yield
    finally:
        set_thresholds(KEEP)


@contextlib.contextmanager
def tf32() -> Iterator[None]:
    """Lets float32 products round their factors to 10 bits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def compiled(**options: Any) -> Change:
    """Compiles the function that holds all seven steps."""
    function = torch.compile(packed.encode_classes, **options)
    return lambda: patch.object(packed, "encode_classes", function)


@settled_weights()  # as in training
def measure_size(
    backbone: str, where: Size, changes: dict[str, Change], options: argparse.Namespace
) -> dict[str, Any]:
    """All switches on one size."""
    torch.compiler.reset()  # there is a limit to what it compiles for one function
    clips = {p: load_clip(backbone, options.device, p) for p in ("fp32", "bf16")}
    running = {
        name: Switch(contenders(clips["fp32"], where)["packed"], change)
        for name, change in changes.items()
    }
    running["bf16"] = Switch(contenders(clips["bf16"], where)["packed"])
    if options.device == "cuda":  # the same changes again, without the launches
        for name in (AS_IT_IS, "the other attention", "TF32", "torch.compile"):
            recorded = contenders(clips["fp32"], where)["replayed"]
            running[f"CUDA graph, {name}"] = Switch(recorded, changes[name])
        running["CUDA graph, bf16"] = Switch(contenders(clips["bf16"], where)["replayed"])
    for switch in running.values():
        switch.first_turn()
    working = [switch for switch in running.values() if "failed" not in switch.facts]
    for _ in range(options.repeats):
        for switch in working:
            switch.turn()
    for switch in working:
        switch.facts |= {kind: Times.of(switch.times[kind]).as_dict() for kind in KINDS}
        plain = running[AS_IT_IS].contender
        switch.facts["differences"] = differences(switch.contender, plain)
    found = {name: switch.facts for name, switch in running.items()}
    return {"classes": where[0], "images": where[1], "switches": found}


def arguments() -> argparse.Namespace:
    parser = bench_parser("benchmarks.switches", __doc__)
    parser.add_argument("--only", type=size, nargs="+", metavar="KxB", default=SIZES)
    parser.add_argument("--backbone", default="ViT-B-16/random")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compiler", default="inductor", help="torch.compile's backend")
    return parser.parse_args()


def main() -> None:
    """Reads the options and measures."""
    options = arguments()
    with keep_freed_memory() as keeps:
        measure(options, switches(options.device, options.compiler, keeps))


def measure(options: argparse.Namespace, changes: dict[str, Change]) -> None:
    """Measures the sizes that are missing and saves after each."""
    name = f"bench_switches_{options.device}"
    cells = earlier_cells(name, options, "backbone")
    done = {(cell["classes"], cell["images"]) for cell in cells}
    for where in options.only:
        if where in done:
            continue
        cells.append(measure_size(options.backbone, where, changes, options))
        data = {"backbone": options.backbone, "cells": cells}
        save_result(name, data, seeds=[SEED], device=options.device, folder=options.folder)
        for switch, facts in cells[-1]["switches"].items():
            told = facts.get("failed") or ", ".join(
                f"{k} {1e3 * facts[k]['median']:.2f} ms" for k in KINDS if k in facts
            )
            print(f"K={where[0]} B={where[1]} {switch}: {told}", flush=True)


if __name__ == "__main__":
    main()
