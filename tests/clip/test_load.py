"""load_clip and FrozenCLIP: every kind of name, every kind of mistake."""

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from small_clips import KINDS, small_clip
from torch.nn import functional as F

from cocoop_tutorial import load_clip
from cocoop_tutorial.clip import load as backbones
from cocoop_tutorial.errors import (
    BackboneError,
    CocoopError,
    DeviceError,
    MissingDataError,
    PromptError,
    UnknownNameError,
)


@pytest.fixture
def picture() -> Image.Image:
    return Image.effect_mandelbrot((60, 40), (-2, -1, 1, 1), 20).convert("RGB")


def copy_of(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def test_sizes_of_a_local_directory(model_dir: Path) -> None:
    clip = load_clip(f"local-dir:{model_dir}", device="cpu")
    assert (clip.image_size, clip.embed_dim, clip.text_width, clip.context_length) == (
        32,
        16,
        16,
        16,
    )
    assert clip.name == f"local-dir:{model_dir}"
    assert clip.device == torch.device("cpu")
    assert clip.dtype == torch.float32


def test_features_equal_open_clip(model_dir: Path, picture: Image.Image) -> None:
    clip = load_clip(f"local-dir:{model_dir}", device="cpu")
    plain, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{model_dir}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model_dir}")
    plain.eval()
    texts = ["a photo of a cat.", "dog"]
    with torch.no_grad():
        image = F.normalize(plain.encode_image(preprocess(picture)[None]), dim=-1)
        text = F.normalize(plain.encode_text(tokenizer(texts)), dim=-1)
    torch.testing.assert_close(clip.encode_image(clip.preprocess(picture)[None]), image)
    torch.testing.assert_close(clip.encode_text(texts), text)
    torch.testing.assert_close(clip.encode_text(texts, batch_size=1), text)
    torch.testing.assert_close(clip.logit_scale, plain.logit_scale.exp())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tower_gives_unit_vectors(kind: str, picture: Image.Image) -> None:
    clip = small_clip(kind)
    image = clip.encode_image(clip.preprocess(picture)[None])
    text = clip.encode_text(["a cat"])
    assert image.shape == text.shape == (1, clip.embed_dim)
    torch.testing.assert_close(image.norm(dim=-1), torch.ones(1))
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(1))
    assert hasattr(clip.text_tower, "token_embedding")


