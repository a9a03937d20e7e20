import copy

import pytest
import torch
from open_clip.model import convert_weights_to_lp
from small_clips import KINDS, small_clip

from cocoop_tutorial.errors import UnknownNameError
from cocoop_tutorial.text_encoder.encode import ENCODERS, encode_prompts
from cocoop_tutorial.text_encoder.prompts import ClassPrompts, initial_context

NAMES = ["cat", "hot dog", "Great Wall of China"]
encoders = pytest.mark.parametrize("encoder", ENCODERS)
kinds = pytest.mark.parametrize("kind", KINDS)


@encoders
@kinds
def test_context_of_words_gives_the_features_of_the_text(kind: str, encoder: str) -> None:
    clip = small_clip(kind)
    prompts = ClassPrompts(clip, NAMES, 4)
    context = initial_context(clip, 4, "a photo of a")[None, None]
    features = encode_prompts(clip, context, prompts, encoder)
    wanted = clip.encode_text([f"a photo of a {name}." for name in NAMES])
    assert features.shape == (1, 3, clip.embed_dim)
    torch.testing.assert_close(features[0], wanted, atol=1e-5, rtol=1e-4)


@encoders
@kinds
def test_images_and_classes_do_not_mix(kind: str, encoder: str) -> None:
    clip = small_clip(kind)
    prompts = ClassPrompts(clip, NAMES, 3, "middle")
    context = torch.randn(2, 3, 3, clip.text_width) * 0.1  # [B, K, M, D]
    whole = encode_prompts(clip, context, prompts, encoder)
    assert whole.shape == (2, 3, clip.embed_dim)
    for b in range(2):
        for k, name in enumerate(NAMES):
            alone = ClassPrompts(clip, [name], 3, "middle")
            part = encode_prompts(clip, context[b : b + 1, k : k + 1], alone, encoder)
            torch.testing.assert_close(whole[b, k], part[0, 0], atol=1e-5, rtol=1e-4)


@encoders
def test_gradient_reaches_the_context_only(encoder: str) -> None:
    clip = small_clip()
    prompts = ClassPrompts(clip, NAMES, 2, "front")
    context = torch.randn(2, 1, 2, clip.text_width).mul(0.1).requires_grad_()
    encode_prompts(clip, context, prompts, encoder)[..., 0].sum().backward()
    assert context.grad.abs().sum(dim=(1, 2, 3)).min() > 0
    assert all(parameter.grad is None for parameter in clip.parameters())


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_reference_gradient_is_the_true_one(position: str) -> None:
    double = copy.deepcopy(small_clip("custom-text")).double()
    prompts = ClassPrompts(double, ["cat", "hot dog"], 2, position)
    context = torch.randn(1, 1, 2, 32, dtype=torch.float64).mul(0.1).requires_grad_()

    def sample(context: torch.Tensor) -> torch.Tensor:
        return encode_prompts(double, context, prompts, "reference")[..., :3]

    assert torch.autograd.gradcheck(sample, context)


@encoders
@pytest.mark.parametrize("kind", ["vit-quickgelu", "resnet"])
def test_half_precision_is_near(kind: str, encoder: str) -> None:
    clip = small_clip(kind)
    half = copy.deepcopy(clip)
    convert_weights_to_lp(half.model, torch.bfloat16)
    prompts = ClassPrompts(clip, NAMES, 4)
    context = initial_context(clip, 4, "a photo of a")[None, None]
    exact = encode_prompts(clip, context, prompts, encoder)
    rounded = encode_prompts(half, context, prompts, encoder)
    assert rounded.dtype == torch.bfloat16
    assert (exact - rounded).abs().max() < 0.03


def test_encoder_with_a_slip_of_the_pen() -> None:
    clip = small_clip()
    context = torch.zeros(1, 1, 1, clip.text_width)
    with pytest.raises(UnknownNameError, match="reference"):
        encode_prompts(clip, context, ClassPrompts(clip, ["cat"], 1), "referense")
