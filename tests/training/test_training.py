"""Training: the official schedule, every setting, and what stops a run."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from small_clips import count_encoder_calls
from torch.nn import functional as F
from train_jobs import (
    NAMES,
    encode_in_little_memory,
    in_process,
    make_data,
    make_model,
    run_in_little_memory,
)

from cocoop_tutorial import (
    CoCoOp,
    CoOp,
    Dataset,
    Split,
    TrainConfig,
    ZeroShotCLIP,
    base_new,
    evaluate,
    few_shot,
    image_features,
    load_clip,
    load_dataset,
    train,
)
from cocoop_tutorial.errors import DataError, SettingError, TrainingError, UnknownNameError
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.training import step
from cocoop_tutorial.training.batches import Batch, BatchSource, epoch_batches
from cocoop_tutorial.training.loop import Run, learning_rate

QUICK = TrainConfig(epochs=2, batch_size=4, lr=0.1)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return make_data(tmp_path / "data")


def same(one: Any, other: Any) -> bool:
    """Bit by bit."""
    return same_state(one.prompt_state(), other.prompt_state())


def same_state(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("epochs", [1, 2, 10, 50, 200])
def test_schedule_is_the_official_one(epochs: int) -> None:
    # The official scheduler: one epoch at a constant 1e-5, then torch's own cosine.
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.002)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, float(epochs))
    wanted = [1e-5]
    for _ in range(epochs - 1):
        wanted.append(cosine.get_last_lr()[0])
        optimizer.step()
        cosine.step()
    got = [learning_rate(epoch, TrainConfig(epochs=epochs)) for epoch in range(epochs)]
    assert got == pytest.approx(wanted, rel=1e-9)


def test_last_rate_of_ten_epochs_is_not_zero() -> None:
    config = TrainConfig(epochs=10)
    assert learning_rate(1, config) == 0.002
    assert learning_rate(9, config) == pytest.approx(1.91e-4, rel=1e-3)
    no_warmup = TrainConfig(epochs=10, warmup_epochs=0)
    assert learning_rate(0, no_warmup) == 0.002


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3), st.booleans())
def test_epochs_show_every_image_once(n: int, size: int, epoch: int, drop_last: bool) -> None:
    config = TrainConfig(epochs=4, batch_size=size, drop_last=drop_last)
    batches = epoch_batches(n, epoch, config)
    shown = [i for batch in batches for i in batch]
    assert len(set(shown)) == len(shown) and set(shown) <= set(range(n))
    left_out = n % size if drop_last and n >= size else 0
    assert len(shown) == n - left_out
    assert all(len(batch) == size for batch in batches[:-1])
    assert batches == epoch_batches(n, epoch, config)


def test_history_counts_the_images_that_steps_used(data: Dataset) -> None:
    assert len(data.train) == 15  # in batches of four, three are left over
    for drop_last, images in ((True, 12), (False, 15)):
        history = train(make_model("CoOp"), data, replace(QUICK, drop_last=drop_last))
        assert set(history.images) == {images}


def test_order_depends_on_seed_and_epoch() -> None:
    orders = [
        epoch_batches(20, epoch, TrainConfig(epochs=2, batch_size=20, seed=seed))[0]
        for seed in (1, 2)
        for epoch in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("method", ["CoOp", "CoCoOp"])
def test_training_is_the_plain_loop(method: str, data: Dataset) -> None:
    config = replace(QUICK, epochs=3)
    model, plain = make_model(method), make_model(method)
    history = train(model, data, config)
    features, labels = image_features(plain.clip, data.train)
    optimizer = torch.optim.SGD(
        plain.prompt_parameters().values(), lr=0.1, momentum=0.9, weight_decay=5e-4
    )
    for epoch, rate in enumerate([1e-5, 0.1, 0.1 * (1 + math.cos(math.pi / 3)) / 2]):
        optimizer.param_groups[0]["lr"] = rate
        losses = []
        for rows in epoch_batches(len(data.train), epoch, config):
            loss = F.cross_entropy(plain.logits_from_features(features[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert history.loss[epoch] == pytest.approx(np.mean(losses), rel=1e-5)
        assert history.lr[epoch] == pytest.approx(rate)
    for name, value in model.prompt_state().items():
        torch.testing.assert_close(value, plain.prompt_state()[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", [CoOp, CoCoOp])
def test_it_learns(method: type[PromptLearner]) -> None:
    shots, _ = base_new(few_shot(load_dataset("icons_media"), shots=4, seed=1))
    torch.manual_seed(0)
    model = method(load_clip("icon-clip", device="cpu"), shots.classnames, n_ctx=2, ctx_init=None)
    before = evaluate(model, shots, "train").accuracy
    history = train(model, shots, TrainConfig(epochs=6, batch_size=4, lr=0.01, warmup_epochs=0))
    assert history.loss.iloc[-1] < 0.8 * history.loss.iloc[0]
    assert evaluate(model, shots, "train").accuracy > before + 10
    assert list(history.columns) == ["epoch", "lr", "loss", "accuracy", "images", "seconds"]
    assert list(history.epoch) == list(range(1, 7)) and set(history.images) == {56}


@pytest.mark.parametrize("method", ["CoOp", "CoCoOp"])
@pytest.mark.parametrize("micro_batch", [1, 3, 4, 100])
def test_micro_batches_take_the_same_step(micro_batch: int, method: str, data: Dataset) -> None:
    whole, parts = make_model(method), make_model(method)
    one = train(whole, data, QUICK)
    other = train(parts, data, replace(QUICK, micro_batch=micro_batch))
    for name, value in parts.prompt_state().items():
        torch.testing.assert_close(value, whole.prompt_state()[name], rtol=1e-4, atol=1e-6)
    assert list(other.loss) == pytest.approx(list(one.loss), rel=1e-5)


def test_micro_batches_share_one_pass_through_the_text_tower(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_encoder_calls(monkeypatch)
    for micro_batch in (1, 3, None):
        train(make_model("CoOp"), data, replace(QUICK, micro_batch=micro_batch))
        assert calls == ["packed"] * 6, "once per step: two epochs of three steps"
        calls.clear()


class Noisy(CoOp):
    """A learner of the user's own: what CoOp says of itself need not hold for it."""

    def text_features(self) -> torch.Tensor:
        return self.encode((self.ctx + torch.randn(self.ctx.shape))[None, None])[0]