def test_custom_text_model_loads_from_a_directory(save_model: Callable[..., Path]) -> None:
    config = json.loads((save_model() / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"] |= {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
    clip = load_clip(f"local-dir:{save_model(config, custom=True)}", device="cpu")
    assert clip.text_tower is clip.model.text
    assert clip.encode_text(["a", "b"]).shape == (2, 16)
    assert clip.embed_dim == 16


def test_nothing_trains_and_nothing_leaves_evaluation_mode(model_dir: Path) -> None:
    clip = load_clip(f"local-dir:{model_dir}", device="cpu")
    holder = torch.nn.ModuleDict({"clip": clip}).train()
    assert holder.training and not clip.training
    assert not any(module.training for module in clip.modules())
    assert not any(p.requires_grad for p in clip.parameters())
    assert not clip.encode_text(["a"]).requires_grad


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_stays_close(model_dir: Path, picture: Image.Image, precision: str) -> None:
    full = load_clip(f"local-dir:{model_dir}", device="cpu")
    try:
        low = load_clip(f"local-dir:{model_dir}", device="cpu", precision=precision)
    except DeviceError:
        pytest.skip(f"this CPU has no {precision}")
    assert low.dtype == backbones.DTYPES[precision]
    image = full.preprocess(picture)[None]
    near = low.encode_image(image)
    assert near.dtype == low.dtype
    assert F.cosine_similarity(near.float(), full.encode_image(image)).item() > 0.999
    text = F.cosine_similarity(low.encode_text(["a cat"]).float(), full.encode_text(["a cat"]))
    assert text.item() > 0.999


def test_amp_keeps_float32_weights(model_dir: Path) -> None:
    clip = load_clip(f"local-dir:{model_dir}", device="cpu", precision="amp")
    assert clip.dtype == torch.float32 and clip.precision == "amp"


def test_random_weights_are_always_the_same_and_leave_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = load_clip("ViT-S-32-alt/random", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    second = load_clip("ViT-S-32-alt/random", device="cpu")
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_slash_in_the_models_own_name() -> None:
    assert backbones._parse("ViT-B/16/openai") == ("ViT-B-16", "openai")
    assert backbones._parse("RN50/random") == ("RN50", "random")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("icon_clip", "icon-clip"),
        ("ViT-B-16/opena", "'openai'"),
        ("ViT-B-61/openai", "ViT-B-16"),
        ("ViT-B-16", "does not say which weights"),
        ("ViT-B/16", "ViT-B-16/TAG"),
        ("", "Unknown backbone"),
    ],
)
def test_unknown_backbone_names_the_near_ones(name: str, words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        load_clip(name, device="cpu")


def test_errors_are_also_builtin_ones() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        load_clip("nonsense/nonsense", device="cpu")
    with pytest.raises(FileNotFoundError):
        load_clip("local-dir:no/such/folder", device="cpu")
    assert issubclass(UnknownNameError, CocoopError)


def test_unknown_precision_and_device() -> None:
    with pytest.raises(UnknownNameError, match="fp16"):
        load_clip("ViT-B-16/random", device="cpu", precision="fp8")
    with pytest.raises(DeviceError, match="device='cpu'"):
        load_clip("ViT-B-16/random", device="no-such-device")
    with pytest.raises(DeviceError, match=r"no usable device '0\.5'"):
        load_clip("ViT-B-16/random", device=0.5)
    with pytest.raises(UnknownNameError, match="write 'local-dir:PATH'"):
        load_clip(Path("weights"))
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="cuda"):
            load_clip("ViT-B-16/random", device="cuda")


def test_precision_that_the_device_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Which devices lack fp16 depends on the machine; a softmax of integers fails on all.
    monkeypatch.setitem(backbones.DTYPES, "fp16", torch.int8)
    with pytest.raises(DeviceError, match="precision='fp32'"):
        load_clip("ViT-B-16/random", device="cpu", precision="fp16")


@pytest.mark.parametrize("name", ["coca_ViT-B-32/random", "roberta-ViT-B-32/random"])
def test_other_kinds_of_model_are_refused(name: str) -> None:
    with pytest.raises(BackboneError, match="Choose a"):
        load_clip(name, device="cpu")


def test_directory_without_weights(model_dir: Path, tmp_path: Path) -> None:
    folder = copy_of(model_dir, tmp_path / "m")
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(MissingDataError, match="no weights"):
        load_clip(f"local-dir:{folder}", device="cpu")


def test_truncated_weights(model_dir: Path, tmp_path: Path) -> None:
    weights = copy_of(model_dir, tmp_path / "m") / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(BackboneError, match="fetch the folder again"):
        load_clip(f"local-dir:{weights.parent}", device="cpu")


@pytest.mark.parametrize("content", ["not json", "{}", '{"model_cfg": {"embed_dim": 4}}'])
def test_damaged_configuration(model_dir: Path, tmp_path: Path, content: str) -> None:
    folder = copy_of(model_dir, tmp_path / "m")
    (folder / "open_clip_config.json").write_text(content)
    with pytest.raises(BackboneError, match="does not load"):
        load_clip(f"local-dir:{folder}", device="cpu")


SIZES = [
    ("", "embed_dim"),
    *(("vision_cfg", name) for name in ("width", "image_size", "layers")),
    *(("text_cfg", name) for name in ("width", "layers", "context_length", "vocab_size")),
]


def with_value(model_dir: Path, target: Path, part: str, name: str, value: object) -> Path:
    """A copy of a model directory with one value of its configuration changed."""
    folder = copy_of(model_dir, target)
    config = json.loads((folder / "open_clip_config.json").read_text())
    place = config["model_cfg"].get(part, config["model_cfg"])
    (config["preprocess_cfg"] if part == "preprocess_cfg" else place)[name] = value
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("part", "name"), SIZES)
def test_sizes_that_the_weights_cannot_hold(
    model_dir: Path, tmp_path: Path, part: str, name: str
) -> None:
    """They are refused before memory is taken: this process may not grow by more than 1 GB."""
    folder = with_value(model_dir, tmp_path / "m", part, name, 10**6)
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, before[1]))
    try:
        with pytest.raises(BackboneError, match="open_clip_config"):
            load_clip(f"local-dir:{folder}", device="cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


VALUES = [None, True, -1, 0, 3, 1e300, float("nan"), "", "x", [], [0.5], {}, {"a": 1}]
PARTS = {
    "": ["embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "?"],
    "vision_cfg": ["image_size", "layers", "width", "head_width", "patch_size", "timm_model_name"],
    "text_cfg": ["context_length", "vocab_size", "width", "heads", "layers", "pool_type"],
    "preprocess_cfg": ["mean", "std", "interpolation", "resize_mode", "size", "?"],
}


@settings(max_examples=25)
@given(
    place=st.sampled_from([(part, name) for part, names in PARTS.items() for name in names]),
    value=st.sampled_from(VALUES),
)
def test_configurations_that_cannot_be(
    place: tuple[str, str], value: object, model_dir: Path, tmp_path_factory: Any
) -> None:
    folder = with_value(model_dir, tmp_path_factory.mktemp("any") / "m", *place, value)
    try:
        clip = load_clip(f"local-dir:{folder}", device="cpu")
    except CocoopError as error:
        assert str(folder) in str(error)
    else:
        assert clip.encode_text(["cat"]).shape == (1, clip.embed_dim)


def test_weights_of_another_width(model_dir: Path, tmp_path: Path) -> None:
    folder = copy_of(model_dir, tmp_path / "m")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 24
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(BackboneError, match="does not load"):
        load_clip(f"local-dir:{folder}", device="cpu")


def test_tokens_are_clips_own_and_too_long_a_text_is_refused() -> None:
    clip = small_clip()
    texts = ["a photo of a yin_yang.", "Ibis"]
    expected = open_clip.get_tokenizer("ViT-B-16")(texts, context_length=32)
    assert torch.equal(clip.tokenize(texts), expected)
    assert clip.tokenize([]).shape == (0, 32)
    fits = " ".join(["cat"] * 30)
    assert clip.tokenize([fits])[0, -1] == 49407
    with pytest.raises(PromptError, match=r"33 tokens long.*reads 32"):
        clip.tokenize([fits + " cat"])


def test_loading_sets_up_no_logging() -> None:
    import logging

    handlers, level = list(logging.root.handlers), logging.root.manager.disable
    load_clip("ViT-S-32-alt/random", device="cpu")
    assert logging.root.handlers == handlers
    assert logging.root.manager.disable == level


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of downloads on a machine without a network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def test_weights_that_cannot_be_downloaded(hub_cache: Path) -> None:
    with pytest.raises(MissingDataError, match=r"'ViT-B-16/openai'.*local-dir:PATH.*icon-clip"):
        load_clip("ViT-B-16/openai", device="cpu")


def test_an_openai_tag_brings_quickgelu(hub_cache: Path) -> None:
    repository = open_clip.get_pretrained_cfg("RN50", "openai")["hf_hub"].strip("/")
    folder = hub_cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    random = load_clip("RN50/random", device="cpu", precision="bf16").model
    save_file(random.state_dict(), snapshot / "open_clip_model.safetensors")
    clip = load_clip("RN50/openai", device="cpu")
    kinds = {type(m).__name__ for m in clip.text_tower.transformer.modules()}
    assert "QuickGELU" in kinds and "GELU" not in kinds
    plain = {type(m).__name__ for m in random.transformer.modules()}
    assert "GELU" in plain and "QuickGELU" not in plain
