"""What the embedded world can teach, measured before any prompt is learned in it (chapter 2).

Four questions, of which none looks at CoOp or CoCoOp. *Headroom*: do sixteen shots hold more than
the class names do? *Breadth*: does the backbone know the classes, both halves alike? *Copies*: is
any drawing seen twice? *Words*: does it matter how a prompt is put?
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from joblib import Parallel, cpu_count, delayed
from PIL import Image

from cocoop_tutorial.clip.features import image_features
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.load import load_clip
from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.icons import drawings, houses, sources
from cocoop_tutorial.datasets.splits import Dataset, base_new, few_shot
from cocoop_tutorial.evaluation.accuracy import evaluate, harmonic_mean
from cocoop_tutorial.experiments.runs import Row
from cocoop_tutorial.experiments.templates import OF_MEDIUM, for_dataset
from cocoop_tutorial.experiments.world_copies import all_copies
from cocoop_tutorial.experiments.world_results import RESULT
from cocoop_tutorial.models.probe import LinearProbe
from cocoop_tutorial.models.prototypes import Prototypes
from cocoop_tutorial.models.zero_shot import ZeroShotCLIP
from cocoop_tutorial.results import save_result

BACKBONE = "icon-clip"
SEEDS = (1, 2, 3)
SHOTS = 16
EMOJI = "an emoji of a {}."
SIDE, INK = 64, 56  # pixels of a picture, and of the emoji in the middle of it


def made_by(clip: FrozenCLIP) -> str:
    """The start of a digest of the backbone's weights, as text."""
    weights = clip.text_tower.text_projection.detach().float().cpu().numpy()
    return f"weights {hashlib.sha256(weights.tobytes()).hexdigest()[:8]}"


def zero_shot(clip: FrozenCLIP, data: Dataset, template: str | list[str] | None = None) -> float:
    """Zero-shot accuracy (%) on the test images; None takes the dataset's own template."""
    return evaluate(ZeroShotCLIP(clip, data.classnames, template or data.template), data).accuracy


def headroom(clip: FrozenCLIP, data: Dataset, seed: int) -> Row:
    """What shots teach on the base half: a linear probe and class means beside zero-shot.

    Args:
        clip: The backbone.
        data: A dataset with training images.
        seed: Of the draw of shots.
    """
    base, _ = base_new(few_shot(data, SHOTS, seed))
    shots, val = (image_features(clip, part) for part in (base.train, base.val))
    fitted = LinearProbe(clip, base.classnames, shots, val)
    probe = evaluate(fitted, base).accuracy
    means = evaluate(Prototypes(clip, base.classnames, *shots), base).accuracy
    zero = zero_shot(clip, base)
    return {
        "dataset": data.name,
        "seed": seed,
        "zero_shot": zero,
        "probe": probe,
        "class_means": means,
        "gain": round(probe - zero, 4),  # a tie must not look like a gain of a millionth
        "C": fitted.strength,
    }


def breadth(clip: FrozenCLIP, data: Dataset) -> Row:
    """Zero-shot accuracy (%) of all classes, and of both halves where there are shots."""
    row: Row = {"dataset": data.name, "classes": len(data.classnames), "test": len(data.test)}
    row["all"] = zero_shot(clip, data)
    if data.train.samples:
        row |= {half.subset: zero_shot(clip, half) for half in base_new(data)}
        row["H"] = harmonic_mean(row["base"], row["new"])
    return row


def words(clip: FrozenCLIP, data: Dataset) -> list[Row]:
    """Accuracy (%) of each of the twelve templates on all classes, and of their ensemble."""
    filled = for_dataset(data.name)
    rows = [
        {"dataset": data.name, "template": template, "accuracy": zero_shot(clip, data, text)}
        for template, text in filled.items()
    ]
    ensemble = zero_shot(clip, data, list(filled.values()))
    return [*rows, {"dataset": data.name, "template": "ensemble", "accuracy": ensemble}]


