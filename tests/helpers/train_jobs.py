"""Small real training runs, and what test processes do with them."""

import contextlib
import json
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, convert_weights_to_lp
from PIL import Image
from small_clips import TEXT, VIT, small_clip
from torch.optim.optimizer import register_optimizer_step_post_hook

from cocoop_tutorial import CoCoOp, CoOp, Dataset, FrozenCLIP, Split, TrainConfig, evaluate, train
from cocoop_tutorial.errors import CocoopError
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.text_encoder.packed import memory as packed_memory
from cocoop_tutorial.training.state import own_folder

NAMES = ["cat", "dog", "sea_lion"]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}

# Processes are forked from one that has imported everything and computed nothing.
processes = get_context("forkserver")
processes.set_forkserver_preload(["pytest", "train_jobs"])


def start_server() -> None:
    """Starts it; Python 3.11 does not tell it where the tests are, so the environment must."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()


def make_data(folder: Path, each: int = 5) -> Dataset:
    """Pictures of noise, with one colour per class, so that there is something to learn."""
    samples = []
    for k, name in enumerate(NAMES):
        for i in range(each):
            path = folder / name / f"{i}.png"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng([k, i]).integers(0, 120, (24, 30, 3))
                pixels[..., k] += 130
                Image.fromarray(pixels.astype(np.uint8)).save(path)
            samples.append((path, k))
    return Dataset("noise", NAMES, Split(samples), Split(samples), Split(samples))


def make_model(
    method: str, seed: int = 0, weights: int = 0, precision: str = "fp32", device: str = "cpu"
) -> PromptLearner:
    """A small model; `seed` is for what trains, `weights` for the frozen backbone."""
    clip = small_clip(seed=weights)
    if (precision, device) != ("fp32", "cpu"):
        inner = CLIP(48, VIT, TEXT, cast_dtype=HALF.get(precision))
        inner.load_state_dict(clip.model.state_dict())
        if precision in HALF:
            convert_weights_to_lp(inner, HALF[precision])
        clip = FrozenCLIP(inner.to(device), "copy", precision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build = {"CoOp": CoOp, "CoCoOp": CoCoOp}[method]
        return build(clip, NAMES, n_ctx=2, ctx_init=None)


def bits(model: PromptLearner, history: Any) -> dict[str, Any]:
    """All results of a run, exactly, except its time."""
    state = {k: v.numpy().tobytes().hex() for k, v in model.prompt_state().items()}
    rows = history.drop(columns="seconds").to_dict("records")
    return {"state": state, "history": [{k: float(v).hex() for k, v in r.items()} for r in rows]}


def in_process(job: Callable[..., None], *args: Any) -> int | None:
    """Runs a job in a process of its own; returns the exit status, negative if killed."""
    start_server()
    process = processes.Process(target=job, args=args)
    process.start()
    process.join(timeout=300)
    assert process.exitcode is not None, "the process hangs"
    return process.exitcode


def together(job: Callable[..., None], n: int, folder: Path, *args: Any) -> list[int | None]:
    """Runs a job in n processes that form a gloo group; its first argument is the rank."""
    start_server()
    meeting = folder / f"meeting-{len(list(folder.iterdir()))}"
    group = [
        processes.Process(target=_join, args=(job, rank, n, str(meeting), *args))
        for rank in range(n)
    ]
    for process in group:
        process.start()
    for process in group:
        process.join(timeout=300)
    return [process.exitcode for process in group]


def _join(job: Callable[..., None], rank: int, n: int, meeting: str, *args: Any) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=n
    )
    job(rank, *args)
    torch.distributed.destroy_process_group()


def run(
    method: str, data: Path, folder: Path | None, out: Path, config: TrainConfig, kill: int = 0
) -> None:
    """Trains and writes the bits; kills itself after `kill` steps of this process."""
    torch.set_num_threads(1)
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == kill:
            os.kill(os.getpid(), signal.SIGKILL)

    handle = register_optimizer_step_post_hook(count)
    model = make_model(method, precision=config.precision or "fp32")
    history = train(model, make_data(data), config, folder=folder)
    handle.remove()
    out.write_text(json.dumps({**bits(model, history), "steps": steps}))


def run_killed_while_writing(
    method: str, data: Path, folder: Path, out: Path, config: TrainConfig, kill: int
) -> None:
    """Like `run`, but dies in the middle of its `kill`-th checkpoint: written, not yet renamed."""
    writes, fsync = 0, os.fsync

    def count(handle: int) -> None:
        nonlocal writes
        writes += 1
        if writes == kill:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(handle)

    os.fsync = count
    run(method, data, folder, out, config)


def run_with_memory(
    method: str, data: Path, folder: Path | None, out: Path, config: TrainConfig, most: int,
    kill: int = 0,
) -> None:  # fmt: skip
    """Like `run`, on a machine with little or much free memory."""
    packed_memory.MAX_BYTES["cpu"] = most
    run(method, data, folder, out, config, kill)


def run_and_tell(method: str, data: Path, folder: Path, out: Path, config: TrainConfig) -> None:
    """Like `run`, but writes the error if there is one."""
    try:
        run(method, data, folder, out, config)
    except CocoopError as error:
        out.write_text(str(error))


def run_shared_and_tell(
    rank: int, data: Path, folder: Path, out: Path, config: TrainConfig
) -> None:
    """The same for one process of a group."""
    run_and_tell("CoOp", data, folder, out / f"{rank}", config)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """As if another run were at work in a folder."""
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        with own_folder(folder):
            begun.set()
            end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        end.set()
        thread.join()


def run_on_full_disk(method: str, data: Path, folder: Path, out: Path, config: TrainConfig) -> None:
    """Like `run`, but no file may grow beyond 100 bytes; writes the error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    try:
        run(method, data, folder, out, config)
    except Exception as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        out.write_text(json.dumps([type(error).__name__, str(error)]))


