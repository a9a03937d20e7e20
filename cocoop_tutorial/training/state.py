"""A run on disk: all that it needs to continue to the same bits after being killed (chapter 3).

The file holds the parameters, the optimiser's momentum, the loss scaler, the history so far, and
the progress of the run. Random generators need not be saved, because each step's draws follow from
the seed and the step's number.
"""

import contextlib
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.amp import GradScaler

from cocoop_tutorial import distributed
from cocoop_tutorial.checkpoints.prompts import check_finite, refuse_impossible
from cocoop_tutorial.clip.identity import (
    describe_transform,
    machine,
    structure,
    weights_digest,
)
from cocoop_tutorial.datasets.images import image_digests
from cocoop_tutorial.datasets.splits import Dataset
from cocoop_tutorial.errors import CheckpointError, FileError
from cocoop_tutorial.files import read_tensors, write_tensors
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.training.batches import epoch_batches
from cocoop_tutorial.training.config import TrainConfig

FILE = "training.safetensors"
LOCK = ".lock"  # beside it, while a run is at work there
VERSION = 2  # of the file's layout
LARGE = 2**63
REMEDY = f"Remove {FILE} to start again, or train in another folder."


@dataclass
class Progress:
    """How far a run is, and what it has seen in the current epoch.

    Attributes:
        epoch: Epochs that are finished.
        step: Steps of the current epoch that are done.
        loss: Sum of the losses of the images of these steps.
        correct: How many of them were classified correctly.
        images: How many they are.
        seconds: Time that the current epoch has taken, including that of a process killed in it.
        rows: The history: one row per finished epoch.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    correct: float = 0.0
    images: int = 0
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)


@dataclass
class TrainState:
    """All that changes during a run.

    Attributes:
        parameters: What trains, by name.
        optimizer: SGD over these parameters.
        scaler: The loss scaler; it does nothing unless enabled.
        budget: Bytes that the text encoder may use. Kept because chunks of another size round
            differently.
        machine: Where the run began, from `where`.
        progress: How far the run is.
    """

    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.SGD
    scaler: GradScaler
    budget: int
    machine: dict[str, Any]
    progress: Progress = field(default_factory=Progress)

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and their momentum, on the CPU, by name."""
        found = {}
        for name, parameter in self.parameters.items():
            found[f"parameter.{name}"] = parameter.detach()
            momentum = self.optimizer.state[parameter].get("momentum_buffer")
            if momentum is not None:
                found[f"momentum.{name}"] = momentum
        return {name: value.cpu().contiguous() for name, value in found.items()}

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Loads what `tensors` returned."""
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"parameter.{name}"])
            if (momentum := tensors.get(f"momentum.{name}")) is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter.device)


def where(device: torch.device) -> dict[str, Any]:
    """What the last bits of a run depend on, besides its settings."""
    return {**machine(device), "processes": distributed.world_size()}


@contextlib.contextmanager
def own_folder(folder: Path | None) -> Iterator[None]:
    """Keeps other runs out of a folder until the block ends, or its process does.

    Blocks of one thread may be nested. Under `torchrun` the main process holds the folder.

    Args:
        folder: Made if missing; None does nothing.

    Raises:
        CheckpointError: Another run is at work there.
        FileError: The folder cannot be made or written to.
    """
    with contextlib.ExitStack() as stack:
        if folder:
            distributed.from_main(lambda: stack.enter_context(_locked(folder)))
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder.resolve() / LOCK, is_singleton=True)  # one object: it can be nested
    try:
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise CheckpointError(
            f"Another run is at work in {folder}. Wait for it, stop it (after a crash, a process "
            "of it may be left), or choose another folder."
        ) from error
    except OSError as error:
        raise FileError(
            f"{folder} cannot be made or written to ({error.strerror}). Choose another folder."
        ) from error
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with contextlib.suppress(OSError):  # Windows does not remove an open file
                Path(lock.lock_file).unlink()
                for place in made:
                    place.rmdir()  # fails unless it is empty
        lock.release()


@contextlib.contextmanager
def run_folder(folder: Path | None) -> Iterator[None]:
    """`own_folder`, with as many threads as the run that is there began with.

    Sums are cut by the number of threads, so another number gives other last digits.
    """
    before = torch.get_num_threads()
    with own_folder(folder):
        kept = distributed.from_main(lambda: _read(folder / FILE)) if folder else None
        try:
            if kept:
                torch.set_num_threads(kept[0]["machine"]["threads"])
            yield
        finally:
            torch.set_num_threads(before)


def save_state(state: TrainState, folder: Path, run: Mapping[str, Any]) -> None:
    """Writes `folder/training.safetensors`, whole or not at all.

    Equal runs write equal files, except for the seconds that they took.

    Args:
        state: The run.
        folder: Its folder; made if missing.
        run: What the run is, from `identity`.

    Raises:
        CheckpointError: The file cannot be written. The one from before is unchanged.
    """
    facts = {
        "version": VERSION,
        "run": run,
        "place": dataclasses.asdict(state.progress),
        "scaler": state.scaler.state_dict(),
        "budget": state.budget,
        "machine": state.machine,
    }
    write_tensors(folder / FILE, state.tensors(), facts)


def load_state(state: TrainState, folder: Path, run: Mapping[str, Any]) -> bool:
    """Continues where `save_state` left off, if there is a checkpoint in the folder.

    It warns if the run is finished, or began where its last digits would come out differently.

    Args:
        state: A new run, which is changed.
        folder: Its folder, which must be this run's own.
        run: What the run is, from `identity`.

    Returns:
        Whether there was a file.

    Raises:
        CheckpointError: The file is damaged, or of a run with other settings or data.
    """
    path = folder / FILE
    kept = distributed.from_main(lambda: _read(path))  # the others may not have the folder
    if kept is None:
        return False
    facts, tensors = kept
    progress = Progress(**facts["place"])
    if unlike := _differences(facts["run"], run):
        raise CheckpointError(
            f"{folder} holds another run, with {unlike}. Give this one a folder of its own, or "
            f"remove {FILE} there to start again."
        )
    _check_fit(state, facts, tensors, path)
    if distributed.is_main():
        _say_what_is_there(folder, progress.epoch == run["epochs"], facts["machine"], state.machine)
    state.load_tensors(tensors)
    state.progress, state.budget, state.machine = progress, facts["budget"], facts["machine"]
    if state.scaler.is_enabled():
        state.scaler.load_state_dict(facts["scaler"])
    return True


def _say_what_is_there(
    folder: Path, finished: bool, old: Mapping[str, Any], new: Mapping[str, Any]
) -> None:
    if finished:
        warnings.warn(
            f"The run in {folder} is finished, so nothing is trained. To train it anew, remove "
            f"{FILE} there (with 'cocoop train': --restart).",
            stacklevel=5,
        )
    elif unlike := _differences(old, new):
        warnings.warn(
            f"The run in {folder} began with {unlike}, so the last digits of its results will "
            "differ from those of a run without a break.",
            stacklevel=5,
        )


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} {old.get(key)!r} (now {new.get(key)!r})" for key in keys)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    if not path.is_file():
        return None
    facts, tensors = read_tensors(path, REMEDY)
    if facts.get("version") != VERSION:
        raise CheckpointError(
            f"{path} has layout {facts.get('version')!r}; this library reads {VERSION}. "
            "Update the library, or train in another folder."
        )
    machine = facts.get("machine")
    right = {
        "run": isinstance(facts.get("run"), dict),
        "place": _is_place(facts.get("place")),
        "scaler": isinstance(facts.get("scaler"), dict)
        and all(map(_is_number, facts["scaler"].values())),
        "budget": type(facts.get("budget")) is int and 0 < facts["budget"] < LARGE,
        "machine": isinstance(machine, dict)
        and type(machine.get("threads")) is int
        and 0 < machine["threads"] < 2**12,
    }
    refuse_impossible(facts, right, path, REMEDY)
    check_finite(tensors, path, REMEDY)
    return facts, tensors


def _is_place(place: Any) -> bool:
    """Whether a value from a file can be a `Progress`."""
    names = {f.name for f in dataclasses.fields(Progress)}
    if not isinstance(place, dict) or place.keys() != names or not isinstance(place["rows"], list):
        return False
    return (
        all(type(place[name]) is int and place[name] >= 0 for name in ("epoch", "step", "images"))
        and all(_is_number(place[name]) for name in names - {"rows"})
        and len(place["rows"]) == place["epoch"]
        and (place["step"] > 0) == (place["images"] > 0)
        and all(isinstance(row, dict) for row in place["rows"])
        and all(type(x) in (int, float) for row in place["rows"] for x in row.values())
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < LARGE  # not infinite, not NaN


def _check_fit(
    state: TrainState, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> None:
    """Compares a file with the run that is to continue from it.

    Raises:
        CheckpointError: They contradict each other.
    """
    run, place = facts["run"], facts["place"]
    parameters = {f"parameter.{name}": p for name, p in state.parameters.items()}
    wanted = parameters | {f"momentum.{name}": p for name, p in state.parameters.items()}
    if (
        not parameters.keys() <= tensors.keys() <= wanted.keys()
        or any((x.shape, x.dtype) != (wanted[n].shape, wanted[n].dtype) for n, x in tensors.items())
        or place["step"] >= run["steps"]
        or place["epoch"] + (place["step"] > 0) > run["epochs"]
        or facts["scaler"].keys() != state.scaler.state_dict().keys()
    ):
        raise CheckpointError(f"{path} contradicts itself or this model. {REMEDY}")


def identity(model: PromptLearner, data: Dataset, config: TrainConfig) -> dict[str, Any]:
    """What must be the same for a run to continue: settings, model, backbone and images.

    Args:
        model: A CoOp or CoCoOp.
        data: Its training images. Their files may move, but content and order must stay.
        config: The settings, resolved.

    Returns:
        Plain values for JSON.
    """
    settings = dataclasses.asdict(config)
    for changes_nothing in ("save_every", "cuda_graph"):
        del settings[changes_nothing]
    inner, paths = model.clip.model, [path for path, _ in data.train.samples]
    facts = {
        **settings,
        "steps": len(epoch_batches(len(paths), 0, config)),
        "method": type(model).__name__,
        "encoder": model.encoder,
        "options": model.options(),
        "backbone": model.clip.name,
        "weights": weights_digest(inner)[:16],
        "structure": _digest([structure(inner), describe_transform(model.clip.preprocess)]),
        "data": data.name,
        "classes": _digest(model.classnames),
        "images": _digest([image_digests(paths), [int(label) for label in data.train.labels]]),
    }
    return json.loads(json.dumps(facts, default=str))  # as it comes back from a file


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
