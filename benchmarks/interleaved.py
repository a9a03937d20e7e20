"""Several text encoders on the same images and names, taking turns.

Notation: B images, K classes.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn import functional as F

from cocoop_tutorial import load_result
from cocoop_tutorial.errors import MissingDataError
from cocoop_tutorial.measure import Times, peak_bytes, saved_bytes, seconds
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.models.replay import RecordedScores
from cocoop_tutorial.results import provenance
from cocoop_tutorial.text_encoder.cost import text_operations, text_tokens
from cocoop_tutorial.training.cuda_graph import RecordedPass
from cocoop_tutorial.training.loop import Objective

KINDS = ("train", "inference")
LONG = 20.0  # seconds: such a long step needs no warm-up, so its first run is timed
TURN = 1.5  # the time of a training step and an inference pass, in training steps


@dataclass
class Contender:
    """One model with one text encoder, on B images.

    Attributes:
        model: CoCoOp or CoOp with K classes.
        encoder: "reference", "truncated" or "packed".
        features: `[B, E]`, normalised image features.
        labels: `[B]`.
        recorded: Whether its passes are replayed from a CUDA graph; an inference pass only where
            the library replays one.
        one_by_one: Whether each image has its own backward pass, because the graphs of all images
            do not fit in memory.
        facts: What is counted and measured, in the form in which it is saved.
        times: Seconds of each training step and inference pass.
        numbers: Logits and gradients (in one vector) of the latest run.
        repeats: How many turns it takes.
        brief: Whether a step is so short that caches left by the other contenders slow it down.
        replay: The recorded step, from the first turn on.
        scores: The same for inference.
    """

    model: PromptLearner
    encoder: str
    features: Tensor
    labels: Tensor
    recorded: bool = False
    one_by_one: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    times: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    numbers: dict[str, Tensor] = field(default_factory=dict)
    repeats: int = 0
    brief: bool = True
    replay: RecordedPass | None = None
    scores: RecordedScores | None = None

    def __post_init__(self) -> None:
        # Prompts that are the same for all images go through the text tower once.
        B = len(self.labels) if self.model.image_conditioned else 1
        self.facts["tokens"] = text_tokens(self.model.prompts, B, self.encoder)[0]
        for kind in KINDS:
            counted = self.model.clip, self.model.prompts, B, self.encoder
            work = text_operations(*counted, train=kind == "train")
            self.facts[f"{kind}_operations"] = work
        self.facts["skipped"] = None
        if self.encoder != "packed":  # the packed one cuts its work to what fits
            image = counted_saved_bytes(self.model, self.encoder)
            free = free_bytes(self.features.device)
            self.facts["saved_bytes"], self.facts["saved_bytes_counted"] = B * image, True
            self.one_by_one = B > 1 and B * image > free / 4
            if image > 0.6 * free:
                self.facts["skipped"] = "one image's graph does not fit"
        self.facts["one_by_one"] = self.one_by_one

    def operations(self) -> int:
        """How many a training step and an inference pass have together."""
        return sum(self.facts[f"{kind}_operations"] for kind in KINDS)

    def loss(self, rows: slice) -> Tensor:
        """What some images contribute to the mean loss."""
        logits = self.model.logits_from_features(self.features[rows])
        return F.cross_entropy(logits, self.labels[rows], reduction="sum") / len(self.labels)

    def train(self) -> None:
        """Forward and backward."""
        self.model.encoder = self.encoder
        if self.recorded:
            weights = torch.full_like(self.features[:, 0], 1 / len(self.labels))
            inputs = self.features, self.labels, weights
            if self.replay is None:
                self.replay = RecordedPass(Objective(self.model, "fp32"), Tensor.backward, inputs)
            self.replay(*inputs)
        else:
            self.model.zero_grad()
            for rows in self._micro_batches():
                self.loss(rows).backward()
        self._keep_gradients()

    def train_and_count(self) -> None:
        """A training step that also counts the bytes saved for backward."""
        self.model.encoder = self.encoder
        self.model.zero_grad()
        saved = 0
        for rows in self._micro_batches():
            graph: list[Tensor] = []
            saved += saved_bytes(lambda: graph.append(self.loss(rows)), self.model)  # noqa: B023
            graph.pop().backward()
        self._keep_gradients()
        self.facts["saved_bytes"], self.facts["saved_bytes_counted"] = saved, False

    def inference(self) -> None:
        """Forward only."""
        self.model.encoder = self.encoder
        score = self.model.logits_from_features
        if self.recorded:
            self.scores = score = self.scores or RecordedScores(self.model, len(self.features))
        with torch.no_grad():
            self.numbers["logits"] = score(self.features)

    def warm_up(self, least: int, most: int, budget: float) -> None:
        """Runs the first step: counts bytes, and decides from its time how often to repeat.

        Args:
            least: Smallest number of repeats.
            most: Largest number of repeats.
            budget: Seconds for the repeats.
        """
        peaks: list[tuple[int, int]] = []
        device = self.features.device
        first = seconds(lambda: peaks.append(peak_bytes(self.train_and_count, device)), device)
        self.facts["peak_rise_bytes"], self.facts["peak_process_bytes"] = peaks[0]
        self.brief = first < LONG
        if not self.brief:
            self.times["train"].append(first)
        self.repeats = min(most, max(least, int(budget / (TURN * first))))

    def run(self, turn: int) -> None:
        """One training step and one inference pass.

        In use, one step follows another of the same kind. So a brief step first runs once without
        being timed, because it has to refill the caches that another contender's turn has used.
        """
        for kind in KINDS:
            step = getattr(self, kind)
            if len(self.times[kind]) > turn:
                continue
            if self.brief:
                step()
            self.times[kind].append(seconds(step, self.features.device))

    def _micro_batches(self) -> list[slice]:
        if not self.one_by_one:
            return [slice(None)]
        return [slice(i, i + 1) for i in range(len(self.labels))]

    def _keep_gradients(self) -> None:
        gradients = [p.grad.flatten() for p in self.model.prompt_parameters().values()]
        self.numbers["gradients"] = torch.cat(gradients)


def compete(
    contenders: dict[str, Contender],
    least: int,
    most: int,
    budget: float,
    each_turn: Callable[[], None],
) -> None:
    """Lets all take turns, so that a busy moment of the machine affects all alike.

    Args:
        contenders: Contenders by name; the facts of each are filled in.
        least: Smallest number of repeats.
        most: Largest number of repeats.
        budget: Seconds for the repeats of each.
        each_turn: Called before each round of turns, to measure what they are compared with.
    """
    running = [c for c in contenders.values() if not c.facts["skipped"]]
    for contender in running:
        contender.warm_up(least, most, budget)
    for turn in range(max((c.repeats for c in running), default=0)):
        each_turn()
        for contender in running:
            if turn < contender.repeats:
                contender.run(turn)
    for contender in running:
        for kind in KINDS:
            contender.facts[kind] = Times.of(contender.times[kind]).as_dict()


def differences(one: Contender, other: Contender) -> dict[str, float]:
    """Largest difference of logits and of gradients, relative to the largest number."""
    found = {}
    for what in (kind for kind in other.numbers if kind in one.numbers):
        wanted = other.numbers[what]
        error = (one.numbers[what] - wanted).abs().max() / wanted.abs().max()
        found[what] = error.item()
    return found


def counted_saved_bytes(model: PromptLearner, encoder: str) -> int:
    """What an encoder that pads saves for one image's backward, without running all K classes.

    All prompts have the same length, so each class adds the same number of bytes: the difference
    between three and two prompts as long as the longest. The model must allow duplicate names.
    """
    longest = model.classnames[int(model.prompts.end_positions.argmax())]
    features = torch.zeros(1, model.clip.embed_dim, device=model.clip.device)
    saved = []
    for copies in (2, 3):
        small = model.with_classnames([longest] * copies)
        small.encoder = encoder
        saved.append(saved_bytes(lambda m=small: m.logits_from_features(features), small))
    return saved[0] + (len(model.classnames) - 2) * (saved[1] - saved[0])


def free_bytes(device: torch.device) -> int:
    """Free memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def bench_parser(name: str, doc: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have.

    Args:
        name: The module's name.
        doc: Its docstring, whose first line is the help text.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=doc.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="ignore the results of earlier runs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, help="where to write (default: results)")
    return parser


def earlier_cells(name: str, options: argparse.Namespace, *same: str) -> list[dict[str, Any]]:
    """The cells of a run that was stopped, if machine, threads and versions match.

    Args:
        name: The result's name.
        options: Its device and folder; with `fresh`, earlier cells are ignored.
        same: Options that must be the same as then.
    """
    try:
        old = load_result(name, options.folder)
    except MissingDataError:
        return []
    now = provenance(device=options.device)
    match = [old["provenance"][k] == now[k] for k in ("versions", "device", "threads")]
    match += [old["data"][k] == getattr(options, k) for k in same]
    return old["data"]["cells"] if all(match) and not options.fresh else []