def test_a_subclass_says_anew_what_it_can() -> None:
    assert CoCoOp.image_conditioned and not CoOp.image_conditioned
    assert CoOp.can_be_recorded and CoCoOp.can_be_recorded
    assert Noisy.image_conditioned and not Noisy.can_be_recorded
    model = Noisy(make_model("CoOp").clip, NAMES, 2)
    with model.encode_once():
        assert not torch.equal(model.text_features(), model.text_features())


def test_the_way_out_of_memory_fits_the_method() -> None:
    batch = Batch(torch.zeros(8, 48), torch.zeros(8), torch.ones(8), 8)
    for method, encoder, micro_batch, words in (
        ("CoCoOp", "packed", None, "Set micro_batch=4 (now 8)"),
        ("CoCoOp", "packed", 1, "One image with 3 classes does not fit"),
        ("CoOp", "packed", None, "The prompts of 3 classes do not fit: load the backbone in half"),
        ("CoOp", "reference", 1, "The prompts of 3 classes do not fit: use encoder='packed'"),
    ):
        model = make_model(method)
        model.encoder = encoder
        assert step.advice(model, replace(QUICK, micro_batch=micro_batch), batch).startswith(words)


def test_the_papers_numbers_are_the_default() -> None:
    for method, numbers in (("CoCoOp", (10, 1)), ("CoOp", (200, 32))):
        config = TrainConfig().resolved(method, "fp32")
        assert (config.epochs, config.batch_size) == numbers
        assert (config.lr, config.momentum, config.weight_decay) == (0.002, 0.9, 5e-4)
    assert TrainConfig(epochs=3).resolved("CoOp", "amp").epochs == 3


def test_same_seed_same_bits_whatever_else_is_random(data: Dataset) -> None:
    config = replace(QUICK, transform="train", feature_batch=7)
    models = [make_model("CoCoOp") for _ in range(3)]
    for model, noise in zip(models, (1, 2, 3), strict=True):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        train(model, data, config if noise < 3 else replace(config, seed=2))
        assert torch.equal(torch.get_rng_state(), before)
    assert same(models[0], models[1]) and not same(models[0], models[2])
    assert not torch.are_deterministic_algorithms_enabled()


def test_dropout_repeats_too(data: Dataset) -> None:
    class Shaky(CoOp):
        def logits_from_features(self, features: torch.Tensor) -> torch.Tensor:
            return super().logits_from_features(F.dropout(features, 0.5, self.training))

    models = []
    for noise in (1, 2):
        clip = make_model("CoOp").clip
        torch.manual_seed(0)
        models.append(Shaky(clip, NAMES, 2))
        torch.manual_seed(noise)
        train(models[-1], data, QUICK)
    assert same(*models)