def own_medium(clip: FrozenCLIP, data: Dataset, medium: Callable[[Path], str]) -> Row:
    """What a template gains that names each image's own medium, over the best of the same for all.

    Args:
        clip: The backbone.
        data: Its test images are scored.
        medium: Says how an image is drawn: a key of `OF_MEDIUM`.
    """
    media = [medium(path) for path, _ in data.test.samples]
    kinds = sorted(set(media))
    models = (ZeroShotCLIP(clip, data.classnames, OF_MEDIUM[kind]) for kind in kinds)
    correct = torch.stack([evaluate(model, data).correct for model in models])  # [kinds, N]
    fixed = 100 * correct.float().mean(dim=1)
    mine = correct[[kinds.index(m) for m in media], torch.arange(len(media))]
    own, best = 100 * mine.float().mean().item(), int(fixed.argmax())
    told = {"best_medium": kinds[best], "best_fixed": fixed[best].item(), "own": own}
    return {"dataset": data.name, **told, "gain": round(own - told["best_fixed"], 4)}


def measure_dataset(clip: FrozenCLIP, data: Dataset) -> dict[str, list[Row]]:
    """All that is measured on one dataset: rows of "breadth", "headroom", "words", "media"."""
    return {
        "breadth": [breadth(clip, data)],
        "headroom": [headroom(clip, data, seed) for seed in SEEDS],
        "words": words(clip, data),
        "media": [own_medium(clip, data, icons.medium)],
    }


def emoji_picture(package: str, icon: str) -> Image.Image:
    """An emoji on white, `SIDE` pixels, with a margin."""
    picture = Image.new("RGB", (SIDE, SIDE), "white")
    drawn = drawings.rasterise(sources.svg(package, icon, INK))
    picture.paste(drawn, ((SIDE - INK) // 2, (SIDE - INK) // 2), mask=drawn)
    return picture


@torch.no_grad()
def emoji_house(clip: FrozenCLIP, package: str) -> Row:
    """Zero-shot accuracy (%) on every emoji of a package, all their names as classes."""
    drawn = sources.drawn_emoji(package)
    text = clip.encode_text([EMOJI.format(emoji.name) for emoji in drawn.values()])
    correct, icon_names = 0, list(drawn)
    for start in range(0, len(drawn), 256):
        part = icon_names[start : start + 256]
        pictures = [clip.preprocess(emoji_picture(package, icon)) for icon in part]
        guesses = (clip.encode_image(torch.stack(pictures)) @ text.T).argmax(dim=1).cpu()
        correct += int((guesses == torch.arange(start, start + len(part))).sum())
    return {"package": package, "classes": len(drawn), "accuracy": 100 * correct / len(drawn)}


def emoji_packages() -> list[str]:
    """Packages of emoji by houses that pretraining has not seen."""
    unseen = [house for house in houses.HOUSES if house.role != "pretrain"]
    media = {name: medium for house in unseen for name, medium in house.packages.items()}
    return [name for name, medium in media.items() if "emoji" in medium or "emoji" in name]


@cache
def _backbone(name: str) -> FrozenCLIP:
    return load_clip(name, device="cpu")


def _one(backbone: str, kind: str, name: str) -> dict[str, list[Row]]:
    """One task of `measure`; each has a thread of its own, so that sums are added in one order."""
    torch.set_num_threads(1)
    clip = _backbone(backbone)
    if kind == "emoji":
        return {kind: [emoji_house(clip, name)]}
    data = icons.load(name)
    return {kind: [breadth(clip, data)]} if kind == "shifts" else measure_dataset(clip, data)


def measure(jobs: int | None = None, backbone: str = BACKBONE, folder: Path | None = None) -> Path:
    """Measures the whole world and writes `world.json`.

    Args:
        jobs: Processes, of one thread each; None takes one a core.
        backbone: A name that `load_clip` knows.
        folder: Where the file goes; None takes the results folder.
    """
    tasks = [("dataset", name) for name in icons.MAIN]
    tasks += [("shifts", name) for name in icons.SHIFTS]
    tasks += [("emoji", package) for package in emoji_packages()]
    parts = Parallel(n_jobs=jobs or cpu_count())(delayed(_one)(backbone, *task) for task in tasks)
    weights = made_by(_backbone(backbone))
    data: dict[str, list[Row]] = {"made_by": [{"backbone": weights}], "copies": all_copies()}
    for part in parts:
        for kind, rows in part.items():
            data.setdefault(kind, []).extend(rows)
    return save_result(RESULT, data, "cocoop reproduce world", SEEDS, "cpu", folder)
