"""Makes the eleven emoji datasets and the domain-shift suite out of the drawings (chapter 2).

Each dataset is a folder in the layout of CoOp's data sets: images and one split file. The
rules, in short (data/README.md has them in full):

- A class is a concept; its images are poses (turn, size, place, background) of its drawings.
- Train, val and test of a class never share a drawing. Ten datasets take concepts that at least
  four drawing sets of the evaluation houses draw: one drawing for test, one for val, the rest
  for train, drawn at random for each class, so that all three splits mix the same houses.
- `emoji_objects` is the source of the domain shifts and knows one house only: of Google's two
  editions one is for train and val, the other for test, drawn at random for each class.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from cocoop_tutorial.datasets.emoji import drawings, sources

SIZE = 64  # pixels of an image
FORMAT = 1  # raise it when the images change
SAME_DRAWING = 0.95  # correlation of two thumbnails above which they count as one drawing
POSES = {"train": 20, "val": 6, "test": 10}  # images a class
SOURCE = "emoji_objects"
SUBGROUPS: dict[str, tuple[str, ...]] = {
    SOURCE: ("light-video", "computer", "phone", "sound", "music", "musical-instrument", "money",
             "lock", "tool", "science", "medical", "household", "other-object", "hotel"),
    "emoji_faces": ("face-", "cat-face", "monkey-face"),
    "emoji_animals": ("animal-",),
    "emoji_plants": ("plant-", "food-fruit", "food-vegetable"),
    "emoji_food": ("food-prepared", "food-asian", "food-sweet", "drink", "dishware"),
    "emoji_transport": ("transport-ground", "transport-water", "transport-air"),
    "emoji_places": ("place-",),
    "emoji_sky": ("sky-weather",),
    "emoji_activities": ("event", "award-medal", "sport", "game", "arts-crafts"),
    "emoji_clothing": ("clothing",),
    "emoji_office": ("book-paper", "writing", "office", "mail"),
}  # fmt: skip
# Targets of the shift, each with the packages it is drawn from. They mirror ImageNet's:
SHIFTS: dict[str, tuple[str, ...]] = {
    "emoji_objects_v2": ("fluent-emoji-flat",),  # the same concepts, collected anew
    "emoji_objects_sketch": ("fluent-emoji-high-contrast",),  # black and white
    "emoji_objects_a": ("fluent-emoji-flat", "fxemoji", "streamline-emojis"),  # another model errs
    "emoji_objects_r": ("fluent-emoji", "fxemoji", "streamline-emojis"),  # 3-D, flat, stickers
}
NAMES: tuple[str, ...] = (*SUBGROUPS, *SHIFTS)


@dataclass(frozen=True)
class Picture:
    """One image to make: a pose of a drawing."""

    concept: str
    package: str
    number: int
    purpose: str

    @property
    def file(self) -> str:
        """Path below the dataset's image folder."""
        return f"{self.concept}/{self.package}-{self.purpose}-{self.number:02d}.png"


def class_name(concept: sources.Concept) -> str:
    """Natural class name, with plain quotes."""
    return concept.name.replace("’", "'")


def evaluation_packages() -> list[str]:
    """Packages that the datasets are drawn from."""
    return [p.name for p in sources.PACKAGES if p.role == "evaluate"]


def distinct_drawings(slug: str) -> list[str]:
    """Drawing sets of the evaluation houses that draw a concept, near-copies counted once.

    Of two sets whose drawings are all but equal (Google kept a few from edition to edition),
    the second is dropped.
    """
    kept: dict[str, np.ndarray] = {}
    for package in ("noto", "noto-v1", "fluent-emoji-flat", "fxemoji", "streamline-emojis"):
        if slug not in sources.drawn(package):
            continue
        thumb = thumbnail(package, slug)
        if all(thumb @ other < SAME_DRAWING for other in kept.values()):
            kept[package] = thumb
    return [sources.BY_NAME[p].drawing_set for p in kept]


def thumbnail(package: str, slug: str) -> np.ndarray:
    """Drawing on white as a 32-pixel thumbnail, [3072], mean 0 and length 1."""
    loaded = _loaded(package)
    image = Image.fromarray(drawings.on_white(loaded.rgba[loaded.keys.index(slug)]))
    return _unit(image, 32)


_opened: dict[str, drawings.Drawings] = {}


def _loaded(package: str) -> drawings.Drawings:
    if package not in _opened:
        _opened[package] = drawings.load(package, progress=False)
    return _opened[package]


