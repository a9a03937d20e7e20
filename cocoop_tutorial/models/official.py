"""Prompts of the official code: import and export (chapter 10)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cocoop_tutorial.checkpoints.official import read_official, write_official
from cocoop_tutorial.checkpoints.prompts import check_finite, check_fit
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import CheckpointError
from cocoop_tutorial.models.cocoop import CoCoOp
from cocoop_tutorial.models.coop import CoOp
from cocoop_tutorial.text_encoder.prompts import ClassPrompts

FIXED = ("token_prefix", "token_suffix")  # embedded class names: they follow from the names


def load_official(
    path: str | Path,
    clip: FrozenCLIP,
    classnames: Sequence[str],
    class_token_position: str = "end",
    allow_duplicates: bool = False,
) -> CoOp | CoCoOp:
    """Reads a checkpoint of the official code.

    Args:
        path: The file, such as `prompt_learner/model.pth.tar-50`.
        clip: The backbone that it was trained on; the file does not name it.
        classnames: K names; the file does not hold them either.
        class_token_position: Where the name is, for CoOp; the file does not say.
        allow_duplicates: Two classes may share a name.

    Returns:
        A CoCoOp if the file has a Meta-Net, otherwise a CoOp.

    Raises:
        MissingDataError: No such file.
        CheckpointError: The file holds more than tensors, holds no prompt, has values that are
            not finite, or does not fit the backbone.
    """
    state = read_official(path)
    ctx = state["ctx"]
    wanted = {"text width": ctx.shape[-1]}
    if "token_suffix" in state:
        wanted["context length"] = 1 + ctx.shape[-2] + state["token_suffix"].shape[1]
    if "meta_net.linear1.weight" in state:
        wanted["joint width"] = state["meta_net.linear1.weight"].shape[1]
    check_fit(clip, wanted, path)
    check_finite(state, path)
    learned = {name: value for name, value in state.items() if name not in FIXED}
    n_ctx, common = ctx.shape[-2], {"allow_duplicates": allow_duplicates}
    with torch.random.fork_rng(devices=[]):  # the first context is drawn, then overwritten
        if any(name.startswith("meta_net.") for name in learned):
            model = CoCoOp(clip, classnames, n_ctx, None, **common)
        else:
            specific = ctx.dim() == 3
            model = CoOp(clip, classnames, n_ctx, None, class_token_position, specific, **common)
    try:
        model.load_prompt_state(learned)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return model


def save_official(model: CoOp | CoCoOp, path: str | Path, epoch: int) -> Path:
    """Writes a checkpoint that the official code's `load_model` reads.

    Args:
        model: The prompt learner.
        path: By the official code's convention `prompt_learner/model.pth.tar-EPOCH`.
        epoch: The number of epochs trained.

    Returns:
        The path.

    Raises:
        CheckpointError: The file cannot be written.
    """
    state, words = model.prompt_state(), _embedded_names(model)
    ordered = {"ctx": state.pop("ctx")}
    ordered["token_prefix"] = words[:, :1].contiguous()
    ordered["token_suffix"] = words[:, 1 + model.n_ctx :].contiguous()
    return write_official(path, ordered | state, epoch)


def _embedded_names(model: CoOp | CoCoOp) -> Tensor:
    """`[K, N, D]`: the official code embeds names after the context, wherever they go later."""
    old = model.prompts
    prompts = ClassPrompts(
        model.clip, old.classnames, old.n_ctx, allow_duplicates=old.allow_duplicates
    )
    return model.clip.text_tower.token_embedding(prompts.tokens).detach().to("cpu", torch.float32)
