"""Decoding many images in threads, and checking that all of them can be read."""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from joblib import cpu_count
from torch import Tensor

from cocoop_tutorial.datasets.splits import Dataset, Split, open_image
from cocoop_tutorial.errors import DataError
from cocoop_tutorial.progress import bar

SETTLED = 2.0  # seconds; a younger file may change again within one tick of the file system's clock
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


def image_digests(paths: Sequence[Path]) -> list[str]:
    """Digests of the content of files, to recognise images whatever their path.

    A file is read again only if its size or one of its times has changed.

    Args:
        paths: N files.

    Returns:
        N digests; "" for a file that cannot be read.
    """
    with ThreadPoolExecutor(cpu_count()) as pool:
        return list(pool.map(_digest, paths))


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
    paths = sorted({p for s in (data.train, data.val, data.test) for p, _ in s.samples})
    with ThreadPoolExecutor(cpu_count()) as pool:
        problems = list(bar(pool.map(_problem, paths), "checking images", total=len(paths)))
    bad = {path for path, problem in zip(paths, problems, strict=True) if problem}
    if bad and not skip:
        first = next(problem for problem in problems if problem)
        raise DataError(f"{data.name}: {len(bad)} of {len(paths)} images are unreadable. {first}")
    if not bad:
        return data
    train, val, test = (
        Split([x for x in split.samples if x[0] not in bad])
        for split in (data.train, data.val, data.test)
    )
    return replace(data, train=train, val=test if data.val is data.test else val, test=test)


def _problem(path: Path) -> str:
    try:
        open_image(path)
    except DataError as error:
        return str(error)
    return ""
