"""`cocoop train` and `cocoop evaluate` (chapters 3 and 10)."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cocoop_tutorial.cli.evaluate import (
    EVALUATE_HELP,
    PROMPTS,
    Device,
    FeatureBatch,
    Half,
    Json,
    Parts,
    Position,
    Precision,
    Root,
    Skip,
    evaluate,
    has_twins,
    label,
    load_data,
    parts_of,
    score_parts,
    show_scores,
)

if TYPE_CHECKING:  # --help and its like must not wait for PyTorch
    from cocoop_tutorial.clip.frozen import FrozenCLIP
    from cocoop_tutorial.models.prompt_learner import PromptLearner
    from cocoop_tutorial.training.config import TrainConfig

WORDS = "a photo of a"  # what the paper's contexts begin as
RESULT = "result.json"

TRAIN_HELP = """Learn a prompt, and score it on the classes it saw and on those it did not.

\b
Examples:
  cocoop train
      CoCoOp on half of the emoji animals, 16 images a class, as in the paper.
  cocoop train --method coop --data emoji_food --epochs 20 --lr 0.05
      CoOp on emoji food, a shorter schedule.
  cocoop train --data photos/ --shots 8 --classes all --out runs/photos
      Your own images: one sub-folder a class.
  cocoop train --backbone ViT-B-16/openai --data caltech101 --root data \\
      --transform train --precision amp
      The paper's world, with its random crops; needs a GPU to be quick.
  torchrun --nproc-per-node 2 -m cocoop_tutorial train --batch-size 8
      Two processes (two GPUs, if there are) share each step's 8 images.

The folder --out gets training.safetensors (the checkpoint), prompts.safetensors (the learned \
prompt, some kilobytes) and result.json. The same command goes on where a stopped run left off.

