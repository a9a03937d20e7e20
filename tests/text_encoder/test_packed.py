"""The packed encoder against the published one: random towers, names, sizes and types."""

import copy
import warnings
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip import IMAGENET_CLASSNAMES
from open_clip.model import CLIP, CustomTextCLIP, convert_weights_to_lp
from small_clips import VIT, random_features, small_clip
from torch import Tensor
from torch.nn import functional as F

from cocoop_tutorial import CoCoOp, CoOp, FrozenCLIP
from cocoop_tutorial.measure import saved_bytes
from cocoop_tutorial.text_encoder.cost import text_operations, text_tokens
from cocoop_tutorial.text_encoder.packed import encode as packed
from cocoop_tutorial.text_encoder.packed import tower as packed_tower
from cocoop_tutorial.text_encoder.packed.classes import ClassList
from cocoop_tutorial.text_encoder.packed.encode import encode_packed
from cocoop_tutorial.text_encoder.packed.layout import build_layout, shared_prefix, token_paths
from cocoop_tutorial.text_encoder.packed.memory import make_plan
from cocoop_tutorial.text_encoder.prompts import POSITIONS, ClassPrompts
from cocoop_tutorial.text_encoder.reference import encode_reference

WORDS = ["cat", "dog", "great", "white", "wall", "2012", "boeing", "737-200", "a", "of"]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}


@cache
def tower(
    layers: int = 2,
    heads: int = 2,
    head_width: int = 8,
    context_length: int = 24,
    quick_gelu: bool = False,
    custom: bool = False,
    dtype: torch.dtype = torch.float64,
) -> FrozenCLIP:
    """A random open_clip model whose text tower has all biases and norms away from their start."""
    text = {"context_length": context_length, "vocab_size": 49408, "heads": heads}
    text |= {"width": heads * head_width, "layers": layers}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(layers)
        model = (CustomTextCLIP if custom else CLIP)(8, VIT, text, quick_gelu=quick_gelu)
        for p in model.parameters():
            if p.dim() == 1:
                p.data += 0.3 * torch.randn_like(p)
    return FrozenCLIP(model.to(dtype), tokenizer=small_clip().tokenizer)


@st.composite
def towers(draw: st.DrawFn) -> FrozenCLIP:
    """Each example draws a size; all sizes, both activations and classes turn up."""
    layers, heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    return tower(
        layers,
        heads,
        head_width=(16, 12, 8)[heads - 1],
        context_length=(12, 40, 23)[layers - 1],
        quick_gelu=draw(st.booleans()),
        custom=(layers + heads) % 2 == 0,
        dtype=draw(st.sampled_from([torch.float64, torch.float32])),
    )


@dataclass
class Case:
    """A tower, class names, and a context of each shape that CoOp and CoCoOp use."""

    clip: FrozenCLIP
    prompts: ClassPrompts
    context: Tensor


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Names of one token up to all that the context length leaves."""
    clip = draw(towers())
    M = draw(st.integers(1, 6))
    room = clip.context_length - M - 2  # for the name and its "."
    name = st.lists(st.sampled_from(WORDS), min_size=1, max_size=room).map(" ".join)
    fits = name.filter(lambda text: len(clip.tokenizer.encode(text + ".")) <= room)
    names = draw(st.lists(fits, min_size=1, max_size=12, unique=True))
    prompts = ClassPrompts(clip, names, M, draw(st.sampled_from(POSITIONS)))
    B, K = draw(st.integers(1, 4)), draw(st.sampled_from([1, len(names)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    context = torch.randn(B, K, M, clip.text_width, generator=generator, dtype=torch.float64)
    return Case(clip, prompts, context.to(clip.dtype))


def run(encode, case: Case, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features, and the gradient of a random sum of them."""
    context = case.context.clone().requires_grad_()
    features = encode(case.clip, context, case.prompts)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(seed))
    (features * weights.to(features)).sum().backward()
    return features.detach(), context.grad


