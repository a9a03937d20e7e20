"""`cocoop evaluate` (chapter 10)."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cocoop_tutorial.cli import options as opt
from cocoop_tutorial.cli import scores
from cocoop_tutorial.precision import Precision

if TYPE_CHECKING:  # --help must not wait for PyTorch
    from cocoop_tutorial.clip.frozen import FrozenCLIP
    from cocoop_tutorial.datasets.splits import Dataset

PROMPTS = "prompts.safetensors"  # in a folder of `cocoop train`
Scored = StrEnum("Scored", ["base", "new", "halves", "all"])

HELP = """Score a learned prompt, or CLIP's hand-written one, on a data set.

PROMPTS is a folder that 'cocoop train' or save_pretrained wrote, a file of save_prompts, a \
model.pth.tar-N of the official code, or the word zero-shot.

\b
Examples:
  cocoop evaluate runs/icons_weather-cocoop-1
      On the data it was trained on: base and new classes, and their harmonic mean.
  cocoop evaluate runs/icons_weather-cocoop-1 --data icons_nature
      On another data set, with all of its classes.
  cocoop evaluate zero-shot --data icons_weather --classes halves --json
      CLIP without any training, as JSON.
  torchrun --nproc-per-node 2 -m cocoop_tutorial evaluate zero-shot
      Two processes (two GPUs, if there are two) share the images.

The exit status is 0 if all went well, 1 after an error, which is named, and 2 after a wrong option.
"""


Prompts = Annotated[str, typer.Argument(help="A folder or file of learned prompts, or zero-shot.")]
Data = Annotated[
    str | None, typer.Option(help="A data set or a folder; by default what it was trained on.")
]
Classes = Annotated[
    Scored | None, typer.Option(help="halves: base, new and their harmonic mean H.")
]
Images = Annotated[scores.SplitName, typer.Option(help="Which images.")]
Backbone = Annotated[
    str | None, typer.Option(help="If the file does not name it; by default icon-clip.")
]
NamePosition = Annotated[
    opt.Position, typer.Option(help="For an official CoOp file, which does not say.")
]
BatchSize = Annotated[
    int, typer.Option(min=1, max=opt.LARGEST, help="Images scored at once; fewer need less memory.")
]


def register(app: typer.Typer) -> None:
    """Adds `cocoop evaluate` to the command line."""
    app.command("evaluate", help=HELP)(evaluate)


def evaluate(
    prompts: Prompts,
    data: Data = None,
    root: opt.Root = None,
    classes: Classes = None,
    split: Images = scores.SplitName.test,
    backbone: Backbone = None,
    class_token_position: NamePosition = opt.Position.end,
    precision: opt.PrecisionOption = Precision.fp32,
    device: opt.Device = None,
    batch_size: BatchSize = 100,
    feature_batch: opt.FeatureBatch = 128,
    skip_unreadable: opt.Skip = False,
    as_json: opt.Json = False,
) -> None:
    """See HELP."""
    from cocoop_tutorial import distributed
    from cocoop_tutorial.clip.load import load_clip

    prompts = _file(prompts)
    facts = _facts(prompts)
    name, wanted = _what(facts.get("training", {}), data, classes)
    batches = {"batch_size": batch_size, "feature_batch": feature_batch}
    with distributed.session(device) as own_device:
        chosen = backbone or facts.get("backbone", "icon-clip")
        clip = load_clip(chosen, own_device, precision.value)
        subsets = scores.subsets_of(scores.load_data(name, root), wanted != "all", skip_unreadable)
        if wanted in subsets:
            subsets = {wanted: subsets[wanted]}
        first = next(iter(subsets.values()))
        model = _model(prompts, facts, clip, first, class_token_position.value)
        result = {
            "prompts": prompts,
            "backbone": clip.name,
            "data": name,
            "split": split.value,
            "scores": {scores.label(model): scores.score(model, subsets, split.value, **batches)},
        }
        if distributed.is_main():
            scores.show_scores(result, as_json)


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


def _what(trained: dict[str, Any], data: str | None, classes: str | None) -> tuple[str, str]:
    """Data set and classes to score; by default those that the prompt was trained on."""
    known = trained.get("data")
    name = data if data is not None else known if isinstance(known, str) else "icons_weather"
    halves = name == known and trained.get("classes") == "base"
    return name, classes or ("halves" if halves else "all")


def _model(
    prompts: str, facts: dict[str, Any], clip: "FrozenCLIP", data: "Dataset", position: str
) -> Any:
    """The model to score, for the classes of `data`."""
    from cocoop_tutorial.models.official import load_official
    from cocoop_tutorial.models.saving import load_prompts
    from cocoop_tutorial.models.zero_shot import ZeroShotCLIP

    duplicates = scores.has_duplicate_names(data)
    if prompts == "zero-shot":
        return ZeroShotCLIP(clip, data.classnames, data.template, duplicates)
    if not facts:
        return load_official(prompts, clip, data.classnames, position, duplicates)
    model = load_prompts(prompts, clip)
    model.prompts.allow_duplicates |= duplicates
    return model if model.classnames == data.classnames else model.with_classnames(data.classnames)