The exit status is 0 when all went well, 1 on an error that is named, 2 on a wrong option.
"""
Method = StrEnum("Method", ["cocoop", "coop"])
Classes = StrEnum("Classes", ["base", "all"])
View = StrEnum("View", ["test", "train"])


def register(app: typer.Typer) -> None:
    """Adds both commands to the command line."""
    app.command("train", help=TRAIN_HELP)(train)
    app.command("evaluate", help=EVALUATE_HELP)(evaluate)


def train(
    method: Annotated[Method, typer.Option(help="What to train.")] = Method.cocoop,
    backbone: Annotated[
        str, typer.Option(help="emoji-clip, MODEL/TAG of open_clip, or local-dir:PATH.")
    ] = "emoji-clip",
    data: Annotated[
        str, typer.Option(help="A data set ('cocoop data show'), or a folder of images.")
    ] = "emoji_animals",
    root: Root = None,
    classes: Annotated[
        Classes, typer.Option(help="base: the first half; the rest is for testing.")
    ] = Classes.base,
    shots: Annotated[int, typer.Option(min=1, help="Training images a class.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the shots, the start and the order.")] = 1,
    ctx_init: Annotated[
        str | None, typer.Option(help=f"First words of the context; by default '{WORDS}'.")
    ] = None,
    n_ctx: Annotated[
        int | None, typer.Option(min=1, help="Begin with that many random vectors, not words.")
    ] = None,
    class_token_position: Annotated[
        Position, typer.Option(help="CoOp only: where in the context the name stands.")
    ] = Position.end,
    class_specific: Annotated[
        bool, typer.Option("--class-specific", help="CoOp only: a context for each class.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="By default the paper's: cocoop 10, coop 200.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images a step; by default cocoop 1, coop 32.")
    ] = None,
    micro_batch: Annotated[
        int | None, typer.Option(min=1, help="Images at once: less memory, the same step.")
    ] = None,
    feature_batch: FeatureBatch = 128,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 0.002,
    warmup_epochs: Annotated[int, typer.Option(min=0, help="Epochs at 1e-5 first.")] = 1,
    transform: Annotated[
        View, typer.Option(help="test: fixed, quick; train: the paper's random crops.")
    ] = View.test,
    precision: Precision = Half.fp32,
    device: Device = None,
    out: Annotated[Path | None, typer.Option(help="By default runs/DATA-METHOD-SEED.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget the run that is in the folder.")
    ] = False,
    skip_unreadable: Skip = False,
    as_json: Json = False,
) -> None:
    """See TRAIN_HELP; the options' defaults are the paper's."""
    from cocoop_tutorial import distributed
    from cocoop_tutorial.clip.load import load_clip
    from cocoop_tutorial.datasets import few_shot
    from cocoop_tutorial.training.config import TrainConfig
    from cocoop_tutorial.training.state import FILE

    options: dict[str, Any] = {"n_ctx": n_ctx, "ctx_init": ctx_init}
    if ctx_init is None and n_ctx is None:
        options["ctx_init"] = WORDS
    if method == "coop":
        options["class_token_position"] = class_token_position.value
        options["class_specific"] = class_specific
    elif class_specific or class_token_position != "end":
        raise typer.BadParameter(
            "--class-specific and --class-token-position belong to CoOp. Add --method coop."
        )
    config = TrainConfig(
        epochs=epochs, batch_size=batch_size, micro_batch=micro_batch,
        feature_batch=feature_batch, lr=lr, warmup_epochs=warmup_epochs,
        transform=transform.value, seed=seed,
    )  # fmt: skip
    folder = out or Path("runs") / f"{Path(data).resolve().name}-{method}-{seed}"
    with distributed.session(device) as own_device:
        images = few_shot(load_data(data, root), shots, seed)
        parts = parts_of(images, classes == "base", skip_unreadable)
        model = _new_model(
            load_clip(backbone, own_device, precision.value), parts, method.value, options, seed
        )
        if restart and distributed.is_main():
            (folder / FILE).unlink(missing_ok=True)
        facts = {"data": data, "classes": classes.value, "shots": shots}
        result = _train_and_score(model, parts, config, facts, folder)
        if distributed.is_main():
            show_scores(result, as_json)


def _new_model(
    clip: "FrozenCLIP", parts: Parts, method: str, options: dict[str, Any], seed: int
) -> "PromptLearner":
    """An untrained model of the classes to train on."""
    import torch

    from cocoop_tutorial.models.cocoop import CoCoOp
    from cocoop_tutorial.models.coop import CoOp

    seen = next(iter(parts.values()))
    torch.manual_seed(seed)  # of a random context and the Meta-Net
    build = {"coop": CoOp, "cocoop": CoCoOp}[method]
    return build(clip, seen.classnames, **options, allow_duplicates=has_twins(seen))


def _train_and_score(
    model: "PromptLearner",
    parts: Parts,
    config: "TrainConfig",
    facts: dict[str, Any],
    folder: Path,
) -> dict[str, Any]:
    """Trains on the first part, scores all, and writes the prompt and the result."""
    from cocoop_tutorial import distributed
    from cocoop_tutorial.checkpoints.prompts import save_prompts, write_atomic
    from cocoop_tutorial.models.zero_shot import ZeroShotCLIP
    from cocoop_tutorial.training.loop import train

    clip, seen = model.clip, next(iter(parts.values()))
    zero = ZeroShotCLIP(clip, seen.classnames, seen.template, has_twins(seen))
    size = config.feature_batch
    # First of all, so that a test image that cannot be read stops the run before it trains.
    scores = {label(zero): score_parts(zero, parts, feature_batch=size)}
    history = train(model, seen, config, folder=folder)
    scores[label(model)] = score_parts(model, parts, feature_batch=size)
    settings = vars(config.resolved(type(model).__name__, clip.precision)) | facts
    result = {
        "method": label(model),
        "backbone": clip.name,
        "device": str(clip.device),
        **settings,
        "split": "test",
        "trainable": sum(p.numel() for p in model.prompt_parameters().values()),
        "scores": scores,
        "history": history.to_dict("records"),
        "prompts": str(folder / PROMPTS),
    }
    if distributed.is_main():
        save_prompts(model, folder / PROMPTS, training=settings)
        write_atomic(folder / RESULT, (json.dumps(result, indent=1) + "\n").encode())
    return result
