"""What is computed from weights and kept follows them, however they change, or is refused."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from learners import NAMES
from small_clips import small_clip
from torch import Tensor, nn

from cocoop_tutorial import (
    CoCoOp,
    CoOp,
    FrozenCLIP,
    ImageFolder,
    ZeroShotCLIP,
    image_features,
    load_clip,
)
from cocoop_tutorial.clip.identity import settled_weights
from cocoop_tutorial.errors import BackboneError
from cocoop_tutorial.models.kgcoop import KgCoOp
from cocoop_tutorial.models.probe import LinearProbe
from cocoop_tutorial.models.prototypes import Prototypes

Result = Callable[[], Tensor]


def image_tower(clip: FrozenCLIP) -> nn.Parameter:
    return clip.model.visual.transformer.resblocks[0].mlp.c_fc.weight


def text_tower(clip: FrozenCLIP) -> nn.Parameter:
    return clip.text_tower.transformer.resblocks[0].mlp.c_fc.weight


def features_of(clip: FrozenCLIP, folder: Path) -> Result:
    split = ImageFolder(folder).train
    return lambda: image_features(clip, split)[0].clone()


def zero_shot(clip: FrozenCLIP, folder: Path) -> Result:
    model = ZeroShotCLIP(clip, NAMES)
    return lambda: model.logits_from_features(torch.ones(2, 48))


def packed(clip: FrozenCLIP, folder: Path) -> Result:
    torch.manual_seed(0)
    model = CoCoOp(clip, NAMES, 2, None)
    return torch.no_grad()(lambda: model.logits_from_features(torch.ones(2, 48)))


def hand_written(clip: FrozenCLIP, folder: Path) -> Result:
    model = KgCoOp(clip, NAMES, 2)
    return lambda: model.hand_written


CACHES = {
    "image features": (features_of, image_tower),
    "zero-shot weights": (zero_shot, text_tower),
    "constants of the packed encoder": (packed, text_tower),
    "hand-written prompts of KgCoOp": (hand_written, text_tower),
}


def in_place(weight: nn.Parameter) -> None:
    with torch.no_grad():
        weight.mul_(2)


def through_data(weight: nn.Parameter) -> None:
    weight.data.mul_(2)


def exchange(weight: nn.Parameter) -> None:
    weight.data.copy_(weight.data.flip(0))  # the same values in another order


def one_value(weight: nn.Parameter) -> None:
    weight.data[1, 1] = 50


def new_data(weight: nn.Parameter) -> None:
    weight.data = weight.data * 2


def by_inference_mode(weight: nn.Parameter) -> None:
    with torch.inference_mode():
        weight.mul_(2)


CHANGES = [in_place, through_data, exchange, one_value, new_data, by_inference_mode]


def fresh(inference: bool = False) -> FrozenCLIP:
    with torch.inference_mode(inference):
        return deepcopy(small_clip())


@pytest.mark.parametrize(
    ("change", "inference"), [*((change, False) for change in CHANGES), (by_inference_mode, True)]
)
@pytest.mark.parametrize("cache", CACHES)
def test_they_follow_weights_that_change(
    cache: str, change: Callable, inference: bool, image_folder: Path
) -> None:
    """Weights that were made in inference mode have no version that PyTorch counts up."""
    (make, weight), clip = CACHES[cache], fresh(inference)
    result = make(clip, image_folder)
    before = result()
    assert torch.equal(result(), before)
    change(weight(clip))
    after = result()
    assert not torch.allclose(after, before, atol=1e-4)
    assert torch.equal(after, make(deepcopy(clip), image_folder)())


@pytest.mark.parametrize("cache", CACHES)
def test_they_follow_weights_and_modules_that_are_replaced(cache: str, image_folder: Path) -> None:
    make, clip, other = CACHES[cache][0], fresh(), small_clip(seed=1)
    result, wanted = make(clip, image_folder), make(other, image_folder)()
    first, old = result(), deepcopy(clip.state_dict())
    clip.load_state_dict(other.state_dict())
    assert torch.equal(result(), wanted)
    clip.load_state_dict(old)
    assert torch.equal(result(), first)
    clip.load_state_dict(other.state_dict(), assign=True)
    assert torch.equal(result(), wanted)


@pytest.mark.parametrize("cache", CACHES)
def test_they_follow_another_activation_and_a_hook(cache: str, image_folder: Path) -> None:
    (make, weight), clip = CACHES[cache], fresh()
    tower = clip.model.visual if weight is image_tower else clip.text_tower
    mlp, result = tower.transformer.resblocks[0].mlp, make(clip, image_folder)
    first, activation = result(), mlp.gelu
    mlp.gelu = nn.GELU("tanh")
    assert not torch.equal(result(), first)
    mlp.gelu = activation
    assert torch.equal(result(), first)
    for factor in (2, 3):
        handle = mlp.register_forward_hook(lambda *given, n=factor: n * given[-1])
        changed = result()
        assert not torch.allclose(changed, first, atol=1e-4)
        handle.remove()
        assert torch.equal(result(), first)


@pytest.mark.parametrize("cache", ["zero-shot weights", "constants of the packed encoder"])
def test_in_a_settled_block_values_are_compared_once(cache: str, image_folder: Path) -> None:
    """Each way of changing weights that leaves a trace is noticed there too."""
    (make, weight), clip = CACHES[cache], fresh()
    result = make(clip, image_folder)
    first = result()
    through_data(weight(clip))
    with settled_weights():
        second = result()
        assert not torch.equal(second, first), "changed before the block"
        in_place(weight(clip))
        assert not torch.equal(result(), second)


def test_hand_written_prompts_follow_other_classes() -> None:
    model = KgCoOp(fresh(), NAMES, 2)
    other = model.with_classnames(NAMES[:2])
    assert torch.equal(other.hand_written, ZeroShotCLIP(model.clip, NAMES[:2]).weights)
    assert model.hand_written.shape == (4, 48) and other.penalty().requires_grad


@pytest.mark.parametrize("kind", [Prototypes, LinearProbe])
def test_what_shots_made_is_refused_with_another_image_tower(
    kind: type, image_folder: Path
) -> None:
    clip, split = fresh(), ImageFolder(image_folder).train
    shots = image_features(clip, split)
    given = (shots, shots) if kind is LinearProbe else shots
    model = kind(clip, ["cat", "dog", "sea lion"], *given)
    mlp = clip.model.visual.transformer.resblocks[0].mlp
    wanted, activation = model.logits_from_features(shots[0]), mlp.gelu
    mlp.gelu = nn.GELU("tanh")
    with pytest.raises(BackboneError, match=f"changed since this {kind.__name__} was made"):
        model.logits_from_features(shots[0])
    mlp.gelu = activation
    assert torch.equal(model.logits_from_features(shots[0]), wanted)
    through_data(image_tower(clip))
    with pytest.raises(BackboneError, match="changed since"):
        model.logits_from_features(shots[0])


def test_what_was_made_in_inference_mode_can_be_trained() -> None:
    clip = fresh()
    with torch.inference_mode():
        zero, made = ZeroShotCLIP(clip, NAMES).weights, load_clip("icon-clip", "cpu")
        names = CoOp(clip, NAMES).prompts
    for value in (zero, *made.parameters(), *names.buffers()):
        assert not value.is_inference()
