"""Renders the drawings once, in parallel, into a cache that knows when it is stale."""

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from cocoop_tutorial.datasets.emoji import sources
from cocoop_tutorial.errors import needs_extra

SIZE = 96  # pixels; above the 64 of the model, so that turning and zooming stays sharp
FORMAT = 1  # raise it when the pixels of the cache change


@dataclass(frozen=True)
class Drawings:
    """Drawings of one package.

    Attributes:
        package: where they come from.
        keys: one name a drawing: the concept's slug for emoji, the icon's name otherwise.
        rgba: [N, SIZE, SIZE, 4] uint8, straight (not premultiplied) alpha, memory-mapped.
    """

    package: str
    keys: list[str]
    rgba: np.ndarray


def rasterise(package: str, icon: str, size: int = SIZE) -> np.ndarray:
    """Renders one drawing to [size, size, 4] uint8 RGBA."""
    with needs_extra("embedded"):
        import resvg_py
    png = bytes(resvg_py.svg_to_bytes(svg_string=sources.svg(package, icon, size)))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    return np.asarray(image.resize((size, size)) if image.size != (size, size) else image)


def _rasterise_all(job: tuple[str, list[str]]) -> np.ndarray:
    package, names = job
    return np.stack([rasterise(package, name) for name in names])


def _names(package: str) -> dict[str, str]:
    """Key -> icon name of everything in a package that is worth drawing."""
    if sources.BY_NAME[package].emoji:
        return sources.drawn(package)
    names = list(sources.icons(package)["icons"])
    if package == "ph":  # 6 weights of each icon: keep the two that look least alike
        names = [n for n in names if n.endswith("-duotone") or n.endswith("-fill")]
    return {name: name for name in names}


def fingerprint(package: str) -> str:
    """Changes with the package's content, the renderer or the cache's format."""
    entry = sources.lock()[f"@iconify-json/{package}"]
    with needs_extra("embedded"):
        renderer = version("resvg_py")
    parts = [entry["integrity"], renderer, SIZE, FORMAT, sorted(_names(package).items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _folder(package: str) -> Path:
    return sources.cache_root() / "drawings" / package


def is_fresh(package: str) -> bool:
    """Whether the cache holds this package as it would be rendered now."""
    try:
        meta = json.loads((_folder(package) / "meta.json").read_text())
        stored = np.load(_folder(package) / "rgba.npy", mmap_mode="r")  # fails if it was cut off
        whole = stored.shape == (len(meta["keys"]), SIZE, SIZE, 4)
        return whole and meta["fingerprint"] == fingerprint(package)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return False


def render(packages: list[str], progress: bool = True) -> None:
    """Renders the packages that are missing or stale; a cut-off run leaves nothing half-made."""
    stale = [p for p in packages if not is_fresh(p)]
    if not stale:
        return
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        total = sum(len(_names(p)) for p in stale)
        with tqdm(total=total, desc="drawings", disable=not progress, leave=False) as bar:
            for package in stale:
                names = _names(package)
                icons = list(names.values())
                jobs = [(package, icons[i : i + 64]) for i in range(0, len(icons), 64)]
                parts = []
                for part in pool.map(_rasterise_all, jobs):
                    parts.append(part)
                    bar.update(len(part))
                _store(package, list(names), np.concatenate(parts))


def _store(package: str, keys: list[str], rgba: np.ndarray) -> None:
    """Writes beside the final folder, then swaps: readers see the old or the new, never half."""
    target = _folder(package)
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, package)
    partial = Path(tempfile.mkdtemp(prefix=f".{package}-", dir=target.parent))
    np.save(partial / "rgba.npy", rgba)
    meta = {"fingerprint": fingerprint(package), "keys": keys}
    (partial / "meta.json").write_text(json.dumps(meta))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


def sweep(parent: Path, name: str) -> None:
    """Removes what builds of this name left when they were killed, more than an hour ago."""
    for left in parent.glob(f".{name}-*"):
        if time.time() - left.stat().st_mtime > 3600:  # a younger one may still be at work
            shutil.rmtree(left, ignore_errors=True)


def load(package: str, progress: bool = True) -> Drawings:
    """Drawings of a package, rendered first where the cache has none."""
    render([package], progress)
    meta = json.loads((_folder(package) / "meta.json").read_text())
    rgba = np.load(_folder(package) / "rgba.npy", mmap_mode="r")
    return Drawings(package, meta["keys"], rgba)


def margin(size: int, side: float) -> int:
    """Pixels to add on each side, so that `size` takes up a share `side` of the picture's side."""
    return round(size * (1 / side - 1) / 2)


def with_margin(rgba: np.ndarray, side: float) -> np.ndarray:
    """Adds a transparent margin: [..., S, S, 4] -> [..., S', S', 4] with S about `side` * S'."""
    room = margin(rgba.shape[-2], side)
    return np.pad(rgba, [(0, 0)] * (rgba.ndim - 3) + [(room, room)] * 2 + [(0, 0)])


def on_white(rgba: np.ndarray) -> np.ndarray:
    """Lays drawings on white: [..., 4] uint8 -> [..., 3] uint8."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
