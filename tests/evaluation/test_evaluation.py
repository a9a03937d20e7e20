"""Accuracy, calibration and cached features, on real small models and real images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from small_clips import count_encoder_calls, small_clip

from cocoop_tutorial import (
    CoCoOp,
    CoOp,
    Dataset,
    Evaluation,
    ImageFolder,
    Split,
    ZeroShotCLIP,
    base_new,
    evaluate,
    harmonic_mean,
    image_features,
)
from cocoop_tutorial.clip.features import clear_cache
from cocoop_tutorial.datasets.images import image_batches
from cocoop_tutorial.errors import (
    BackboneError,
    DataError,
    MemoryLimitError,
    SettingError,
    memory_advice,
)
from cocoop_tutorial.evaluation.calibration import expected_calibration_error, reliability

percent = st.floats(0, 100)


def made_up(n: int = 200, k: int = 5, seed: int = 0) -> Evaluation:
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, k, generator=g)
    return Evaluation(logits, torch.randint(0, k, (n,), generator=g), [f"c{i}" for i in range(k)])


def test_evaluate_equals_a_plain_loop(image_folder: Path) -> None:
    data, clip = ImageFolder(image_folder), small_clip()
    model = ZeroShotCLIP(clip, data.classnames).train()
    result = evaluate(model, data, "test", batch_size=4)
    assert model.training
    images = torch.stack([clip.preprocess(image) for image, _ in data.test])
    with torch.no_grad():
        torch.testing.assert_close(result.logits, model(images), rtol=1e-4, atol=1e-4)
    assert result.labels.tolist() == data.test.labels
    hits = (result.logits.argmax(1) == result.labels).float()
    assert float(result) == result.accuracy == pytest.approx(100 * hits.mean().item())


@pytest.mark.parametrize(("method", "passes"), [(CoOp, 1), (CoCoOp, 3)])
def test_prompts_that_all_images_share_are_encoded_once(
    method: type, passes: int, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ImageFolder(image_folder)
    model = method(small_clip(), data.classnames, n_ctx=2, ctx_init=None)
    whole = evaluate(model, data, "test")
    calls = count_encoder_calls(monkeypatch)
    logits = evaluate(model, data, "test", batch_size=3).logits  # three batches
    assert len(calls) == passes
    torch.testing.assert_close(logits, whole.logits, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        model.ctx.copy_(torch.randn_like(model.ctx))
    assert not torch.allclose(evaluate(model, data, "test").logits, logits)


def test_evaluate_takes_a_split_by_name_or_itself(image_folder: Path) -> None:
    data = ImageFolder(image_folder)
    model = ZeroShotCLIP(small_clip(), data.classnames)
    assert torch.equal(evaluate(model, data, "val").logits, evaluate(model, data, data.val).logits)
    with pytest.raises(DataError, match="'testing'"):
        evaluate(model, data, "testing")
    with pytest.raises(DataError, match="no images"):
        evaluate(model, data, Split())


@pytest.mark.parametrize("number", [0, -1, 2.0, "10", None, True, 10**30])
def test_numbers_of_images_that_cannot_be(number: object, image_folder: Path) -> None:
    data = ImageFolder(image_folder)
    model = ZeroShotCLIP(small_clip(), data.classnames)
    for name in ("batch_size", "feature_batch"):
        with pytest.raises(SettingError, match=r"batch_size.* is .*whole number from 1"):
            evaluate(model, data, **{name: number})
    with pytest.raises(SettingError, match="bins is"):
        reliability(torch.zeros(2, 2), torch.zeros(2), bins=number)


def test_evaluate_refuses_other_classes(image_folder: Path) -> None:
    data = ImageFolder(image_folder)
    base, new = base_new(data)
    model = ZeroShotCLIP(small_clip(), base.classnames)
    with pytest.raises(DataError, match=r"the model has 2 classes, pets has 3.*with_classnames"):
        evaluate(model, data)
    with pytest.raises(DataError, match="2 classes"):
        evaluate(model, new)
    swapped = ZeroShotCLIP(small_clip(), ["dog", "cat", "sea_lion"])
    with pytest.raises(DataError, match="class 0 is 'dog' in the model and 'cat' in pets"):
        evaluate(swapped, data)
    assert evaluate(model.with_classnames(data.classnames), data).logits.shape == (9, 3)


def test_features_are_computed_once_and_shared(image_folder: Path) -> None:
    clear_cache()
    data, clip = ImageFolder(image_folder), small_clip()
    first, labels = image_features(clip, data.train)
    assert first.shape == (15, clip.embed_dim) and labels.tolist() == data.train.labels
    torch.testing.assert_close(first.norm(dim=1), torch.ones(15))
    assert image_features(clip, Split(list(data.train.samples)))[0] is first
    assert image_features(clip, data.train, cache=False)[0] is not first
    assert image_features(clip, data.val)[0].shape == (6, clip.embed_dim)
    assert image_features(small_clip(seed=1), data.train)[0] is not first
    other = image_features(clip, data.train, transform=clip.preprocess_train, cache=False)[0]
    assert not torch.allclose(other, first)
    clear_cache()
    assert image_features(clip, data.train)[0] is not first


def test_features_do_not_depend_on_the_batch_size(image_folder: Path) -> None:
    data, clip = ImageFolder(image_folder), small_clip("resnet")
    one = image_features(clip, data.train, batch_size=1)[0]
    torch.testing.assert_close(one, image_features(clip, data.train, batch_size=7)[0])


def test_unreadable_image_is_named(image_folder: Path) -> None:
    data = ImageFolder(image_folder)
    data.train.samples[3][0].write_bytes(b"broken")
    with pytest.raises(DataError, match=data.train.samples[3][0].name):
        image_features(small_clip(), data.train)


@pytest.fixture(scope="module")
def greys(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Ten pictures; picture i is of the grey value i."""
    folder = tmp_path_factory.mktemp("greys")
    for i in range(10):
        Image.new("L", (3, 3), i).save(folder / f"{i}.png")
    return [folder / f"{i}.png" for i in range(10)]


