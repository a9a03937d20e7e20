"""Makes the icon datasets and the domain-shift suite out of the drawings (chapter 2).

Each dataset is a folder in the layout of CoOp's: images and one split file. The rules, in short
(data/README.md has them in full):

- `classes.csv` says which names of the houses' icons make a class.
- A class has one image of each drawing, so sixteen shots are sixteen drawings. Copies are left
  out: of drawings of the class, and of drawings that the backbone was trained on.
- The houses of a class are divided at random: what one house drew for it is in one split only.
- The shifts have the classes of `icons_general`, drawn by houses that no other dataset uses.
"""

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from cocoop_tutorial.datasets.icons import copies, drawings, hard, houses, names, sources
from cocoop_tutorial.datasets.icons.drawings import Picture
from cocoop_tutorial.datasets.icons.names import Drawing
from cocoop_tutorial.errors import DataError, needs_extra
from cocoop_tutorial.files import cache_root, file_errors, locked, read_json, write_json

SOURCE = "icons_general"
SETTINGS = ("icons_media", "icons_money", "icons_tools")  # to choose settings on, and nothing else
NO_EMOJI = (SOURCE,)  # its shifts are in media that it must not hold
CLEAN = ("outline", "solid", "duotone", "flat colour")
# Targets of the shift, each with the media it takes from the shift houses. They mirror ImageNet's:
SHIFTS: dict[str, tuple[str, ...]] = {
    "icons_general_v2": CLEAN,  # the same media, collected anew
    "icons_general_sketch": ("hand-drawn",),
    "icons_general_a": CLEAN,  # what another model gets wrong
    "icons_general_r": ("3-D", "flat emoji", "pixel art", "sticker"),  # renditions
}
MOST = 48  # drawings of a class
MOST_OF_A_HOUSE = 6
MOST_SHIFTED = 10  # as ImageNetV2 has
VARIANTS = 4  # drawings of one name and medium by one house that are looked at
LEAST = {"test": 7, "val": 3, "train": 16}
SHARE = {"test": 0.3, "val": 0.12}


