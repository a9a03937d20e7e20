"""`cocoop train` (chapters 3 and 10)."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cocoop_tutorial.classnames import clean_name
from cocoop_tutorial.cli import options as opt
from cocoop_tutorial.cli import scores
from cocoop_tutorial.cli.evaluate import PROMPTS
from cocoop_tutorial.precision import Precision

if TYPE_CHECKING:  # --help must not wait for PyTorch
    from cocoop_tutorial.clip.frozen import FrozenCLIP
    from cocoop_tutorial.models.prompt_learner import PromptLearner
    from cocoop_tutorial.training.config import TrainConfig

WORDS = "a photo of a"  # what the paper's contexts begin as
RESULT = "result.json"
Method = StrEnum("Method", ["cocoop", "coop"])
Trained = StrEnum("Trained", ["base", "all"])
View = StrEnum("View", ["test", "train"])

HELP = """Learn a prompt, and score it on the classes it was trained on and on those it was not.

\b
Examples:
  cocoop train
      CoCoOp on half of the weather icons, 16 images per class, as in the paper.
  cocoop train --method coop --data icons_nature --epochs 20 --lr 0.05
      CoOp on icons of nature, a shorter schedule.
  cocoop train --data photos/ --shots 8 --classes all --out runs/photos
      Your own images: one sub-folder per class.
  cocoop train --backbone ViT-B-16/openai --data caltech101 --root data \\
      --transform train --precision amp
      The paper's world, with its random crops; slow without a GPU.
  torchrun --nproc-per-node 2 -m cocoop_tutorial train --batch-size 8
      Two processes (two GPUs, if there are two) share each step's 8 images.

The folder --out gets training.safetensors (the checkpoint), prompts.safetensors (the learned \
prompt, some kilobytes) and result.json. The same command continues a run that was stopped.

The exit status is 0 if all went well, 1 after an error, which is named, and 2 after a wrong option.
"""

MethodOption = Annotated[Method, typer.Option(help="What to train.")]
Backbone = Annotated[
    str, typer.Option(help="icon-clip, MODEL/TAG of open_clip, or local-dir:PATH.")
]
Data = Annotated[str, typer.Option(help="A data set ('cocoop data show'), or a folder of images.")]
Classes = Annotated[Trained, typer.Option(help="base: the first half; the rest is for testing.")]
Shots = Annotated[int, typer.Option(min=1, max=opt.LARGEST, help="Training images per class.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**64 - 1, help="Of the shots, the first context and the order.")
]
CtxInit = Annotated[
    str | None, typer.Option(help=f"First words of the context; by default '{WORDS}'.")
]
NCtx = Annotated[
    int | None,
    typer.Option(min=1, max=1000, help="Begin with that many random vectors, not words."),
]
NamePosition = Annotated[
    opt.Position, typer.Option(help="CoOp only: where in the context the name stands.")
]
Specific = Annotated[
    bool, typer.Option("--class-specific", help="CoOp only: a context for each class.")
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="By default the paper's: cocoop 10, coop 200.")
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Images per step; by default cocoop 1, coop 32.")
]
MicroBatch = Annotated[
    int | None, typer.Option(min=1, help="Images at once: less memory, the same step.")
]
Rate = Annotated[float, typer.Option(min=0, max=100, help="Highest learning rate.")]
Warmup = Annotated[int, typer.Option(min=0, help="Epochs at 1e-5 first.")]
Transform = Annotated[
    View, typer.Option(help="test: fixed, quick; train: the paper's random crops.")
]
Out = Annotated[Path | None, typer.Option(help="By default runs/DATA-METHOD-SEED.")]
Restart = Annotated[bool, typer.Option("--restart", help="Forget the run that is in the folder.")]


def register(app: typer.Typer) -> None:
    """Adds `cocoop train` to the command line."""
    app.command("train", help=HELP)(train)


def train(
    method: MethodOption = Method.cocoop,
    backbone: Backbone = "icon-clip",
    data: Data = "icons_weather",
    root: opt.Root = None,
    classes: Classes = Trained.base,
    shots: Shots = 16,
    seed: Seed = 1,
    ctx_init: CtxInit = None,
    n_ctx: NCtx = None,
    class_token_position: NamePosition = opt.Position.end,
    class_specific: Specific = False,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    micro_batch: MicroBatch = None,
    feature_batch: opt.FeatureBatch = 128,
    lr: Rate = 0.002,
    warmup_epochs: Warmup = 1,
    transform: Transform = View.test,
    precision: opt.PrecisionOption = Precision.fp32,
    device: opt.Device = None,
    out: Out = None,
    restart: Restart = False,
    skip_unreadable: opt.Skip = False,
    as_json: opt.Json = False,
) -> None:
    """See HELP; the defaults of the options are the paper's."""
    from cocoop_tutorial import distributed
    from cocoop_tutorial.clip.load import check_backbone, load_clip
    from cocoop_tutorial.training.config import TrainConfig
    from cocoop_tutorial.training.state import own_folder

    context = _context(method, ctx_init, n_ctx, class_token_position, class_specific)
    config = TrainConfig(
        epochs=epochs, batch_size=batch_size, micro_batch=micro_batch,
        feature_batch=feature_batch, lr=lr, warmup_epochs=warmup_epochs,
        transform=transform.value, seed=seed,
    )  # fmt: skip
    folder = out or Path("runs") / f"{Path(data).resolve().name}-{method}-{seed}"
    with distributed.session(device) as own_device:
        check_backbone(backbone, own_device, precision.value)
        with own_folder(folder):
            subsets = _few_shots(data, root, shots, seed, classes == "base", skip_unreadable)
            clip = load_clip(backbone, own_device, precision.value)
            model = _new_model(clip, subsets, method.value, context, seed)
            _forget(folder, restart)
            facts = {"data": data, "classes": classes.value, "shots": shots}
            result = _train_and_score(model, subsets, config, facts, folder)
        if distributed.is_main():
            scores.show_scores(result, as_json)


