"""`train`: the paper's optimiser and schedule, for any prompt learner (chapter 3)."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cocoop_tutorial import distributed
from cocoop_tutorial.allocator import give_back_freed_memory, keep_freed_memory
from cocoop_tutorial.datasets.splits import Dataset, check_names
from cocoop_tutorial.errors import TrainingError
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.progress import bar
from cocoop_tutorial.text_encoder.packed.memory import fixed_budget
from cocoop_tutorial.training.batches import FeatureSource, draw_seed, epoch_batches
from cocoop_tutorial.training.config import TrainConfig, learning_rate
from cocoop_tutorial.training.state import identity, load_state, save_state
from cocoop_tutorial.training.step import Stepper, new_state, reproducible

__all__ = ["TrainConfig", "learning_rate", "train"]

Measure = Callable[[PromptLearner], Mapping[str, float]]

LOOK = {"cpu": 1, "cuda": 20}  # steps between looks at the loss: on a GPU each look waits


def train(
    model: PromptLearner,
    data: Dataset,
    config: TrainConfig | None = None,
    *,
    folder: str | Path | None = None,
    measure: Measure | None = None,
) -> pd.DataFrame:
    """Trains the prompt, in place.

    Args:
        model: A CoOp or CoCoOp; only its context and Meta-Net change.
        data: Its `train` images are used; its class names must be the model's.
        config: The settings; None takes the paper's.
        folder: Where to keep a checkpoint. If there is one, the run goes on from it and ends with
            the same bits as one that was never stopped.
        measure: Called after each epoch with the model; what it returns joins the history.

    Returns:
        The history, one row an epoch: `epoch` (from 1), `lr`, `loss` and `accuracy` (percent) as
        they were while training, `images`, `seconds`, and what `measure` returned.

    Raises:
        DataError: No images, one that cannot be read, or other class names.
        TrainingError: Nothing to train, or the loss or a parameter is no longer a number.
        MemoryLimitError: A step does not fit; the message says which setting lowers it.
        CheckpointError: The folder cannot be written, or holds another run.

    Introduced in chapter 3. Under `torchrun` the processes share each step (chapter 5).
    """
    if not isinstance(model, PromptLearner):
        raise TrainingError(f"{type(model).__name__} has nothing to train. Use CoOp or CoCoOp.")
    check_names(model, data)
    config = (config or TrainConfig()).resolved(type(model).__name__, model.clip.precision)
    _check_processes(config)
    with reproducible(model.clip.device, config.deterministic):
        if model.clip.device.type == "cpu":
            keep_freed_memory()
        trainer = _Trainer(model, data, config, Path(folder) if folder else None)
        try:
            return trainer.run(measure)
        finally:
            give_back_freed_memory()


def _check_processes(config: TrainConfig) -> None:
    n, size = distributed.world_size(), config.batch_size or 1
    if size % n:
        raise TrainingError(
            f"batch_size is {size}, which {n} processes cannot share evenly. "
            f"Use batch_size={-(-size // n) * n}."
        )


class _Trainer:
    """One run."""

    def __init__(
        self, model: PromptLearner, data: Dataset, config: TrainConfig, folder: Path | None
    ) -> None:
        self.model, self.config, self.folder = model, config, folder
        self.device = model.clip.device
        self.source = FeatureSource(model.clip, data.train, config)
        batches = epoch_batches(len(data.train), 0, config)
        self.n_steps, self.step_images = len(batches), len(batches[0])
        self.state = new_state(model, config)
        self.step = Stepper(model, config, self.state)
        self.identity = identity(model, data, config)
        self.pending: list[Tensor] = []  # `[2]` a step: loss and correct, not yet looked at
        if folder:
            load_state(self.state, folder, self.identity)
            self._leave_sums_to_main()

    def run(self, measure: Measure | None) -> pd.DataFrame:
        place, config = self.state.place, self.config
        assert config.epochs is not None
        steps, done = config.epochs * self.n_steps, place.epoch * self.n_steps + place.step
        silent = {} if distributed.is_main() else {"disable": True}
        name = type(self.model).__name__
        self.bar = bar(None, name, steps, initial=done, unit="step", **silent)
        training = self.model.training
        self.model.train()
        try:
            while place.epoch < config.epochs:
                self._epoch(measure)
        finally:
            self.model.train(training)
            self.bar.close()
        return pd.DataFrame(place.rows)

    def _epoch(self, measure: Measure | None) -> None:
        """The rest of the epoch that the run is in."""
        place, config = self.state.place, self.config
        rate = learning_rate(place.epoch, config)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        self.started = time.perf_counter()
        for batch in self.source.steps(place.epoch, place.step):
            # Whatever a step draws follows from its place, so that it need not be saved.
            torch.manual_seed(draw_seed(config.seed, place.epoch, place.step, distributed.rank()))
            self.pending.append(self.step(batch))
            place.step += 1
            place.images += batch.size
            if place.step % LOOK.get(self.device.type, 1) == 0:
                self._look()
            if self.folder and place.step % config.save_every == 0 and place.step < self.n_steps:
                self._save()
            self.bar.update()
        self._finish(rate, measure)

    def _look(self) -> None:
        """Adds up the steps since the last look, and stops if one was not a number."""
        if not self.pending:
            return
        place, sums = self.state.place, torch.stack(self.pending).tolist()
        self.pending.clear()
        for i, (loss, correct) in enumerate(sums):
            if not abs(loss) < float("inf"):
                self._stop(f"The loss is {loss}", place.step - len(sums) + 1 + i)
            place.loss += loss
            place.correct += correct
        if self.state.scaler.is_enabled() and self.state.scaler.get_scale() < 2.0**-20:
            self._stop("The gradients overflow however small the loss is scaled", place.step)
        shown = sums[-1][0] * distributed.world_size() / self.step_images
        self.bar.set_postfix(epoch=place.epoch + 1, loss=f"{shown:.3f}", refresh=False)

    def _stop(self, what: str, step: int) -> None:
        config, place = self.config, self.state.place
        kept = f" {self.folder} keeps the last good checkpoint." if self.folder else ""
        half = "" if config.precision == "fp32" else ", or load the backbone with precision='fp32'"
        raise TrainingError(
            f"{what} in step {step} of {self.n_steps} of epoch {place.epoch + 1}. "
            f"Lower lr (now {config.lr}){half}.{kept}"
        )

    def _check_parameters(self) -> None:
        for name, parameter in self.state.parameters.items():
            if not parameter.isfinite().all():
                self._stop(f"{name} is no longer finite", self.state.place.step)

    def _settle(self) -> None:
        """Makes `place` true of all processes, before it is saved."""
        self._look()
        self._check_parameters()
        place = self.state.place
        place.loss, place.correct = distributed.total([place.loss, place.correct], self.device)
        place.seconds += time.perf_counter() - self.started
        self.started = time.perf_counter()

    def _save(self) -> None:
        self._settle()
        if self.folder and distributed.is_main():
            save_state(self.state, self.folder, self.identity)
        self._leave_sums_to_main()

    def _leave_sums_to_main(self) -> None:
        """The sums so far are everyone's: only one process may count them again."""
        if not distributed.is_main():
            self.state.place.loss = self.state.place.correct = 0.0

    def _finish(self, rate: float, measure: Measure | None) -> None:
        """Ends an epoch: its row of the history, and a checkpoint."""
        self._settle()
        place = self.state.place
        row = {
            "epoch": place.epoch + 1,
            "lr": rate,
            "loss": place.loss / place.images,
            "accuracy": 100 * place.correct / place.images,
            "images": place.images,
            "seconds": place.seconds,
        }
        if measure is not None:
            with torch.no_grad(), fixed_budget(self.state.budget):
                row |= {name: float(value) for name, value in measure(self.model).items()}
        place.rows.append(row)
        place.epoch, place.step, place.images = place.epoch + 1, 0, 0
        place.loss = place.correct = place.seconds = 0.0
        if self.folder and distributed.is_main():
            save_state(self.state, self.folder, self.identity)
