"""What features depend on: the weights and structure of a tower, transform, machine.

Whatever is computed from weights and kept is kept with their `fingerprint`, and is computed again,
or refused, when that has changed. Results of old weights are therefore never returned for new ones,
in whichever way PyTorch was used to change them.
"""

import contextlib
import itertools
import re
from collections.abc import Hashable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
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

if TYPE_CHECKING:
    from cocoop_tutorial.clip.frozen import FrozenCLIP

# Transforms that give the same pixels every time and whose repr shows all of their settings.
FIXED = (tv.Resize, tv.CenterCrop, tv.ToTensor, tv.Normalize, MaybeConvertMode, MaybeToTensor)
PACKAGES = ("torch", "open_clip", "timm")
BLOCK = 256  # bytes that are added up without regard to their order
_seen: ContextVar[dict[Hashable, Hashable] | None] = ContextVar("seen weights", default=None)
_digests: "WeakKeyDictionary[nn.Module, tuple[Any, str]]" = WeakKeyDictionary()


@contextlib.contextmanager
def settled_weights() -> Iterator[None]:
    """Within the block, the values of weights are compared at their first use only.

    Comparing them takes milliseconds, as long as a small training step. Later changes in the block
    are still noticed, unless they were made through `.data`, which leaves no trace.
    """
    seen = _seen.get()
    token = _seen.set({} if seen is None else seen)
    try:
        yield
    finally:
        _seen.reset(token)


def fingerprint(modules: Sequence[nn.Module], tensors: Sequence[Tensor] = ()) -> Hashable:
    """What changes whenever weights are replaced, moved or written to, or a module's settings are.

    Args:
        modules: Modules, with all that is in them.
        tensors: More tensors.

    Returns:
        A value to compare with another one of the same process.
    """
    inner = itertools.chain.from_iterable((*m.parameters(), *m.buffers()) for m in modules)
    tensors = [*inner, *tensors]
    traces = tuple(map(_trace, tensors))
    seen = _seen.get()
    if seen is not None and traces in seen:
        return traces, seen[traces]
    kinds = [(structure(m), has_hooks(m), tuple(map(type, m.modules()))) for m in modules]
    content = _checksums(tensors), tuple(kinds)
    if seen is not None:
        seen[traces] = content
    return traces, content


def _trace(value: Tensor) -> Hashable:
    version = 0 if value.is_inference() else value._version
    return value.data_ptr(), version, value.requires_grad, value.dtype, value.shape, value.stride()


@torch.no_grad()
def _checksums(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """A sum over each tensor's bits that a change of values alters, and an exchange of rows."""
    sums = []
    for value in filter(torch.numel, tensors):
        content = value.detach().reshape(-1).view(torch.uint8)
        if content.storage_offset() % 8:
            content = content.clone()
        whole = len(content) // BLOCK * BLOCK
        blocks = content[:whole].view(torch.int64).view(-1, BLOCK // 8)  # the fastest to add up
        lines = torch.cat([blocks.sum(1), content[whole:].long()])
        sums.append((lines * torch.arange(1, len(lines) + 1, device=lines.device)).sum())
    return tuple(torch.stack(sums).tolist()) if sums else ()  # a GPU is asked only once


def weights_digest(module: nn.Module) -> str:
    """A digest of all weights of a module, recomputed only after one of them has changed.

    Args:
        module: For example `clip.model.visual`.

    Returns:
        64 hexadecimal digits.
    """
    now = fingerprint([module])
    before, digest = _digests.get(module, (None, ""))
    if before != now:
        named = itertools.chain(module.named_parameters(), module.named_buffers())
        digest = tensor_digest(dict(named))
        _digests[module] = now, digest
    return digest


def text_weights(clip: "FrozenCLIP") -> tuple[list[nn.Module], list[Tensor]]:
    """What the text tower is made of, without the image tower if one module holds both.

    Returns:
        Modules and further weights, as `fingerprint` takes them.
    """
    tower = clip.text_tower
    modules = [tower.token_embedding, tower.transformer, tower.ln_final]
    own = [tower.positional_embedding, tower.text_projection]
    modules += [part for part in own if isinstance(part, nn.Module)]
    return modules, [part for part in own if isinstance(part, Tensor)]


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


def machine(device: torch.device) -> dict[str, Any]:
    """What the last bits of a result depend on: versions, processor, threads, settings."""
    cuda = device.type == "cuda"
    mixed = torch.is_autocast_enabled(device.type) and str(torch.get_autocast_dtype(device.type))
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "open_clip": open_clip.__version__,
        "pillow": PIL.__version__,
        "processor": (
            torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
        ),
        "threads": torch.get_num_threads(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "TF32": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "autocast": mixed,
    }
