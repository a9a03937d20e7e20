"""Functions that produce the files of `results/` again, each with its provenance.

`cocoop reproduce zero-shot`: what emoji-clip knows before any learning (chapters 1 and 2).
`cocoop reproduce prompt-settings`: the learning rates of CoOp and CoCoOp; run it before the next.
`cocoop reproduce prompt-learning`: CoOp and CoCoOp over three seeds (chapters 3 and 4).
"""

from pathlib import Path

import torch
from joblib import cpu_count
from PIL import Image

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.load import load_clip
from cocoop_tutorial.datasets import base_new, emoji, load_dataset
from cocoop_tutorial.datasets.emoji import drawings, making, sources
from cocoop_tutorial.errors import UnknownNameError, suggest
from cocoop_tutorial.evaluation.accuracy import evaluate, harmonic_mean
from cocoop_tutorial.experiments import prompt_learning as grid
from cocoop_tutorial.models.zero_shot import ZeroShotCLIP
from cocoop_tutorial.results import save_result

# Where emoji-clip is best on held-out drawings of pretraining houses: results/pretrain_emoji_clip.
SIDE = 0.875


@torch.no_grad()
def all_concepts(clip: FrozenCLIP, package: str) -> dict[str, float]:
    """Zero-shot accuracy (%) on every drawing of a package, with all its concepts as classes.

    The drawings are on white and take up `SIDE` of the picture's side.
    """
    loaded = drawings.load(package)
    concepts = {c.slug: making.class_name(c) for c in sources.concepts()}
    texts = [emoji.TEMPLATE.format(concepts[key]) for key in loaded.keys]
    weights = torch.cat([clip.encode_text(texts[i : i + 256]) for i in range(0, len(texts), 256)])
    correct = 0
    for start in range(0, len(texts), 256):
        rgba = drawings.with_margin(loaded.rgba[start : start + 256], SIDE)
        pictures = drawings.on_white(rgba)
        images = torch.stack([clip.preprocess(Image.fromarray(p)) for p in pictures])
        guesses = (clip.encode_image(images.to(clip.device)) @ weights.T).argmax(dim=1).cpu()
        correct += int((guesses == torch.arange(start, start + len(images))).sum())
    return {"classes": len(texts), "accuracy": 100 * correct / len(texts)}


def zero_shot_row(clip: FrozenCLIP, name: str) -> dict:
    """Zero-shot accuracy of a dataset: all classes, and base, new and H where it has shots."""
    data = load_dataset(name)
    row = {"dataset": name, "classes": len(data.classnames), "test": len(data.test)}
    row["all"] = evaluate(ZeroShotCLIP(clip, data.classnames, data.template), data).accuracy
    if data.train.samples:
        for half in base_new(data):
            model = ZeroShotCLIP(clip, half.classnames, half.template)
            row[half.subset] = evaluate(model, half).accuracy
        row["H"] = harmonic_mean(row["base"], row["new"])
    return row


def zero_shot() -> Path:
    """Scores emoji-clip, without any training, on every evaluation house and emoji dataset."""
    clip = load_clip("emoji-clip", device="cpu")
    houses = {name: all_concepts(clip, name) for name in making.evaluation_packages()}
    rows = [zero_shot_row(clip, name) for name in emoji.NAMES]
    eleven = [row["all"] for row in rows if row["dataset"] not in emoji.SHIFTS]
    data = {
        "side": SIDE,
        "houses": houses,
        "datasets": rows,
        "mean_of_eleven": sum(eleven) / len(eleven),
    }
    return save_result("zero_shot", data, "cocoop reproduce zero-shot", device="cpu")


def prompt_learning(
    methods: list[str] | None = None, jobs: int | None = None, engine: str = "local"
) -> Path:
    """Trains CoOp and CoCoOp on emoji datasets with three seeds; continues where it was stopped.

    Args:
        methods: Some of "zero-shot", "CoOp", "CoCoOp"; None means all.
        jobs: Processes, of one thread each; None means one per core.
        engine: "local" or "dask", as for `cells.processes`.

    Raises:
        UnknownNameError: A method or an engine of another name.
    """
    for name in methods or ():
        if name not in grid.METHODS:
            raise UnknownNameError(f"Unknown method {name!r}. {suggest(name, grid.METHODS)}")
    torch.set_num_threads(1)
    clip = load_clip("emoji-clip", device="cpu")
    return grid.run_grid(clip, methods or grid.METHODS, None, jobs or cpu_count(), engine)


def prompt_settings(jobs: int | None = None, engine: str = "local") -> Path:
    """Tries learning rates on a dataset that no result uses; the chapters take the best ones.

    Args:
        jobs: Processes, of one thread each; None means one per core.
        engine: "local" or "dask", as for `cells.processes`.
    """
    torch.set_num_threads(1)
    clip = load_clip("emoji-clip", device="cpu")
    return grid.choose_settings(clip, None, jobs or cpu_count(), engine)
