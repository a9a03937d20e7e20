"""Pictures and captions that `emoji-clip` is pretrained on (chapter 1).

Only drawings of the pretraining houses come here; `datasets/emoji/sources.py` says which.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer

from cocoop_tutorial.datasets.emoji import drawings, sources
from cocoop_tutorial.errors import UnknownNameError, suggest

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, so that its preprocessing fits
STD = (0.26862954, 0.26130258, 0.27577711)
EVALUATION_TEMPLATE = "an emoji of {}."
TEMPLATES = (
    "an emoji of {}.", "an emoji of {}.", "an emoji of {}.", "a {style} emoji of {}.",
    "{}", "{}.", "a picture of {}.", "a photo of a {}.", "a photo of {}.", "a drawing of a {}.",
    "a drawing of {}.", "an icon of a {}.", "an icon of {}.", "this is a {}.", "a small {}.",
    "a {style} drawing of {}.", "a sticker of a {}.", "a symbol of {}.", "the {} emoji.",
    "a sketch of a {}.", "an image of {}, a type of {subject}.",
)  # fmt: skip
# Turned round, these would mean something else.
DIRECTED = re.compile(
    r"left|right|clockwise|waxing|waning|quarter|east|west|back|arrow|symbol|keycap|button|sign|"
    r"letter|number|digit|clock|o-|thirty|play|track|reverse|flag|question|musical|note|plus|percent"
)
LETTERED = ("alphanum", "keycap", "math", "punctuation", "av-symbol", "arrow", "zodiac", "time")


@dataclass
class Corpus:
    """Drawings by concept, with captions tokenised ahead of training.

    Attributes:
        pixels: the drawings [N, 4, S, S] uint8, premultiplied, at about the scale at which the
            augmentation samples them.
        members: for each concept, the rows of its training drawings; an emoji's drawing stands
            there twice, an icon of the same name once, and is drawn half as often.
        captions: for each concept, token ids [n_captions, context] in the compact vocabulary.
        concept_names: for each concept, its name.
        is_emoji: bool [n_concepts]; the rest are general icons.
        mono: bool [N]; a drawing in one colour, which the augmentation may recolour.
        flippable: bool [N].
        held_out: (rows, concepts) of drawings kept for validation.
        vocabulary: CLIP token ids in use; compact id i stands for vocabulary[i].
    """

    pixels: torch.Tensor
    members: list[np.ndarray]
    captions: list[torch.Tensor]
    concept_names: list[str]
    is_emoji: np.ndarray
    mono: torch.Tensor
    flippable: torch.Tensor
    held_out: tuple[np.ndarray, np.ndarray]
    vocabulary: np.ndarray

    def compact(self, texts: list[str], length: int) -> torch.Tensor:
        """Token ids [N, length] of texts in the compact vocabulary."""
        lookup = {int(t): i for i, t in enumerate(self.vocabulary)}
        rows = [[lookup[t] for t in encode(text, length)] for text in texts]
        return torch.tensor(rows)


Draw = Callable[..., torch.Tensor]  # (low, high, *shape) or (middle, spread, *shape) -> [B, ...]
Chance = Callable[[float], torch.Tensor]  # probability -> bool [B]
SIZE, STORED = 64, 72  # pixels of a training picture and of a stored drawing
_tokenizer = SimpleTokenizer()
START, END = _tokenizer.sot_token_id, _tokenizer.eot_token_id
_encoded: dict[str, list[int]] = {}


def encode(text: str, length: int) -> list[int]:
    """CLIP token ids of a text with start and end tokens, padded with 0 or cut to `length`."""
    if text not in _encoded:
        _encoded[text] = _tokenizer.encode(text)
    ids = [START, *_encoded[text][: length - 2], END]
    return ids + [0] * (length - len(ids))


def _icon_name(package: str, key: str) -> str:
    if package == "ph":
        key = key.removesuffix("-duotone").removesuffix("-fill")
    if package == "healthicons":
        key = key.removesuffix("-negative").removesuffix("-outline")
    return key.replace("-", " ")


def load_corpus(length: int, held_out_share: float, without_house: str, seed: int) -> Corpus:
    """Collects the drawings of the pretraining houses, their concepts and captions.

    Args:
        length: tokens a caption is padded or cut to.
        held_out_share: share of the emoji drawings that is kept for validation.
        without_house: a pretraining house to leave out of training and validate on, or "".
        seed: of the held-out draw.

    Raises:
        UnknownNameError: no pretraining house is called `without_house`.
    """
    packages = [p for p in sources.PACKAGES if p.role == "pretrain"]
    houses = {p.house for p in packages}
    if without_house and without_house not in houses:
        raise UnknownNameError(
            f"No pretraining house {without_house!r}. {suggest(without_house, houses)}"
        )
    rng = np.random.default_rng(seed)
    known = {c.slug: c for c in sources.concepts()}
    by_name = {alias: c for c in known.values() for alias in c.aliases}
    by_name |= {sources.squash(c.name): c for c in known.values()}
    rows: dict[str, list[int]] = {}
    texts: dict[str, set[str]] = {}
    names: dict[str, str] = {}
    emoji: set[str] = set()
    stacks, mono, flips, held = [], [], [], []
    offset = 0
    for package in packages:
        loaded = drawings.load(package.name)
        stacks.append(np.asarray(loaded.rgba))
        for i, key in enumerate(loaded.keys):
            name = _icon_name(package.name, key)
            concept = known.get(key) if package.emoji else by_name.get(sources.squash(name))
            name = concept.name if concept else name
            slot = concept.slug if concept else f"icon:{sources.squash(name)}"
            names[slot] = name
            subgroup = concept.subgroup if concept else "icon"
            if concept:
                emoji.add(slot)
            mono.append(package.name not in COLOURED)
            flips.append(not DIRECTED.search(key) and subgroup not in LETTERED)
            words = (name, *(concept.keywords if concept else ()))
            texts.setdefault(slot, set()).update(_captions(words, subgroup, package.style, rng))
            apart = package.house == without_house or rng.random() < held_out_share
            if concept and package.emoji and apart:
                held.append((offset + i, slot))
            else:
                rows.setdefault(slot, []).extend([offset + i] * (2 if package.emoji else 1))
        offset += len(loaded.keys)
    slots = [s for s in names if s in rows]
    index = {s: i for i, s in enumerate(slots)}
    captions = [[encode(t, length) for t in sorted(texts[s])] for s in slots]
    evaluation = [encode(EVALUATION_TEMPLATE.format(names[s]), length) for s in slots]
    used = sorted({t for rows_ in (*captions, evaluation) for row in rows_ for t in row})
    compact = np.zeros(49408, dtype=np.int64)
    compact[used] = np.arange(len(used))
    kept = [(row, index[s]) for row, s in held if s in index]
    return Corpus(
        pixels=shrink(stacks, STORED),
        members=[np.array(rows[s]) for s in slots],
        captions=[torch.from_numpy(compact[np.array(c)]) for c in captions],
        concept_names=[names[s] for s in slots],
        is_emoji=np.array([s in emoji for s in slots]),
        mono=torch.tensor(mono),
        flippable=torch.tensor(flips),
        held_out=tuple(np.array(kept, dtype=np.int64).reshape(-1, 2).T),
        vocabulary=np.array(used),
    )


COLOURED = {"twemoji", "openmoji", "emojione", "emojione-v1", "icon-park", "flat-color-icons"}
SUBJECTS = {
    "animal": "animal", "food": "food", "plant": "plant", "transport": "vehicle", "face": "face",
    "place": "place", "sky": "weather", "sport": "sport", "clothing": "clothing",
    "person": "person", "drink": "drink", "hand": "gesture", "musical": "instrument", "cat": "face",
}  # fmt: skip


def _captions(
    words: tuple[str, ...], subgroup: str, style: str, rng: np.random.Generator
) -> set[str]:
    """Captions of one drawing: its name in every template, with a keyword, a keyword alone.

    Most must be names: a keyword such as "face" fits many concepts, so it teaches little, and
    in a contrastive batch it makes matches count as mismatches.
    """
    name, *keywords = words
    subject = SUBJECTS.get(subgroup.split("-")[0], "thing")
    fill = [t.replace("{style}", style).replace("{subject}", subject) for t in TEMPLATES]
    found = {t.format(name) for t in fill}
    for keyword in rng.permutation(keywords)[:2]:
        found.add(f"an emoji of {name}, {keyword}.")
    for keyword in rng.permutation(keywords)[:1]:
        found.add(fill[rng.integers(len(fill))].format(keyword))
    return found


def draw_batch(
    corpus: Corpus, size: int, emoji_share: float, seed: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Draws distinct concepts, and a drawing and a caption of each.

    Returns:
        rows [size] into the drawings, concept ids [size], tokens [size, L].
    """
    rng = np.random.default_rng(seed)
    emoji, icons = np.flatnonzero(corpus.is_emoji), np.flatnonzero(~corpus.is_emoji)
    n_emoji = round(size * emoji_share)
    chosen = np.concatenate(
        [rng.choice(emoji, n_emoji, replace=False), rng.choice(icons, size - n_emoji, False)]
    )
    rows = np.array([rng.choice(corpus.members[c]) for c in chosen])
    tokens = [corpus.captions[c][rng.integers(len(corpus.captions[c]))] for c in chosen]
    return rows, chosen, torch.stack(tokens)


