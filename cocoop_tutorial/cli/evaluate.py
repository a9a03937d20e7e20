"""`cocoop evaluate`, and what it shares with `cocoop train` (chapter 10)."""

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # --help and its like must not wait for PyTorch
    from cocoop_tutorial.clip.frozen import FrozenCLIP
    from cocoop_tutorial.datasets import Dataset
    from cocoop_tutorial.models.prompt_learner import PromptLearner

Parts = dict[str, "Dataset"]

EVALUATE_HELP = """Score a learned prompt, or CLIP's hand-made one, on a data set.

PROMPTS is a folder that 'cocoop train' or save_pretrained wrote, a file of save_prompts, a \
model.pth.tar-N of the official code, or the word zero-shot.

\b
Examples:
  cocoop evaluate runs/emoji_animals-cocoop-1
      Where it was trained: base and new classes, and their harmonic mean.
  cocoop evaluate runs/emoji_animals-cocoop-1 --data emoji_food
      On another data set, with all of its classes.
  cocoop evaluate zero-shot --data emoji_animals --classes halves --json
      What CLIP knows without learning, as JSON.
  torchrun --nproc-per-node 2 -m cocoop_tutorial evaluate zero-shot
      Two processes (two GPUs, if there are) share the images.

The exit status is 0 when all went well, 1 on an error that is named, 2 on a wrong option.
"""

Scored = StrEnum("Scored", ["base", "new", "halves", "all"])
Part = StrEnum("Part", ["train", "val", "test"])
Half = StrEnum("Half", ["fp32", "bf16", "fp16", "amp"])
Position = StrEnum("Position", ["end", "middle", "front"])
PROMPTS = "prompts.safetensors"  # in a folder of `cocoop train`

Root = Annotated[
    Path | None, typer.Option(help="Folder of the paper's data [$COCOOP_DATA or ./data].")
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; by default a GPU if there is one.")]
Precision = Annotated[
    Half, typer.Option(help="Of the backbone; amp: weights in fp32, products in half.")
]
Skip = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out broken images, and say how many.")
]
FeatureBatch = Annotated[
    int, typer.Option(min=1, help="Images in one pass of the image tower; fewer need less memory.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def evaluate(
    prompts: Annotated[
        str, typer.Argument(help="A folder or file of learned prompts, or zero-shot.")
    ],
    data: Annotated[
        str | None,
        typer.Option(help="A data set or a folder; by default what it was trained on."),
    ] = None,
    root: Root = None,
    classes: Annotated[
        Scored | None, typer.Option(help="halves: base, new and their harmonic mean H.")
    ] = None,
    split: Annotated[Part, typer.Option(help="Which images.")] = Part.test,
    backbone: Annotated[
        str | None, typer.Option(help="If the file does not name it; by default emoji-clip.")
    ] = None,
    class_token_position: Annotated[
        Position, typer.Option(help="Of an official CoOp file, which does not say.")
    ] = Position.end,
    precision: Precision = Half.fp32,
    device: Device = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images scored at once; fewer need less memory.")
    ] = 100,
    feature_batch: FeatureBatch = 128,
    skip_unreadable: Skip = False,
    as_json: Json = False,
) -> None:
    """See EVALUATE_HELP."""
    from cocoop_tutorial import distributed
    from cocoop_tutorial.clip.load import load_clip

    prompts = _file(prompts)
    facts = _facts(prompts)
    trained = facts.get("training", {})
    name = data or trained.get("data") or "emoji_animals"
    same = name == trained.get("data")
    batches = {"batch_size": batch_size, "feature_batch": feature_batch}
    classes = classes or ("halves" if same and trained.get("classes") == "base" else "all")
    with distributed.session(device) as own_device:
        chosen = backbone or facts.get("backbone", "emoji-clip")
        clip = load_clip(chosen, own_device, precision.value)
        parts = parts_of(load_data(name, root), classes != "all", skip_unreadable)
        if classes in ("base", "new"):
            parts = {classes: parts[classes]}
        seen = next(iter(parts.values()))
        model = _model(prompts, facts, clip, seen, class_token_position.value)
        result = {
            "prompts": prompts,
            "backbone": clip.name,
            "data": name,
            "split": split.value,
            "scores": {label(model): score_parts(model, parts, split.value, **batches)},
        }
        if distributed.is_main():
            show_scores(result, as_json)