def _packages_of(drawing_set: str, slug: str) -> list[str]:
    """Packages that render a set's drawing of a concept (three for Fluent)."""
    return [
        p.name
        for p in sources.PACKAGES
        if p.drawing_set == drawing_set and slug in sources.drawn(p.name)
    ]


def _rng(*key: str | int) -> np.random.Generator:
    """Random numbers that depend on the names only, not on the order of calls."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


@lru_cache(maxsize=32)
def classes(name: str) -> tuple[sources.Concept, ...]:
    """Concepts of a dataset in alphabetical order of their class names."""
    if name == "emoji_objects_a":
        hard = {p.concept for p in hard_pictures()}
        return tuple(c for c in classes(SOURCE) if c.slug in hard)
    if name in SHIFTS:
        there = [sources.drawn(p) for p in SHIFTS[name]]
        return tuple(c for c in classes(SOURCE) if any(c.slug in drawn for drawn in there))
    chosen = [c for c in sources.concepts() if c.subgroup.startswith(SUBGROUPS[name])]
    if name == SOURCE:
        needed = {"noto", "noto-v1", "fluent"}
        fits = [c for c in chosen if needed <= set(distinct_drawings(c.slug))]
    else:
        fits = [c for c in chosen if len(distinct_drawings(c.slug)) >= 4]
    return tuple(sorted(fits, key=lambda c: class_name(c).casefold()))


def assign(name: str, slug: str) -> dict[str, list[str]]:
    """Which drawing sets of a class go to train, val and test."""
    if name == SOURCE:
        google = ["noto", "noto-v1"]
        _rng(name, slug).shuffle(google)
        return {"train": google[:1], "val": google[:1], "test": google[1:]}
    sets = distinct_drawings(slug)
    _rng(name, slug).shuffle(sets)
    return {"test": sets[:1], "val": sets[1:2], "train": sets[2:]}


def pictures(name: str) -> dict[str, list[tuple[Picture, int]]]:
    """Images of a dataset by split, each with its label."""
    found: dict[str, list[tuple[Picture, int]]] = {"train": [], "val": [], "test": []}
    if name == "emoji_objects_a":
        label = {c.slug: i for i, c in enumerate(classes(name))}
        found["test"] = [(p, label[p.concept]) for p in hard_pictures()]
        return found
    for label, concept in enumerate(classes(name)):
        if name in SHIFTS:
            found["test"] += [(p, label) for p in shifted(SHIFTS[name], concept.slug, name)]
            continue
        for split, sets in assign(name, concept.slug).items():
            packages = [p for s in sets for p in _packages_of(s, concept.slug)]
            for number in range(POSES[split]):
                package = packages[number % len(packages)]
                found[split].append((Picture(concept.slug, package, number, split), label))
    return found


def shifted(packages: tuple[str, ...], slug: str, purpose: str) -> Iterator[Picture]:
    """Poses of a class in a domain-shift target, spread over the packages that draw it."""
    there = [p for p in packages if slug in sources.drawn(p)]
    for number in range(POSES["test"] if there else 0):
        yield Picture(slug, there[number % len(there)], number, purpose)


def hard_candidates() -> list[Picture]:
    """Images that may enter `emoji_objects_a`: poses of other houses' drawings of the source."""
    return [
        Picture(concept.slug, package, number, "emoji_objects_a")
        for concept in classes(SOURCE)
        for package in SHIFTS["emoji_objects_a"]
        if concept.slug in sources.drawn(package)
        for number in range(4)
    ]


@lru_cache(maxsize=1)
def hard_pictures() -> tuple[Picture, ...]:
    """Images of `emoji_objects_a`: the candidates that a fixed, different model gets wrong.

    The model names an image after its nearest neighbour, pixel by pixel, among the source's
    training images. It needs no training and no weights, so the choice can be made again anywhere.
    """
    known = [(_unit(compose(p), 16), label) for p, label in pictures(SOURCE)["train"]]
    seen, labels = np.stack([x for x, _ in known]), np.array([y for _, y in known])
    label = {c.slug: i for i, c in enumerate(classes(SOURCE))}
    candidates = hard_candidates()
    nearest = (np.stack([_unit(compose(p), 16) for p in candidates]) @ seen.T).argmax(axis=1)
    guesses = labels[nearest]
    return tuple(p for p, g in zip(candidates, guesses, strict=True) if g != label[p.concept])


def _unit(image: Image.Image, side: int) -> np.ndarray:
    """An image as a thumbnail, [side * side * 3], mean 0 and length 1."""
    x = np.asarray(image.resize((side, side), Image.Resampling.BOX), dtype=np.float32).ravel()
    x -= x.mean()
    return x / (np.linalg.norm(x) + 1e-6)


