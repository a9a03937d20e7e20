"""Runs that are trained together take the steps that they would take alone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_clips import small_clip

from cocoop_tutorial import (
    CoCoOp,
    CoOp,
    Dataset,
    TrainConfig,
    ZeroShotCLIP,
    base_new,
    few_shot,
    train,
)
from cocoop_tutorial.datasets.splits import Split
from cocoop_tutorial.errors import DataError, TrainingError
from cocoop_tutorial.experiments.controls import NoiseCoCoOp, ZeroStartCoCoOp
from cocoop_tutorial.models.kgcoop import KgCoOp
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.training.together import train_together

KINDS = (CoOp, CoCoOp, NoiseCoCoOp, ZeroStartCoCoOp, KgCoOp)
SHORT = TrainConfig(epochs=3, batch_size=2, warmup_epochs=0, lr=0.02)


def learner(kind: type, data: Dataset, seed: int) -> PromptLearner:
    torch.manual_seed(seed)
    return kind(small_clip(), data.classnames, 4, "a photo of a")


def test_numbers_are_those_of_single_runs(pets: Dataset) -> None:
    datas = [few_shot(pets, 2, seed) for seed in range(len(KINDS))]
    configs = [replace(SHORT, seed=seed) for seed in range(len(KINDS))]
    alone, joint = (
        [
            learner(kind, data, seed)
            for seed, (kind, data) in enumerate(zip(KINDS, datas, strict=True))
        ]
        for _ in range(2)
    )
    first = [model.prompt_state() for model in alone]
    expected = [train(m, d, c) for m, d, c in zip(alone, datas, configs, strict=True)]
    found = train_together(joint, datas, configs)
    for a, b, start, one, other in zip(alone, joint, first, expected, found, strict=True):
        assert (one[["epoch", "lr", "images"]] == other[["epoch", "lr", "images"]]).all().all()
        torch.testing.assert_close(torch.tensor(one.loss), torch.tensor(other.loss))
        for name, value in a.prompt_state().items():
            torch.testing.assert_close(b.prompt_state()[name], value)
        assert not torch.equal(a.prompt_state()["ctx"], start["ctx"])


def test_mixed_precision_is_that_of_single_runs(pets: Dataset) -> None:
    mixed = replace(SHORT, precision="amp", batch_size=16, epochs=1)
    alone, joint, exact = (learner(CoCoOp, pets, 1) for _ in range(3))
    for model, config in ((alone, mixed), (exact, replace(mixed, precision="fp32"))):
        train(model, pets, config)
    train_together([joint], [pets], [mixed])
    wanted, other = alone.ctx.detach(), exact.ctx.detach()
    assert (joint.ctx - wanted).norm() < 0.1 * (other - wanted).norm()


def test_the_penalty_counts(pets: Dataset) -> None:
    models = [learner(kind, pets, 1) for kind in (CoOp, KgCoOp)]
    train_together(models, [pets] * 2, [replace(SHORT, lr=0.5)] * 2)
    words = models[1].hand_written
    near = [(m.text_features() * words).sum(dim=-1).mean().item() for m in models]
    assert near[1] > near[0] + 0.01


def test_each_epoch_is_told(pets: Dataset) -> None:
    models = [learner(CoOp, pets, seed) for seed in (1, 2)]
    tell = [lambda m, k=k: {"who": k + m.n_ctx} for k in (10, 20)]
    found = train_together(models, [pets] * 2, [SHORT] * 2, on_epoch_end=tell)
    assert [f.who.tolist() for f in found] == [[14.0] * 3, [24.0] * 3]


def test_what_cannot_share_a_step_is_told_why(pets: Dataset) -> None:
    base, new = base_new(pets)
    a, b = learner(CoOp, base, 1), learner(CoOp, new, 1)
    with pytest.raises(TrainingError, match="same class names"):
        train_together([a, b], [base, new], [SHORT] * 2)
    longer = CoOp(small_clip(), base.classnames, 5)
    with pytest.raises(TrainingError, match="contexts of one shape"):
        train_together([a, longer], [base] * 2, [SHORT] * 2)
    with pytest.raises(TrainingError, match="one backbone"):
        other = CoOp(small_clip(seed=1), base.classnames, 4)
        train_together([a, other], [base] * 2, [SHORT] * 2)
    with pytest.raises(TrainingError, match="equally many steps"):
        same = learner(CoOp, base, 2)
        train_together([a, same], [base] * 2, [SHORT, replace(SHORT, epochs=1)])
    with pytest.raises(DataError):
        train_together([a], [new], [SHORT])
    with pytest.raises(TrainingError, match="one class_token_position"):
        front = CoOp(small_clip(), base.classnames, 4, class_token_position="front")
        train_together([a, front], [base] * 2, [SHORT] * 2)
    with pytest.raises(TrainingError, match="cannot share a context"):
        train_together([a, a.with_classnames(base.classnames)], [base] * 2, [SHORT] * 2)
    with pytest.raises(TrainingError, match="one precision"):
        same = learner(CoOp, base, 2)
        train_together([a, same], [base] * 2, [SHORT, replace(SHORT, precision="amp")])
    with pytest.raises(TrainingError, match="no micro_batch"):
        train_together([a], [base], [replace(SHORT, micro_batch=1)])
    for models in ([], [ZeroShotCLIP(small_clip(), base.classnames)]):
        with pytest.raises(TrainingError, match="nothing to train"):
            train_together(models, [base], [SHORT])
    for datas, configs, watch in (
        ([], [SHORT], None),
        ([base], [], None),
        ([base], [SHORT], [1, 2]),
    ):
        with pytest.raises(TrainingError, match="1 models need as many"):
            train_together([a], datas, configs, on_epoch_end=watch)


@pytest.fixture
def pets(tmp_path: Path, make_image: Callable[[Path, int], Path]) -> Dataset:
    """Four classes with four pictures each."""
    rows = [(make_image(tmp_path / f"{n}.png", n), n // 4) for n in range(16)]
    return Dataset("pets", ["cat", "dog", "hot_dog", "bird"], Split(rows), Split(), Split(rows))
