"""What a run reports: sums over its steps, one row per epoch, an error if numbers overflow."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor, nn

from cocoop_tutorial import distributed
from cocoop_tutorial.errors import TrainingError
from cocoop_tutorial.progress import bar
from cocoop_tutorial.training.config import TrainConfig
from cocoop_tutorial.training.state import TrainState

SYNC_EVERY = {"cpu": 1, "cuda": 20}  # steps; reading the losses makes the CPU wait for the GPU
SMALLEST_SCALE = 2.0**-20


class History:
    """Follows a run's steps.

    Attributes:
        bar: The progress bar of the whole run.
    """

    def __init__(
        self,
        model: nn.Module,
        state: TrainState,
        config: TrainConfig,
        n_steps: int,
        folder: Path | None,
        quiet: bool = False,
    ) -> None:
        """Starts where the state's progress is.

        Args:
            model: What trains.
            state: The run; its progress is kept up to date here.
            config: The settings, resolved.
            n_steps: Steps per epoch.
            folder: Of the checkpoint, to name it in errors.
            quiet: Show no bar.
        """
        self.state, self.config, self.n_steps, self.folder = state, config, n_steps, folder
        self.pending: list[Tensor] = []  # `[2]` per step: loss and correct, not yet read
        progress = state.progress
        silent = {"disable": True} if quiet or not distributed.is_main() else {}
        done, name = progress.epoch * n_steps + progress.step, type(model).__name__
        self.bar = bar(None, name, config.epochs * n_steps, initial=done, unit="step", **silent)
        self.device = model.clip.device
        self.started = time.perf_counter()
        self.leave_sums_to_main()

    def add(self, sums: Tensor, images: int) -> None:
        """Counts one step.

        Args:
            sums: `[2]`: the sum of the losses and the number correct, of this process's images.
            images: Images of the step, over all processes.
        """
        progress = self.state.progress
        self.pending.append(sums)
        progress.step += 1
        progress.images += images
        if progress.step % SYNC_EVERY.get(self.device.type, 1) == 0:
            self._accumulate()
            shown = sums[0].item() * distributed.world_size() / images
            self.bar.set_postfix(epoch=progress.epoch + 1, loss=f"{shown:.3f}", refresh=False)
        self.bar.update()

    def _accumulate(self) -> None:
        """Adds up the steps that were not read yet, and stops if one was not a number."""
        progress, scaler = self.state.progress, self.state.scaler
        read = torch.stack(self.pending).tolist() if self.pending else []
        self.pending.clear()
        for step, (loss, correct) in enumerate(read, progress.step - len(read) + 1):
            if not abs(loss) < float("inf"):
                self._stop(f"The loss is {loss}", step)
            progress.loss += loss
            progress.correct += correct
        if scaler.is_enabled() and scaler.get_scale() < SMALLEST_SCALE:
            self._stop("The gradients overflow however small the loss is scaled", progress.step)

    def checkpoint_is_due(self) -> bool:
        """Whether to save now, inside an epoch."""
        step = self.state.progress.step
        return step % self.config.save_every == 0 and step < self.n_steps

    def sum_over_processes(self) -> None:
        """Brings the progress up to date, with the sums of all processes.

        Raises:
            TrainingError: The loss or a parameter is not finite.
        """
        self._accumulate()
        progress = self.state.progress
        for name, parameter in self.state.parameters.items():
            if not parameter.isfinite().all():
                self._stop(f"{name} is no longer finite", progress.step)
        sums = [progress.loss, progress.correct]
        progress.loss, progress.correct = distributed.total(sums, self.device)
        progress.seconds += time.perf_counter() - self.started
        self.started = time.perf_counter()

    def leave_sums_to_main(self) -> None:
        """Keeps the sums of all processes in one process, because they will be added up again."""
        if not distributed.is_main():
            self.state.progress.loss = self.state.progress.correct = 0.0

    def end_epoch(self, rate: float, extra: Mapping[str, float]) -> None:
        """Adds the epoch's row to the history.

        Args:
            rate: The learning rate.
            extra: More columns.
        """
        progress = self.state.progress
        row = {
            "epoch": progress.epoch + 1,
            "lr": rate,
            "loss": progress.loss / progress.images,
            "accuracy": 100 * progress.correct / progress.images,
            "images": progress.images,
            "seconds": progress.seconds,
        }
        progress.rows.append(row | {name: float(value) for name, value in extra.items()})
        progress.epoch, progress.step, progress.images = progress.epoch + 1, 0, 0
        progress.loss = progress.correct = progress.seconds = 0.0
        self.started = time.perf_counter()

    def _stop(self, what: str, step: int) -> NoReturn:
        config = self.config
        kept = f" {self.folder} keeps the last good checkpoint." if self.folder else ""
        half = "" if config.precision == "fp32" else ", or load the backbone with precision='fp32'"
        raise TrainingError(
            f"{what} in step {step} of {self.n_steps} of epoch {self.state.progress.epoch + 1}. "
            f"Lower lr (now {config.lr}){half}.{kept}"
        )
