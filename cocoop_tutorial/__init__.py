"""CoCoOp, taught by running it: a small library and the book that explains it.

Names load when first used, so that `import cocoop_tutorial` and `cocoop --help` are quick.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that defines it.
_HOME = {
    "load_clip": "clip.load",
    "FrozenCLIP": "clip.frozen",
    "load_dataset": "datasets",
    "Dataset": "datasets",
    "Split": "datasets",
    "ImageFolder": "datasets",
    "read_zhou_split": "datasets",
    "few_shot": "datasets",
    "base_new": "datasets",
    "ZeroShotCLIP": "models.zero_shot",
    "CoOp": "models.coop",
    "CoCoOp": "models.cocoop",
    "TrainConfig": "training.config",
    "train": "training.loop",
    "evaluate": "evaluation.accuracy",
    "Evaluation": "evaluation.accuracy",
    "harmonic_mean": "evaluation.accuracy",
    "image_features": "clip.features",
    "save_prompts": "checkpoints.prompts",
    "load_prompts": "checkpoints.prompts",
    "load_official": "checkpoints.official",
    "save_official": "checkpoints.official",
    "save_result": "results",
    "load_result": "results",
    "CocoopError": "errors",
}
__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    """Imports a public name from its module, once."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What tab completion shows."""
    return sorted(__all__)
