"""Decoding many images at once, in threads, and checking that all can be read."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cocoop_tutorial.datasets.splits import Dataset, Split, open_image
from cocoop_tutorial.errors import DataError
from cocoop_tutorial.progress import bar


def cpu_count() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def image_batches(
    paths: list[Path],
    transform: Callable[..., Tensor],
    batch_size: int,
    workers: int | None = None,
    seeds: Sequence[int] | None = None,
) -> Iterator[Tensor]:
    """Decodes images in threads, one batch ahead of whoever uses them.

    Args:
        paths: N image files.
        transform: PIL image to `[3, H, W]`.
        batch_size: Images in one batch; the last may have fewer.
        workers: Threads; None takes one a core.
        seeds: One an image, for a random transform: it is then called with a `torch.Generator` of
            that seed, so that the pixels do not depend on which thread comes first.

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


def check_images(data: Dataset, skip: bool = False) -> Dataset:
    """Decodes every image once, so that a broken file is found before training, not during it.

    Args:
        data: The data set to check.
        skip: Leave unreadable images out instead of stopping.

    Returns:
        `data`, without its unreadable images if `skip`.

    Raises:
        DataError: Some images cannot be read, and `skip` is off; the message names them.
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