def _file(prompts: str) -> str:
    """The file in a folder of `cocoop train` or save_pretrained; anything else as it is."""
    files = [Path(prompts) / name for name in (PROMPTS, "model.safetensors")]
    return next((str(file) for file in files if file.is_file()), prompts)


def _facts(prompts: str) -> dict[str, Any]:
    """What a file of prompts says of itself; nothing for zero-shot and official files."""
    if prompts == "zero-shot" or ".pth" in Path(prompts).name:
        return {}
    from cocoop_tutorial.checkpoints.prompts import read_prompts

    return read_prompts(prompts)[0]


def _model(
    prompts: str, facts: dict[str, Any], clip: "FrozenCLIP", data: "Dataset", position: str
) -> Any:
    """The model to score, for the classes of `data`."""
    from cocoop_tutorial.checkpoints.official import load_official
    from cocoop_tutorial.checkpoints.prompts import load_prompts
    from cocoop_tutorial.models.zero_shot import ZeroShotCLIP

    if prompts == "zero-shot":
        return ZeroShotCLIP(clip, data.classnames, data.template, has_twins(data))
    if not facts:
        return load_official(prompts, clip, data.classnames, position, has_twins(data))
    model: PromptLearner = load_prompts(prompts, clip)
    model.prompts.allow_duplicates |= has_twins(data)
    return model if model.classnames == data.classnames else model.with_classnames(data.classnames)


def load_data(name: str, root: Path | None) -> "Dataset":
    """A data set by name, or a folder of images."""
    from cocoop_tutorial.datasets import PAPER_NAMES, ImageFolder, emoji, load_dataset

    known = name in PAPER_NAMES or name in emoji.NAMES
    folder = not known and (Path(name).is_dir() or os.sep in name)
    return ImageFolder(name) if folder else load_dataset(name, root)


def _readable(data: "Dataset") -> "Dataset":
    """`data` without its broken images; says how many they were."""
    from cocoop_tutorial.datasets import check_images
    from cocoop_tutorial.distributed import is_main

    kept = check_images(data, skip=True)
    lost = sum(len(data.split(s)) - len(kept.split(s)) for s in Part)
    if lost and is_main():
        typer.echo(f"Unreadable images left out: {lost}", err=True)
    return kept


def label(model: Any) -> str:
    """What results call a model: CoOp, CoCoOp or zero-shot."""
    from cocoop_tutorial.models.zero_shot import ZeroShotCLIP

    return "zero-shot" if isinstance(model, ZeroShotCLIP) else type(model).__name__


def has_twins(data: "Dataset") -> bool:
    """Whether two classes share a name by design, as in the official ImageNet list."""
    return data.name.startswith("imagenet")


def parts_of(data: "Dataset", halves: bool, skip_unreadable: bool) -> Parts:
    """What is scored: base and new classes, or all."""
    from cocoop_tutorial.datasets import base_new

    data = _readable(data) if skip_unreadable else data
    return dict(zip(("base", "new"), base_new(data), strict=True)) if halves else {"all": data}


def score_parts(model: Any, parts: Parts, split: str = "test", **batches: int) -> dict[str, float]:
    """Accuracy (%) on each part among its own names, and H if there are both halves."""
    from cocoop_tutorial.evaluation.accuracy import evaluate, harmonic_mean

    scores = {}
    for name, part in parts.items():
        if list(model.classnames) == part.classnames:
            here = model
        elif getattr(model, "class_specific", False):
            continue  # such a context has nothing to say about other classes
        else:
            here = model.with_classnames(part.classnames)
        scores[name] = evaluate(here, part, split, **batches).accuracy
    if "base" in scores and "new" in scores:
        scores["H"] = harmonic_mean(scores["base"], scores["new"])
    return scores


def show_scores(result: dict[str, Any], as_json: bool) -> None:
    """Prints a result as JSON, or its scores as a table."""
    if as_json:
        typer.echo(json.dumps(result, indent=1))
        return
    rows: dict[str, dict[str, float]] = result["scores"]
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [f"{result['data']}, {result['backbone']}: accuracy in % on {result['split']} images"]
    lines.append(" " * 10 + "".join(f"{c:>8}" for c in columns))
    for name, row in rows.items():
        cells = (f"{row[c]:8.1f}" if c in row else f"{'-':>8}" for c in columns)
        lines.append(f"{name:<10}" + "".join(cells))
    if "history" in result:
        lines.append(f"The learned prompt is in {result['prompts']}")
    typer.echo("\n".join(lines))
