"""One epoch of CoCoOp through `cocoop train`, timed by part.

    python -m benchmarks.end_to_end                # Caltech101, 50 base classes, 16 shots
    python -m benchmarks.end_to_end --minutes 15   # and the same with the paper's random crops

Runs the command line in this process, with a stopwatch around decoding, image tower, text tower
and optimiser; the test images are not scored. Weights are random. Writes
bench_end_to_end_DEVICE.json case by case; cases that a run has no time for are left to the next.
"""

import argparse
import contextlib
import functools
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import torch

from benchmarks.interleaved import bench_parser, earlier_cells
from cocoop_tutorial import FrozenCLIP
from cocoop_tutorial.book.speed_results import PARTS
from cocoop_tutorial.checkpoints.prompts import read_prompts
from cocoop_tutorial.cli import main as cli
from cocoop_tutorial.cli import train as cli_train
from cocoop_tutorial.clip import features
from cocoop_tutorial.datasets import images
from cocoop_tutorial.errors import MissingDataError
from cocoop_tutorial.measure import synchronize
from cocoop_tutorial.results import save_result
from cocoop_tutorial.training import features as train_features
from cocoop_tutorial.training import loop as training
from cocoop_tutorial.training.cuda_graph import RecordedPass

os.environ["COCOOP_FEATURES"] = "0"  # a run is timed with its image tower
SEED = 1
KEY = ("transform", "shots", "batch_size")  # what identifies a case


class Stopwatch:
    """Adds up how long parts of a run take.

    Attributes:
        seconds: For each of `PARTS`, and for the whole run, wall-clock time of the main thread.
            "decoding" is processor time of the threads that decode while the image tower works.
    """

    def __init__(self, device: str) -> None:
        self.device, self.lock = device, threading.Lock()
        self.recording = False  # a CUDA graph, during which nothing may wait for the GPU
        self.seconds = dict.fromkeys([*PARTS, "decoding", "whole"], 0.0)

    def add(self, part: str, seconds: float) -> None:
        """Threads may call it at the same time."""
        with self.lock:
            self.seconds[part] += seconds

    def now(self) -> float:
        """Seconds, after waiting for the GPU."""
        synchronize(self.device)
        return time.perf_counter()

    def wrap(
        self, part: str, function: Callable[..., Any], clock: Callable[[], float] | None = None
    ) -> Callable[..., Any]:
        """`function`, timed."""
        clock = clock or self.now

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self.recording:
                return function(*args, **kwargs)
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                self.add(part, clock() - start)

        return timed

    def wrap_recording(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`RecordedPass.__init__`, timed as a whole."""

        def record(*args: Any, **kwargs: Any) -> Any:
            self.recording = True
            try:
                return function(*args, **kwargs)
            finally:
                self.recording = False

        return self.wrap("text tower, recording", record)

    def wrap_batches(self, function: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
        """`image_batches`, with the time that its user waits for each batch."""

        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            take = self.wrap("waiting for images", functools.partial(next))
            batches = function(*args, **kwargs)
            while (batch := take(batches, None)) is not None:
                yield batch

        return timed

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Times the library's own functions until the end of the block."""
        decode = self.wrap("decoding", images._decode, time.thread_time)
        wrapped = [(images, "_decode", decode)]
        wrapped += [
            (module, "image_batches", self.wrap_batches(images.image_batches))
            for module in (features, train_features)
        ]
        recorder = self.wrap_recording(RecordedPass.__init__)
        wrapped.append((RecordedPass, "__init__", recorder))
        wrapped += [
            (place, name, self.wrap(part, getattr(place, name)))
            for part, place, name in (
                ("checking images", train_features, "check_readable"),
                ("image tower", FrozenCLIP, "encode_image"),
                ("text tower, forward", training.Objective, "forward"),
                ("text tower, backward", torch.Tensor, "backward"),
                ("text tower, replayed", RecordedPass, "__call__"),
                ("optimiser", torch.optim.SGD, "step"),
                ("whole", training, "train"),
            )
        ]
        with contextlib.ExitStack() as stack:
            for place, name, function in wrapped:
                stack.enter_context(patch.object(place, name, function))
            # Scoring the test images does not belong to the epoch, and would take longer.
            stack.enter_context(patch.object(cli_train.scores, "score", lambda *_, **__: {}))
            yield self


def run_case(case: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Trains one epoch and returns the case with its times."""
    with tempfile.TemporaryDirectory() as folder, Stopwatch(options.device).running() as watch:
        words = {
            "data": options.data, "backbone": options.backbone, "device": options.device,
            "out": folder, "seed": SEED, "epochs": 1, "warmup-epochs": 0,
        }  # fmt: skip
        words |= {key.replace("_", "-"): value for key, value in case.items()}
        if options.root:
            words["root"] = options.root
        command = ["train", *(str(w) for key, v in words.items() for w in (f"--{key}", v))]
        cli.app(command, standalone_mode=False)
        (epoch,) = json.loads((Path(folder) / cli_train.RESULT).read_text())["history"]
        facts, _ = read_prompts(Path(folder) / cli_train.PROMPTS)
    found = {"classes": len(facts["classnames"]), "images": epoch["images"]}
    return case | found | {"seconds": watch.seconds}


def report(case: dict[str, Any]) -> str:
    """A case for the terminal."""
    images = case["images"]
    parts = (f"{part} {1e3 * s / images:.1f}" for part, s in case["seconds"].items())
    return f"transform {case['transform']}, {images} images; ms an image: " + ", ".join(parts)


def arguments() -> argparse.Namespace:
    parser = bench_parser("benchmarks.end_to_end", __doc__)
    parser.add_argument("--data", default="caltech101", help="data set or folder")
    parser.add_argument("--root", help="folder of the paper's data [$COCOOP_DATA or ./data]")
    parser.add_argument("--backbone", default="ViT-B-16/random")
    parser.add_argument("--transform", nargs="+", default=["test", "train"], metavar="VIEW")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=1, help="default: the paper's, 1")
    parser.add_argument("--minutes", type=float, default=6, help="start no case that goes beyond")
    return parser.parse_args()


def main() -> None:
    """Measures the cases that are missing and saves after each."""
    options, start = arguments(), time.monotonic()
    name = f"bench_end_to_end_{options.device}"
    cases = earlier_cells(name, options, "data", "backbone")
    done = [tuple(case[key] for key in KEY) for case in cases]
    for transform in options.transform:
        key = (transform, options.shots, options.batch_size)
        if key in done:
            continue
        spent = time.monotonic() - start
        if cases and spent + cases[-1]["seconds"]["whole"] > 60 * options.minutes:
            print(f"No time left for transform {transform}. Run it again with more --minutes.")
            break
        try:
            cases.append(run_case(dict(zip(KEY, key, strict=True)), options))
        except MissingDataError as error:
            print(f"Not measured, for want of data. {error}")
            break
        data = {"data": options.data, "backbone": options.backbone, "cells": cases}
        save_result(name, data, seeds=[SEED], device=options.device, folder=options.folder)
        print(report(cases[-1]), flush=True)


if __name__ == "__main__":
    main()
