"""`train`: the paper's optimiser and schedule, for any prompt learner (chapter 3)."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cocoop_tutorial import distributed
from cocoop_tutorial.allocator import keep_freed_memory
from cocoop_tutorial.datasets.splits import Dataset, check_names
from cocoop_tutorial.errors import TrainingError, memory_advice
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.text_encoder.packed.memory import fixed_budget
from cocoop_tutorial.training.batches import Batch, BatchSource
from cocoop_tutorial.training.config import TrainConfig, draw_seed, learning_rate
from cocoop_tutorial.training.cuda_graph import RecordedSteps
from cocoop_tutorial.training.history import History
from cocoop_tutorial.training.state import identity, load_state, run_folder, save_state
from cocoop_tutorial.training.step import (
    advice,
    check_processes,
    exchange,
    new_state,
    reproducible,
    share_gradients,
    training_mode,
)

OnEpochEnd = Callable[[PromptLearner], Mapping[str, float]]


def train(
    model: PromptLearner,
    data: Dataset,
    config: TrainConfig | None = None,
    *,
    folder: str | Path | None = None,
    on_epoch_end: OnEpochEnd | None = None,
) -> pd.DataFrame:
    """Trains the prompt, in place.

    Args:
        model: A CoOp or CoCoOp; only its context and Meta-Net change.
        data: Its `train` images are used; its class names must be the model's.
        config: The settings; None takes the paper's.
        folder: Where to keep a checkpoint. If there is one already, the run continues from it and
            ends with the same bits as a run that was never stopped.
        on_epoch_end: Called after each epoch with the model; what it returns joins the history.

    Returns:
        The history, with one row per epoch: `epoch` (from 1), `lr`, `loss` and `accuracy`
        (percent) as they were while training, `images`, `seconds`, and what `on_epoch_end`
        returned. `images` counts the images that the epoch's steps used: fewer than there are if
        `drop_last` leaves out an incomplete last batch.

    Raises:
        DataError: No images, one that cannot be read, or other class names.
        TrainingError: There is nothing to train, or the loss or a parameter is no longer a number.
        MemoryLimitError: A step does not fit; the message says which setting lowers it.
        CheckpointError: The folder cannot be written, holds another run, or is another run's now.

    Introduced in chapter 3. Under `torchrun` the processes share each step (chapter 5).
    """
    if not isinstance(model, PromptLearner):
        raise TrainingError(f"{type(model).__name__} has nothing to train. Use CoOp or CoCoOp.")
    check_names(model, data)
    config = (config or TrainConfig()).resolved(type(model).__name__, model.clip.precision)
    check_processes(config)
    place = Path(folder) if folder else None
    repeatable = reproducible(model.clip.device, config.deterministic)
    with repeatable, keep_freed_memory(), run_folder(place):
        run = Run(model, data, config, place)
        with training_mode(model), fixed_budget(run.state.budget), run.history.bar:
            return run.to_the_end(on_epoch_end)


class Run:
    """One training run, from its first step or from its checkpoint to the end."""

    def __init__(
        self,
        model: PromptLearner,
        data: Dataset,
        config: TrainConfig,
        folder: Path | None,
        quiet: bool = False,
    ) -> None:
        """Computes or checks the images, and loads the checkpoint if there is one.

        Args:
            model: What trains.
            data: Its `train` images are used.
            config: The settings, resolved.
            folder: Where to keep a checkpoint.
            quiet: Show no progress bar, because another run's stands for it.
        """
        self.model, self.config, self.folder = model, config, folder
        self.source = BatchSource(model.clip, data.train, config)
        self.state = new_state(model, config)
        self.optimizer, self.scaler = self.state.optimizer, self.state.scaler
        if folder:
            self.identity = identity(model, data, config)
            load_state(self.state, folder, self.identity)
        self.history = History(model, self.state, config, self.source.n_steps, folder, quiet)
        self.objective = share_gradients(Objective(model, config.precision), model.clip.device)
        self.recorded = RecordedSteps(model, config, self.objective, self.backward)

    def to_the_end(self, on_epoch_end: OnEpochEnd | None) -> pd.DataFrame:
        """Takes all steps that are left; returns the history."""
        config, progress = self.config, self.state.progress
        while progress.epoch < config.epochs:
            for batch in self.source.steps(progress.epoch, progress.step):
                self.begin_step()
                self.end_step(self.forward_backward(batch), batch)
                if self.folder and self.history.checkpoint_is_due():
                    self.history.sum_over_processes()
                    self.save()
                    self.history.leave_sums_to_main()
            self.end_epoch(on_epoch_end)
            self.save()
        return pd.DataFrame(progress.rows)

    @property
    def rate(self) -> float:
        """The learning rate of this epoch."""
        return learning_rate(self.state.progress.epoch, self.config)

    def begin_step(self) -> None:
        """Sets the learning rate and the seed, and forgets the last gradients."""
        progress = self.state.progress
        # What a step draws depends on its number alone, so no random state is saved.
        seed = self.config.seed, progress.epoch, progress.step, distributed.rank()
        torch.manual_seed(draw_seed(*seed))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.optimizer.zero_grad(set_to_none=True)

    def end_step(self, sums: Tensor, batch: Batch) -> None:
        """Moves the parameters along their gradients; `sums` is of `forward_backward`."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.history.add(sums, batch.size)

    def end_epoch(self, on_epoch_end: OnEpochEnd | None) -> None:
        """Adds a row to the history."""
        self.history.sum_over_processes()
        with torch.no_grad():
            extra = on_epoch_end(self.model) if on_epoch_end else {}
        self.history.end_epoch(self.rate, extra)

    def forward_backward(self, batch: Batch) -> Tensor:
        """Computes loss and gradients of one step.

        Args:
            batch: This process's images.

        Returns:
            `[2]`: the sum of their losses, and how many of them were classified correctly.

        Raises:
            MemoryLimitError: It does not fit.
        """
        with memory_advice(advice(self.model, self.config, batch)):
            if replay := self.recorded.find(batch):
                return replay(*batch.inputs)  # the same kernels, started by one call
            sums = torch.zeros(2, device=batch.features.device)
            micro_batches = batch.split(self.config.micro_batch)  # just one, by default
            with self.model.encode_once():
                for micro_batch in micro_batches:
                    with exchange(self.objective, last=micro_batch is micro_batches[-1]):
                        loss, own_sums = self.objective(*micro_batch.inputs)
                        self.backward(loss, batch.size)
                    sums += own_sums
        return sums

    def backward(self, loss: Tensor, images: int) -> None:
        """From a sum over some images to gradients of the mean over all `images` of the step."""
        # DistributedDataParallel averages over the processes, so their number is factored in.
        self.scaler.scale(loss * (distributed.world_size() / images)).backward()

    def save(self) -> None:
        """Writes a checkpoint, if there is a folder for it."""
        if self.folder and distributed.is_main():
            save_state(self.state, self.folder, self.identity)