def _context(
    method: Method, ctx_init: str | None, n_ctx: int | None, position: opt.Position, specific: bool
) -> dict[str, Any]:
    """The options of the model that say what its context is."""
    words = WORDS if ctx_init is None and n_ctx is None else ctx_init
    if ctx_init is not None and not clean_name(ctx_init):
        raise typer.BadParameter("--ctx-init has no words. Use --n-ctx for a random start.")
    options: dict[str, Any] = {"n_ctx": n_ctx, "ctx_init": words}
    if method is Method.coop:
        return options | {"class_token_position": position.value, "class_specific": specific}
    if specific or position is not opt.Position.end:
        raise typer.BadParameter(
            "--class-specific and --class-token-position belong to CoOp. Add --method coop."
        )
    return options


def _few_shots(
    data: str, root: Path | None, shots: int, seed: int, halves: bool, skip_unreadable: bool
) -> scores.Subsets:
    """Draws the shots before the split into halves, as the official code does."""
    from cocoop_tutorial.datasets.splits import few_shot

    few = few_shot(scores.load_data(data, root), shots, seed)
    return scores.subsets_of(few, halves, skip_unreadable)


def _forget(folder: Path, restart: bool) -> None:
    """Removes the checkpoint of the run in a folder, if a restart was asked for."""
    from cocoop_tutorial.distributed import is_main
    from cocoop_tutorial.training.state import FILE

    if restart and is_main():
        (folder / FILE).unlink(missing_ok=True)


def _new_model(
    clip: "FrozenCLIP", subsets: scores.Subsets, method: str, options: dict[str, Any], seed: int
) -> "PromptLearner":
    """An untrained model of the classes to train on."""
    import torch

    from cocoop_tutorial.models.cocoop import CoCoOp
    from cocoop_tutorial.models.coop import CoOp

    seen = next(iter(subsets.values()))
    torch.manual_seed(seed)  # of a random context and the Meta-Net
    build = {"coop": CoOp, "cocoop": CoCoOp}[method]
    options["allow_duplicates"] = scores.has_duplicate_names(seen)
    return build(clip, seen.classnames, **options)


def _train_and_score(
    model: "PromptLearner",
    subsets: scores.Subsets,
    config: "TrainConfig",
    facts: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Trains on the first subset, scores all, and writes the prompt and the result."""
    from cocoop_tutorial import distributed
    from cocoop_tutorial.files import write_atomic
    from cocoop_tutorial.models.saving import save_prompts
    from cocoop_tutorial.models.zero_shot import ZeroShotCLIP
    from cocoop_tutorial.training.loop import train

    clip, seen = model.clip, next(iter(subsets.values()))
    zero = ZeroShotCLIP(clip, seen.classnames, seen.template, scores.has_duplicate_names(seen))
    size = config.feature_batch
    # First, so that a test image that cannot be read stops the run before it trains.
    rows = {scores.label(zero): scores.score(zero, subsets, feature_batch=size)}
    history = train(model, seen, config, folder=folder)
    rows[scores.label(model)] = scores.score(model, subsets, feature_batch=size)
    settings = vars(config.resolved(type(model).__name__, clip.precision)) | facts
    result = {
        "method": scores.label(model),
        "backbone": clip.name,
        "device": str(clip.device),
        **settings,
        "split": "test",
        "trainable": sum(p.numel() for p in model.prompt_parameters().values()),
        "scores": rows,
        "history": history.to_dict("records"),
        "prompts": str(folder / PROMPTS),
    }
    if distributed.is_main():
        save_prompts(model, folder / PROMPTS, training=settings)
        write_atomic(folder / RESULT, (json.dumps(result, indent=1) + "\n").encode())
    return result
