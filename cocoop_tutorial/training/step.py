"""One step of training: forward, backward, and what precision and processes add (chapter 3)."""

import contextlib
import os
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from cocoop_tutorial import distributed
from cocoop_tutorial.errors import memory_advice
from cocoop_tutorial.models.cocoop import CoCoOp
from cocoop_tutorial.models.coop import CoOp
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.text_encoder.cost import text_tokens
from cocoop_tutorial.text_encoder.packed.memory import fixed_budget, memory_budget
from cocoop_tutorial.text_encoder.packed.tower import obstacle
from cocoop_tutorial.training.batches import Batch
from cocoop_tutorial.training.config import TrainConfig
from cocoop_tutorial.training.cuda_graph import RecordedPass
from cocoop_tutorial.training.state import TrainState

# Tokens of a pass that is recorded. A longer one does not wait for its launches, and a recording
# holds its memory for the whole run.
RECORD_MOST = 2**14
FIRST_SCALE = 2.0**10  # more overflows at once: CLIP multiplies cosines by 100


@contextlib.contextmanager
def reproducible(device: torch.device, deterministic: bool) -> Iterator[None]:
    """Lets nothing random in or out, and picks operations that repeat bit by bit."""
    before = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            if deterministic:
                torch.use_deterministic_algorithms(True, warn_only=True)
                torch.utils.deterministic.fill_uninitialized_memory = False  # slow, for debugging
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=only_warns)
            torch.utils.deterministic.fill_uninitialized_memory = fills


class Objective(nn.Module):
    """Features and labels to the loss: what DistributedDataParallel wraps."""

    def __init__(self, model: PromptLearner, precision: str) -> None:
        super().__init__()
        self.model, self.mixed = model, precision == "amp"
        # On CPUs half precision is bfloat16's business; on GPUs fp16 is the fast one everywhere.
        self.half = torch.float16 if model.clip.device.type == "cuda" else torch.bfloat16

    def forward(self, features: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the images that count.

        Args:
            features: `[b, E]`.
            labels: `[b]`.
            weights: `[b]`, 1 or 0.

        Returns:
            The sum of cross-entropies, and `[2]`: the same without gradient, and the number of
            correct images.
        """
        with torch.autocast(features.device.type, self.half, enabled=self.mixed):
            logits = self.model.logits_from_features(features).float()  # [b, K]
        loss = (F.cross_entropy(logits, labels, reduction="none") * weights).sum()
        correct = ((logits.argmax(dim=1) == labels) * weights).sum()
        return loss, torch.stack([loss.detach(), correct])


def new_state(model: PromptLearner, config: TrainConfig) -> TrainState:
    """The official optimiser (no dampening, no Nesterov), and a scaler where products are fp16.

    Args:
        model: What trains.
        config: The settings, resolved.

    Returns:
        A run that has not begun.
    """
    kind, parameters = model.clip.device.type, model.prompt_parameters()
    optimizer = torch.optim.SGD(
        parameters.values(), config.lr, config.momentum, weight_decay=config.weight_decay
    )
    small = config.precision == "fp16" or (config.precision == "amp" and kind == "cuda")
    scaler = GradScaler(kind, init_scale=FIRST_SCALE, enabled=small)
    return TrainState(parameters, optimizer, scaler, steady_budget(model.clip.device))


def steady_budget(device: torch.device) -> int:
    """The encoder's memory for a whole run, the same in all processes.

    Args:
        device: Where the run computes.

    Returns:
        Bytes: a power of two, so that a little more or less of free memory changes nothing.
    """
    budget = [max(memory_budget(device), 1)]
    if distributed.active():
        torch.distributed.broadcast_object_list(budget)
    return 2 ** (budget[0].bit_length() - 1)


class Stepper:
    """Takes steps, in as many passes as the memory wants, with as many processes as there are."""

    def __init__(self, model: PromptLearner, config: TrainConfig, state: TrainState) -> None:
        """Prepares a run.

        Args:
            model: What trains.
            config: The settings, resolved.
            state: The run, which the steps change.
        """
        self.model, self.config, self.state = model, config, state
        self.device = model.clip.device
        # By the images here and in the whole step; None where recording does not pay.
        self.recorded: dict[tuple[int, int], RecordedPass | None] = {}
        self.objective: nn.Module = Objective(model, config.precision or "fp32")
        if distributed.active():
            ids = [self.device.index] if self.device.type == "cuda" else None
            self.objective = DistributedDataParallel(
                self.objective, device_ids=ids, broadcast_buffers=False
            )

    def __call__(self, batch: Batch) -> Tensor:
        """Takes one step.

        Args:
            batch: This process's images.

        Returns:
            `[2]`: the sum of their losses, and how many were correct.

        Raises:
            MemoryLimitError: It does not fit.
        """
        size = self.config.micro_batch or len(batch.labels)
        whole = (batch.features, batch.labels, batch.weights)
        self.state.optimizer.zero_grad(set_to_none=True)
        with memory_advice(self._advice(size)), fixed_budget(self.state.budget):
            if recorded := self._recorded(batch, size):
                sums = recorded(*whole)
            else:
                parts = list(zip(*(x.split(size) for x in whole), strict=True))
                sums = torch.zeros(2, device=self.device)
                for i, part in enumerate(parts):
                    with self._exchange(last=i == len(parts) - 1):
                        loss, part_sums = self.objective(*part)
                        self._backward(loss, batch.size)
                    sums += part_sums
        self.state.scaler.step(self.state.optimizer)
        self.state.scaler.update()
        return sums

    def _backward(self, loss: Tensor, images: int) -> None:
        """From a sum over some images to gradients of the mean over all `images` of the step."""
        # DistributedDataParallel averages over processes.
        scale = distributed.world_size() / images
        self.state.scaler.scale(loss * scale).backward()

    def _recorded(self, batch: Batch, size: int) -> RecordedPass | None:
        """The pass as a CUDA graph, if that pays and can be."""
        key = len(batch.labels), batch.size
        if key not in self.recorded:
            self.recorded[key] = None
            if size >= len(batch.labels) and self._records(len(batch.labels)):
                inputs = (batch.features, batch.labels, batch.weights)
                backward = partial(self._backward, images=batch.size)
                self.recorded[key] = RecordedPass(self.objective, backward, inputs)
        return self.recorded[key]

    def _records(self, images: int) -> bool:
        if not (self.config.cuda_graph and self.device.type == "cuda") or distributed.active():
            return False
        # A learner of your own may wait for the GPU or draw numbers, the other encoders ask it for
        # lengths: neither can be recorded.
        known = type(self.model) in (CoOp, CoCoOp) and self.model.encoder == "packed"
        if not known or obstacle(self.model.clip):
            return False
        contexts = images if type(self.model) is CoCoOp else 1
        return text_tokens(self.model, contexts, "packed")[0] <= RECORD_MOST

    def _exchange(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Processes add up their gradients once a step, after the last pass."""
        if last or not isinstance(self.objective, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.objective.no_sync()

    def _advice(self, size: int) -> str:
        half = "load the backbone in half precision (precision='bf16' or 'fp16')"
        if size > 1:
            less = f"Set micro_batch={size // 2} (now {size}): less memory, the same step."
            return f"{less} If that is not enough, {half}."
        classes = len(self.model.classnames)
        return f"One image with {classes} classes does not fit: {half}, or take a smaller one."
