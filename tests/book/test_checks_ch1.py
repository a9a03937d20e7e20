"""The checkers of chapter 1: right answers pass, wrong ones are told why."""

import copy
from pathlib import Path

import pytest
import torch
from open_clip.loss import SigLipLoss
from torch.nn import functional as F

from cocoop_tutorial import Dataset, Split, ZeroShotCLIP, evaluate, load_clip
from cocoop_tutorial.book.checks import ch1

TEMPLATES = ["a photo of a {}.", "{}", "the {}.", "{} on the moon", "no {}!", "my {}, my zebra"]


@pytest.fixture(scope="module")
def clip(model_dir: Path):
    return load_clip(f"local-dir:{model_dir}", device="cpu")


@pytest.fixture
def data(image_folder: Path) -> Dataset:
    names = ["cat", "dog", "sea_lion"]
    parts = [
        # Fewer of the later classes: a random model calls all the same, and some calls are better.
        [(image_folder / n / f"{i:02d}.png", k) for k, n in enumerate(names) for i in places[k:]]
        for places in (range(3), range(3, 7), range(6, 10))
    ]
    return Dataset("pets", names, *map(Split, parts))


def classify(clip, images, names, template):
    texts = clip.encode_text([template.format(name) for name in names])
    return (clip.logit_scale * clip.encode_image(images) @ texts.T).softmax(dim=1)


def test_classify_passes(clip, capsys: pytest.CaptureFixture) -> None:
    ch1.check_classify(classify, clip)
    assert "passed" in capsys.readouterr().out


def test_classify_passes_when_other_words_would_say_the_same(clip) -> None:
    flat = copy.deepcopy(clip)
    flat.model.logit_scale.data.fill_(-20.0)  # all probabilities are one third
    ch1.check_classify(classify, flat)


CLASSIFY = {
    "shape": lambda c, x, n, t: classify(c, x, n, t).T,
    "softmax": lambda c, x, n, t: classify(c, x, n, t).log(),
    "logit_scale": lambda c, x, n, t: (
        c.encode_image(x) @ c.encode_text([t.format(i) for i in n]).T
    ).softmax(1),
    "bare names": lambda c, x, n, t: classify(c, x, n, "{}"),
    "differ": lambda c, x, n, t: classify(c, x, n[::-1], t),
}


@pytest.mark.parametrize("reason", CLASSIFY)
def test_classify_says_why(clip, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        ch1.check_classify(CLASSIFY[reason], clip)


def siglip(x, w, scale, bias):
    sign = 2 * torch.eye(len(x)) - 1
    return -F.logsigmoid(sign * (scale * x @ w.T + bias)).sum() / len(x)


def test_sigmoid_loss_passes(capsys: pytest.CaptureFixture) -> None:
    ch1.check_sigmoid_loss(siglip)
    ch1.check_sigmoid_loss(lambda x, w, s, b: SigLipLoss()(x, w, torch.tensor(s), torch.tensor(b)))
    assert capsys.readouterr().out.count("passed") == 2


SIGLIP = {
    "one number": lambda x, w, s, b: s * x @ w.T + b,
    "divides by the number of images": lambda x, w, s, b: siglip(x, w, s, b) / len(x),
    "bias is missing": lambda x, w, s, b: siglip(x, w, s, 0.0),
    "Only matching pairs": lambda x, w, s, b: -F.logsigmoid(s * (x * w).sum(1) + b).mean(),
    "All pairs have the sign": lambda x, w, s, b: -F.logsigmoid(s * x @ w.T + b).sum() / len(x),
    "open_clip's is": lambda x, w, s, b: siglip(x, w, -s, b),
}


@pytest.mark.parametrize("reason", SIGLIP)
def test_sigmoid_loss_says_why(reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        ch1.check_sigmoid_loss(SIGLIP[reason])


def scores(clip, data: Dataset, split: str) -> dict[str, float]:
    models = {t: ZeroShotCLIP(clip, data.classnames, t) for t in TEMPLATES}
    return {t: evaluate(model, data, split).accuracy for t, model in models.items()}


def best(clip, data: Dataset, split: str, sign: int = 1) -> str:
    found = scores(clip, data, split)
    return max(found, key=lambda t: sign * found[t])


def test_template_choice_passes(clip, data: Dataset, capsys: pytest.CaptureFixture) -> None:
    ch1.check_choose_template(lambda c, d, t: best(c, d, "val"), clip, data, TEMPLATES)
    assert "passed" in capsys.readouterr().out


def test_template_choice_on_test_is_found_out(clip, data: Dataset) -> None:
    with pytest.raises(AssertionError, match="opens the test images"):
        ch1.check_choose_template(lambda c, d, t: best(c, d, "test"), clip, data, TEMPLATES)


def test_template_choice_must_be_the_best(clip, data: Dataset) -> None:
    found = scores(clip, data, "val")
    assert min(found.values()) < max(found.values()), "this test needs templates that differ"
    with pytest.raises(AssertionError, match="another template reaches"):
        worst = best(clip, data, "val", -1)
        ch1.check_choose_template(lambda c, d, t: worst, clip, data, TEMPLATES)
    with pytest.raises(AssertionError, match="not one of the templates"):
        ch1.check_choose_template(lambda c, d, t: 3, clip, data, TEMPLATES)


def cosines() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(60) % 4
    noise = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    return 0.05 * F.one_hot(labels, 4) + 0.04 * noise, labels


def test_scale_passes(capsys: pytest.CaptureFixture) -> None:
    def fit(values, labels):
        scales = torch.logspace(0, 3, 400)
        losses = torch.stack([F.cross_entropy(s * values, labels) for s in scales])
        return scales[losses.argmin()].item()

    ch1.check_fit_scale(fit, *cosines())
    assert "passed" in capsys.readouterr().out


@pytest.mark.parametrize(("scale", "reason"), [(1.0, "larger"), (900.0, "smaller"), (-5, "negat")])
def test_scale_says_why(scale: float, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        ch1.check_fit_scale(lambda c, y: scale, *cosines())


def test_nothing_yet_is_no_error(clip, data: Dataset, capsys: pytest.CaptureFixture) -> None:
    def nothing(*_):
        return None

    ch1.check_classify(nothing, clip)
    ch1.check_sigmoid_loss(nothing)
    ch1.check_choose_template(nothing, clip, data, TEMPLATES)
    ch1.check_fit_scale(nothing, *cosines())
    assert capsys.readouterr().out.count("not done yet") == 4
