"""The official code's checkpoints, `prompt_learner/model.pth.tar-N`: import and export.

These files are pickles, and a pickle can run any program when it is read. Here they are read by
PyTorch's restricted reader, which knows tensors and plain containers only. Chapter 10.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cocoop_tutorial.checkpoints.prompts import check_fit, write_atomic
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import CheckpointError, MissingDataError
from cocoop_tutorial.models.cocoop import CoCoOp
from cocoop_tutorial.models.coop import CoOp
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.text_encoder.prompts import ClassPrompts

FIXED = ("token_prefix", "token_suffix")  # embedded class names: they follow from the names


class _Ignored:
    """Stands in for the optimiser and scheduler objects in official files; does nothing."""

    def __init__(self, *_: Any) -> None:
        """Takes anything."""

    def __setstate__(self, state: Any) -> None:
        """Throws the state away."""


def _plain_dict(*_: Any) -> dict[Any, Any]:
    return {}


# Dassl's warm-up keeps its inner scheduler, and that its optimiser, as objects in "scheduler".
# Under these names the reader makes what stands on the left, never the objects themselves.
_HARMLESS = [
    (_plain_dict, "collections.defaultdict"),
    (dict, "builtins.dict"),
    (_Ignored, "torch.optim.adam.Adam"),
    (_Ignored, "torch.optim.lr_scheduler.CosineAnnealingLR"),
    (_Ignored, "torch.optim.lr_scheduler.MultiStepLR"),
    (_Ignored, "torch.optim.lr_scheduler.StepLR"),
    (_Ignored, "torch.optim.sgd.SGD"),
]


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
        class_token_position: The place of the name, for CoOp; the file does not say.
        allow_duplicates: Two classes may share a name.

    Returns:
        A CoCoOp if the file has a Meta-Net, else a CoOp.

    Raises:
        MissingDataError: No such file.
        CheckpointError: The file holds more than tensors, is no prompt learner's, or does not
            fit the backbone.
    """
    state = read_official(path)
    ctx = state["ctx"]
    wanted = {"text width": ctx.shape[-1]}
    if "token_suffix" in state:
        wanted["context length"] = 1 + ctx.shape[-2] + state["token_suffix"].shape[1]
    if "meta_net.linear1.weight" in state:
        wanted["joint width"] = state["meta_net.linear1.weight"].shape[1]
    check_fit(clip, wanted, path)
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


def read_official(path: str | Path) -> dict[str, Tensor]:
    """The tensors of an official checkpoint, by name; nothing in the file is executed.

    Raises:
        MissingDataError: No such file.
        CheckpointError: The file holds more than tensors, or is no prompt learner's.
    """
    if not Path(path).is_file():
        raise MissingDataError(f"There is no file {path}.")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is no checkpoint, or holds more than tensors and plain containers. It was "
            f"refused and nothing in it was run. {_reason(error)}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged ({_reason(error)}). Copy it again.") from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    ctx = state.get("ctx") if isinstance(state, dict) else None
    if not isinstance(ctx, Tensor) or ctx.dim() not in (2, 3):
        raise CheckpointError(
            f"{path} has no state_dict with a context ('ctx'). Official prompts are in "
            "prompt_learner/model.pth.tar-N."
        )
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


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
    words = _embedded_names(model)
    state = OrderedDict(ctx=model.prompt_state()["ctx"])
    state["token_prefix"] = words[:, :1].contiguous()
    state["token_suffix"] = words[:, 1 + model.n_ctx :].contiguous()
    state.update({n: p for n, p in model.prompt_state().items() if n != "ctx"})
    content = {"state_dict": state, "epoch": epoch}
    content |= dict.fromkeys(("optimizer", "scheduler", "val_result"))
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return write_atomic(path, buffer.getvalue())


def _embedded_names(model: PromptLearner) -> Tensor:
    """`[K, N, D]`: the official code embeds names behind the context, wherever they go later."""
    old = model.prompts
    prompts = ClassPrompts(
        model.clip, old.classnames, old.n_ctx, allow_duplicates=old.allow_duplicates
    )
    return model.clip.text_tower.token_embedding(prompts.tokens).detach().to("cpu", torch.float32)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return next((line.strip() for line in lines if "GLOBAL" in line), lines[0] if lines else "")
