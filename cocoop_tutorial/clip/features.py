"""Image features, computed once for each backbone, split and transform (chapter 1).

They are kept in memory and on disk, under a digest of everything that they depend on: the content
and order of the images, the weights and structure of the image tower, transform, batch size and
machine. A run therefore never depends on what was computed before it.
"""

import contextlib
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Hashable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.identity import (
    describe_transform,
    fingerprint,
    has_hooks,
    is_published,
    machine,
    structure,
    weights_digest,
)
from cocoop_tutorial.clip.transforms import TrainTransform, Transform
from cocoop_tutorial.datasets.images import image_batches, image_digests
from cocoop_tutorial.datasets.splits import Split
from cocoop_tutorial.errors import CocoopError, DataError, memory_advice
from cocoop_tutorial.files import cache_root, read_tensors, write_tensors
from cocoop_tutorial.progress import bar
from cocoop_tutorial.seeds import check_whole

MEMORY_BYTES = 2 * 1024**3  # per backbone: half a million images at E = 1024
DISK_BYTES = 2 * 1024**3  # of all backbones together
DAY = 24 * 3600
Key = tuple[str, Any]  # digest, and what is not in it: a transform or a backbone of one's own
# Features with their fingerprint, because the caller may write to them.
Entries = OrderedDict[Key, tuple[Tensor, Hashable]]
_memory: WeakKeyDictionary[FrozenCLIP, Entries] = WeakKeyDictionary()


@torch.inference_mode(False)  # because what is kept must be fit for training too
@torch.no_grad()
def image_features(
    clip: FrozenCLIP,
    split: Split,
    transform: Transform | None = None,
    batch_size: int = 128,
    cache: bool = True,
) -> tuple[Tensor, Tensor]:
    """Image features of a split, computed once and then remembered.

    Two splits that list images of the same content share one entry, in this process and in later
    ones. Set COCOOP_FEATURES=0 to keep no features on disk. A tower with hooks is never cached.

    Args:
        clip: The backbone.
        split: N images.
        transform: PIL image to `[3, H, W]`; None takes `clip.preprocess`. Random transforms need
            `cache=False`, except `clip.preprocess_train`, whose features are never remembered.
        batch_size: Images per pass of the image tower.
        cache: Whether to use the cache.

    Returns:
        Features `[N, E]`, L2-normalised, on the backbone's device, and labels `[N]` (int64) there.

    Raises:
        DataError: The split is empty, or an image cannot be read.
        MemoryLimitError: A batch does not fit into memory.
        SettingError: `batch_size` is not a whole number from 1.
    """
    if not split.samples:
        raise DataError("There are no images in this split.")
    batch_size = check_whole("batch_size of the image tower", batch_size)
    transform = transform or clip.preprocess
    labels = torch.tensor(split.labels, device=clip.device)
    if not cache or isinstance(transform, TrainTransform) or has_hooks(clip.model.visual):
        return _encode(clip, split, transform, batch_size), labels
    entries = _memory.setdefault(clip, OrderedDict())
    key = _key(clip, split, transform, batch_size)
    features, kept = entries.get(key, (None, None))
    if features is None or kept != fingerprint((), [features]):
        features = _load(key, clip)
        if features is None:
            features = _encode(clip, split, transform, batch_size)
            key = _key(clip, split, transform, batch_size)  # an image may have changed meanwhile
            _store(key, features)
        entries[key] = features, fingerprint((), [features])
        _trim(entries)
    entries.move_to_end(key)
    return features, labels


def _encode(clip: FrozenCLIP, split: Split, transform: Transform, batch_size: int) -> Tensor:
    paths = [path for path, _ in split.samples]
    batches = image_batches(paths, transform, batch_size)
    total = -(-len(paths) // batch_size)
    with memory_advice(f"Lower batch_size (now {batch_size}) of the image features."):
        return torch.cat([clip.encode_image(b) for b in bar(batches, "image features", total)])


def _key(clip: FrozenCLIP, split: Split, transform: Transform, batch_size: int) -> Key:
    """A digest of what the features depend on; transforms and code of one's own are not in it."""
    words = describe_transform(transform)
    published = type(clip) is FrozenCLIP and is_published(clip.model.visual)
    facts: list[Any] = [
        image_digests([path for path, _ in split.samples]),
        weights_digest(clip.model.visual),
        structure(clip.model.visual),
        words,
        batch_size,  # sums in another order differ in the last bit
        str(clip.device),
        clip.dtype,
        machine(clip.device),
    ]
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()
    return digest, None if words and published else transform


def _trim(entries: Entries) -> None:
    while len(entries) > 1 and sum(t.nbytes for t, _ in entries.values()) > MEMORY_BYTES:
        entries.popitem(last=False)


def clear_cache(disk: bool = False) -> None:
    """Forgets all image features.

    Args:
        disk: Whether to delete those on disk too.
    """
    _memory.clear()
    if disk:
        for file in _folder().glob("*.safetensors"):
            file.unlink(missing_ok=True)


# --- on disk: whatever goes wrong there, the features are computed instead ---


def _folder() -> Path:
    return cache_root() / "features"


def _on_disk(key: Key) -> Path | None:
    """The file of an entry, or None if it is not to be kept on disk."""
    digest, unknown = key
    if unknown is not None or os.environ.get("COCOOP_FEATURES") == "0":
        return None
    return _folder() / f"{digest}.safetensors"


def _load(key: Key, clip: FrozenCLIP) -> Tensor | None:
    """The features from disk, or None if they are not there or the file is damaged."""
    path = _on_disk(key)
    if path is None or not path.is_file():
        return None
    try:
        facts, tensors = read_tensors(path)
        if facts["key"] != key[0]:  # the file was renamed
            return None
        os.utime(path)  # the least recently used are removed first
        return tensors["features"].to(clip.device, copy=True)
    except (CocoopError, OSError, KeyError):
        return None


def _store(key: Key, features: Tensor) -> None:
    """Writes the features if there is room; several processes may do so at the same time."""
    path = _on_disk(key)
    if path is None or features.nbytes > DISK_BYTES:
        return
    with contextlib.suppress(CocoopError, OSError):
        _make_room(features.nbytes)
        write_tensors(path, {"features": features}, {"key": key[0]})


def _make_room(nbytes: int) -> None:
    """Removes the least recently used entries, and partial files of killed processes."""
    facts = []
    for file in _folder().glob("*"):
        with contextlib.suppress(OSError):  # another process may remove it first
            status = file.stat()
            facts.append((status.st_mtime, status.st_size, file))
    free = DISK_BYTES - nbytes - sum(size for _, size, _ in facts)
    for used, size, file in sorted(facts):
        abandoned = file.suffix == ".part" and time.time() - used > DAY
        if abandoned or (free < 0 and file.suffix != ".part"):
            with contextlib.suppress(OSError):
                file.unlink()
                free += size