def shrink(stacks: list[np.ndarray], side: int) -> torch.Tensor:
    """Drawings [n, S, S, 4] uint8 -> all of them premultiplied, [N, 4, side, side] uint8."""
    parts = []
    for stack in stacks:
        for rgba in torch.from_numpy(stack.copy()).split(512):
            x = rgba.permute(0, 3, 1, 2).float()
            x[:, :3] *= x[:, 3:] / 255
            x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
            parts.append(x.round().byte())
    return torch.cat(parts)


def normalise(rgb: torch.Tensor) -> torch.Tensor:
    """[B, 3, H, W] in 0..1 -> CLIP's normalisation."""
    mean = torch.tensor(MEAN, device=rgb.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=rgb.device).view(1, 3, 1, 1)
    return (rgb - mean) / std


def plain(pixels: torch.Tensor, side: float = 1.0) -> torch.Tensor:
    """Drawings on white, [B, 4, S, S] uint8 -> normalised [B, 3, 64, 64].

    Args:
        pixels: premultiplied.
        side: share of the picture's side that a drawing takes up.
    """
    x = F.pad(pixels.float() / 255, [drawings.margin(pixels.shape[-1], side)] * 4)
    x = F.interpolate(x, (SIZE, SIZE), mode="bicubic", antialias=True)
    return normalise((x[:, :3] + 1 - x[:, 3:]).clamp(0, 1))


