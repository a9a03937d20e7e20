"""Checkers for the exercises of chapter 1.

A function that still returns nothing is "not done yet", so that the notebook runs from top to
bottom before anyone has solved anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from open_clip.loss import SigLipLoss
from torch import Tensor
from torch.nn import functional as F

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.datasets.splits import Dataset, Split
from cocoop_tutorial.errors import DataError
from cocoop_tutorial.evaluation.accuracy import evaluate
from cocoop_tutorial.evaluation.calibration import expected_calibration_error
from cocoop_tutorial.models.zero_shot import ZeroShotCLIP

Classify = Callable[[FrozenCLIP, Tensor, list[str], str], Tensor | None]
Loss = Callable[[Tensor, Tensor, float, float], Tensor | None]
Choose = Callable[[FrozenCLIP, Dataset, Sequence[str]], str | None]
Fit = Callable[[Tensor, Tensor], float | None]


def _missing(answer: Any, name: str) -> bool:
    if answer is None:
        print(f"not done yet: {name} returns nothing")
    return answer is None


@torch.no_grad()
def check_classify(classify: Classify, clip: FrozenCLIP) -> None:
    """Exercise 1: `classify(clip, images [B, 3, H, W], names, template)` gives `[B, K]`."""
    names, template = ["cat", "dog", "green apple"], "a drawing of a {}."
    size = clip.image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    got = classify(clip, images, names, template)
    if _missing(got, "classify"):
        return
    got = got.cpu()
    model = ZeroShotCLIP(clip, names, template)
    logits = model(images).cpu()
    assert tuple(got.shape) == (2, 3), (
        f"The shape is {list(got.shape)}, not [B, K] = [2, 3]: one row per image, one "
        "column per class. Multiply image features by the transposed text features."
    )
    sums = got.sum(dim=1)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-3), (
        "The rows do not sum to 1. Take the softmax over the classes, dim=1."
    )
    other = ZeroShotCLIP(clip, names, "{}")(images).softmax(dim=1).cpu()
    hints = {
        "The probabilities are nearly equal: multiply the cosines by clip.logit_scale first.": (
            logits / clip.logit_scale.cpu()
        ).softmax(dim=1),
        "You encoded the bare names. Put each into the template: template.format(name).": other,
        "The probabilities differ from ZeroShotCLIP's. Use clip.encode_image and "
        "clip.encode_text, whose features already have length 1.": got,
    }
    right = torch.allclose(got, logits.softmax(dim=1), atol=1e-3)
    assert right, next(hint for hint, p in hints.items() if torch.allclose(got, p, atol=1e-3))
    print("passed: your classifier is ZeroShotCLIP")


def check_sigmoid_loss(sigmoid_loss: Loss) -> None:
    """Exercise 2: `sigmoid_loss(x [B, E], w [B, E], scale, bias)`; SigLIP (2303.15343), eq. 1."""
    generator = torch.Generator().manual_seed(0)
    x, w = F.normalize(torch.randn(2, 5, 8, generator=generator), dim=-1)
    scale, bias = 10.0, -10.0
    got = sigmoid_loss(x, w, scale, bias)
    if _missing(got, "sigmoid_loss"):
        return
    logits = scale * x @ w.T + bias
    sign = 2 * torch.eye(5) - 1

    def is_close(value: Tensor) -> bool:
        return torch.isclose(torch.as_tensor(got), value, rtol=1e-4)

    assert torch.as_tensor(got).shape == (), "The loss is one number. Sum over all pairs."
    assert not is_close(-F.logsigmoid(sign * logits).mean()), (
        "You divided by B * B. SigLIP divides by the number of images, B."
    )
    assert not is_close(-F.logsigmoid(sign * (logits - bias)).sum() / 5), (
        "The bias is missing: add it to every scaled cosine."
    )
    assert not is_close(-F.logsigmoid(logits.diagonal()).sum() / 5), (
        "Only matching pairs count in your loss. The others count too, with the sign -1."
    )
    assert not is_close(-F.logsigmoid(logits).sum() / 5), (
        "All pairs have the sign +1 in your loss. A pair that does not match has -1."
    )
    wanted = SigLipLoss()(x, w, torch.tensor(scale), torch.tensor(bias))
    assert is_close(wanted), f"Your loss is {float(got):.4f}; open_clip's is {wanted:.4f}."
    print("passed: equal to open_clip's SigLipLoss")


def check_choose_template(
    choose: Choose, clip: FrozenCLIP, data: Dataset, templates: Sequence[str]
) -> None:
    """Exercise 3: `choose(clip, data, templates)` finds the best template on val alone."""
    try:
        got = choose(clip, replace(data, test=Split()), templates)
    except DataError as error:
        if "no images" not in str(error):
            raise
        raise AssertionError(
            "Your function opens the test images (the checker took them away). Choose on val: "
            "evaluate(model, data, split='val')."
        ) from error
    if _missing(got, "choose_template"):
        return
    scores = {
        t: evaluate(ZeroShotCLIP(clip, data.classnames, t), data, "val").accuracy for t in templates
    }
    best = max(scores.values())
    assert got in scores, f"{got!r} is not one of the templates. Return one of them as it is."
    assert scores[got] == best, (
        f"{got!r} reaches {scores[got]:.1f}% on val; another template reaches {best:.1f}%. Return "
        "the one with the highest accuracy on val."
    )
    print(f"passed: {got!r} was chosen on val; now it may see the test set, once")


def check_fit_scale(fit_scale: Fit, cosines: Tensor, labels: Tensor) -> None:
    """Exercise 4: `fit_scale(cosines [N, K], labels [N])` minimises the cross-entropy."""
    got = fit_scale(cosines, labels)
    if _missing(got, "fit_scale"):
        return
    grid = torch.logspace(-1, 3, 2001).tolist()
    losses = [F.cross_entropy(s * cosines, labels).item() for s in grid]
    best = grid[losses.index(min(losses))]
    loss = F.cross_entropy(float(got) * cosines, labels).item()
    hint = (
        "Your scale is negative."
        if got < 0
        else f"Try {'larger' if got < best else 'smaller'} ones."
    )
    assert loss <= min(losses) + 1e-3, (
        f"With your scale {float(got):.1f} the cross-entropy is {loss:.3f}; it can be "
        f"{min(losses):.3f}. {hint}"
    )
    ece = expected_calibration_error(float(got) * cosines, labels)
    print(f"passed: scale {float(got):.1f}; calibration error on these images {ece:.1f}%")
