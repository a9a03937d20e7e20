"""Decoding many images in threads, and checking that all of them can be read."""

import hashlib
import os
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from joblib import cpu_count
from torch import Tensor

from cocoop_tutorial.datasets.decode import is_turned, open_image
from cocoop_tutorial.datasets.splits import Dataset, Split
from cocoop_tutorial.errors import DataError
from cocoop_tutorial.progress import bar

SETTLED = 2.0  # seconds; a younger file may change again within one tick of the file system's clock
TURNED = "turned"
_known_digests: dict[Path, tuple[tuple[int, ...], str]] = {}


def image_batches(
    paths: list[Path],
    transform: Callable[..., Tensor],
    batch_size: int,
    workers: int | None = None,
    seeds: Sequence[int] | None = None,
) -> Iterator[Tensor]:
    """Decodes images in threads, one batch ahead of the caller.

    Args:
        paths: N image files.
        transform: PIL image to `[3, H, W]`.
        batch_size: Images per batch; the last batch may have fewer.
        workers: Number of threads; None takes one per core.
        seeds: One per image, for a random transform, which is then called with a `torch.Generator`
            of that seed. The pixels therefore do not depend on the order of the threads.

    Yields:
        `[B, 3, H, W]`, in the order of `paths`.

    Raises:
        DataError: An image cannot be read; the message names it.
    """
    jobs = list(zip(paths, seeds or [None] * len(paths), strict=True))
    batches = [jobs[i : i + batch_size] for i in range(0, len(jobs), batch_size)]
    with ThreadPoolExecutor(workers or cpu_count()) as pool:
        waiting: deque[list[Future[Tensor]]] = deque()
        try:
            for batch in batches:
                waiting.append([pool.submit(_decode, transform, *job) for job in batch])
                if len(waiting) > 1:
                    yield torch.stack([f.result() for f in waiting.popleft()])
            while waiting:
                yield torch.stack([f.result() for f in waiting.popleft()])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode(transform: Callable[..., Tensor], path: Path, seed: int | None) -> Tensor:
    if seed is None:
        return transform(open_image(path))
    return transform(open_image(path), torch.Generator().manual_seed(seed))


def image_digests(paths: Sequence[Path | str]) -> list[str]:
    """Digests of the content of files, to recognise images whatever their path.

    A file is read again only if its size or one of its times has changed.

    Args:
        paths: N files.

    Returns:
        N digests; "" for a file that cannot be read.
    """
    with ThreadPoolExecutor(cpu_count()) as pool:
        return list(pool.map(_digest, map(Path, paths)))


def _digest(path: Path) -> str:
    try:
        status = os.stat(path)
        # Unlike the modification time, ctime cannot be set, so it reveals every new content.
        seen = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        known, digest = _known_digests.get(path, (None, ""))
        if known == seen:
            return digest
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # the error is raised where the image is opened
        return ""
    if time.time() - status.st_ctime > SETTLED:
        _known_digests[path] = seen, digest
    return digest


def check_images(data: Dataset, skip: bool = False) -> Dataset:
    """Decodes every image once, to find broken files before training rather than during it.

    Args:
        data: The data set to check.
        skip: Leave unreadable images out instead of raising an error.

    Returns:
        `data`, without its unreadable images if `skip` is set.

    Raises:
        DataError: Some images cannot be read and `skip` is not set; the message names the first.
    """
    paths = {path for split in (data.train, data.val, data.test) for path, _ in split.samples}
    if not skip:
        check_readable(paths, data.name)
        return data
    bad = _unreadable(paths)
    train, val, test = (
        Split([x for x in split.samples if x[0] not in bad])
        for split in (data.train, data.val, data.test)
    )
    return replace(data, train=train, val=test if data.val is data.test else val, test=test)


def check_readable(paths: set[Path], where: str) -> None:
    """Decodes images once, to find the broken ones.

    Args:
        paths: Image files.
        where: What they belong to, for the message.

    Raises:
        DataError: Some cannot be read; the message names the first.
    """
    if bad := _unreadable(paths):
        counts = f"{len(bad)} of {len(paths)} images are unreadable"
        raise DataError(f"{where}: {counts}. {bad[min(bad)]}")


def _unreadable(paths: set[Path]) -> dict[Path, str]:
    """Path to error message of the images that cannot be read; warns about turned ones."""
    files = sorted(paths)
    with ThreadPoolExecutor(cpu_count()) as pool:
        found = list(bar(pool.map(_problem, files), "checking images", total=len(files)))
    problems = dict(zip(files, found, strict=True))
    if turned := [path for path, problem in problems.items() if problem == TURNED]:
        warnings.warn(
            f"{len(turned)} images, for example {turned[0]}, are turned by their EXIF orientation. "
            "It is ignored here, as in the official code. To turn their pixels, save "
            "PIL.ImageOps.exif_transpose(image) in their place.",
            stacklevel=4,
        )
    return {path: problem for path, problem in problems.items() if problem not in ("", TURNED)}


def _problem(path: Path) -> str:
    try:
        return TURNED if is_turned(open_image(path)) else ""
    except DataError as error:
        return str(error)


def shared_images(data: Dataset) -> list[list[Path]]:
    """Finds images that are in more than one split, for example in train and in test.

    Args:
        data: The data set.

    Returns:
        Groups of files with the same content, byte by byte, that several splits hold. A file that
        is itself listed in several splits is a group of its own.
    """
    splits = {id(split): split for split in (data.train, data.val, data.test)}  # val may be test
    listed = [(path, key) for key, split in splits.items() for path, _ in split.samples]
    places: dict[str, set[tuple[Path, int]]] = defaultdict(set)
    for digest, place in zip(image_digests([path for path, _ in listed]), listed, strict=True):
        places[digest].add(place)
    places.pop("", None)  # files that cannot be read
    return [
        sorted({path for path, _ in group})
        for group in places.values()
        if len({key for _, key in group}) > 1
    ]