def augment(
    pixels: torch.Tensor,
    mono: torch.Tensor,
    flippable: torch.Tensor,
    seed: tuple[int, int],
    strength: float = 1.0,
) -> torch.Tensor:
    """Random pose, colours and background, so that only the shape and theme stay.

    Args:
        pixels: [B, 4, S, S] uint8 drawings, premultiplied.
        mono: bool [B]; these may take any colour.
        flippable: bool [B].
        seed: of every random choice.
        strength: 0 to 1, scales every range and chance; training starts low, or it starts slowly.

    Returns:
        [B, 3, 64, 64], normalised.
    """
    g = torch.Generator().manual_seed(seed[0] * 1_000_003 + seed[1])
    n = len(pixels)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(n, *shape, generator=g) * (high - low) + low

    def chance(p: float) -> torch.Tensor:
        return torch.rand(n, generator=g) < p * strength

    def around(middle: float, spread: float, *shape: int) -> torch.Tensor:
        return middle + strength * uniform(-spread, spread, *shape)

    x = pixels.float().div_(255)
    recolour = mono & chance(0.7)
    x[recolour, :3] = uniform(0, 1, 3, 1, 1)[recolour] * x[recolour, 3:]
    poses = _poses(uniform, around, flippable & chance(0.5), n)
    x = F.grid_sample(x, poses + _warp(around), align_corners=False)
    x[:, :3] *= _light(around)
    background = _backgrounds(uniform, chance)
    rgb = _jitter(x[:, :3] + background * (1 - x[:, 3:]), uniform, around, chance)
    return normalise(rgb)


