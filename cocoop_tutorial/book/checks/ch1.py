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
    got = torch.as_tensor(got).float().cpu()
    model = ZeroShotCLIP(clip, names, template)
    logits = model(images).cpu()
    assert tuple(got.shape) == (2, 3), (
        f"The shape is {list(got.shape)}, not [B, K] = [2, 3]: one row per image, one column per "
        "class. Multiply image features by the transposed text features."
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
    print("passed: your classifier gives ZeroShotCLIP's probabilities")


def check_sigmoid_loss(sigmoid_loss: Loss) -> None:
    """Exercise 2: `sigmoid_loss(x [B, E], w [B, E], scale, bias)`; SigLIP (2303.15343), eq. 1."""
    generator = torch.Generator().manual_seed(0)
    # Several, and none where the bias is the negative scale: so a loss must use both.
    for count, scale, bias in ((5, 10.0, -4.0), (3, 6.0, 1.0)):
        x, w = F.normalize(torch.randn(2, count, 8, generator=generator), dim=-1)
        got = sigmoid_loss(x, w, scale, bias)
        if _missing(got, "sigmoid_loss"):
            return
        got = torch.as_tensor(got).detach().float().cpu()
        assert got.shape == (), "The loss is one number. Sum over all pairs."
        wanted = SigLipLoss()(x, w, torch.tensor(scale), torch.tensor(bias))
        told = f"Scale {scale}, bias {bias}: your loss is {got:.4f}, open_clip's is {wanted:.4f}."
        hints = _wrong_losses(x, w, scale, bias).items()
        found = (hint for hint, value in hints if torch.isclose(got, value, rtol=1e-4))
        assert torch.isclose(got, wanted, rtol=1e-4), next(found, told)
    print("passed: equal to open_clip's SigLipLoss")


def _wrong_losses(x: Tensor, w: Tensor, scale: float, bias: float) -> dict[str, Tensor]:
    """What likely mistakes give, by a hint that helps to find them."""
    cosines, count = x @ w.T, len(x)
    logits, sign = scale * cosines + bias, 2 * torch.eye(count) - 1

    def loss(signed: Tensor) -> Tensor:
        return -F.logsigmoid(signed).sum() / count

    return {
        "You divided by B * B. SigLIP divides by the number of images, B.": (
            loss(sign * logits) / count
        ),
        "The bias is missing: add it to every scaled cosine.": loss(sign * (logits - bias)),
        "The bias was scaled as well. Scale the cosines first, then add the bias.": loss(
            sign * scale * (cosines + bias)
        ),
        "Your bias is the negative scale. Use the argument `bias`.": loss(
            sign * scale * (cosines - 1)
        ),
        "Only matching pairs count in your loss. The others count too, with the sign -1.": loss(
            logits.diagonal()
        ),
        "All pairs have the sign +1 in your loss. A pair that does not match has -1.": loss(logits),
    }


def check_choose_template(
    choose: Choose, clip: FrozenCLIP, data: Dataset, templates: Sequence[str]
) -> None:
    """Exercise 3: `choose(clip, data, templates)` is the best template on val, test unseen.

    It is asked twice, with the best template in the middle and then without it, so that a fixed
    answer or a fixed place in the list is found out.
    """
    hidden = replace(data, test=Split())
    scores = {
        t: evaluate(ZeroShotCLIP(clip, data.classnames, t), data, "val").accuracy for t in templates
    }
    ranked = sorted(scores, key=scores.__getitem__, reverse=True)
    chosen = []
    for case in (ranked[1::2][::-1] + ranked[::2], ranked[1:]):
        got = _choice(choose, clip, hidden, case)
        if _missing(got, "choose_template"):
            return
        best = max(scores[t] for t in case)
        assert got in case, f"{got!r} is not one of the templates. Return one of them as it is."
        assert scores[got] == best, (
            f"{got!r} reaches {scores[got]:.1f}% on val; another template reaches {best:.1f}%. "
            "Return the one with the highest accuracy on val."
        )
        chosen.append(got)
    print(f"passed: you chose {chosen[0]!r} on val, so now you may score it on test, once")


def _choice(
    choose: Choose, clip: FrozenCLIP, data: Dataset, templates: Sequence[str]
) -> str | None:
    try:
        return choose(clip, data, list(templates))
    except DataError as error:
        if "no images" not in str(error):
            raise
        raise AssertionError(
            "Your function opens the test images (the checker took them away). Choose on val: "
            "evaluate(model, data, split='val')."
        ) from error


def check_fit_scale(fit_scale: Fit, cosines: Tensor, labels: Tensor) -> None:
    """Exercise 4: `fit_scale(cosines [N, K], labels [N])` minimises the cross-entropy.

    Larger cosines need a smaller scale, so a fixed answer is found out.
    """
    for values in (1.5 * cosines, cosines):
        got = fit_scale(values, labels)
        if _missing(got, "fit_scale"):
            return
        scale = torch.as_tensor(got).detach().item()
        best, least = _best_scale(values, labels)
        loss = F.cross_entropy(scale * values, labels).item()
        hint = "negative" if scale < 0 else "too small" if scale < best else "too large"
        assert loss <= least + 1e-3, (
            f"With your scale {scale:.1f} the cross-entropy is {loss:.3f}; it can be {least:.3f}. "
            f"Your scale is {hint}."
        )
    ece = expected_calibration_error(scale * cosines, labels)
    print(f"passed: scale {scale:.1f}; calibration error on these images {ece:.1f}%")


def _best_scale(cosines: Tensor, labels: Tensor) -> tuple[float, float]:
    """The best of a fine grid of scales, and its cross-entropy."""
    grid = torch.logspace(-1, 3, 2001).tolist()
    losses = [F.cross_entropy(s * cosines, labels).item() for s in grid]
    return grid[losses.index(min(losses))], min(losses)