def assert_same(actual: Tensor, wanted: Tensor) -> None:
    """Relative to the largest number, within float rounding."""
    assert actual.shape == wanted.shape and actual.dtype == wanted.dtype
    scale = wanted.abs().max().clamp(min=1e-3)
    assert (actual - wanted).abs().max() <= TOLERANCE[wanted.dtype] * scale


@given(cases())
@settings(max_examples=120)
def test_features_and_gradients_are_the_published_ones(case: Case) -> None:
    for actual, wanted in zip(run(encode_packed, case), run(encode_reference, case), strict=True):
        assert_same(actual, wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@given(cases())
def test_a_gpu_gives_the_same_numbers(case: Case) -> None:
    clip = copy.deepcopy(case.clip).to("cuda")
    prompts = case.prompts
    position = prompts.class_token_position
    there = ClassPrompts(clip, prompts.classnames, case.context.shape[2], position)
    moved = Case(clip, there, case.context.to("cuda"))
    for actual, wanted in zip(run(encode_packed, moved), run(encode_reference, moved), strict=True):
        assert_same(actual, wanted)


@given(cases(), st.integers(2_000, 200_000))
@settings(max_examples=30)
def test_any_memory_gives_the_same_numbers(case: Case, budget: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "memory_budget", lambda device: budget)
        pieces = run(encode_packed, case)
        with torch.no_grad():
            alone = encode_packed(case.clip, case.context, case.prompts)
    whole = run(encode_packed, case)
    assert_same(pieces[0], whole[0])
    assert_same(pieces[1], whole[1])
    assert_same(alone, whole[0])


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("specific", [False, True])
def test_gradient_is_the_true_one(position: str, specific: bool) -> None:
    clip = tower(heads=1, head_width=4)
    prompts = ClassPrompts(clip, ["cat", "great dog"], 2, position)
    context = torch.randn(2, 2 if specific else 1, 2, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: encode_packed(clip, c, prompts), context)


@given(cases())
@settings(max_examples=30)
def test_layout_holds_every_prompt_once(case: Case) -> None:
    prompts = case.prompts
    prefix = shared_prefix(prompts, case.context.shape[1] > 1)
    paths = token_paths(prompts, prefix, case.context.shape[1] > 1)
    layout = build_layout(dict(enumerate(paths)), prefix, case.clip.text_width)
    R, P = layout.shape[1], 1 + prefix
    for k, path in enumerate(paths):
        end = int(layout.ends[layout.order[k]])
        tile, place = divmod(end, R)
        seen = layout.sees[tile, place, P:].nonzero().flatten() + tile * R
        keys = layout.tokens.clone()
        keys[layout.slots] = -1 - layout.rows
        assert keys[seen].tolist() == path
        assert layout.positions[seen].tolist() == list(range(P, P + len(path)))
        assert layout.sees[tile, place, :P].all()
    assert layout.size <= 2 * (prefix + sum(map(len, paths))) + R


def test_names_that_begin_alike_share_tokens() -> None:
    clip = small_clip()
    alike = ["boeing 737-200", "boeing 737-300", "boeing 737-400"]
    prompts = ClassPrompts(clip, alike, 2)
    paths = token_paths(prompts, 2, False)
    layout = build_layout(dict(enumerate(paths)), 2, clip.text_width)
    assert layout.size < 2 + sum(map(len, paths))
    context = torch.randn(1, 1, 2, clip.text_width)
    actual, wanted = (e(clip, context, prompts) for e in (encode_packed, encode_reference))
    torch.testing.assert_close(actual, wanted, atol=1e-5, rtol=1e-5)


@given(
    budget=st.integers(1, 10**6),
    images=st.integers(1, 64),
    size=st.integers(1, 10**6),
    classes=st.integers(1, 1000),
)
def test_plan_stays_within_the_budget(budget: int, images: int, size: int, classes: int) -> None:
    plan = make_plan(budget, images, size, classes, grad=True)
    assert 1 <= plan.images <= images and 1 <= plan.parts <= classes
    pieces = -(-images // plan.images) * plan.parts
    held = min(pieces, plan.kept + 1) * plan.images * size / plan.parts
    assert held <= budget or (plan.images, plan.parts) == (1, classes)


def test_saves_less_than_a_fifteenth_for_backward() -> None:
    clip = tower(layers=6, heads=4, head_width=16, context_length=77, dtype=torch.float32)
    names = [f"{a} {b}" for a in WORDS[:7] for b in WORDS[:7]]
    prompts = ClassPrompts(clip, names, 4)
    context = torch.randn(1, 1, 4, 64)
    published, ours = (
        saved(encode, Case(clip, prompts, context)) for encode in (encode_reference, encode_packed)
    )
    assert 15 * ours < published


def saved(encode, case: Case) -> int:
    """Bytes that the graph holds for backward."""
    context = case.context.clone().requires_grad_()
    return saved_bytes(lambda: encode(case.clip, context, case.prompts), case.clip)


def test_recomputation_bounds_what_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tower(dtype=torch.float32)
    prompts = ClassPrompts(clip, WORDS, 2)
    monkeypatch.setattr(packed, "memory_budget", lambda device: 400_000)
    few, many = (
        saved(encode_packed, Case(clip, prompts, torch.randn(B, 1, 2, 16))) for B in (8, 64)
    )
    assert many < 1.5 * few


def test_tower_that_is_not_causal_says_so_once() -> None:
    clip = copy.deepcopy(small_clip("not-causal"))
    prompts = ClassPrompts(clip, ["cat", "dog"], 2)
    context = torch.randn(1, 1, 2, clip.text_width)
    with pytest.warns(UserWarning, match="not causal"):
        features = encode_packed(clip, context, prompts)
    assert torch.equal(features, encode_reference(clip, context, prompts))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_packed(clip, context, prompts)


def test_weights_that_train_get_their_gradient() -> None:
    clip = copy.deepcopy(small_clip())
    prompts = ClassPrompts(clip, ["cat", "dog"], 2)
    context = torch.randn(1, 1, 2, clip.text_width)
    encode_packed(clip, context, prompts)
    clip.model.ln_final.weight.requires_grad_()
    with pytest.warns(UserWarning, match="not frozen"):
        encode_packed(clip, context, prompts)[..., 0].sum().backward()
    assert clip.model.ln_final.weight.grad is not None


def test_constants_follow_the_weights() -> None:
    clip = copy.deepcopy(small_clip())
    prompts = ClassPrompts(clip, ["cat", "dog"], 2)
    context = torch.randn(1, 1, 2, clip.text_width)
    before = encode_packed(clip, context, prompts)
    clip.model.load_state_dict(small_clip(seed=1).model.state_dict())
    after = encode_packed(clip, context, prompts)
    assert not torch.allclose(before, after, atol=1e-3)
    wanted = encode_reference(clip, context, prompts)
    torch.testing.assert_close(after, wanted, atol=1e-5, rtol=1e-5)


def test_constants_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = copy.deepcopy(small_clip())
    prompts = ClassPrompts(clip, ["cat", "dog"], 2)
    context = torch.randn(1, 1, 2, clip.text_width)
    first = encode_packed(clip, context, prompts)
    monkeypatch.setattr(packed_tower.PackedTower, "_start_keys", None)
    monkeypatch.setattr(ClassList, "_names", None)
    assert torch.equal(encode_packed(clip, context, prompts), first)


def test_inference_mode_leaves_training_possible() -> None:
    clip = copy.deepcopy(small_clip())
    model = CoCoOp(clip, ["cat", "dog"], encoder="packed")
    features = random_features(clip, 2)
    with torch.inference_mode():
        first = model.logits_from_features(features)
    second = model.logits_from_features(features)
    second.sum().backward()
    torch.testing.assert_close(first.clone(), second.detach())
    assert model.ctx.grad is not None


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("kind", ["shared", "specific", "conditional"])
def test_every_parameter_gets_the_published_gradient(kind: str, position: str) -> None:
    clip, names = small_clip("vit-quickgelu"), ["cat", "hot dog", "hot pot", "wall"]
    features, labels = random_features(clip, 3), torch.tensor([0, 3, 1])
    torch.manual_seed(1)  # of the Meta-Net: of some, a gradient's terms all but cancel
    if kind == "conditional":
        model = CoCoOp(clip, names)
    else:
        model = CoOp(clip, names, 4, class_token_position=position, class_specific=kind[1] == "p")
    numbers = []
    for encoder in ("reference", "packed"):
        model.encoder = encoder
        model.zero_grad()
        logits = model.logits_from_features(features)
        F.cross_entropy(logits, labels).backward()
        gradients = [p.grad.clone() for p in model.prompt_parameters().values()]
        numbers.append([logits.detach(), *gradients])
    for wanted, actual in zip(*numbers, strict=True):
        assert_same(actual, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", ["weights", "autocast"])
def test_half_precision_is_as_near_as_the_published_path(dtype: torch.dtype, way: str) -> None:
    clip = small_clip("vit-quickgelu")
    names = ["cat", "hot dog", "great wall of china"]
    exact = Case(clip, ClassPrompts(clip, names, 4), torch.randn(2, 1, 4, 32).mul(0.1))
    wanted, gradient = run(encode_reference, exact)
    rounded = copy.deepcopy(exact)
    if way == "weights":
        convert_weights_to_lp(rounded.clip.model, dtype)
    errors = {}
    for encode in (encode_reference, encode_packed):
        with torch.autocast("cpu", dtype, enabled=way == "autocast"):
            features, grad = run(encode, rounded)
        assert grad.dtype == torch.float32
        errors[encode] = (features - wanted).abs().max(), (grad - gradient).abs().max()
    for ours, published in zip(errors[encode_packed], errors[encode_reference], strict=True):
        assert ours <= 2 * published + 1e-4


def test_both_matrix_libraries_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = tower(dtype=torch.float32)
    case = Case(clip, ClassPrompts(clip, WORDS, 2), torch.randn(2, 1, 2, 16))
    numbers = []
    for choice in (False, packed_tower.ONEDNN):
        monkeypatch.setattr(packed_tower, "ONEDNN", choice)
        numbers.append(run(encode_packed, case))
    for one, other in zip(*numbers, strict=True):
        assert_same(other, one)


def test_real_names_waste_few_places() -> None:
    clip = small_clip(context_length=77)
    for K in (20, 50, 200):
        prompts = ClassPrompts(clip, IMAGENET_CLASSNAMES[:K], 4)
        paths = token_paths(prompts, 4, False)
        layout = build_layout(dict(enumerate(paths)), 4, 512)
        assert layout.size < 1.05 * (4 + sum(map(len, paths)))


def test_counted_work() -> None:
    """Two classes, worked out by hand."""
    model = CoCoOp(small_clip(), ["cat", "hot dog"])
    assert text_tokens(model, 3, "reference")[0] == 3 * 2 * 32
    assert text_tokens(model, 3, "truncated")[0] == 3 * 2 * (1 + 4 + 4)  # hot dog . <end>
    tokens, seen = text_tokens(model, 3, "packed")
    assert tokens == 3 * (5 + 3 + 4)
    assert seen == 3 * (15 + (6 + 7 + 8) + (6 + 7 + 8 + 9))
    once = text_operations(model, 3, "packed", train=False)
    assert once == 2 * (24 * 32 * 32 * tokens + 4 * 32 * seen)
    assert text_operations(model, 3, "packed", train=True) == 2 * once
