"""`load_clip`: finds a backbone by name and freezes it (chapter 1)."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import (
    BackboneError,
    CocoopError,
    DeviceError,
    MissingDataError,
    UnknownNameError,
    check_known,
    first_line,
    suggest,
)
from cocoop_tutorial.precision import PRECISIONS, Precision

ICON_CLIP = Path(__file__).parents[1] / "weights" / "icon-clip"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CONFIG = "open_clip_config.json"
MAX_LAYERS = 1000  # of a tower; the largest published ones have about a hundred
RANDOM_SEED = 0  # of the weights of "MODEL/random"


@torch.inference_mode(False)  # weights made in inference mode could not be trained through
def load_clip(
    name: str = "icon-clip", device: str | torch.device | None = None, precision: str = "fp32"
) -> FrozenCLIP:
    """Loads a backbone and freezes it.

    Args:
        name: "icon-clip" (part of the package), "MODEL/TAG" of open_clip such as
            "ViT-B-16/openai" (downloaded once), "MODEL/random" (the same random weights every time)
            or "local-dir:PATH" (a folder with `open_clip_config.json` and weights).
        device: None takes the GPU if there is one.
        precision: "fp32"; "bf16" or "fp16" if the device supports them; or "amp", which keeps the
            weights in float32 and lets the trainer autocast.

    Returns:
        The frozen model, with its tokenizer and transforms.

    Raises:
        UnknownNameError: No such backbone or precision; the message suggests similar names.
        MissingDataError: The weights are not on this machine and cannot be downloaded.
        BackboneError: The files are damaged, or the model is not a plain dual encoder.
        DeviceError: No such device, or it does not support the precision.

    Introduced in chapter 1.
    """
    target = check_backbone(name, device, precision)
    if path := _folder(name):
        return _from_folder(path, name, precision, target)
    model, tokenizer = _from_registry(name, Precision(precision).of_weights)
    return FrozenCLIP(model, name, precision, tokenizer).to(target)


def check_backbone(
    name: str, device: str | torch.device | None, precision: str = "fp32"
) -> torch.device:
    """Finds what is wrong with the arguments of `load_clip`, without reading or fetching weights.

    Returns:
        The device.

    Raises:
        UnknownNameError, MissingDataError, DeviceError: As `load_clip` does.
    """
    if not isinstance(name, str):
        raise UnknownNameError(
            f"A backbone is named by a text, not {name!r}; for a folder write 'local-dir:PATH'."
        )
    target = _device(device)
    _check_precision(precision, target)
    if path := _folder(name):
        _check_files(path)
    else:
        _parse(name)
    return target


def _folder(name: str) -> Path | None:
    """The folder of a backbone, unless it is one of open_clip's."""
    if name == "icon-clip":
        return ICON_CLIP
    local = name.startswith("local-dir:")
    return Path(os.path.expanduser(name.removeprefix("local-dir:"))) if local else None


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        torch.zeros(1, device=target).item()  # which the device "meta" cannot
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise DeviceError(
            f"This machine has no usable device {str(device)!r} ({first_line(error)}). "
            "Use device='cpu', or None to use a GPU if there is one."
        ) from error
    return target


def _check_precision(precision: str, device: torch.device) -> None:
    """Tries a small convolution, matrix product and softmax in the precision."""
    check_known("precision", precision, PRECISIONS)
    x = torch.ones(1, 4, 8, 8, dtype=DTYPES[Precision(precision).of_weights], device=device)
    try:
        # GPUs older than Ampere only emulate bfloat16, which is many times slower than float32.
        on_gpu = precision == "bf16" and device.type == "cuda"
        if on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise RuntimeError("no bfloat16 units")
        F.conv2d(x, x)
        torch.softmax(x[0, 0] @ x[0, 0], dim=-1)
    except (RuntimeError, NotImplementedError) as error:
        raise DeviceError(
            f"Device {str(device)!r} cannot compute in {precision} ({first_line(error)}). "
            "Use precision='fp32'."
        ) from error


def _check_files(path: Path) -> None:
    if not (path / CONFIG).is_file():
        raise MissingDataError(f"{path} has no {CONFIG}.{_hint(path)}")
    if not _weights(path):
        raise MissingDataError(
            f"{path} has a configuration but no weights (open_clip_model.safetensors).{_hint(path)}"
        )


def _weights(path: Path) -> list[Path]:
    return [f for f in path.iterdir() if f.suffix in {".safetensors", ".bin", ".pth"}]


def _from_folder(path: Path, name: str, precision: str, device: torch.device) -> FrozenCLIP:
    """A backbone from an open_clip model directory, after both towers have been tried."""
    try:
        config = json.loads((path / CONFIG).read_text())["model_cfg"]
        _check_kind(str(path), config)
        _check_sizes(path, config)
        kind = Precision(precision).of_weights
        model, tokenizer = _create(f"local-dir:{path}", precision=kind)
        clip = FrozenCLIP(model, name, precision, tokenizer).to(device)
        clip.encode_image(clip.preprocess(Image.new("RGB", (8, 8))).unsqueeze(0))
        clip.encode_text([""])
        return clip
    except CocoopError:
        raise
    except Exception as error:  # a wrong configuration can fail in any way
        raise BackboneError(
            f"The model in {path} does not load: {first_line(error)}. "
            f"Check its {CONFIG} against its weights, or fetch the folder again."
        ) from error


