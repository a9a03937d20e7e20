"""The drawings that `icon-clip` is pretrained on: those of the pretraining houses, rendered.

`datasets/icons/houses.csv` says which houses these are.
"""

import hashlib
import json
import lzma
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from cocoop_tutorial.datasets.icons import drawings as icon_drawings
from cocoop_tutorial.datasets.icons import names, sources
from cocoop_tutorial.datasets.icons.names import Drawing
from cocoop_tutorial.errors import check_known
from cocoop_tutorial.seeds import check_seed

STORED = 72  # pixels of a stored drawing: above the model's 64, for the poses zoom out
NAMELESS = re.compile(r"abstract-\d+$")  # Game-icons' patterns
# Turned round, these would mean something else.
DIRECTED = re.compile(
    r"left|right|clockwise|waxing|waning|quarter|half|east|west|back|arrow|symbol|keycap|button|"
    r"sign|letter|number|digit|clock|o-|thirty|play|track|reverse|flag|question|musical|note|plus|"
    r"percent|undo|redo|log|next|prev|skip|chevron|indent|text|code|bracket|list|align|reply|"
    r"forward|share|sms|abc|css|html|pdf|volume|chart|trend|quote|rotate|enter|exit|\b[a-z0-9]\b"
)


@dataclass
class Pixels:
    """Rendered drawings, row by row; a drawing without colours of its own is its alpha alone.

    Attributes:
        alpha: [N, STORED, STORED] uint8.
        rgb: [n_coloured, 3, STORED, STORED] uint8, premultiplied.
        colour_row: [N]; a drawing's row in `rgb`, or -1.
    """

    alpha: torch.Tensor
    rgb: torch.Tensor
    colour_row: torch.Tensor

    def to(self, device: str) -> "Pixels":
        """The same on a device."""
        return Pixels(self.alpha.to(device), self.rgb.to(device), self.colour_row.to(device))

    def pick(self, rows: torch.Tensor) -> torch.Tensor:
        """Drawings [B] as premultiplied RGBA [B, 4, STORED, STORED] in 0..1."""
        at = self.colour_row[rows]
        rgb = self.rgb[at.clamp(min=0)] * (at >= 0)[:, None, None, None]
        return torch.cat([rgb, self.alpha[rows][:, None]], dim=1).float().div_(255)


@dataclass
class Corpus:
    """Drawings with their words, and which of them to train on.

    Attributes:
        drawings: All of them, N.
        pixels: Of all of them.
        flippable: bool [N]; a mirror image means the same.
        chances: [N]; how often a drawing is drawn for training, 0 if it is held out.
        held_out: Rows of drawings kept for validation: their house draws the concept nowhere
            else, and other houses do.
    """

    drawings: list[Drawing]
    pixels: Pixels
    flippable: torch.Tensor
    chances: torch.Tensor
    held_out: np.ndarray


def drawings() -> list[Drawing]:
    """The drawings of the pretraining houses that have a name."""
    return [d for d in names.drawings("pretrain") if not NAMELESS.match(d.icon)]


def pack(found: list[Drawing], path: Path) -> None:
    """Writes drawings with their SVG texts into one compressed file, for a machine without npm."""
    rows = [[asdict(d), sources.svg(d.package, d.icon, STORED)] for d in found]
    path.write_bytes(lzma.compress(json.dumps(rows).encode(), preset=6))


def unpack(path: Path) -> tuple[list[Drawing], list[str]]:
    """Reads what `pack` wrote."""
    rows = json.loads(lzma.decompress(path.read_bytes()))
    for row, _ in rows:
        row |= {"subjects": tuple(row["subjects"]), "synonyms": tuple(row["synonyms"])}
    return [Drawing(**row) for row, _ in rows], [svg for _, svg in rows]


def rasterise(svg: str) -> np.ndarray:
    """SVG text -> premultiplied RGBA [4, STORED, STORED] uint8."""
    image = icon_drawings.rasterise(svg)
    rgba = np.asarray(image if image.size == (STORED, STORED) else image.resize((STORED, STORED)))
    rgba = rgba.transpose(2, 0, 1).astype(np.uint16)
    rgba[:3] = (rgba[:3] * rgba[3] + 127) // 255
    return rgba.astype(np.uint8)


