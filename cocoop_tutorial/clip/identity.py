"""What image features depend on: the weights and structure of the tower, transform, machine.

Whatever is computed from weights and kept is stored under these. Results of old weights are
therefore never returned for new ones, in whichever way PyTorch was used to change them.
"""

import itertools
import re
from typing import Any
from weakref import WeakKeyDictionary

import open_clip
import PIL
import torch
import torchvision
from open_clip.transform import MaybeConvertMode, MaybeToTensor
from torch import Tensor, nn
from torchvision import transforms as tv

from cocoop_tutorial.clip.transforms import Transform
from cocoop_tutorial.files import tensor_digest

# Transforms that give the same pixels every time and whose repr shows all of their settings.
FIXED = (tv.Resize, tv.CenterCrop, tv.ToTensor, tv.Normalize, MaybeConvertMode, MaybeToTensor)
PACKAGES = ("torch", "open_clip", "timm")
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
_digests: "WeakKeyDictionary[nn.Module, tuple[Any, str]]" = WeakKeyDictionary()


def weights_digest(module: nn.Module) -> str:
    """A digest of all weights of a module, recomputed only after one of them has changed.

    Args:
        module: For example `clip.model.visual`.

    Returns:
        64 hexadecimal digits.
    """
    tensors = dict(itertools.chain(module.named_parameters(), module.named_buffers()))
    now = {name: _fingerprint(value) for name, value in tensors.items()}
    before, digest = _digests.get(module, (None, ""))
    if before != now:
        digest = tensor_digest(tensors)
        _digests[module] = now, digest
    return digest


@torch.no_grad()
def _fingerprint(value: Tensor) -> tuple[Any, ...]:
    """What changes with the values; the sum is there for `.data`, whose changes are not counted."""
    version = 0 if value.is_inference() else value._version
    total = value.view(INTEGERS[value.itemsize]).sum(dtype=torch.int64).item()
    return value.data_ptr(), version, value.dtype, tuple(value.shape), total


def structure(module: nn.Module) -> str:
    """The settings of a module other than its weights: activations, heads, epsilons ..."""
    plain = (bool, int, float, str, tuple, type(None))
    lines = []
    for name, inner in module.named_modules():
        settings = {k: v for k, v in sorted(vars(inner).items()) if isinstance(v, plain)}
        lines.append(f"{name} {type(inner).__qualname__} {settings}")
    return "\n".join(lines)


def has_hooks(module: nn.Module) -> bool:
    """Whether somebody's code runs within a module's forward pass and may change its result."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def is_published(module: nn.Module) -> bool:
    """Whether all code of a module is that of a package with a version, not of a notebook."""
    return all(type(m).__module__.split(".")[0] in PACKAGES for m in module.modules())


def describe_transform(transform: Transform) -> str | None:
    """All settings of a transform as text, or None if it may be random or has others."""
    steps = getattr(transform, "transforms", ())
    if type(transform) is not tv.Compose or not all(type(step) in FIXED for step in steps):
        return None
    text = repr(steps)
    return None if re.search(r" at 0x[0-9a-f]+", text) else text


def machine(device: torch.device) -> tuple[Any, ...]:
    """What the last bits of a result depend on: versions, processor, threads, settings."""
    cuda = device.type == "cuda"
    return (
        torch.__version__,
        torchvision.__version__,
        open_clip.__version__,
        PIL.__version__,
        torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_autocast_enabled(device.type) and str(torch.get_autocast_dtype(device.type)),
    )
