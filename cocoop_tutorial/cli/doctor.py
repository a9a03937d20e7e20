"""`cocoop doctor`: checks whether everything that the book needs is here, and says what to do.

Nothing heavy is imported before the packages have been checked, so that the doctor also works if
the installation is broken.
"""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

OK, WARN, FAIL = "ok", "warn", "fail"
PYTHON = (3, 11)
GB = 1024**3


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    Attributes:
        topic: What was checked.
        status: "ok", "warn" (works, but less well) or "fail".
        found: What is there.
        todo: What to do, unless the status is "ok".
    """

    topic: str
    status: str
    found: str
    todo: str = ""


def diagnose(root: str | Path | None = None) -> list[Finding]:
    """Runs every check.

    Args:
        root: The data root of the paper's data sets; None takes $COCOOP_DATA, else `./data`.

    Returns:
        One finding per topic. A check that crashes becomes a finding that fails.
    """
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", check_python),
        ("packages", check_packages),
        ("device", check_device),
        ("memory", check_memory),
        ("disk", check_disk),
        ("icon data", check_icons),
        ("paper's data", lambda: check_paper(root)),
        ("icon-clip", check_weights),
    ]
    return [_guarded(topic, check) for topic, check in checks]


def _guarded(topic: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a broken installation can fail in any way
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Finding(topic, FAIL, lines[0], "Fix what fails above first; then run this again.")


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Python itself."""
    found = ".".join(map(str, version))
    if tuple(version[:2]) < PYTHON:
        return Finding("python", FAIL, found, "Install Python 3.11 or newer.")
    return Finding("python", OK, found)


def check_packages(package: str = "cocoop_tutorial") -> Finding:
    """The requirements of the installed package, with their lower bounds."""
    from packaging.requirements import Requirement

    problems, parsed = {}, map(Requirement, importlib.metadata.requires(package) or [])
    needed = [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in needed:
        name, bounds = requirement.name, requirement.specifier
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            problems[f'"{name}{bounds}"'] = f"{name} is missing"
            continue
        if not bounds.contains(version, prereleases=True):
            problems[f'"{name}{bounds}"'] = f"{name} {version} ({bounds} is needed)"
    if problems:
        todo = f"pip install --upgrade {' '.join(problems)}"
        return Finding("packages", FAIL, ", ".join(problems.values()), todo)
    import torchvision  # noqa: F401 - fails if torch is of another build

    torch = importlib.metadata.version("torch")
    return Finding("packages", OK, f"{len(needed)} packages, torch {torch}")


def check_device() -> Finding:
    """GPU or CPU; either is fine."""
    import torch

    from cocoop_tutorial.results import device_name

    found = device_name()
    if torch.cuda.is_available():
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return Finding("device", OK, f"{found}, {'bf16 and fp16' if bf16 else 'fp16'}")
    if shutil.which("nvidia-smi"):
        todo = (
            "There is a driver, but torch sees no GPU. Install a torch built for its CUDA version."
        )
        return Finding("device", WARN, found, todo)
    return Finding("device", OK, f"{found}; enough for the embedded world")


def check_memory(need_gb: float = 4) -> Finding:
    """Free memory."""
    import psutil

    from cocoop_tutorial.measure import free_memory

    free, total = free_memory() / GB, psutil.virtual_memory().total / GB
    found = f"{free:.1f} GB free of {total:.1f}"
    if free < need_gb / 2:
        return Finding("memory", FAIL, found, f"Close programs: {need_gb:g} GB should be free.")
    if free < need_gb:
        return Finding("memory", WARN, found, "Enough for most chapters; close programs.")
    return Finding("memory", OK, found)


def check_disk(need_gb: float = 1, folder: Path | None = None) -> Finding:
    """Free disk space where the icon data is kept."""
    from cocoop_tutorial.files import cache_root

    folder = (folder or cache_root()).absolute()
    there = next(f for f in (folder, *folder.parents) if f.exists())
    free = shutil.disk_usage(there).free / GB
    found = f"{free:.1f} GB free in {there}"
    if free < need_gb:
        todo = f"Free {need_gb:g} GB, or set COCOOP_CACHE to a folder on another disk."
        return Finding("disk", FAIL, found, todo)
    return Finding("disk", OK, found)


def check_icons() -> Finding:
    """The rendered icon data sets."""
    from cocoop_tutorial.datasets import icons

    table = icons.summary()
    ready = int(table["ready"].sum())
    found = f"{ready} of {len(table)} data sets"
    if ready < len(table):
        return Finding("icon data", FAIL, found, "cocoop data build")
    return Finding("icon data", OK, found)


def check_paper(root: str | Path | None = None) -> Finding:
    """Which of the paper's data sets are in their folders; the book needs none of them."""
    from cocoop_tutorial.datasets.load import data_root
    from cocoop_tutorial.datasets.paper import NAMES, folder_of

    folder = data_root(root)
    there = [name for name in NAMES if (folder / folder_of(name)).is_dir()]
    found = f"{len(there)} of {len(NAMES)} in {folder}"
    return Finding("paper's data", OK, f"{found}{': ' + ', '.join(there) if there else ''}")


def check_weights(name: str = "icon-clip") -> Finding:
    """The shipped backbone: whether it loads and turns a text into a unit vector."""
    from cocoop_tutorial.clip.load import load_clip

    try:
        clip = load_clip(name, device="cpu")
        norm = clip.encode_text(["an icon of a bus."]).norm().item()
    except (OSError, ValueError, RuntimeError) as error:
        todo = "Install cocoop_tutorial again (in a clone: git checkout cocoop_tutorial/weights), "
        todo += "or make the weights: python -m cocoop_tutorial.pretraining.run"
        return Finding("icon-clip", FAIL, str(error), todo)
    if abs(norm - 1) > 1e-3:
        return Finding("icon-clip", FAIL, f"a feature of length {norm:.3g}", "Install it again.")
    millions = sum(p.numel() for p in clip.parameters()) / 1e6
    return Finding("icon-clip", OK, f"{millions:.1f} M parameters, {clip.image_size} pixels")


def report(findings: list[Finding]) -> str:
    """The findings as aligned lines of text."""
    marks = {OK: "OK  ", WARN: "warn", FAIL: "FAIL"}
    wide = max(len(f.topic) for f in findings)
    lines = []
    for f in findings:
        lines.append(f"{marks[f.status]}  {f.topic:<{wide}}  {f.found}")
        if f.todo:
            lines.append(f"{'':<{wide + 8}}-> {f.todo}")
    bad = sum(f.status == FAIL for f in findings)
    lines.append("Everything is ready." if not bad else f"{bad} to fix; see the arrows.")
    return os.linesep.join(lines)
