"""Image features, computed once for each backbone, split and transform (chapter 1)."""

import hashlib
from collections import OrderedDict
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.transforms import Transform
from cocoop_tutorial.datasets.images import image_batches
from cocoop_tutorial.datasets.splits import Split
from cocoop_tutorial.errors import DataError, memory_advice
from cocoop_tutorial.progress import bar

CACHE_BYTES = 2 * 1024**3  # per backbone: half a million images at E = 1024
_cache: "WeakKeyDictionary[FrozenCLIP, OrderedDict[tuple[Any, ...], Tensor]]" = WeakKeyDictionary()


def image_features(
    clip: FrozenCLIP,
    split: Split,
    transform: Transform | None = None,
    batch_size: int = 128,
    cache: bool = True,
) -> tuple[Tensor, Tensor]:
    """Image features of a split, computed once and then remembered.

    Two splits that list the same files share one entry.

    Args:
        clip: The backbone.
        split: N images.
        transform: PIL image to `[3, H, W]`; None takes `clip.preprocess`. Random transforms need
            `cache=False`.
        batch_size: Images in one pass of the image tower.
        cache: Whether to look in the cache and to store there.

    Returns:
        Features `[N, E]`, L2-normalised, on the backbone's device, and labels `[N]` (int64) there.

    Raises:
        DataError: The split is empty, or an image cannot be read.
        MemoryLimitError: A batch does not fit.
    """
    if not split.samples:
        raise DataError("There are no images in this split.")
    transform = transform or clip.preprocess
    labels = torch.tensor(split.labels, device=clip.device)
    if not cache:
        return _encode(clip, split, transform, batch_size), labels
    # batch_size is part of the key: sums in another order differ in the last bit, and a run
    # must not depend on what was computed before it.
    key = (_fingerprint(split), transform, batch_size, str(clip.device), clip.dtype)
    entries = _cache.setdefault(clip, OrderedDict())
    if key not in entries:
        entries[key] = _encode(clip, split, transform, batch_size)
        _trim(entries)
    else:
        entries.move_to_end(key)
    return entries[key], labels


def _encode(clip: FrozenCLIP, split: Split, transform: Transform, batch_size: int) -> Tensor:
    paths = [path for path, _ in split.samples]
    batches = image_batches(paths, transform, batch_size)
    total = -(-len(paths) // batch_size)
    with memory_advice(f"Lower batch_size (now {batch_size}) of the image features."):
        return torch.cat([clip.encode_image(b) for b in bar(batches, "image features", total)])


def _fingerprint(split: Split) -> str:
    text = "\0".join(str(path) for path, _ in split.samples)
    return hashlib.sha256(text.encode()).hexdigest()


def _trim(entries: "OrderedDict[tuple[Any, ...], Tensor]") -> None:
    while len(entries) > 1 and sum(t.nbytes for t in entries.values()) > CACHE_BYTES:
        entries.popitem(last=False)


def clear_cache() -> None:
    """Forgets all image features."""
    _cache.clear()
