"""Learned prompts on disk: a few kilobytes of safetensors with all that rebuilds the model.

The backbone is not in the file, only its name. Introduced in chapter 10.
"""

import contextlib
import dataclasses
import json
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.load import load_clip
from cocoop_tutorial.errors import CheckpointError, MissingDataError
from cocoop_tutorial.models.cocoop import CoCoOp
from cocoop_tutorial.models.coop import CoOp
from cocoop_tutorial.models.prompt_learner import PromptLearner

METHODS: dict[str, type[PromptLearner]] = {"CoOp": CoOp, "CoCoOp": CoCoOp}
KEY = "cocoop_tutorial"  # of our facts in the file's metadata
VERSION = 1  # of the file's layout


def save_prompts(
    model: PromptLearner, path: str | Path, training: Mapping[str, Any] | Any | None = None
) -> Path:
    """Writes the learned prompt to a safetensors file.

    The file appears whole or not at all: a full disk leaves an older file as it was.

    Args:
        model: A CoOp or CoCoOp.
        path: The file; missing folders are made.
        training: The training settings to keep with it: a mapping or a dataclass.

    Returns:
        The path.

    Raises:
        CheckpointError: The file cannot be written.
    """
    metadata = {"format": "pt", KEY: json.dumps(describe(model, training), default=str)}
    return write_atomic(path, safetensors.torch.save(model.prompt_state(), metadata))


def load_prompts(
    path: str | Path, clip: FrozenCLIP | None = None, classnames: Sequence[str] | None = None
) -> PromptLearner:
    """Builds the model that `save_prompts` wrote.

    Args:
        path: The file.
        clip: The backbone, if you have it; None loads the one that the file names.
        classnames: Other classes for the same prompt; None takes those of the file.

    Returns:
        A CoOp or CoCoOp.

    Raises:
        MissingDataError: No such file.
        CheckpointError: Not such a file, or made for another width or context length.
    """
    facts, state = read_prompts(path)
    clip = clip or load_clip(facts["backbone"])
    check_fit(clip, facts["sizes"], path)
    if clip.name != facts["backbone"]:
        warnings.warn(
            f"{path} was trained on {facts['backbone']!r}, and is now loaded on {clip.name!r}: "
            "its numbers mean something only if these are the same weights.",
            stacklevel=2,
        )
    with torch.random.fork_rng(devices=[]):  # the first context is drawn, then overwritten
        model = METHODS[facts["method"]](clip, facts["classnames"], **facts["options"])
    try:
        model.load_prompt_state(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return model if classnames is None else model.with_classnames(classnames)


def describe(model: PromptLearner, training: Mapping[str, Any] | Any | None) -> dict[str, Any]:
    """What a file says of its prompt, besides the numbers: plain values for JSON."""
    if dataclasses.is_dataclass(training) and not isinstance(training, type):
        training = dataclasses.asdict(training)
    return {
        "version": VERSION,
        "method": type(model).__name__,
        "backbone": model.clip.name,
        "sizes": sizes(model.clip),
        "options": model.options(),
        "classnames": model.classnames,
        "training": dict(training or {}),
    }


def read_prompts(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a file without building anything.

    Returns:
        The facts (method, backbone, sizes, options, classnames, training), and the parameters
        by name.

    Raises:
        MissingDataError: No such file.
        CheckpointError: Damaged, or not written by `save_prompts`.
    """
    if not Path(path).is_file():
        raise MissingDataError(f"There is no file {path}. save_prompts writes such files.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})[KEY])
            state = {name: file.get_tensor(name) for name in file.keys()}
    except KeyError as error:
        raise CheckpointError(
            f"{path} holds tensors, but not the facts that save_prompts adds. "
            "Was it written by another program?"
        ) from error
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({error}). Copy it again; for the official "
            "code's model.pth.tar-N files use load_official."
        ) from error
    if facts.get("version") != VERSION or facts.get("method") not in METHODS:
        raise CheckpointError(
            f"{path} has layout {facts.get('version')!r} and method {facts.get('method')!r}; this "
            f"library reads layout {VERSION} of {', '.join(METHODS)}. Update the library."
        )
    if missing := {"backbone", "sizes", "options", "classnames"} - facts.keys():
        raise CheckpointError(
            f"{path} does not say its {', '.join(sorted(missing))}. Save it with save_prompts."
        )
    return facts, state


def sizes(clip: FrozenCLIP) -> dict[str, int]:
    """The numbers of a backbone that a prompt must fit."""
    return {
        "text width": clip.text_width,
        "joint width": clip.embed_dim,
        "context length": clip.context_length,
    }


def check_fit(clip: FrozenCLIP, wanted: Mapping[str, int], path: str | Path) -> None:
    """Compares a checkpoint's sizes with the backbone's.

    Raises:
        CheckpointError: One differs; the message says which.
    """
    here = sizes(clip)
    wrong = [f"{name} {n} (here {here[name]})" for name, n in wanted.items() if n != here[name]]
    if wrong:
        raise CheckpointError(
            f"{path} does not fit {clip.name!r}: it was made for {', '.join(wrong)}. "
            "Load the backbone that it was trained on."
        )


def write_atomic(path: str | Path, data: bytes) -> Path:
    """Writes a file that is there whole or not at all, even if the power or the disk gives out.

    Args:
        path: The file; missing folders are made.
        data: Its content.

    Returns:
        The path.

    Raises:
        CheckpointError: It cannot be written; what was there before is untouched.
    """
    path = Path(path)
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, because a rename is atomic only within a file system.
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            part = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"{path} could not be written ({error.strerror}). What was there before is unchanged; "
            "free some space or choose another folder."
        ) from error
    finally:
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
    return path


def _umask() -> int:
    """The permissions that new files lack here (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
