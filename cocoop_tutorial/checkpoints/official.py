"""The official code's checkpoint files, `prompt_learner/model.pth.tar-N` (chapter 10).

These files are pickles, and a pickle can run any program when it is read. Here they are read by
PyTorch's restricted reader, which knows tensors and plain containers only.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cocoop_tutorial.errors import CheckpointError, MissingDataError
from cocoop_tutorial.files import write_atomic

# How many axes each tensor has whose shape says how large the model is.
DIMENSIONS = {"token_prefix": 3, "token_suffix": 3, "meta_net.linear1.weight": 2}


class _Ignored:
    """Replaces the optimiser and scheduler objects in official files; does nothing."""

    def __init__(self, *_: Any) -> None:
        """Accepts any arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignores the state."""


def _plain_dict(*_: Any) -> dict[Any, Any]:
    return {}


# Dassl's warm-up scheduler contains another scheduler, and that one its optimiser, as objects. The
# reader makes objects that do nothing in place of these classes.
_OPTIMISERS = (
    "torch.optim.adam.Adam",
    "torch.optim.adamw.AdamW",
    "torch.optim.rmsprop.RMSprop",
    "torch.optim.sgd.SGD",
    "dassl.optim.radam.RAdam",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.optim.lr_scheduler.MultiStepLR",
    "torch.optim.lr_scheduler.StepLR",
)
_HARMLESS = [
    (_plain_dict, "collections.defaultdict"),
    (dict, "builtins.dict"),
    *((_Ignored, name) for name in _OPTIMISERS),
]
PREFIXES = ("module.", "prompt_learner.")  # of a model in DataParallel, and of a whole model's file


def read_official(path: str | Path) -> dict[str, Tensor]:
    """The tensors of an official checkpoint, by name; nothing in the file is executed.

    Checkpoints of KgCoOp (2303.13283) are read as CoOp's, because a trained KgCoOp is one.

    Raises:
        MissingDataError: No such file.
        CheckpointError: The file holds more than tensors, is damaged, or holds no prompt.
    """
    content = _load(path)
    state = content.get("state_dict") if isinstance(content, dict) else None
    state = state if isinstance(state, dict) else {}
    tensors = {_bare(str(n)): value for n, value in state.items() if isinstance(value, Tensor)}
    if "ctx" not in tensors or tensors["ctx"].dim() not in (2, 3):
        raise CheckpointError(
            f"{path} has no state_dict with a context ('ctx'). Official prompts are in "
            "prompt_learner/model.pth.tar-N."
        )
    if "bias_vectors" in tensors:  # KgCoOp: a CoOp whose other parameters are never used
        unused = ("bias_vectors", "meta_net.linear1.weight", "meta_net.linear1.bias")
        tensors = {name: value for name, value in tensors.items() if name not in unused}
    for name, value in tensors.items():
        if value.layout is not torch.strided or value.is_meta:
            raise CheckpointError(f"{path}: {name} is not an ordinary tensor. Save it densely.")
        if value.numel() * value.itemsize > value.untyped_storage().nbytes():
            raise CheckpointError(f"{path}: {name} claims to be larger than its data in the file.")
    for name, dims in DIMENSIONS.items():
        if name in tensors and tensors[name].dim() != dims:
            raise CheckpointError(f"{path}: {name} has {tensors[name].dim()} axes, not {dims}.")
    return tensors


def _bare(name: str) -> str:
    """The name of a tensor without prefixes."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _load(path: str | Path) -> Any:
    if not Path(path).is_file():
        raise MissingDataError(f"There is no file {path}.")
    try:
        if zipfile.is_zipfile(path):  # torch.load does not look at the checksums in the archive
            with zipfile.ZipFile(path) as archive:
                if bad := archive.testzip():
                    raise ValueError(f"the checksum of {bad} differs")
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is not a checkpoint, or holds more than tensors and plain containers. It was "
            f"refused and nothing in it was run. {_reason(error)}"
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(f"{path} is damaged ({_reason(error)}). Copy it again.") from error


def write_official(path: str | Path, state: Mapping[str, Tensor], epoch: int) -> Path:
    """Writes a file that the official code's `load_model` reads.

    Args:
        path: By the official code's convention `prompt_learner/model.pth.tar-EPOCH`.
        state: The tensors, in the official order.
        epoch: The number of epochs trained.

    Returns:
        The path.

    Raises:
        CheckpointError: The file cannot be written.
    """
    content = {"state_dict": OrderedDict(state), "epoch": epoch}
    content |= dict.fromkeys(("optimizer", "scheduler", "val_result"))
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return write_atomic(path, buffer.getvalue())


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return next((line.strip() for line in lines if "GLOBAL" in line), lines[0] if lines else "")