@given(st.integers(1, 11), st.integers(1, 3))
def test_batches_keep_the_order(greys: list[Path], batch_size: int, workers: int) -> None:
    def value(image: Image.Image) -> torch.Tensor:
        return torch.tensor(image.getpixel((0, 0))[0])

    batches = list(image_batches(greys, value, batch_size, workers))
    assert torch.cat(batches).tolist() == list(range(10))
    assert [len(b) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)


def test_per_class_accuracy() -> None:
    logits = torch.eye(4)[[0, 0, 1, 2]] * 9
    result = Evaluation(logits, torch.tensor([0, 1, 1, 2]), ["a", "b", "c", "d"])
    expected = pd.Series([100.0, 50.0, 100.0, np.nan], index=["a", "b", "c", "d"])
    pd.testing.assert_series_equal(result.per_class, expected, check_names=False)
    assert repr(result) == "Evaluation(75.0% of 4 images, 4 classes)"


def test_weighted_class_accuracies_make_the_accuracy() -> None:
    result = made_up()
    counts = torch.bincount(result.labels, minlength=5).numpy()
    assert (result.per_class.to_numpy() * counts).sum() / 200 == pytest.approx(result.accuracy)


@given(percent, percent)
def test_harmonic_mean_is_between_and_symmetric(base: float, new: float) -> None:
    h = harmonic_mean(base, new)
    assert min(base, new) - 1e-9 <= h <= max(base, new) + 1e-9
    assert h <= (base + new) / 2 + 1e-9
    assert h == pytest.approx(harmonic_mean(new, base))


def test_harmonic_mean_of_the_papers_average() -> None:
    # CoCoOp (2203.05557), table 1 (a): CoCoOp 80.47 base, 71.69 new, H 75.83.
    assert round(harmonic_mean(80.47, 71.69), 2) == 75.83
    assert harmonic_mean(0, 0) == harmonic_mean(0, 50) == 0
    assert harmonic_mean(made_up(), made_up()) == pytest.approx(made_up().accuracy)


def test_calibration_by_hand() -> None:
    # Confidence 0.8 four times, right three times: a gap of 5 points. 0.6 once, right: 40 points.
    p = torch.tensor([[0.8, 0.2]] * 4 + [[0.6, 0.4]])
    labels = torch.tensor([0, 0, 0, 1, 0])
    assert expected_calibration_error(p.log(), labels, bins=10) == pytest.approx(
        100 * (4 * 0.05 + 1 * 0.4) / 5, abs=1e-4
    )
    table = reliability(p.log(), labels, bins=10)
    assert table["count"].sum() == 5 and len(table) == 10
    assert table.accuracy.dropna().tolist() == [1.0, 0.75]


@given(st.integers(1, 30), st.integers(0, 50))
def test_calibration_error_has_bounds(bins: int, seed: int) -> None:
    result = made_up(60, seed=seed)
    table = reliability(result.logits, result.labels, bins)
    assert table["count"].sum() == 60
    full = table.dropna()
    inside = (full.confidence >= full.low - 1e-6) & (full.confidence <= full.high + 1e-6)
    assert inside.all()
    confidence = result.logits.softmax(1).max(1).values.mean().item()
    gap = abs(100 * confidence - result.accuracy)
    error = expected_calibration_error(result.logits, result.labels, bins)
    assert gap - 1e-3 <= error <= 100


def test_sure_and_right_is_calibrated() -> None:
    labels = torch.arange(4)
    assert expected_calibration_error(torch.eye(4) * 100, labels) == pytest.approx(0, abs=1e-4)
    assert expected_calibration_error(torch.eye(4) * 100, labels.roll(1)) == pytest.approx(100)


def test_out_of_memory_names_the_setting() -> None:
    with (
        pytest.raises(MemoryLimitError, match="Lower batch_size"),
        memory_advice("Lower batch_size."),
    ):
        torch.empty(2**55)
    with pytest.raises(RuntimeError, match="another"), memory_advice("Lower batch_size."):
        raise RuntimeError("another thing")


def test_grey_and_large_pictures_pass_through(
    tmp_path: Path, make_image: Callable[[Path, int], Path]
) -> None:
    path = tmp_path / "g.png"
    Image.effect_noise((200, 90), 60).save(path)
    features, _ = image_features(
        small_clip(), Split([(path, 0), (make_image(tmp_path / "c.png", 1), 0)])
    )
    assert features.isfinite().all()


def test_scores_that_are_not_numbers_have_no_accuracy(
    tmp_path: Path, make_image: Callable[[Path, int], Path]
) -> None:
    data = Dataset("one", ["cat", "dog"], *[Split([(make_image(tmp_path / "a.png", 1), 0)])] * 3)
    model = CoOp(small_clip(), data.classnames, 2)
    with torch.no_grad():
        model.ctx[0] = torch.nan
    with pytest.raises(BackboneError, match="scores of this CoOp are not numbers"):
        evaluate(model, data)
