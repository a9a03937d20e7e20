"""What surrounds a training step: reproducibility, precision, processes, memory (chapter 3)."""

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel

from cocoop_tutorial import distributed
from cocoop_tutorial.clip.identity import settled_weights
from cocoop_tutorial.errors import TrainingError
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.text_encoder.packed.memory import memory_budget
from cocoop_tutorial.text_encoder.packed.tower import unsupported_reason
from cocoop_tutorial.training.batches import Batch
from cocoop_tutorial.training.config import TrainConfig
from cocoop_tutorial.training.state import TrainState, where

FIRST_SCALE = 2.0**10  # more overflows at once: CLIP multiplies cosines by 100


@contextlib.contextmanager
def reproducible(device: torch.device, deterministic: bool) -> Iterator[None]:
    """Makes the block repeat bit by bit, and restores the random state after it."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    devices = [device] if device.type == "cuda" else []
    # The caller may be in a block without gradients, for example around an evaluation.
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=devices):
        try:
            if deterministic:
                torch.use_deterministic_algorithms(True, warn_only=True)
                torch.utils.deterministic.fill_uninitialized_memory = False  # slow, for debugging
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=only_warns)
            torch.utils.deterministic.fill_uninitialized_memory = fills


@contextlib.contextmanager
def training_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model into training mode, and back into the mode that it was in.

    The values of its backbone's weights are compared once, because they do not change in training.
    """
    before = model.training
    model.train()
    try:
        with settled_weights():
            yield
    finally:
        model.train(before)


def new_state(model: PromptLearner, config: TrainConfig) -> TrainState:
    """The official optimiser (no dampening, no Nesterov), and a scaler if products are in fp16.

    Args:
        model: What trains.
        config: The settings, resolved.

    Returns:
        The state of a run before its first step.

    Raises:
        TrainingError: The model was made in inference mode.
    """
    kind, parameters = model.clip.device.type, model.prompt_parameters()
    if any(value.is_inference() for value in (*parameters.values(), *model.clip.parameters())):
        raise TrainingError(
            "This model was made in torch.inference_mode(), so PyTorch cannot train it. Make it "
            "outside that block."
        )
    optimizer = torch.optim.SGD(
        parameters.values(), config.lr, config.momentum, weight_decay=config.weight_decay
    )
    small = config.precision == "fp16" or (config.precision == "amp" and kind == "cuda")
    scaler = GradScaler(kind, init_scale=FIRST_SCALE, enabled=small)
    device = model.clip.device
    return TrainState(parameters, optimizer, scaler, steady_budget(device), where(device))


def steady_budget(device: torch.device) -> int:
    """The encoder's memory for a whole run, the same in all processes.

    Args:
        device: Where the run computes.

    Returns:
        Bytes: a power of two, so that a little more or less of free memory changes nothing.
    """
    budget = distributed.from_main(lambda: max(memory_budget(device), 1))
    return 2 ** (budget.bit_length() - 1)


def share_gradients(objective: nn.Module, device: torch.device) -> nn.Module:
    """Lets the processes of a run, if there are several, average their gradients."""
    if not distributed.active():
        return objective
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(objective, device_ids=ids, broadcast_buffers=False)


def exchange(objective: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
    """Processes exchange gradients once per step, after its `last` micro-batch."""
    if last or not isinstance(objective, DistributedDataParallel):
        return contextlib.nullcontext()
    return objective.no_sync()


def check_processes(config: TrainConfig) -> None:
    """Refuses a batch size that the processes cannot share evenly.

    Raises:
        TrainingError: The message names one that they can.
    """
    n, size = distributed.world_size(), config.batch_size
    if size % n:
        raise TrainingError(
            f"batch_size is {size}, which {n} processes cannot share evenly. "
            f"Use batch_size={-(-size // n) * n}."
        )


def advice(model: PromptLearner, config: TrainConfig, batch: Batch) -> str:
    """What to change if a step does not fit in memory."""
    size, classes = config.micro_batch or len(batch.labels), len(model.classnames)
    half = "load the backbone in half precision (precision='bf16' or 'fp16')"
    if model.encoder != "packed" and unsupported_reason(model.clip) is None:
        half = f"use encoder='packed', or {half}"
    if not model.image_conditioned:  # all images share the prompts, however few there are at once
        return f"The prompts of {classes} classes do not fit: {half}."
    if size > 1:
        less = f"Set micro_batch={size // 2} (now {size}): less memory, the same step."
        return f"{less} If that is not enough, {half}."
    return f"One image with {classes} classes does not fit: {half}, or take a smaller one."