def test_random_crops_are_new_in_every_epoch_and_the_same_in_any_block(data: Dataset) -> None:
    clip = make_model("CoOp").clip

    def epochs(block: int) -> list[torch.Tensor]:
        config = replace(QUICK, transform="train", feature_batch=block, batch_size=15)
        source = BatchSource(clip, data.train, config)
        order = [epoch_batches(15, e, config)[0] for e in (0, 1)]
        rows = [next(iter(source.steps(e))).features for e in (0, 1)]
        return [r[torch.tensor(o).argsort()] for r, o in zip(rows, order, strict=True)]

    one, other = epochs(4), epochs(15)
    assert (one[0] - one[1]).abs().max() > 1e-3
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    fixed = BatchSource(clip, data.train, QUICK)
    for batch, again in zip(fixed.steps(0), fixed.steps(0), strict=True):
        assert torch.equal(batch.features, again.features)
        assert torch.equal(batch.features.norm(dim=1).round(decimals=5), torch.ones(4))


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("precision", ["bf16", "fp16", "amp"])
def test_half_precision_learns_nearly_the_same(precision: str, device: str, data: Dataset) -> None:
    full, half = make_model("CoCoOp"), make_model("CoCoOp", precision=precision, device=device)
    start = full.prompt_state()
    half.load_prompt_state(start)
    config = replace(QUICK, lr=0.02, epochs=3)
    wanted, got = train(full, data, config), train(half, data, config)
    assert list(got.loss) == pytest.approx(list(wanted.loss), rel=0.05)
    for name, value in half.prompt_state().items():
        assert value.dtype == torch.float32
        moved = full.prompt_state()[name] - start[name]
        assert (value - full.prompt_state()[name]).norm() < 0.2 * moved.norm(), name


def test_scaled_loss_backs_off_until_gradients_fit(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "FIRST_SCALE", 2.0**40)  # overflows in fp16
    model = make_model("CoCoOp", precision="fp16")
    run, before = Run(model, data, QUICK.resolved("CoCoOp", "fp16"), None), model.prompt_state()
    run.to_the_end(None)
    assert 2.0**30 < run.scaler.get_scale() < 2.0**40, "each of the six steps overflows"
    assert same_state(before, model.prompt_state()), "a step that overflows is left out"
    config = replace(QUICK, epochs=14).resolved("CoCoOp", "fp16")
    Run(model, data, config, None).to_the_end(None)
    after = model.prompt_state()
    assert all(value.isfinite().all() for value in after.values())
    assert not any(torch.equal(after[name], before[name]) for name in after)


def test_precision_that_the_backbone_does_not_have(data: Dataset) -> None:
    with pytest.raises(TrainingError, match=r"load_clip\(name, precision='bf16'\)"):
        train(make_model("CoOp"), data, replace(QUICK, precision="bf16"))
    with pytest.raises(TrainingError, match="precision='fp32'"):
        train(make_model("CoOp", precision="bf16"), data, replace(QUICK, precision="fp32"))


@pytest.mark.parametrize("folder", [True, False])
def test_not_a_number_stops_the_run(data: Dataset, tmp_path: Path, folder: bool) -> None:
    place = tmp_path / "run" if folder else None
    config = replace(QUICK, lr=1e30, save_every=1)
    with pytest.raises(TrainingError, match=r"step \d of 3 of epoch 2.*Lower lr") as stop:
        train(make_model("CoCoOp"), data, config, folder=place)
    assert ("last good checkpoint" in str(stop.value)) == folder
    if place:
        kept = load_file(place / "training.safetensors")
        assert all(value.isfinite().all() for value in kept.values())


def test_last_step_that_overflows_is_noticed(data: Dataset) -> None:
    config = TrainConfig(epochs=1, batch_size=15, lr=1e38, warmup_epochs=0)
    with pytest.raises(TrainingError, match=r"no longer finite in step 1 of 1 of epoch 1"):
        train(make_model("CoOp"), data, config)


def test_features_that_overflow_are_noticed(data: Dataset) -> None:
    model = make_model("CoCoOp", precision="amp")  # a backbone that no other test has
    model.clip.model.visual.proj.data.fill_(float("inf"))
    for transform in ("test", "train"):
        with pytest.raises(TrainingError, match="image tower of 'copy'"):
            train(model, data, replace(QUICK, transform=transform))


def test_out_of_memory_says_what_lowers_it(data: Dataset, tmp_path: Path) -> None:
    config, out = TrainConfig(epochs=1, batch_size=15), tmp_path / "out.json"
    assert in_process(run_in_little_memory, tmp_path / "data", out, config) == 0
    ((kind, message),) = json.loads(out.read_text())
    assert kind == "MemoryLimitError" and "micro_batch=7 (now 15)" in message


