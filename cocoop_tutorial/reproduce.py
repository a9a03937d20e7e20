"""Commands that make the files of `results/` again, each with its provenance.

`cocoop reproduce zero-shot`: what emoji-clip knows before any learning (chapters 1 and 2).
"""

import torch
import typer
from PIL import Image

from .backbones import load_clip
from .datasets import base_new, emoji, load_dataset
from .datasets.emoji import drawings, making, sources
from .evaluation import evaluate, harmonic_mean
from .frozen_clip import FrozenCLIP
from .models import ZeroShotCLIP
from .results import save_result

reproduce = typer.Typer(help="Make the measured results of the book again.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds `cocoop reproduce ...` to the command line."""
    app.add_typer(reproduce, name="reproduce")


@torch.no_grad()
def all_concepts(clip: FrozenCLIP, package: str) -> dict[str, float]:
    """Zero-shot top-1 (%) on every drawing of a package, on white, all its concepts as classes."""
    loaded = drawings.load(package)
    concepts = {c.slug: making.class_name(c) for c in sources.concepts()}
    texts = [emoji.TEMPLATE.format(concepts[key]) for key in loaded.keys]
    weights = torch.cat([clip.encode_text(texts[i : i + 256]) for i in range(0, len(texts), 256)])
    correct = 0
    for start in range(0, len(texts), 256):
        pictures = drawings.on_white(loaded.rgba[start : start + 256])
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


@reproduce.command("zero-shot")
def zero_shot() -> None:
    """Score emoji-clip, untrained on them, on every evaluation house and every emoji dataset."""
    clip = load_clip("emoji-clip", device="cpu")
    houses = {name: all_concepts(clip, name) for name in making.evaluation_packages()}
    rows = [zero_shot_row(clip, name) for name in emoji.NAMES]
    eleven = [row["all"] for row in rows if row["dataset"] not in emoji.SHIFTS]
    data = {"houses": houses, "datasets": rows, "mean_of_eleven": sum(eleven) / len(eleven)}
    path = save_result("zero_shot", data, "cocoop reproduce zero-shot", device="cpu")
    typer.echo(f"wrote {path.name}: {houses['noto']}, mean of eleven {data['mean_of_eleven']:.1f}")
