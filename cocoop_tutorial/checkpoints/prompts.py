"""The file of a learned prompt: a few kilobytes of tensors, and facts about them (chapter 10).

The backbone is not in the file, only its name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.errors import CheckpointError
from cocoop_tutorial.files import read_tensors, write_tensors

VERSION = 1  # of the file's layout
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
SIZES = ("text width", "joint width", "context length")
Value = str | int | float | bool | None  # of an option: a JSON value without nesting


def write_prompts(path: str | Path, facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> Path:
    """Writes the file completely or not at all: if the disk is full, an older file stays.

    Args:
        path: The file; missing folders are made.
        facts: Method, backbone, sizes, options, class names, training settings.
        state: The parameters by name.

    Returns:
        The path.

    Raises:
        CheckpointError: A parameter is not finite, or the file cannot be written.
    """
    check_finite(state, path)
    return write_tensors(path, state, {"version": VERSION, **facts})


def read_prompts(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads a file without building anything.

    Returns:
        The facts (method, backbone, sizes, options, classnames, training), and the parameters
        by name.

    Raises:
        MissingDataError: No such file.
        CheckpointError: Damaged, or not written by `save_prompts`.
    """
    facts, state = read_tensors(
        path, "Copy it again; for the official code's model.pth.tar-N files use load_official."
    )
    check_facts(facts, path)
    check_finite(state, path)
    return facts, state


def check_facts(facts: Mapping[str, Any], path: str | Path) -> None:
    """Checks that a file has the facts that a model is rebuilt from, each of the right type.

    Raises:
        CheckpointError: One is missing or of another type; the message names it.
    """
    if facts.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has layout {facts.get('version')!r}; this library reads layout {VERSION}. "
            "Update the library."
        )
    needed = ("method", "backbone", "sizes", "options", "classnames")
    if missing := [name for name in needed if name not in facts]:
        raise CheckpointError(
            f"{path} does not say its {', '.join(missing)}. Save it with save_prompts."
        )
    sizes, options, names = facts["sizes"], facts["options"], facts["classnames"]
    right = {
        "method": isinstance(facts["method"], str),
        "backbone": isinstance(facts["backbone"], str),
        "sizes": isinstance(sizes, dict)
        and sizes.keys() == set(SIZES)
        and all(type(size) is int for size in sizes.values()),
        "options": isinstance(options, dict)
        and all(isinstance(value, Value) for value in options.values()),
        "classnames": isinstance(names, list) and all(isinstance(name, str) for name in names),
        "training": isinstance(facts.get("training", {}), dict),
    }
    refuse_impossible(facts, right, path, "Copy it again.")


def refuse_impossible(
    facts: Mapping[str, Any], right: Mapping[str, bool], path: str | Path, remedy: str
) -> None:
    """Refuses a file with facts that cannot be.

    Args:
        facts: The facts.
        right: Whether each is right, by name.
        path: The file.
        remedy: What to do.

    Raises:
        CheckpointError: One is not; the message names it and its value.
    """
    if wrong := [f"{name} {facts.get(name)!r:.80}" for name, fine in right.items() if not fine]:
        raise CheckpointError(f"{path} has an impossible {', '.join(wrong)}. {remedy}")


def check_finite(
    state: Mapping[str, Tensor],
    path: str | Path,
    remedy: str = "Train the prompt again with a lower lr.",
) -> None:
    """Refuses parameters that are not floating-point numbers, or not finite.

    Raises:
        CheckpointError: One is not; the message names it.
    """
    for name, value in state.items():
        if value.dtype not in FLOATS:
            raise CheckpointError(f"{path}: {name} holds {value.dtype} values. {remedy}")
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: {name} has values that are not finite. {remedy}")


def sizes_of(clip: FrozenCLIP) -> dict[str, int]:
    """The sizes of a backbone that a prompt must fit."""
    return dict(zip(SIZES, (clip.text_width, clip.embed_dim, clip.context_length), strict=True))


def check_fit(clip: FrozenCLIP, wanted: Mapping[str, int], path: str | Path) -> None:
    """Compares a checkpoint's sizes with the backbone's.

    Raises:
        CheckpointError: One differs; the message says which.
    """
    here = sizes_of(clip)
    wrong = [f"{name} {n} (here {here[name]})" for name, n in wanted.items() if n != here[name]]
    if wrong:
        raise CheckpointError(
            f"{path} does not fit {clip.name!r}: it was made for {', '.join(wrong)}. "
            "Load the backbone that it was trained on."
        )