@lru_cache(maxsize=1)
def table() -> dict[str, dict[str, tuple[str, ...]]]:
    """`classes.csv`: for each dataset, each class with the concepts that it is made of."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for row in houses.rows("classes"):
        concepts = tuple(concept.strip() for concept in row["concepts"].split(";"))
        found.setdefault(row["dataset"], {})[row["class"]] = concepts
    return found


@lru_cache(maxsize=1)
def misnamed() -> frozenset[tuple[str, str]]:
    """`misnamed.csv`: packages and concepts whose icons show another thing of that name."""
    return frozenset((row["package"], row["concept"]) for row in houses.rows("misnamed"))


MAIN: tuple[str, ...] = tuple(name for name in table() if name not in SETTINGS)
NAMES: tuple[str, ...] = (*MAIN, *SETTINGS, *SHIFTS)


Plan = dict[str, list[Picture]]  # pictures by split, class after class


@lru_cache(maxsize=3)
def _by_concept(role: str) -> dict[str, list[Drawing]]:
    found: dict[str, list[Drawing]] = defaultdict(list)
    for drawing in names.drawings(role):
        if (drawing.package, drawing.concept) not in misnamed():
            found[drawing.concept].append(drawing)
    return found


def candidates(role: str, concepts: tuple[str, ...], media: tuple[str, ...] = ()) -> list[Drawing]:
    """Drawings of some concepts by the houses of a role, in random order, copies and all.

    Of one house's drawings of one concept in one medium only a few are taken, because they
    differ in little but size.
    """
    drawn = [d for c in concepts for d in _by_concept(role).get(c, []) if d.medium in media]
    drawn.sort(key=lambda d: hashlib.sha256(f"{d.package}/{d.icon}".encode()).digest())
    turns = _turns((d.house, d.concept, d.medium) for d in drawn)
    return [d for d, turn in zip(drawn, turns, strict=True) if turn <= VARIANTS]


def _turns(keys: Iterable[Hashable]) -> list[int]:
    """For each key how often it has come so far, this time included."""
    seen: Counter[Hashable] = Counter()
    turns = []
    for key in keys:
        seen[key] += 1
        turns.append(seen[key])
    return turns


def in_turns(found: list[Drawing], most: int, of_a_house: int) -> list[Drawing]:
    """At most `most` drawings: the first of each house, then the second of each, and so on."""
    turns = _turns(drawing.house for drawing in found)
    order = sorted(range(len(found)), key=turns.__getitem__)  # within a turn as they came
    return [found[i] for i in order if turns[i] <= of_a_house][:most]


def divide(found: list[Drawing], *key: str) -> dict[str, list[Drawing]]:
    """Divides the drawings of a class by house, at random.

    Args:
        found: Distinct drawings.
        key: Names that the random order depends on.

    Returns:
        The drawings of "train", "val" and "test".

    Raises:
        DataError: They are too few, or of too few houses.
    """
    by_house: dict[str, list[Drawing]] = defaultdict(list)
    for drawing in found:
        by_house[drawing.house].append(drawing)
    for attempt in range(100):  # houses that drew much do not fit everywhere
        order = drawings.rng(*key, attempt).permutation(sorted(by_house))
        parts = _deal([by_house[str(house)] for house in order])
        if all(len(parts[split]) >= least for split, least in LEAST.items()):
            return parts
    raise DataError(f"{' '.join(key)}: {len(found)} drawings by {len(by_house)} houses do not do.")


def _deal(by_house: list[list[Drawing]]) -> dict[str, list[Drawing]]:
    """Gives whole houses to test and val while they fit, in order, and the rest to train."""
    number = sum(map(len, by_house))
    spare = number - sum(LEAST.values())
    parts: dict[str, list[Drawing]] = {}
    for split, share in SHARE.items():
        most = LEAST[split] + max(0, min(spare, round(share * number) - LEAST[split]))
        part: list[Drawing] = []
        for house in list(by_house):
            if len(part) + len(house) <= most:
                part += house
                by_house.remove(house)
        spare -= len(part) - LEAST[split]
        parts[split] = part
    return parts | {"train": [drawing for house in by_house for drawing in house]}


def media(name: str) -> tuple[str, ...]:
    """The media that a dataset takes."""
    if name in SHIFTS:
        return SHIFTS[name]
    return CLEAN if name in NO_EMOJI else (*CLEAN, "emoji")


def known(concepts: tuple[str, ...]) -> list[Drawing]:
    """The drawings of some concepts that the backbone was trained on."""
    return [d for concept in concepts for d in _by_concept("pretrain").get(concept, [])]


def chosen(name: str, classname: str, pool: ProcessPoolExecutor) -> list[Drawing]:
    """The distinct drawings of a class, none of them a copy of a pretraining drawing."""
    concepts = table()[name][classname]
    found = candidates("source", concepts, media(name))
    return in_turns(_distinct(found, known(concepts), pool), MOST, MOST_OF_A_HOUSE)


def _distinct(
    found: list[Drawing], forbidden: list[Drawing], pool: ProcessPoolExecutor
) -> list[Drawing]:
    """Drawings that copy neither one before them nor a forbidden one."""
    kept = copies.distinct(*(drawings.thumbnails(some, pool) for some in (found, forbidden)))
    return [found[i] for i in kept]


def plan(name: str, pool: ProcessPoolExecutor) -> Plan:
    """The pictures of a dataset by split.

    Raises:
        DataError: A class has too few drawings.
    """
    if name in SHIFTS:
        return {"train": [], "val": [], "test": _shifted(name, pool)}
    _prepare_thumbnails(name, "source", pool)
    parts: Plan = {"train": [], "val": [], "test": []}
    for classname in table()[name]:
        divided = divide(chosen(name, classname, pool), name, classname)
        for split, found in divided.items():
            parts[split] += [Picture(name, classname, drawing) for drawing in found]
    return parts


def _prepare_thumbnails(name: str, role: str, pool: ProcessPoolExecutor) -> None:
    """Makes the thumbnails for all classes at once, which keeps all processes at work."""
    wanted = []
    for concepts in table()[base(name)].values():
        wanted += [*candidates(role, concepts, media(name)), *known(concepts)]
    drawings.thumbnails(wanted, pool)


@lru_cache(maxsize=1)
def _source(pool: ProcessPoolExecutor) -> Plan:
    return plan(SOURCE, pool)


def _shifted(name: str, pool: ProcessPoolExecutor) -> list[Picture]:
    """The pictures of a target of the shift; a class that nobody draws has none."""
    shot = _source(pool)
    _prepare_thumbnails(name, "shift", pool)
    pictures = []
    for classname, concepts in table()[SOURCE].items():
        found = candidates("shift", concepts, media(name))
        shots = [p.drawing for part in shot.values() for p in part if p.classname == classname]
        kept = _distinct(found, [*known(concepts), *shots], pool)
        pictures += [Picture(name, classname, drawing) for drawing in kept]
    if name == f"{SOURCE}_a":
        pictures = hard.mistaken(pictures, shot["train"], pool)
    return [
        Picture(name, classname, drawing)
        for classname, group in groupby(pictures, key=lambda picture: picture.classname)
        for drawing in in_turns([p.drawing for p in group], MOST_SHIFTED, MOST_SHIFTED)
    ]


def folder(name: str) -> Path:
    """Where a dataset lies in the cache."""
    return cache_root() / "datasets" / name


def split_file(name: str) -> Path:
    """The split file of a dataset in the cache."""
    return folder(name) / f"split_zhou_{name}.json"


def fingerprint(name: str) -> str:
    """Changes with the packages, the tables, the renderer and the version of the rules."""
    tables = [(Path(__file__).parent / f"{t}.csv").read_text() for t in ("houses", "misnamed")]
    locked = {package: entry.get("integrity") for package, entry in sources.lock().items()}
    classes = table()[base(name)]
    with needs_extra("embedded"):
        renderer = version("resvg_py")
    parts = [drawings.FORMAT, name, renderer, tables, classes, sorted(locked.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def is_fresh(name: str) -> bool:
    """Whether the dataset on disk is the one that would be made now."""
    try:
        meta = _meta(name)
        return (
            meta["fingerprint"] == fingerprint(name)
            and {"split", "images"} <= meta.keys()  # older caches have no digest of the split file
            and split_file(name).is_file()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _meta(name: str) -> dict[str, Any]:
    return read_json(folder(name) / "meta.json", "Make it again: cocoop data build")


def images(name: str) -> dict[str, dict[str, str]]:
    """What is known of each image of a made dataset, by file: icon, house, medium, digest."""
    return _meta(name)["images"]


def damage(name: str) -> list[str]:
    """Compares the files of a fresh dataset with their digests; what is missing or changed."""
    wrong = []
    for path, sha256 in _digests(name).items():
        if not path.exists():
            wrong.append(f"{path}: missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            wrong.append(f"{path}: changed")
    return wrong


def _digests(name: str) -> dict[Path, str]:
    meta = _meta(name)
    digests = {f"images/{file}": entry["sha256"] for file, entry in meta["images"].items()}
    digests[split_file(name).name] = meta["split"]
    return {folder(name) / file: digest for file, digest in digests.items()}


def build(progress: bool = True, names: tuple[str, ...] = NAMES) -> None:
    """Installs the packages and makes what is missing, stale or damaged.

    Of several builds at once, one works and the others wait for it.

    Raises:
        FileError: The disk is full, or a folder cannot be written.
        MemoryLimitError: A worker process was killed.
        MissingDataError: The packages cannot be fetched.
    """
    with file_errors("The icon data could not be made", "finished datasets stay"):
        sources.install()
        if stale := _stale(names):
            with locked(cache_root() / "datasets" / ".lock", "making the icon data") as waited:
                _sweep()  # what a killed build left
                try:
                    _make_all(_stale(stale) if waited else stale, progress)
                finally:
                    _sweep()


def _make_all(names: list[str], progress: bool) -> None:
    with drawings.workers() as pool, tqdm(names, "datasets", disable=not progress) as bar:
        for name in bar:
            _make(name, plan(name, pool), pool)


def _sweep() -> None:
    """Removes what is half made; only for the holder of the lock, when no worker is left."""
    for left in (cache_root() / "datasets").glob(".*-*"):
        shutil.rmtree(left, ignore_errors=True)


def _stale(names: Iterable[str]) -> list[str]:
    return [name for name in names if not is_fresh(name) or damage(name)]


def _write(job: tuple[Path, str]) -> str:
    """Writes one image; returns its SHA-256 digest."""
    path, svg = job
    path.parent.mkdir(parents=True, exist_ok=True)
    content = drawings.png(svg)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _make(name: str, parts: Plan, pool: ProcessPoolExecutor) -> None:
    """Makes one dataset beside its final folder, then swaps the two."""
    target = folder(name)
    partial, old = target.with_name(f".{name}-new"), target.with_name(f".{name}-old")
    partial.mkdir(parents=True)
    _fill(partial, name, parts, pool)
    if target.exists():
        target.rename(old)
    partial.rename(target)


def _fill(partial: Path, name: str, parts: Plan, pool: ProcessPoolExecutor) -> None:
    pictures = sorted((p for part in parts.values() for p in part), key=lambda p: p.drawing.package)
    jobs = [(partial / "images" / picture.file, picture.svg()) for picture in pictures]
    facts = {}
    for picture, digest in zip(pictures, pool.map(_write, jobs, chunksize=32), strict=True):
        drawing = {k: v for k, v in asdict(picture.drawing).items() if isinstance(v, str)}
        facts[picture.file] = drawing | {"sha256": digest}
    shown = {picture.classname for picture in pictures}
    label = {c: i for i, c in enumerate(c for c in table()[base(name)] if c in shown)}
    split = json.dumps({s: [[p.file, label[p.classname], p.classname] for p in part]
                        for s, part in parts.items()})  # fmt: skip
    (partial / split_file(name).name).write_text(split)
    digest = hashlib.sha256(split.encode()).hexdigest()
    meta = {"fingerprint": fingerprint(name), "split": digest, "images": facts}
    write_json(partial / "meta.json", meta)


def base(name: str) -> str:
    """The dataset whose classes a dataset has."""
    return SOURCE if name in SHIFTS else name