def _poses(uniform: Draw, around: Draw, flip: torch.Tensor, n: int) -> torch.Tensor:
    """Sampling grids [B, 64, 64, 2] of random turns, zooms, shears and shifts."""
    angle = around(0, 0.5)
    zoom = 1 / around(0.84, 0.26)
    shear, stretch = around(0, 0.15), around(1, 0.13)
    cos, sin = angle.cos(), angle.sin()
    across = torch.where(flip, -zoom, zoom) * stretch
    room = (1 - 1 / zoom).clamp(min=0.06)[:, None]
    shift = uniform(-1, 1, 2) * room * zoom[:, None]
    theta = torch.stack(
        [across * cos, zoom * (shear - sin), shift[:, 0], across * sin, zoom * cos, shift[:, 1]], 1
    )
    return F.affine_grid(theta.view(n, 2, 3), (n, 4, SIZE, SIZE), align_corners=False)


def _warp(around: Draw) -> torch.Tensor:
    """Smooth shifts [B, 64, 64, 2] of sampling points: no two houses agree on proportions."""
    field = F.interpolate(around(0, 0.16, 2, 4, 4), (SIZE, SIZE), mode="bicubic")
    return field.permute(0, 2, 3, 1)


def _light(around: Draw) -> torch.Tensor:
    """Smooth shade [B, 1, 64, 64], at most 1: some houses shade what others paint flat."""
    field = F.interpolate(around(0.9, 0.4, 1, 3, 3), (SIZE, SIZE), mode="bilinear")
    return field.clamp(0, 1)


def _backgrounds(uniform: Draw, chance: Chance) -> torch.Tensor:
    """White, plain, graded or cloudy backgrounds [B, 3, 64, 64]."""
    ones = torch.ones(1, 1, SIZE, SIZE)
    first, second = uniform(0, 1, 3, 1, 1), uniform(0, 1, 3, 1, 1)
    ramp = torch.linspace(0, 1, SIZE).view(1, 1, SIZE, 1)
    result = first * ones
    graded, cloudy, white = chance(0.4), chance(0.3), ~chance(0.9)
    result[graded] = (first + (second - first) * ramp * ones)[graded]
    clouds = F.interpolate(uniform(0, 1, 3, 5, 5), (SIZE, SIZE), mode="bicubic").clamp(0, 1)
    result[cloudy] = clouds[cloudy]
    result[white] = 1
    return result


def _jitter(rgb: torch.Tensor, uniform: Draw, around: Draw, chance: Chance) -> torch.Tensor:
    """Colour, contrast, grey, ink, blur, holes and noise on [B, 3, H, W] in 0..1."""
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    grey = (rgb * luma).sum(1, keepdim=True)
    saturation = torch.where(chance(0.12), torch.zeros(len(rgb)), around(1, 0.6))
    rgb = grey + (rgb - grey) * saturation.view(-1, 1, 1, 1)
    rolled = chance(0.08)  # swap channels: the same shape in wrong colours
    rgb[rolled] = rgb[rolled].flip(1)
    contrast, light = around(1, 0.4, 1, 1, 1), around(0, 0.15, 1, 1, 1)
    rgb = (rgb - 0.5) * contrast + 0.5 + light
    ink = chance(0.07)
    rgb[ink] = torch.sigmoid((grey[ink] - 0.55) * 25).expand(-1, 3, -1, -1)
    soft = chance(0.15)
    if soft.any():
        small = F.avg_pool2d(rgb[soft], 2)
        rgb[soft] = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    holes, corner = chance(0.2), (uniform(0, 0.7, 2) * SIZE).long()
    side = (uniform(0.15, 0.3) * SIZE).long()
    for i in holes.nonzero().flatten().tolist():
        y, x = corner[i].tolist()
        rgb[i, :, y : y + int(side[i]), x : x + int(side[i])] = rgb[i].mean((1, 2), keepdim=True)
    return rgb.clamp(0, 1)
