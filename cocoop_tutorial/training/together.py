"""`train_together`: several prompts of the same classes in one pass of the text tower (chapter 6).

On a CPU, the prompts of one image and a dozen classes are too little work to fill the processor:
most of a step is overhead. Runs that differ in seeds, shots, or method can share their steps.
"""

import contextlib
from collections.abc import Iterator, Sequence

import pandas as pd
import torch

from cocoop_tutorial import distributed
from cocoop_tutorial.allocator import keep_freed_memory
from cocoop_tutorial.datasets.splits import Dataset, check_names
from cocoop_tutorial.errors import TrainingError, memory_advice
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.text_encoder.encode import encode_prompts
from cocoop_tutorial.text_encoder.packed.memory import fixed_budget
from cocoop_tutorial.training.batches import Batch
from cocoop_tutorial.training.config import TrainConfig
from cocoop_tutorial.training.loop import OnEpochEnd, Run
from cocoop_tutorial.training.step import reproducible, training_mode


def train_together(
    models: Sequence[PromptLearner],
    datas: Sequence[Dataset],
    configs: Sequence[TrainConfig],
    *,
    on_epoch_end: Sequence[OnEpochEnd] | None = None,
) -> list[pd.DataFrame]:
    """Trains each model on its own data, in place, with one call of the text encoder per step.

    Each run takes the steps that `train` would take: same images, same order, same learning rate.
    Only the sums in the text tower are added up in another order, so parameters agree up to
    rounding, which many steps can make larger.

    Args:
        models: Prompt learners with the same backbone, class names, M and text encoder.
        datas: The data of each.
        configs: The settings of each; all must give equally many steps.
        on_epoch_end: As for `train`, one per model.

    Returns:
        The history of each, as `train` returns it.

    Raises:
        TrainingError: They cannot share their steps; the message says why.
        DataError: As for `train`.
        MemoryLimitError: A step does not fit; train fewer at once.

    Introduced in chapter 6.
    """
    _check_alike(models)
    watch = on_epoch_end or [None] * len(models)
    if not len(models) == len(datas) == len(configs) == len(watch):
        raise TrainingError(f"{len(models)} models need as many data sets, settings and watchers.")
    _check_settings(configs)
    clip = models[0].clip
    with reproducible(clip.device, all(c.deterministic for c in configs)), keep_freed_memory():
        runs = list(_runs(models, datas, configs))
        _check_steps(runs)
        with contextlib.ExitStack() as stack:
            for run in runs:
                stack.enter_context(training_mode(run.model))
                stack.enter_context(run.history.bar)
            stack.enter_context(fixed_budget(runs[0].state.budget))
            for epoch in range(runs[0].config.epochs):
                for batches in zip(*(run.source.steps(epoch) for run in runs), strict=True):
                    _step(runs, batches)
                for run, tell in zip(runs, watch, strict=True):
                    run.end_epoch(tell)
    return [pd.DataFrame(run.state.progress.rows) for run in runs]


def _runs(
    models: Sequence[PromptLearner], datas: Sequence[Dataset], configs: Sequence[TrainConfig]
) -> Iterator[Run]:
    """A run for each model, of which only the first shows a bar."""
    for i, (model, data, config) in enumerate(zip(models, datas, configs, strict=True)):
        check_names(model, data)
        resolved = config.resolved(type(model).__name__, model.clip.precision)
        yield Run(model, data, resolved, folder=None, quiet=i > 0)


def _check_alike(models: Sequence[PromptLearner]) -> None:
    if not models or not all(isinstance(model, PromptLearner) for model in models):
        raise TrainingError("There is nothing to train together. Give prompt learners.")
    first, parameters = models[0], [id(m.ctx) for m in models]
    if len(set(parameters)) < len(parameters):
        raise TrainingError("Models that are trained together cannot share a context.")
    for model in models:
        if model.clip is not first.clip or model.encoder != first.encoder:
            raise TrainingError("Models that are trained together need one backbone and encoder.")
        if model.classnames != first.classnames or model.ctx.shape != first.ctx.shape:
            raise TrainingError(
                "Models that are trained together need the same class names, and contexts of one "
                f"shape; here are {list(first.ctx.shape)} for {len(first.classnames)} classes and "
                f"{list(model.ctx.shape)} for {len(model.classnames)}."
            )
        if model.prompts.sequences != first.prompts.sequences:
            raise TrainingError("Models that are trained together need one class_token_position.")


def _check_settings(configs: Sequence[TrainConfig]) -> None:
    if distributed.active():
        raise TrainingError("Several processes cannot share runs. Use train under torchrun.")
    if any(config.micro_batch for config in configs):
        raise TrainingError("Runs that are trained together take no micro_batch. Train fewer.")


def _check_steps(runs: Sequence[Run]) -> None:
    if len({(run.source.n_steps, run.config.epochs) for run in runs}) > 1:
        raise TrainingError("Runs that are trained together must have equally many steps.")
    if len({run.config.precision for run in runs}) > 1:
        raise TrainingError("Runs that are trained together need one precision.")


def _step(runs: Sequence[Run], batches: Sequence[Batch]) -> None:
    """One step of every run."""
    model, sums = runs[0].model, []
    for run in runs:
        run.begin_step()
    with memory_advice("Train fewer models at once."):
        with runs[0].objective.mixed_precision():
            contexts = [
                run.model.context_of(batch.features)
                for run, batch in zip(runs, batches, strict=True)
            ]
            text = encode_prompts(model.clip, torch.cat(contexts), model.prompts, model.encoder)
        texts = text.detach().to(model.ctx.dtype).split([len(c) for c in contexts])
        for run, batch, mine in zip(runs, batches, texts, strict=True):
            with run.model.encoded(mine.requires_grad_()):
                loss, own_sums = run.objective(*batch.inputs)
                run.backward(loss, batch.size)
            sums.append(own_sums)
        text.backward(torch.cat([mine.grad for mine in texts]).to(text.dtype))
    for run, own_sums, batch in zip(runs, sums, batches, strict=True):
        run.end_step(own_sums, batch)