def errors_in_little_memory(jobs: list[Callable[[], Any]], out: Path) -> None:
    """Gives each job 60 MB more than the process has by then; writes their errors."""
    errors = []
    for job in jobs:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 60 * 2**20, resource.RLIM_INFINITY))
        try:
            job()
        except Exception as error:
            errors.append([type(error).__name__, str(error)])
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    out.write_text(json.dumps(errors))


def one_thread() -> None:
    """More threads, as a large machine has, would need memory of their own."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def run_in_little_memory(data: Path, out: Path, config: TrainConfig) -> None:
    """Trains a model whose prompts do not fit."""
    one_thread()
    names = [f"{a} {b}" for a in "abcdefghij" for b in "abcdefghij"]
    images = replace(make_data(data), classnames=names)
    model = CoCoOp(small_clip(), names, n_ctx=2, ctx_init=None, encoder="reference")
    few = replace(images, train=Split(images.train.samples[:1]))
    train(model, few, TrainConfig(epochs=1, batch_size=1))  # loads what is loaded at first use
    errors_in_little_memory([lambda: train(model, images, config)], out)


def encode_in_little_memory(data: Path, out: Path) -> None:
    """Encodes images of which 30, of 3 MB each, do not fit at once."""
    one_thread()
    large = {**VIT, "image_size": 512, "patch_size": 128}
    model = CoOp(FrozenCLIP(CLIP(48, large, TEXT), "large"), NAMES, n_ctx=2)
    images = make_data(data)
    few, many = Split(images.train.samples[:1]), Split(images.train.samples * 2)

    def fit(split: Split, transform: str) -> None:
        config = TrainConfig(epochs=1, batch_size=1, feature_batch=30, transform=transform)
        train(model, replace(images, train=split), config)

    for transform in ("test", "train"):
        fit(few, transform)
    evaluate(model, images, few)
    jobs = [
        lambda: fit(many, "test"),
        lambda: fit(many, "train"),
        lambda: evaluate(model, images, many),
    ]
    errors_in_little_memory(jobs, out)


def run_shared(rank: int, method: str, data: Path, out: Path, config: TrainConfig) -> None:
    """Trains and evaluates in a group; each process writes what it has."""
    model, images = make_model(method), make_data(data)
    history = train(model, images, config)
    result = evaluate(model, images)
    torch.save(
        {
            "state": model.prompt_state(),
            "history": history.drop(columns="seconds").to_dict("records"),
            "logits": result.logits,
            "labels": result.labels,
        },
        out / f"{rank}.pt",
    )
