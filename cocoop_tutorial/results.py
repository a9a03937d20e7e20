"""Measured results as JSON files that say where their numbers come from.

Every file in `results/` holds the data and its provenance: the command, the commit, the versions,
the device and the seeds. Chapters read the results of longer runs from there.
"""

import importlib.metadata
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import cpu_count

from cocoop_tutorial.errors import DataError, MissingDataError, suggest
from cocoop_tutorial.files import read_json, write_json

PACKAGES = ("cocoop_tutorial", "torch", "torchvision", "open_clip_torch", "numpy")


def save_result(
    name: str,
    data: Any,
    command: str | None = None,
    seeds: Sequence[int] = (),
    device: str | torch.device | None = None,
    folder: Path | str | None = None,
) -> Path:
    """Writes `NAME.json`: the data and how it was made. An old file is replaced at the very end.

    Args:
        name: File name without ".json"; letters, digits, "_", "-" and ".".
        data: Any combination of dicts, lists, numbers, strings, arrays, tensors and DataFrames (a
            frame becomes the list of its rows).
        command: The command that reproduces it; None takes this process's command line.
        seeds: The seeds that were used.
        device: The device it ran on; None takes the GPU if there is one.
        folder: None takes the results folder.

    Returns:
        The path of the file.

    Raises:
        FileError: It cannot be written.
    """
    folder = Path(folder) if folder else results_folder(make=True)
    content = {"provenance": provenance(command, seeds, device), "data": data}
    return write_json(folder / f"{name}.json", _plain(content), indent=1)


def load_result(name: str, folder: Path | str | None = None) -> dict[str, Any]:
    """Reads `NAME.json`.

    Args:
        name: File name without ".json".
        folder: None takes the results folder.

    Returns:
        A dict with "data" and "provenance".

    Raises:
        MissingDataError: There is no such result; the message suggests similar names.
        DataError: The file is damaged.
        FileError: It cannot be read.
    """
    folder = Path(folder) if folder else results_folder()
    path = folder / f"{name}.json"
    if not path.is_file():
        known = [f.stem for f in sorted(folder.glob("*.json"))]
        hint = suggest(name, known) if known else "The folder has no results yet."
        raise MissingDataError(f"There is no result {path}. {hint}")
    remedy = "Restore it from the repository."
    content = read_json(path, remedy)
    if not isinstance(content, dict) or not {"data", "provenance"} <= content.keys():
        raise DataError(f"{path} is damaged (it has no data, or no provenance). {remedy}")
    return content


def results_folder(make: bool = False) -> Path:
    """Finds the results: in $COCOOP_RESULTS, in the clone you are working in, or in the package.

    Args:
        make: Return the clone's folder even if it does not exist yet.

    Raises:
        MissingDataError: There is none; the message says how to name one.
    """
    if given := os.environ.get("COCOOP_RESULTS"):
        return Path(os.path.expanduser(given))
    here = Path.cwd()
    roots = [r for r in (here, *here.parents) if (r / "cocoop_tutorial").is_dir()]
    roots += [Path(__file__).parents[1], Path(__file__).parent]
    for root in roots:
        if (root / "results").is_dir() or (make and (root / "pyproject.toml").is_file()):
            return root / "results"
    raise MissingDataError(
        "There is no results folder here. Set COCOOP_RESULTS to the 'results' folder of a clone."
    )


def provenance(
    command: str | None = None,
    seeds: Sequence[int] = (),
    device: str | torch.device | None = None,
) -> dict[str, Any]:
    """What a reader needs to reproduce a number.

    Args:
        command: None takes this process's command line.
        seeds: The seeds that were used.
        device: None takes the GPU if there is one.

    Returns:
        Command, commit, date, versions, device, threads and seeds.
    """
    return {
        "command": command or _command(),
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": {"python": platform.python_version(), **package_versions()},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "seeds": list(seeds),
    }


def device_name(device: str | torch.device | None = None) -> str:
    """A device in words, such as "NVIDIA T4, 15 GB" or "CPU, 2 cores, x86_64 AVX2"."""
    kind = torch.device(device).type if device else ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda":
        facts = torch.cuda.get_device_properties(0)
        return f"{facts.name}, {facts.total_memory / 1024**3:.0f} GB"
    # CPUs with equally many cores can differ threefold in speed, mostly by their instruction set.
    level = torch.backends.cpu.get_cpu_capability().replace("DEFAULT", "")
    return f"{kind.upper()}, {cpu_count()} cores, {platform.machine()} {level}".rstrip()


def _command() -> str:
    """The command line without folders, because these differ from machine to machine."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name:
        first = f"python -m {spec.name.removesuffix('.__main__')}"
    else:
        first = Path(sys.argv[0]).name or "python"
    return " ".join([first, *map(shlex.quote, sys.argv[1:])])


def _commit() -> str:
    """The short commit of the clone, with "+" if files differ from it, or "" outside a clone."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        run = {"capture_output": True, "text": True, "check": True, "timeout": 30}
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], **run).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", ":/"], **run
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+" if changed.strip() else "")


def package_versions() -> dict[str, str]:
    """The installed version of each package that a number depends on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _plain(value: Any) -> Any:
    """The same content in types that JSON knows; not-a-number becomes null."""
    if isinstance(value, pd.DataFrame):
        return [_plain(row) for row in value.to_dict(orient="records")]
    if isinstance(value, pd.Series):
        return _plain(value.to_dict())
    if isinstance(value, torch.Tensor):
        return _plain(value.detach().cpu().tolist())
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return value.name  # the folders before it belong to one machine
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"a result cannot hold a {type(value).__name__}; make it a number or a list")
