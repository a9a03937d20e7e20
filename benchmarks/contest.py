"""Several text encoders on the same images and names, taking turns.

Notation: B images, K classes.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn import functional as F

from cocoop_tutorial import CoCoOp, load_result
from cocoop_tutorial.errors import MissingDataError
from cocoop_tutorial.measure import Times, peak_bytes, saved_bytes, seconds
from cocoop_tutorial.models.prompt_learner import PromptLearner
from cocoop_tutorial.results import provenance
from cocoop_tutorial.text_encoder.cost import text_operations, text_tokens
from cocoop_tutorial.training.cuda_graph import RecordedPass
from cocoop_tutorial.training.step import Objective

KINDS = ("train", "inference")
LONG = 20.0  # seconds: a step this long needs no warming up, and its first run is timed
TURN = 1.5  # a training step and an inference pass, in training steps


@dataclass
class Contender:
    """One model with one text encoder, on B images.

    Attributes:
        model: CoCoOp or CoOp with K classes.
        encoder: "reference", "truncated" or "packed".
        features: `[B, E]`, normalised image features.
        labels: `[B]`.
        recorded: The training step is replayed from a CUDA graph; inference is left out.
        one_by_one: Each image has a backward pass of its own, for the graphs of all do not fit.
        facts: What is counted and measured, as it is saved.
        times: Seconds of each training step and inference pass.
        numbers: Logits, and the gradients joined, of the latest run.
        repeats: How many turns it takes.
        brief: A step is short enough for what the rivals left behind to show in its time.
        replay: The recorded step, from the first turn on.
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

    def __post_init__(self) -> None:
        # CoOp's prompts are the same for all images: its text tower runs once.
        B = len(self.labels) if isinstance(self.model, CoCoOp) else 1
        self.facts["tokens"] = text_tokens(self.model, B, self.encoder)[0]
        for kind in KINDS:
            work = text_operations(self.model, B, self.encoder, train=kind == "train")
            self.facts[f"{kind}_operations"] = work
        self.facts["skipped"] = None
        if self.encoder != "packed":  # which cuts itself to what fits
            image = counted_saved_bytes(self.model, self.encoder)
            free = free_bytes(self.features.device)
            self.facts["saved_bytes"], self.facts["saved_bytes_counted"] = B * image, True
            self.one_by_one = B > 1 and B * image > free / 4
            if image > 0.6 * free:
                self.facts["skipped"] = "one image's graph does not fit"
        self.facts["one_by_one"] = self.one_by_one

    def operations(self) -> int:
        """Of a training step and an inference pass."""
        return sum(self.facts[f"{kind}_operations"] for kind in KINDS)

    def loss(self, rows: slice) -> Tensor:
        """A part of the mean loss, of some images."""
        logits = self.model.logits_from_features(self.features[rows])
        return F.cross_entropy(logits, self.labels[rows], reduction="sum") / len(self.labels)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it takes part in."""
        return KINDS[:1] if self.recorded else KINDS

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
            for rows in self._parts():
                self.loss(rows).backward()
        self._keep_gradients()

    def watched(self) -> None:
        """A training step that counts the bytes it saves for backward."""
        self.model.encoder = self.encoder
        self.model.zero_grad()
        saved = 0
        for rows in self._parts():
            graph: list[Tensor] = []
            saved += saved_bytes(lambda: graph.append(self.loss(rows)), self.model)  # noqa: B023
            graph.pop().backward()
        self._keep_gradients()
        self.facts["saved_bytes"], self.facts["saved_bytes_counted"] = saved, False

    def inference(self) -> None:
        """Forward only."""
        self.model.encoder = self.encoder
        with torch.no_grad():
            self.numbers["logits"] = self.model.logits_from_features(self.features)

    def warm_up(self, least: int, most: int, budget: float) -> None:
        """The first step: bytes and peak, and from its time how often to repeat.

        Args:
            least: Repeats at least.
            most: And at most.
            budget: Seconds for the repeats.
        """
        peaks: list[tuple[int, int]] = []
        device = self.features.device
        first = seconds(lambda: peaks.append(peak_bytes(self.watched, device)), device)
        self.facts["peak_rise_bytes"], self.facts["peak_process_bytes"] = peaks[0]
        self.brief = first < LONG
        if not self.brief:
            self.times["train"].append(first)
        self.repeats = min(most, max(least, int(budget / (TURN * first))))

    def run(self, turn: int) -> None:
        """One training step and one inference pass.

        In use, a step follows its like. So a brief one runs once untimed before it is timed:
        that one pays for caches and pages that a rival's turn has taken.
        """
        for kind in self.kinds:
            step = getattr(self, kind)
            if len(self.times[kind]) > turn:
                continue
            if self.brief:
                step()
            self.times[kind].append(seconds(step, self.features.device))

    def _parts(self) -> list[slice]:
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
    """All take turns, so that a busy moment of the machine hits all alike.

    Args:
        contenders: Name to contender; the facts of each are filled in.
        least: Repeats at least.
        most: And at most.
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
        for kind in contender.kinds:
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

    Every prompt has the same length, so each class adds the same bytes: the difference between
    three and two prompts as long as the longest. The model must allow duplicate names.
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
    """Memory that is free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def earlier_cells(name: str, options: argparse.Namespace, *same: str) -> list[dict[str, Any]]:
    """The cells of a run that was stopped, if machine, threads and versions match.

    Args:
        name: Of the result.
        options: Its device and folder; with `fresh`, earlier cells are forgotten.
        same: Options that must be as they were then.
    """
    try:
        old = load_result(name, options.folder)
    except MissingDataError:
        return []
    now = provenance(device=options.device)
    match = [old["provenance"][k] == now[k] for k in ("versions", "device", "threads")]
    match += [old["data"][k] == getattr(options, k) for k in same]
    return old["data"]["cells"] if all(match) and not options.fresh else []