def test_image_tower_out_of_memory_says_what_lowers_it(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert in_process(encode_in_little_memory, tmp_path / "data", out) == 0
    assert json.loads(out.read_text()) == [
        ["MemoryLimitError", f"Out of memory. Lower feature_batch (now {n})."]
        for n in (30, 30, 128)
    ]


def test_measures_join_the_history(data: Dataset) -> None:
    seen = []

    def measure(model: Any) -> dict[str, Any]:
        seen.append(model)
        return {"train": evaluate(model, data, "train"), "norm": model.ctx.norm()}

    model = make_model("CoOp")
    history = train(model, data, QUICK, on_epoch_end=measure)
    assert seen == [model, model]
    assert history.train.iloc[-1] == evaluate(model, data, "train").accuracy
    assert history.norm.iloc[-1] == pytest.approx(model.ctx.norm().item())


def test_model_is_left_as_it_was_found(data: Dataset) -> None:
    model = make_model("CoOp").eval()
    frozen = {name: value.clone() for name, value in model.clip.state_dict().items()}
    train(model, data, QUICK)
    assert not model.training and not model.clip.training
    for name, value in model.clip.state_dict().items():
        assert torch.equal(value, frozen[name])


def test_what_cannot_be_trained(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="ZeroShotCLIP has nothing to train"):
        train(ZeroShotCLIP(make_model("CoOp").clip, NAMES), data, QUICK)
    with pytest.raises(DataError, match="disagree on the classes"):
        train(make_model("CoOp"), replace(data, classnames=["a", "b", "c"]), QUICK)
    bad = tmp_path / "bad.png"
    Image.new("RGB", (8, 8)).save(bad)
    bad.write_bytes(bad.read_bytes()[:40])
    broken = replace(data, train=Split([*data.train.samples, (bad, 0)]))
    for transform in ("test", "train"):
        config = replace(QUICK, transform=transform)
        with pytest.raises(DataError, match="no images"):
            train(make_model("CoOp"), replace(data, train=Split()), config)
        model = make_model("CoOp")
        before = model.prompt_state()
        with pytest.raises(DataError, match=r"bad\.png"):
            train(model, broken, config)
        assert torch.equal(model.ctx, before["ctx"])  # it stopped before the first step


def test_progress_bar(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    monkeypatch.setenv("COCOOP_QUIET", "0")
    for first in ("0/6", "6/6"):  # the second run finds that all is done
        train(make_model("CoOp"), data, QUICK, folder=tmp_path / "run")
        shown = [line for line in capsys.readouterr().err.split("\r") if "CoOp" in line]
        assert first in shown[0]
    monkeypatch.setenv("COCOOP_QUIET", "1")
    train(make_model("CoOp"), data, QUICK)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"momentum": 1.5}, "momentum is 1.5; it must be from 0 to below 1"),
        ({"lr": "2e-3"}, "lr is '2e-3', of type str"),  # as YAML reads it
        ({"lr": True}, "lr is True, of type bool"),
        ({"epochs": "10"}, "epochs is '10'"),
        ({"epochs": True}, "epochs is True"),
        ({"batch_size": 10**20}, "batch_size is 1000"),
        ({"warmup_epochs": 0.5}, "warmup_epochs is 0.5"),
        ({"save_every": None}, "save_every is None"),
        ({"drop_last": "no"}, "drop_last is 'no'; it must be True or False"),
        ({"deterministic": 1}, "deterministic is 1"),
    ],
)
def test_settings_that_cannot_be(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        TrainConfig(**setting)


def test_seeds_that_cannot_be() -> None:
    for seed in ("1", 1.0, -1, 2**64, None, True):
        with pytest.raises(SettingError, match=f"seed is {seed!r}"):
            TrainConfig(seed=seed)


def test_settings_of_numpy_are_plain_numbers(data: Dataset, tmp_path: Path) -> None:
    numbers = {"epochs": np.int64(1), "lr": np.float32(0.5), "seed": np.uint8(1), "batch_size": 4}
    config = TrainConfig(**numbers, drop_last=np.bool_(True))
    assert [type(v) for v in vars(config).values()] == [type(v) for v in vars(QUICK).values()]
    assert config == TrainConfig(epochs=1, lr=0.5, batch_size=4)
    for each in (config, TrainConfig(epochs=1, lr=0.5, batch_size=4)):
        train(make_model("CoOp"), data, each, folder=tmp_path / "run")


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'train'"):
        TrainConfig(transform="trian")
    with pytest.raises(UnknownNameError, match="Did you mean 'fp16'"):
        TrainConfig(precision="f16")


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "amp"])
@pytest.mark.parametrize("method", ["CoOp", "CoCoOp"])
def test_recorded_steps_give_the_same_bits(method: str, precision: str, data: Dataset) -> None:
    plain = make_model(method, precision=precision, device="cuda")
    recorded = make_model(method, precision=precision, device="cuda")
    recorded.load_prompt_state(plain.prompt_state())
    # The last batch of an epoch is smaller, so that there are two recordings.
    config = replace(QUICK, epochs=3, drop_last=False)
    wanted = train(plain, data, replace(config, cuda_graph=False))
    got = train(recorded, data, config)
    assert list(got.loss) == list(wanted.loss)
    assert same(plain, recorded)
