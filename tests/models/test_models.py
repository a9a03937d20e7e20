import copy
import math

import pytest
import torch
from open_clip.model import convert_weights_to_lp
from small_clips import KINDS, random_features, small_clip
from torch.nn import functional as F

from cocoop_tutorial import CoCoOp, CoOp, ZeroShotCLIP
from cocoop_tutorial.errors import CheckpointError, PromptError, SettingError, UnknownNameError
from cocoop_tutorial.experiments.controls import NoiseCoCoOp, ZeroStartCoCoOp, other_pis
from cocoop_tutorial.models.cocoop import MetaNet
from cocoop_tutorial.models.kgcoop import KgCoOp
from cocoop_tutorial.models.probe import LinearProbe
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.models.prototypes import Prototypes
from cocoop_tutorial.text_encoder.encode import ENCODERS

BASE = ["cat", "hot dog", "Great Wall of China", "ketch"]
NEW = ["yin_yang", "dollar bill", "wheelchair"]
METHODS = {
    "zero-shot": ZeroShotCLIP,
    "coop": lambda clip, names: CoOp(clip, names, n_ctx=4),
    "coop-middle": lambda clip, names: CoOp(clip, names, 5, class_token_position="middle"),
    "coop-front": lambda clip, names: CoOp(clip, names, 4, class_token_position="front"),
    "coop-specific": lambda clip, names: CoOp(clip, names, 4, class_specific=True),
    "cocoop": CoCoOp,
    "cocoop-random": lambda clip, names: CoCoOp(clip, names, 6, None),
    "cocoop-separate": lambda clip, names: CoCoOp(clip, names, separate_meta_nets=True),
}
FEW = torch.eye(48)[[0, 1, 2, 3, 0]], torch.tensor([0, 1, 2, 3, 0])
OTHERS = {  # what chapters and experiments compare with
    "kgcoop": lambda clip, names: KgCoOp(clip, names, 4),
    "noise": NoiseCoCoOp,
    "zero-start": lambda clip, names: ZeroStartCoCoOp(clip, names, 4, "a photo of a"),
    "another-image": lambda clip, names: dict(other_pis(CoCoOp(clip, names), FEW[0]))[
        "another image"
    ],
    "prototypes": lambda clip, names: Prototypes(clip, names, *FEW),
    "probe": lambda clip, names: LinearProbe(clip, names, FEW, FEW),
}
LEARNERS = [name for name in METHODS if name != "zero-shot"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_logits_of_images_and_of_features(method: str, kind: str) -> None:
    clip = small_clip(kind)
    model = METHODS[method](clip, BASE)
    images = torch.randn(3, 3, 32, 32)
    logits = model(images)
    assert logits.shape == (3, 4)
    torch.testing.assert_close(logits, model.logits_from_features(clip.encode_image(images)))
    assert logits.abs().max() <= clip.logit_scale * 1.001, "a cosine times the scale"


@pytest.mark.parametrize("method", METHODS | OTHERS)
def test_no_image_and_one(method: str) -> None:
    model = (METHODS | OTHERS)[method](small_clip(), BASE)
    for model.encoder in ENCODERS:
        for n in (0, 1):
            for logits in (
                model(torch.zeros(n, 3, 32, 32)),
                model.logits_from_features(random_features(model.clip, n)),
            ):
                assert logits.shape == (n, 4) and logits.dtype == torch.float32


def test_no_text() -> None:
    assert small_clip().encode_text([]).shape == (0, 48)


@pytest.mark.parametrize("kind", ["vit-gelu", "resnet"])
@pytest.mark.parametrize("method", ["zero-shot", "coop", "cocoop", "noise", "prototypes", "probe"])
def test_images_that_ask_for_a_gradient_get_it(method: str, kind: str) -> None:
    """The derivative in one direction is compared with a difference quotient."""
    clip = small_clip(kind)
    with torch.inference_mode(method in ("zero-shot", "prototypes", "probe")):  # may be made there
        model = (METHODS | OTHERS)[method](clip, BASE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images, direction = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)
    model(images.requires_grad_())[:, 1].sum().backward()
    slope = (images.grad * direction).sum().item()
    with torch.no_grad():
        ends = [model(images + step * direction)[:, 1].double().sum() for step in (-5e-3, 5e-3)]
        assert not model(images).requires_grad
    assert slope == pytest.approx((ends[1] - ends[0]).item() / 1e-2, rel=0.1, abs=0.05)
    assert slope != 0
    assert not model.clip.encode_image(images.detach()).requires_grad


@pytest.mark.parametrize("method", LEARNERS)
def test_only_the_prompt_trains(method: str) -> None:
    clip = small_clip()
    model = METHODS[method](clip, BASE).train()
    before = {n: p.clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    loss = F.cross_entropy(
        model.logits_from_features(random_features(clip, 8)), torch.arange(8) % 4
    )
    loss.backward()
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(model.prompt_state()) == set(model.prompt_parameters())
    assert not any(m.training for m in model.clip.modules())


def test_official_parameter_names_and_count() -> None:
    clip = small_clip()
    assert list(CoOp(clip, BASE).prompt_state()) == ["ctx"]
    assert CoOp(clip, BASE).ctx.shape == (16, 32)
    state = CoCoOp(clip, BASE).prompt_state()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "ctx": (4, 32),
        "meta_net.linear1.weight": (3, 48),
        "meta_net.linear1.bias": (3,),
        "meta_net.linear2.weight": (32, 3),
        "meta_net.linear2.bias": (32,),
    }
    vit_b16 = 4 * 512 + sum(p.numel() for p in MetaNet(512, 512).parameters())
    assert vit_b16 == 35_360  # the official count for ViT-B/16


@pytest.mark.parametrize("method", ["coop", "coop-middle", "coop-front", "cocoop", "zero-shot"])
def test_with_classnames_is_a_new_model_of_the_same_prompt(method: str) -> None:
    clip, features = small_clip(), random_features(small_clip(), 3)
    model = METHODS[method](clip, BASE)
    other = model.with_classnames(NEW)
    assert (model.classnames, other.classnames) == (BASE, NEW)
    assert type(other) is type(model) and other.clip is clip
    fresh = METHODS[method](clip, NEW)
    if isinstance(model, PromptLearner):
        fresh.load_prompt_state(model.prompt_state())
    expected = fresh.logits_from_features(features)
    assert torch.equal(other.logits_from_features(features), expected)
    assert (
        other.with_classnames(BASE)
        .logits_from_features(features)
        .equal(model.logits_from_features(features))
    )


@pytest.mark.parametrize("method", ["coop", "cocoop", "cocoop-separate"])
def test_with_classnames_shares_its_parameters(method: str) -> None:
    clip, features = small_clip(), random_features(small_clip(), 3)
    model = METHODS[method](clip, BASE)
    state = torch.get_rng_state()
    other = model.with_classnames(NEW)
    assert torch.equal(state, torch.get_rng_state()), "no random number was used up"
    before = other.logits_from_features(features)
    for a, b in zip(
        model.prompt_parameters().values(), other.prompt_parameters().values(), strict=True
    ):
        assert a is b
    F.cross_entropy(model.logits_from_features(features), torch.arange(3)).backward()
    torch.optim.SGD(model.prompt_parameters().values(), lr=0.5).step()
    assert not torch.equal(before, other.logits_from_features(features))


def test_class_specific_context_stays_with_its_classes() -> None:
    model = CoOp(small_clip(), BASE, 4, "a photo of a", class_specific=True)
    assert model.ctx.shape == (4, 4, 32)
    unified = CoOp(small_clip(), BASE, 4, "a photo of a")
    features = random_features(small_clip(), 2)
    torch.testing.assert_close(
        model.logits_from_features(features), unified.logits_from_features(features)
    )
    with pytest.raises(PromptError, match="class_specific=False"):
        model.with_classnames(NEW)


def test_words_context_is_zero_shot() -> None:
    clip, features = small_clip(), random_features(small_clip(), 4)
    zero = ZeroShotCLIP(clip, BASE, "a photo of a {}.").logits_from_features(features)
    coop = CoOp(clip, BASE, 4, "a photo of a").logits_from_features(features)
    torch.testing.assert_close(coop, zero, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("separate", [False, True])
def test_cocoop_with_a_zero_output_layer_is_coop(separate: bool) -> None:
    clip, features = small_clip(), random_features(small_clip(), 4)
    model = CoCoOp(clip, BASE, separate_meta_nets=separate)
    for net in model.meta_net if separate else [model.meta_net]:
        torch.nn.init.zeros_(net.linear2.weight)
        torch.nn.init.zeros_(net.linear2.bias)
    coop = CoOp(clip, BASE, 4, "a photo of a")
    torch.testing.assert_close(
        model.logits_from_features(features), coop.logits_from_features(features)
    )


def test_cocoop_images_do_not_see_each_other() -> None:
    clip, features = small_clip(), random_features(small_clip(), 5)
    model = CoCoOp(clip, BASE)
    together = model.logits_from_features(features)
    alone = torch.cat([model.logits_from_features(f[None]) for f in features])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_conditional_context_adds_one_vector_to_all() -> None:
    clip, features = small_clip(), random_features(small_clip(), 5)
    model = CoCoOp(clip, BASE)
    shift = model.conditional_context(features) - model.ctx
    assert shift.shape == (5, 4, 32)
    torch.testing.assert_close(shift, model.meta_net(features)[:, None].expand_as(shift))
    separate = CoCoOp(clip, BASE, separate_meta_nets=True)
    shift = separate.conditional_context(features) - separate.ctx
    for m, net in enumerate(separate.meta_net):
        torch.testing.assert_close(shift[:, m], net(features), atol=1e-6, rtol=1e-5)
    assert len(separate.prompt_state()) == 1 + 4 * 4


def test_ensemble_is_the_normalised_mean() -> None:
    clip = small_clip()
    templates = ["a photo of a {}.", "{} texture.", "an emoji of {}."]
    parts = torch.stack([ZeroShotCLIP(clip, BASE, t).weights for t in templates])
    ensemble = ZeroShotCLIP(clip, BASE, templates)
    torch.testing.assert_close(ensemble.weights, F.normalize(parts.mean(0), dim=-1))
    other = ensemble.with_classnames(NEW)
    torch.testing.assert_close(other.weights, ZeroShotCLIP(clip, NEW, templates).weights)
    with pytest.raises(PromptError, match="templates is empty"):
        ZeroShotCLIP(clip, BASE, [])


def test_sixty_vectors_need_the_long_context() -> None:
    model = CoOp(small_clip(context_length=77), BASE, n_ctx=60)
    assert model.logits_from_features(random_features(model.clip, 2)).shape == (2, 4)
    for n_ctx in (29, 60, 10**8):
        with pytest.raises(PromptError, match="lower n_ctx"):
            CoOp(small_clip(), BASE, n_ctx=n_ctx)


def test_same_seed_same_start() -> None:
    def start(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return CoCoOp(small_clip(), BASE, 8, None).prompt_state()

    assert all(torch.equal(a, b) for a, b in zip(start(1).values(), start(1).values(), strict=True))
    assert not torch.equal(start(1)["ctx"], start(2)["ctx"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_parameters_stay_float32_over_a_half_precision_backbone(dtype: torch.dtype) -> None:
    clip = copy.deepcopy(small_clip())
    convert_weights_to_lp(clip.model, dtype)
    model = CoCoOp(clip, BASE)
    assert {p.dtype for p in model.prompt_parameters().values()} == {torch.float32}
    images = torch.randn(2, 3, 32, 32)
    assert ZeroShotCLIP(clip, BASE)(images).dtype == torch.float32
    logits = model(images)
    assert logits.dtype == torch.float32
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert model.ctx.grad.dtype == torch.float32 and model.ctx.grad.abs().sum() > 0


@pytest.mark.parametrize("method", LEARNERS)
def test_autocast_rounds_the_towers_but_not_the_logits(method: str) -> None:
    clip, features = small_clip(), random_features(small_clip(), 3)
    model = METHODS[method](clip, BASE)
    exact = model.logits_from_features(features)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.logits_from_features(features)
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).abs().max() < 0.03 * clip.logit_scale
    F.cross_entropy(rounded, torch.arange(3)).backward()
    assert model.ctx.grad.abs().sum() > 0


def test_prompt_state_is_a_copy() -> None:
    model = CoCoOp(small_clip(), BASE)
    state = model.prompt_state()
    with torch.no_grad():
        model.ctx.add_(1)
    assert not torch.equal(state["ctx"], model.ctx)
    model.load_prompt_state(state)
    assert torch.equal(state["ctx"], model.ctx)


def test_load_prompt_state_changes_all_or_nothing() -> None:
    model = CoCoOp(small_clip(), BASE)
    before = model.prompt_state()
    wrong = {**before, "ctx": before["ctx"] + 1, "meta_net.linear2.bias": torch.zeros(7)}
    with pytest.raises(CheckpointError, match=r"linear2.bias is \[7\].*\[32\]"):
        model.load_prompt_state(wrong)
    with pytest.raises(CheckpointError, match="one side only: meta_net"):
        model.load_prompt_state({"ctx": before["ctx"]})
    assert torch.equal(before["ctx"], model.ctx)


def test_slips_of_the_pen() -> None:
    with pytest.raises(UnknownNameError, match="reference"):
        CoCoOp(small_clip(), BASE, encoder="refrence")
    with pytest.raises(PromptError, match="n_ctx=4"):
        CoCoOp(small_clip(), BASE, n_ctx=8)
    with pytest.raises(PromptError, match="empty"):
        CoOp(small_clip(), [], class_specific=True)


@pytest.mark.parametrize("value", ["no", "false", 1, None])
def test_switches_are_true_or_false(value: object) -> None:
    clip = small_clip()
    for make in (
        lambda: CoOp(clip, BASE, 4, class_specific=value),
        lambda: CoOp(clip, BASE, 4, allow_duplicates=value),
        lambda: CoCoOp(clip, BASE, separate_meta_nets=value),
    ):
        with pytest.raises(SettingError, match="must be True or False"):
            make()


@pytest.mark.parametrize("weight", ["8", -1, math.inf, math.nan, None])
def test_weights_that_cannot_be(weight: object) -> None:
    with pytest.raises(SettingError, match="weight is"):
        KgCoOp(small_clip(), BASE, 4, weight=weight)


def test_other_tokenizers_are_for_zero_shot_only() -> None:
    class Letters:
        """Ids of letters, no start or end token: as different from CLIP's as SigLIP's is."""

        def __call__(self, texts: list[str], context_length: int) -> torch.Tensor:
            rows = [[ord(c) for c in text][:context_length] for text in texts]
            return torch.tensor([row + [0] * (context_length - len(row)) for row in rows])

    clip = copy.deepcopy(small_clip())
    clip.tokenizer = Letters()
    assert ZeroShotCLIP(clip, BASE)(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    with pytest.raises(PromptError, match="tokenizer"):
        CoOp(clip, BASE)
