"""A run on disk: all that it needs to go on to the same bits after being killed (chapter 3).

The file holds the parameters, the optimiser's momentum, the loss scaler, the history so far, and
the place in the run. Random generators need no saving: each step's draws follow from the seed and
the place.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp import GradScaler

from cocoop_tutorial import distributed
from cocoop_tutorial.checkpoints.prompts import write_atomic
from cocoop_tutorial.datasets.splits import Dataset
from cocoop_tutorial.errors import CheckpointError
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.training.config import TrainConfig

FILE = "training.safetensors"
KEY = "cocoop_tutorial"
VERSION = 1  # of the file's layout


@dataclass
class Place:
    """Where a run is, and what it has seen in the epoch that it is in.

    Attributes:
        epoch: Epochs that are finished.
        step: Steps of the next epoch that are done.
        loss: Sum of the losses of that epoch's images so far.
        correct: How many of them had their true class on top.
        images: How many they are.
        seconds: Time that epoch has taken, an earlier process's time included.
        rows: The history: one row a finished epoch.
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
    """What changes in a run.

    Attributes:
        parameters: Name to parameter, of all that trains.
        optimizer: SGD over these parameters.
        scaler: The loss scaler; it does nothing unless enabled.
        budget: Bytes that the text encoder may use; kept, because pieces of another size round
            differently.
        place: Where the run is.
    """

    parameters: Mapping[str, nn.Parameter]
    optimizer: torch.optim.SGD
    scaler: GradScaler
    budget: int
    place: Place = field(default_factory=Place)

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
        """Puts what `tensors` gave back in place."""
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"parameter.{name}"])
            if (momentum := tensors.get(f"momentum.{name}")) is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter.device)


def save_state(state: TrainState, folder: Path, run: Mapping[str, Any]) -> None:
    """Writes `folder/training.safetensors`, whole or not at all.

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
        "place": dataclasses.asdict(state.place),
        "scaler": state.scaler.state_dict(),
        "budget": state.budget,
    }
    metadata = {"format": "pt", KEY: json.dumps(facts)}
    write_atomic(folder / FILE, safetensors.torch.save(state.tensors(), metadata))


def load_state(state: TrainState, folder: Path, run: Mapping[str, Any]) -> bool:
    """Goes on where `save_state` left off, if there is something in the folder.

    Args:
        state: A new run, which is changed.
        folder: Its folder.
        run: What the run is, from `identity`.

    Returns:
        Whether there was a file.

    Raises:
        CheckpointError: The file is damaged, or of a run with other settings or data.
    """
    content = [_read(folder / FILE) if distributed.is_main() else None]
    if distributed.is_main():
        for part in folder.glob("tmp*.part"):  # from a process killed while it was writing
            part.unlink(missing_ok=True)
    if distributed.active():  # the other processes may run on machines without the folder
        dist.broadcast_object_list(content)
    if content[0] is None:
        return False
    facts, tensors = content[0]
    _check_same(facts["run"], json.loads(json.dumps(run)), folder)
    state.load_tensors(tensors)
    state.place, state.budget = Place(**facts["place"]), facts["budget"]
    if state.scaler.is_enabled():
        state.scaler.load_state_dict(facts["scaler"])
    return True


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if facts["version"] != VERSION:
            raise CheckpointError(
                f"{path} has layout {facts['version']!r}; this library reads {VERSION}. "
                "Update the library, or train in another folder."
            )
        return facts, tensors
    except (KeyError, TypeError, ValueError, OSError, safetensors.SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} is damaged or no checkpoint of a run ({error}). Remove it to start again, or "
            "train in another folder."
        ) from error


def _check_same(old: Mapping[str, Any], new: Mapping[str, Any], folder: Path) -> None:
    unlike = [
        f"{key} {old.get(key)!r} (now {new.get(key)!r})"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]
    if unlike:
        raise CheckpointError(
            f"{folder} holds another run, with {', '.join(unlike)}. Give this one a folder of its "
            f"own, or remove {FILE} there to start again."
        )


def identity(model: PromptLearner, data: Dataset, config: TrainConfig) -> dict[str, Any]:
    """What must be the same for a run to go on: settings, model, backbone and images.

    Args:
        model: A CoOp or CoCoOp.
        data: Its training images; their folder may move, their names and order may not.
        config: The settings, resolved.

    Returns:
        Plain values for JSON.
    """
    settings = dataclasses.asdict(config)
    for changes_nothing in ("save_every", "cuda_graph"):
        del settings[changes_nothing]
    images = [f"{path.name}\t{label}" for path, label in data.train.samples]
    weights = model.clip.text_tower.positional_embedding.detach().float().cpu()
    return {
        **settings,
        "method": type(model).__name__,
        "backbone": model.clip.name,
        "options": model.options(),
        "data": data.name,
        "classes": _digest("\n".join(model.classnames).encode()),
        "images": _digest("\n".join(images).encode()),
        "weights": _digest(weights.contiguous().numpy().tobytes()),
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