def _rasterise_all(svgs: list[str]) -> np.ndarray:
    return np.stack([rasterise(svg) for svg in svgs])


def render(svgs: list[str], cache: Path) -> Pixels:
    """Renders drawings on all cores, or reads them from the cache, if they are there."""
    digest = hashlib.sha256("".join(svgs).encode()).hexdigest()
    if cache.exists():
        saved = torch.load(cache, weights_only=True)
        if saved.pop("digest") == digest:
            return Pixels(**saved)
    pixels = _render(svgs)
    torch.save({"digest": digest, **vars(pixels)}, cache)
    return pixels


def _render(svgs: list[str]) -> Pixels:
    parts = [svgs[i : i + 256] for i in range(0, len(svgs), 256)]
    with ProcessPoolExecutor() as pool:
        rgba = torch.from_numpy(np.concatenate(list(pool.map(_rasterise_all, parts))))
    coloured = rgba[:, :3].amax((1, 2, 3)) > 0
    row = torch.where(coloured, coloured.cumsum(0) - 1, -1)
    return Pixels(rgba[:, 3].clone(), rgba[coloured, :3].clone(), row)


def load(
    packed: Path | None, cache: Path, held_out_share: float, without_house: str,
    emoji_share: float, seed: int,
) -> Corpus:  # fmt: skip
    """Reads, renders and divides the drawings.

    Args:
        packed: What `pack` wrote; None reads the npm packages.
        cache: See `render`.
        held_out_share: Share of (house, concept) pairs that is kept for validation.
        without_house: A pretraining house to leave out of training and validate on, or "".
        emoji_share: Share of emoji among the drawings drawn for training.
        seed: Of the held-out draw.

    Raises:
        UnknownNameError: No pretraining house is called `without_house`.
    """
    if packed:
        found, svgs = unpack(packed)
    else:
        found = drawings()
        svgs = [sources.svg(d.package, d.icon, STORED) for d in found]
    apart = hold_out(found, held_out_share, without_house, seed)
    return Corpus(
        drawings=found,
        pixels=render(svgs, cache),
        flippable=torch.tensor([not DIRECTED.search(d.concept) for d in found]),
        chances=torch.from_numpy(chances(found, apart, emoji_share)),
        held_out=np.flatnonzero(apart),
    )


def hold_out(found: list[Drawing], share: float, without_house: str, seed: int) -> np.ndarray:
    """Which drawings are kept for validation, bool [N].

    A house's drawings of a concept stay together, because they are variants of one; and a
    concept is held out only where other houses draw it.
    """
    houses = {d.house for d in found}
    if without_house:
        check_known("pretraining house", without_house, houses)
    drawn_by: dict[str, set[str]] = {}
    for d in found:
        drawn_by.setdefault(d.concept, set()).add(d.house)
    pairs = sorted({(d.house, d.concept) for d in found})
    rng, chosen = np.random.default_rng(check_seed(seed)), set()
    for (house, concept), draw in zip(pairs, rng.random(len(pairs)), strict=True):
        if house == without_house:
            chosen.add((house, concept))
        elif draw < share and len(drawn_by[concept] - {without_house}) > 1:
            drawn_by[concept].discard(house)
            chosen.add((house, concept))
    return np.array([(d.house, d.concept) in chosen for d in found])


def chances(found: list[Drawing], apart: np.ndarray, emoji_share: float) -> np.ndarray:
    """How often each drawing is drawn for training, [N], summing to 1.

    A concept comes up with the square root of the number of its drawings, so that the six
    weights of one icon do not count for six concepts.
    """
    emoji = np.array(["emoji" in d.medium for d in found])
    groups = [(d.concept, e) for d, e in zip(found, emoji, strict=True)]
    counts: dict[tuple[str, bool], int] = {}
    for group, held in zip(groups, apart, strict=True):
        counts[group] = counts.get(group, 0) + (not held)
    weights = np.array([max(1, counts[group]) ** -0.5 for group in groups]) * ~apart
    for kind, share in ((emoji, emoji_share), (~emoji, 1 - emoji_share)):
        weights[kind] *= share / max(weights[kind].sum(), 1e-12)
    return weights / weights.sum()