def compose(picture: Picture) -> Image.Image:
    """Makes one image: the drawing turned, sized and placed on a background; 64 pixels, RGB."""
    rng = _rng(picture.file, FORMAT)
    loaded = _loaded(picture.package)
    drawing = Image.fromarray(np.asarray(loaded.rgba[loaded.keys.index(picture.concept)]))
    side = round(SIZE * rng.uniform(0.6, 0.95))
    drawing = drawing.convert("RGBa").resize((side, side), Image.Resampling.LANCZOS)
    turned = drawing.rotate(rng.uniform(-18, 18), Image.Resampling.BICUBIC, expand=True)
    turned = turned.convert("RGBA")
    canvas = background(rng).convert("RGBA")
    room = SIZE - np.array(turned.size)
    place = room / 2 + rng.uniform(-1, 1, 2) * np.maximum(np.abs(room) / 2, 2)
    layer = Image.new("RGBA", (SIZE, SIZE))
    layer.paste(turned, tuple(int(v) for v in place.round()))
    canvas.alpha_composite(layer)
    return canvas.convert("RGB")


def background(rng: np.random.Generator) -> Image.Image:
    """White (a third), one colour, or a shade from one colour to another."""
    first, second = rng.uniform(60, 255, (2, 3))
    kind = rng.integers(3)
    if kind == 0:
        first = second = np.full(3, 255.0)
    elif kind == 1:
        second = first
    ramp = np.linspace(0, 1, SIZE)[:, None, None]
    rows = first * (1 - ramp) + second * ramp
    return Image.fromarray(np.broadcast_to(rows, (SIZE, SIZE, 3)).round().astype(np.uint8))


def _write(job: tuple[Path, list[Picture]]) -> dict[str, str]:
    """Writes some images; returns their files with SHA-256 digests."""
    folder, batch = job
    digests = {}
    for picture in batch:
        path = folder / "images" / picture.file
        path.parent.mkdir(parents=True, exist_ok=True)
        compose(picture).save(path, compress_level=4)
        digests[picture.file] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def folder(name: str) -> Path:
    """Where a dataset lies in the cache."""
    return sources.cache_root() / "datasets" / name


def split_file(name: str) -> Path:
    """The split file of a dataset in the cache."""
    return folder(name) / f"split_zhou_{name}.json"


def fingerprint(name: str) -> str:
    """Changes with the drawings and with the version of the rules."""
    parts = [FORMAT, name, [drawings.fingerprint(p) for p in evaluation_packages()]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def is_fresh(name: str) -> bool:
    """Whether the dataset on disk is the one that would be made now."""
    try:
        meta = json.loads((folder(name) / "meta.json").read_text())
        return meta["fingerprint"] == fingerprint(name) and split_file(name).is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def corrupted_files(name: str) -> list[str]:
    """Compares every image of a fresh dataset with its digest; what is missing or changed."""
    wrong = []
    digests = json.loads((folder(name) / "meta.json").read_text())["sha256"]
    for file, digest in digests.items():
        path = folder(name) / "images" / file
        if not path.exists():
            wrong.append(f"{path}: missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            wrong.append(f"{path}: changed")
    return wrong


def build(progress: bool = True, names: tuple[str, ...] = NAMES) -> None:
    """Installs the packages, renders the drawings, makes what is missing, stale or damaged."""
    sources.install()
    stale = [n for n in names if not is_fresh(n) or corrupted_files(n)]
    if not stale:
        return
    drawings.render(evaluation_packages(), progress)
    plans = {name: pictures(name) for name in stale}
    total = sum(len(part) for plan in plans.values() for part in plan.values())
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        with tqdm(total=total, desc="images", disable=not progress, leave=False) as bar:
            for name, plan in plans.items():
                _make(name, plan, pool, bar)


def _make(name: str, plan: dict, pool: ProcessPoolExecutor, bar: tqdm) -> None:
    """Makes one dataset beside its final folder, then swaps the two."""
    target = folder(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    drawings.sweep(target.parent, name)
    partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    todo = [picture for part in plan.values() for picture, _ in part]
    digests: dict[str, str] = {}
    for done in pool.map(_write, [(partial, todo[i : i + 100]) for i in range(0, len(todo), 100)]):
        digests |= done
        bar.update(len(done))
    names = [class_name(c) for c in classes(name)]
    split = {s: [[p.file, y, names[y]] for p, y in part] for s, part in plan.items()}
    (partial / split_file(name).name).write_text(json.dumps(split))
    meta = {"fingerprint": fingerprint(name), "sha256": digests, "classnames": names}
    (partial / "meta.json").write_text(json.dumps(meta))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