class Objective(nn.Module):
    """From features and labels to the loss: the module that DistributedDataParallel wraps."""

    def __init__(self, model: PromptLearner, precision: str) -> None:
        super().__init__()
        self.model, self.mixed = model, precision == "amp"
        # CPUs are fast in bfloat16 only, and not all GPUs are; fp16 is fast on all of them.
        self.half = torch.float16 if model.clip.device.type == "cuda" else torch.bfloat16

    def mixed_precision(self) -> torch.autocast:
        """Within the block, products are in half precision if the precision is "amp"."""
        return torch.autocast(self.model.clip.device.type, self.half, enabled=self.mixed)

    def forward(self, features: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Sums the cross-entropy over images.

        Args:
            features: `[b, E]`.
            labels: `[b]`.
            weights: `[b]`: 1, or 0 for images that do not count.

        Returns:
            The sum, and `[2]`: the same without gradient, and the number of images that were
            classified correctly.
        """
        with self.mixed_precision():
            logits = self.model.logits_from_features(features).float()  # [b, K]
        loss = (F.cross_entropy(logits, labels, reduction="none") * weights).sum()
        loss = loss + self.model.penalty() * weights.sum()  # so that its mean is the penalty
        correct = ((logits.argmax(dim=1) == labels) * weights).sum()
        return loss, torch.stack([loss.detach(), correct])
