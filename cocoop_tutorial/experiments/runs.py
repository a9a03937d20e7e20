"""One run: a prompt learned from the shots of one data set, scored on many (chapter 6).

A run is known by a digest of everything that its numbers depend on, so that what is done is never
done again and what has changed is never mistaken for it. Runs of the same classes are trained
together, because that takes less than half the time on a CPU.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cocoop_tutorial.clip.features import image_features
from cocoop_tutorial.clip.frozen import FrozenCLIP
from cocoop_tutorial.clip.identity import weights_digest
from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.load import load_dataset
from cocoop_tutorial.datasets.splits import Dataset, base_new, few_shot
from cocoop_tutorial.errors import check_known
from cocoop_tutorial.evaluation.accuracy import Evaluation, evaluate
from cocoop_tutorial.experiments.controls import other_pis, sizes
from cocoop_tutorial.experiments.methods import method
from cocoop_tutorial.models.cocoop import CoCoOp
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.results import provenance
from cocoop_tutorial.seeds import check_seed, check_whole
from cocoop_tutorial.training.config import TrainConfig
from cocoop_tutorial.training.loop import train
from cocoop_tutorial.training.together import train_together

Row = dict[str, Any]
PARTS = "train", "val", "test"
SUBSETS = "base", "all"
MATTERS = (
    "epochs", "batch_size", "lr", "momentum", "weight_decay", "warmup_epochs", "warmup_lr",
    "transform", "precision", "drop_last",
)  # fmt: skip
VERSION = 1  # raise it when a change of the code changes what a run would find
CURVE = (1, 2, 5, 10, 20, 50, 100)  # epochs after which a prompt is scored on its way
AT_ONCE = 2000  # test images; the other image that a control takes is half of them away


@dataclass(frozen=True)
class Run:
    """What one run learns, and where it is scored.

    Attributes:
        dataset: What it learns from.
        subset: "base" learns the base classes and is scored on the base classes, the new ones,
            and both together; "all" learns all classes and is scored on the `targets`.
        method: A name in `METHODS`.
        seed: Of the shots, the order of the images, and first weights.
        shots: Training images per class.
        config: How to train; None if nothing trains.
        targets: Data sets to score on, with all of their classes.
    """

    dataset: str
    subset: str
    method: str
    seed: int
    shots: int = 16
    config: TrainConfig | None = None
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Makes equal runs equal, whatever types their numbers have.

        Raises:
            SettingError: A seed or number of shots that cannot be.
            UnknownNameError: Another subset, or no such method.
        """
        object.__setattr__(self, "seed", check_seed(self.seed))
        object.__setattr__(self, "shots", check_whole("shots", self.shots))
        object.__setattr__(self, "targets", tuple(self.targets))
        check_known("subset", self.subset, SUBSETS)
        method(self.method)

    def facts(self) -> Row:
        """The columns that say which run a row is of."""
        names = ("dataset", "subset", "method", "seed", "shots")
        row = {name: getattr(self, name) for name in names}
        if self.config:
            row |= {k: getattr(self.config, k) for k in ("epochs", "batch_size", "lr")}
        return row

    def company(self) -> tuple[Any, ...]:
        """Runs with the same company can be trained together."""
        options = method(self.method).options
        config = self.config and (self.config.epochs, self.config.batch_size, self.config.transform)
        return self.dataset, self.subset, self.shots, options.get("n_ctx", 4), config


def digest(clip: FrozenCLIP, run: Run, root: Path | None = None) -> str:
    """What a run is known by: 16 hexadecimal digits of everything that its numbers depend on."""
    data = [data_digest(name, root) for name in dict.fromkeys((run.dataset, *run.targets))]
    backbone = weights_digest(clip.model), clip.precision, clip.device.type
    settings = run.config and [getattr(run.config, name) for name in MATTERS]
    who = method(run.method).describe(), run.subset, run.seed, run.shots, run.targets
    what = [VERSION, backbone, settings, who, data]
    return hashlib.sha256(json.dumps(what, default=str).encode()).hexdigest()[:16]


@lru_cache
def data_digest(name: str, root: Path | None) -> str:
    """Of a data set's class names, template, and which image is where, and how large.

    Sizes reveal most images that were replaced, and the content of all of ImageNet would take
    hours to read. Icons need none: they are made from packages whose versions are fixed.
    """
    data, made = load_dataset(name, root), name in icons.NAMES
    splits = [
        [(p.parent.name, p.name, y, *(() if made else (p.stat().st_size,))) for p, y in split]
        for split in (data.split(s).samples for s in PARTS)
    ]
    return hashlib.sha256(repr((data.classnames, data.template, splits)).encode()).hexdigest()


