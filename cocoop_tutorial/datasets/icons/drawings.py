"""From SVG text to pixels: thumbnails to compare drawings by, and posed images (chapter 2)."""

import contextlib
import hashlib
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
from joblib import cpu_count
from PIL import Image

from cocoop_tutorial.datasets.icons import sources
from cocoop_tutorial.datasets.icons.names import Drawing
from cocoop_tutorial.errors import MemoryLimitError, needs_extra

FORMAT = 1  # raise it when the images or the rules change
SIZE = 64  # pixels of an image
THUMBNAIL = 20  # pixels of a thumbnail


@contextlib.contextmanager
def workers() -> Iterator[ProcessPoolExecutor]:
    """A process for each core; they end when this process ends, however it ends.

    Raises:
        MemoryLimitError: The system killed one of them.
    """
    pool = ProcessPoolExecutor(cpu_count(), initializer=_end_with_parent)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise MemoryLimitError(
            "A worker process was killed, most often because memory ran out. Close other programs "
            "and run the same command again."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the parent's handler

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def rng(*key: str | int) -> np.random.Generator:
    """Random numbers that depend on names only, not on the order of calls."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def rasterise(svg: str) -> Image.Image:
    """Renders SVG text to an RGBA image of its own size."""
    with needs_extra("embedded"):
        import resvg_py

    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


def thumbnail(svg: str) -> np.ndarray:
    """The drawing cut to its ink, in grey and small.

    Cut out, so that a copy with another margin is still a copy; small, so that a copy with a
    slightly other stroke is one as well.

    Returns:
        [THUMBNAIL * THUMBNAIL] uint8, 0 where white and 255 where black; all 0 where nothing
        is drawn.
    """
    image = rasterise(svg)
    white = Image.new("RGBA", image.size, "white")
    grey = Image.alpha_composite(white, image).convert("L").point(lambda value: 255 - value)
    box = grey.point(lambda value: 255 * (value > 24)).getbbox()
    if box is None:
        return np.zeros(THUMBNAIL**2, dtype=np.uint8)
    cut = grey.crop(box)
    side = max(cut.size)
    square = Image.new("L", (side, side))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    small = square.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small).ravel()


_thumbnails: dict[tuple[str, str], np.ndarray] = {}


def thumbnails(drawings: Iterable[Drawing], pool: ProcessPoolExecutor) -> np.ndarray:
    """Thumbnails of drawings, [N, P] uint8; each is made once in a process."""
    drawings = list(drawings)
    keys = [(drawing.package, drawing.icon) for drawing in drawings]
    missing = sorted(set(keys) - _thumbnails.keys())  # by package: each file is read once
    texts = [sources.svg(package, icon, 2 * THUMBNAIL) for package, icon in missing]
    _thumbnails.update(zip(missing, pool.map(thumbnail, texts, chunksize=64), strict=True))
    pixels = [_thumbnails[key] for key in keys]
    return np.stack(pixels) if pixels else np.zeros((0, THUMBNAIL**2), dtype=np.uint8)


@dataclass(frozen=True)
class Picture:
    """One image to make: a drawing, posed for a dataset."""

    dataset: str
    classname: str
    drawing: Drawing

    @property
    def file(self) -> str:
        """Path below the dataset's image folder; no icon has "--" in its name."""
        folder = self.classname.replace(" ", "_")
        return f"{folder}/{self.drawing.package}--{self.drawing.icon}.png"

    def svg(self) -> str:
        """The image as SVG text."""
        return pose(self.drawing, str(FORMAT), self.dataset)


def pose(drawing: Drawing, *key: str) -> str:
    """A picture of a drawing: inked, turned, sized and placed on a background, as SVG text.

    Args:
        drawing: What is shown. Only a drawing in one colour is inked.
        key: Names that the random choices depend on.
    """
    random = rng(*key, drawing.package, drawing.icon)
    first, second = background(random)
    side = SIZE * random.uniform(0.6, 0.95)
    room = max((SIZE - side) / 2, 2)
    left, top = (SIZE - side) / 2 + random.uniform(-1, 1, 2) * room
    angle = random.uniform(-18, 18)
    colour = ink(random, (first + second) / 2)
    body = sources.svg(drawing.package, drawing.icon, 1, colour)
    body = body.replace('width="1" height="1"', f'width="{side:.2f}" height="{side:.2f}"', 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIZE}" height="{SIZE}">'
        '<linearGradient id="light-of-the-picture" x1="0" y1="0" x2="0" y2="1">'
        f'<stop offset="0" stop-color="{_hex(first)}"/>'
        f'<stop offset="1" stop-color="{_hex(second)}"/></linearGradient>'
        f'<rect width="{SIZE}" height="{SIZE}" fill="url(#light-of-the-picture)"/>'
        f'<g transform="translate({left:.2f} {top:.2f}) '
        f'rotate({angle:.2f} {side / 2:.2f} {side / 2:.2f})">{body}</g></svg>'
    )


def background(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours at the top and at the bottom: white (a third), one colour, or a shade."""
    first, second = random.uniform(90, 255, (2, 3))
    kind = random.integers(3)
    if kind == 0:
        return np.full(3, 255.0), np.full(3, 255.0)
    return first, first if kind == 1 else second


def ink(random: np.random.Generator, behind: np.ndarray) -> str:
    """Black (half), or a colour that stands out from what is behind."""
    if random.random() < 0.5:
        return "#000000"
    while True:
        colour = random.uniform(0, 200, 3)
        if abs(colour.mean() - behind.mean()) > 80:
            return _hex(colour)


def _hex(colour: np.ndarray) -> str:
    return "#" + "".join(f"{int(value):02x}" for value in colour)


def png(svg: str) -> bytes:
    """Renders SVG text to a PNG file without transparency."""
    buffer = io.BytesIO()
    rasterise(svg).convert("RGB").save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()