def _check_sizes(path: Path, config: dict[str, Any]) -> None:
    """Refuses a model that is larger than its weights, before memory for it is taken."""
    for tower in ("vision_cfg", "text_cfg"):
        layers = config[tower].get("layers", 0)
        if np.sum(layers) > MAX_LAYERS:
            raise BackboneError(
                f"{path / CONFIG} has a tower with {layers!r:.80} layers. Check it."
            )
    try:
        with torch.device("meta"):  # tensors without memory
            model, _ = _create(f"local-dir:{path}", load_weights=False, device="meta")
    except (NotImplementedError, RuntimeError):
        if config["vision_cfg"].get("timm_model_name"):
            return  # some of timm's models look at values while they are built
        raise
    values = sum(x.numel() for x in (*model.parameters(), *model.buffers()))
    size = max(file.stat().st_size for file in _weights(path))
    if values > size:
        raise BackboneError(
            f"{path / CONFIG} describes a model of {values:,} values, but the weights beside it "
            f"have {size:,} bytes. Check its sizes, or fetch the folder again."
        )


def _hint(path: Path) -> str:
    if path != ICON_CLIP:
        return " Give the path of a folder that open_clip saved, as 'local-dir:PATH'."
    return (
        " Install the package again, or make the weights: python -m cocoop_tutorial.pretraining.run"
    )


def _from_registry(name: str, precision: str) -> tuple[nn.Module, Any]:
    """Model and tokenizer for "MODEL/TAG" or "MODEL/random"."""
    model, tag = _parse(name)
    config = open_clip.get_model_config(model)
    _check_kind(name, config)
    if tag == "random":
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
            torch.manual_seed(RANDOM_SEED)
            return _create(model, precision=precision, pretrained_text=False)
    # The tag knows which activation its weights were trained with; OpenAI's used QuickGELU.
    quick = bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False))
    try:
        return _create(model, tag, precision=precision, force_quick_gelu=quick)
    except CocoopError:
        raise
    except Exception as error:  # every network library has errors of its own
        raise MissingDataError(
            f"The weights of {name!r} are not on this machine, and downloading them failed: "
            f"{first_line(error)}. Connect once (they stay in the cache), copy the model's folder "
            "here and use 'local-dir:PATH', or use 'icon-clip', which needs no download."
        ) from error


def _parse(name: str) -> tuple[str, str]:
    """Splits "MODEL/TAG" and checks both; "ViT-B/16/openai" works too."""
    model, _, tag = name.rpartition("/")
    model = model.replace("/", "-")
    models = open_clip.list_models()
    if model not in models:
        whole = name.replace("/", "-")
        if whole in models:
            tags = ["random", *open_clip.list_pretrained_tags_by_model(whole)]
            raise UnknownNameError(
                f"{name!r} does not say which weights to load. Write '{whole}/TAG', where TAG is "
                f"one of: {', '.join(tags)}."
            )
        known = ["icon-clip", "local-dir:PATH", *open_clip.list_models()]
        raise UnknownNameError(f"Unknown backbone {name!r}. {suggest(model or name, known)}")
    tags = ["random", *open_clip.list_pretrained_tags_by_model(model)]
    if tag not in tags:
        raise UnknownNameError(f"{model!r} has no weights tagged {tag!r}. {suggest(tag, tags)}")
    return model, tag


def _check_kind(name: str, config: dict[str, Any]) -> None:
    """Refuses models other than a plain pair of open_clip towers, before they are downloaded."""
    if "hf_model_name" in config["text_cfg"]:
        raise BackboneError(
            f"The text tower of {name!r} comes from the transformers library, whose inputs a "
            "learned prompt cannot enter. Choose a model with open_clip's own text tower."
        )
    if "multimodal_cfg" in config:
        raise BackboneError(f"{name!r} is a captioning model (CoCa). Choose a plain dual encoder.")


def _create(name: str, tag: str | None = None, **options: Any) -> tuple[nn.Module, Any]:
    try:
        with _quiet():
            tokenizer = open_clip.get_tokenizer(name)  # first: it is quick, and may fail
            return open_clip.create_model(name, tag, **options), tokenizer
    except ImportError as error:
        raise BackboneError(
            f"{name!r} needs a package that is not installed: {first_line(error)}. "
            "SigLIP's tokenizers need: pip install transformers sentencepiece"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses open_clip's log lines, and keeps it from configuring the root logger."""
    before, handler = logging.root.manager.disable, logging.NullHandler()
    logging.root.addHandler(handler)
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
        logging.root.removeHandler(handler)