def finish(clip: FrozenCLIP, runs: Sequence[Run], root: Path | None = None) -> list[list[Row]]:
    """Trains the runs together and scores each.

    Args:
        clip: The backbone.
        runs: Runs of one `company`.
        root: Folder of the paper's data.

    Returns:
        Each run's rows: `facts`, `target`, `split` ("base", "new", "all"), `pi`, `epoch` (None at
        the end), `accuracy` (percent), `right` and `images` (counts per class, as text), `seconds`
        of training, `commit`.
    """
    whole = load_dataset(runs[0].dataset, root)
    drawn = [few_shot(whole, r.shots, r.seed) if whole.train.samples else whole for r in runs]
    parts = [
        base_new(data)[0] if r.subset == "base" else data
        for r, data in zip(runs, drawn, strict=True)
    ]
    models = [method(r.method).build(clip, p, r.seed) for r, p in zip(runs, parts, strict=True)]
    curves: list[list[Row]] = [[] for _ in runs]
    seconds = 0.0
    if runs[0].config:
        watch = [watcher(whole, r, curve) for r, curve in zip(runs, curves, strict=True)]
        configs = [r.config for r in runs]
        if len(runs) == 1:  # on a GPU, `train` replays recorded steps
            histories = [train(models[0], parts[0], configs[0], on_epoch_end=watch[0])]
        else:
            histories = train_together(models, parts, configs, on_epoch_end=watch)
        seconds = float(histories[0].seconds.sum()) / len(runs)  # they took their time together
    found, commit = [], provenance()["commit"]
    for run, model, part, curve in zip(runs, models, parts, curves, strict=True):
        rows = [*curve, *scores(model, run, whole, part, root)]
        found.append([run.facts() | row | {"seconds": seconds, "commit": commit} for row in rows])
    return found


def is_row(row: Any, run: Run) -> bool:
    """Whether a value from a file can be a row that `finish` gave for a run."""
    if not isinstance(row, dict) or not run.facts().items() <= row.items():
        return False
    numbers = row.get("seconds"), row.get("accuracy", 0), row.get("epoch") or 0
    counts = [row.get(name, "") for name in ("right", "images")]
    if not all(isinstance(x, int | float) for x in numbers) or not all(map(_are_counts, counts)):
        return False
    right, images = ([int(word) for word in text.split()] for text in counts)
    return (
        row.get("target") in (run.dataset, *run.targets)
        and row.get("split") in ("train", "base", "new", "all")
        and isinstance(row.get("pi"), str)
        and len(right) == len(images)
        and all(r <= n for r, n in zip(right, images, strict=True))
        and (not images or row.get("accuracy") == 100 * sum(right) / max(1, sum(images)))
    )


def _are_counts(text: Any) -> bool:
    return isinstance(text, str) and all(
        word.isdecimal() and len(word) < 10 for word in text.split(" ") if text
    )


def watcher(
    whole: Dataset, run: Run, curve: list[Row]
) -> Callable[[PromptLearner], Mapping[str, float]]:
    """Scores a prompt on both halves after some epochs, into `curve`."""
    epochs = iter(range(1, run.config.epochs + 1))

    def watch(model: PromptLearner) -> Mapping[str, float]:
        epoch = next(epochs)
        if run.subset == "base" and epoch in CURVE and epoch < run.config.epochs:
            for half in base_new(whole):
                result = evaluate(model.with_classnames(half.classnames), half)
                where = {"target": run.dataset, "split": half.subset, "pi": "own"}
                curve.append({**where, "epoch": epoch, "accuracy": result.accuracy})
        return {}

    return watch


def scores(
    model: nn.Module, run: Run, whole: Dataset, part: Dataset, root: Path | None
) -> Iterator[Row]:
    """Scores a trained model, a CoCoOp also with other pis than the image's."""
    models = {"own": model}
    if isinstance(model, CoCoOp) and model.image_conditioned:
        shots, _ = image_features(model.clip, part.train)
        models |= dict(other_pis(model, shots))
        yield {"target": run.dataset, "split": "train", "pi": "own", **sizes(model, shots)}
    for target, data in test_sets(run, whole, root):
        for pi, own in models.items():
            if data.subset == "base" or method(run.method).new_classes:
                same = own if data.classnames == part.classnames else _for(own, data, run)
                result = evaluate(same, data, batch_size=AT_ONCE)
                yield {"target": target, "split": data.subset, "pi": pi, **counts(result)}


def test_sets(run: Run, whole: Dataset, root: Path | None) -> Iterator[tuple[str, Dataset]]:
    """What a run is scored on: the data set, and its test images."""
    if run.subset == "base":
        base, new = base_new(whole)
        for data in (base, new, whole):
            yield run.dataset, data
    for target in run.targets:
        yield target, load_dataset(target, root)


def _for(model: nn.Module, data: Dataset, run: Run) -> nn.Module:
    """The model for the classes of another data set; a hand-written prompt is that data set's."""
    if isinstance(model, PromptLearner):
        return model.with_classnames(data.classnames)
    return method(run.method).build(model.clip, data, run.seed)


def counts(result: Evaluation) -> Row:
    """The accuracy, and per class how many images were right, of how many."""
    k = len(result.classnames)
    total = torch.bincount(result.labels, minlength=k).tolist()
    right = torch.bincount(result.labels[result.correct], minlength=k).tolist()
    text = {"right": " ".join(map(str, right)), "images": " ".join(map(str, total))}
    return {"accuracy": 100 * sum(right) / sum(total), **text}
