"""Pretrains `icon-clip`, the small real CLIP that the embedded world runs on (chapter 1).

    python -m cocoop_tutorial.pretraining.run --run data/cache/pretrain --device cuda --publish

That takes an H200 under ten minutes. Without `--device cuda` and with `--compile` it runs on a
CPU, for more than a day on two cores; `--pairs` makes it shorter. The run can be stopped at any
time; the same command goes on from its last checkpoint. The model is open_clip's own `CLIP`
class with CLIP's own tokenizer.
"""

import math
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from cocoop_tutorial.clip.load import ICON_CLIP
from cocoop_tutorial.pretraining import corpus as drawn
from cocoop_tutorial.pretraining.augment import augment
from cocoop_tutorial.pretraining.captions import Captions
from cocoop_tutorial.pretraining.model import (
    MODEL,
    Optimizers,
    Towers,
    contrastive_loss,
    load_parts,
    save_parts,
    write_folder,
)
from cocoop_tutorial.pretraining.validate import Validation
from cocoop_tutorial.results import results_folder, save_result

RESULT = "pretrain_icon_clip"
MODULE = "cocoop_tutorial.pretraining.run"


@dataclass(frozen=True)
class Recipe:
    """Settings of a pretraining run; the usual ones take a GPU under ten minutes."""

    pairs: int = 19_000_000  # augmented pictures seen, each with a caption
    batch: int = 2048
    lr: float = 2e-3  # highest
    weight_decay: float = 0.05
    warmup: int = 300  # steps
    strength: float = 0.75  # of the augmentation at its highest
    ramp: float = 0.35  # share of the run over which that is reached: the towers underfit
    calm_from: float = 0.85  # share of the run after which it falls, towards plain drawings
    calm: float = 0.3  # strength at the end
    emoji_share: float = 0.4  # of the drawings; the rest are icons
    partners: float = 0.25  # share of a batch that is another drawing of a concept already in it
    subject_share: float = 0.3  # of the captions whose drawing has a subject
    synonym_share: float = 0.1  # of the captions whose drawing has a synonym
    held_out_share: float = 0.04  # of (house, concept) pairs, for the validation curve
    without_house: str = ""  # a pretraining house to validate on, for choosing the recipe
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.pairs // self.batch


class Run:
    """State of a pretraining run: towers, optimisers, step, history.

    Args:
        recipe: Its settings.
        folder: Where checkpoints, weights and curves go.
        device: "cpu" or "cuda".
        packed: Drawings from `corpus.pack`; None reads the npm packages.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, device: str, packed: Path | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.recipe, self.folder, self.device = recipe, folder, device
        r = recipe
        self.corpus = drawn.load(
            packed, folder / "drawings.pt", r.held_out_share, r.without_house, r.emoji_share, r.seed
        )
        coloured = (self.corpus.pixels.colour_row >= 0).numpy()
        self.captions = Captions(
            self.corpus.drawings, coloured, MODEL["text_cfg"]["context_length"],
            r.subject_share, r.synonym_share,
        ).to(device)  # fmt: skip
        self.corpus.pixels = self.corpus.pixels.to(device)
        self.chances = self.corpus.chances.to(device)
        self.heights = self.chances.cumsum(0)
        self.flippable = self.corpus.flippable.to(device)
        self._index_concepts()
        self.towers = Towers(len(self.captions.vocabulary), r.seed).to(device)
        self.optimizers = Optimizers(self.towers, r.weight_decay)
        self.validate = Validation(self.towers, self.captions, self.corpus, device)
        self.step, self.total, self.seconds = 0, r.steps, 0.0
        self.history: list[dict[str, float]] = []

    def _index_concepts(self) -> None:
        """Training rows in the order of their concepts, and where each concept's begin."""
        rows = self.chances.nonzero()[:, 0]
        concepts = self.captions.concept[rows]
        self.ordered = rows[concepts.argsort(stable=True)]
        self.counts = concepts.bincount(minlength=len(self.captions.concept_names))
        self.begins = self.counts.cumsum(0) - self.counts

    def draw_rows(self, generator: torch.Generator) -> torch.Tensor:
        """Drawings [B] of a batch; some concepts come twice, in two media or two meanings.

        Where a name comes twice, only what else their captions say tells the two apart.
        """
        size = self.recipe.batch
        n = size - round(size * self.recipe.partners)
        # By hand, because torch.multinomial would make a GPU wait.
        draws = torch.rand(n, generator=generator, device=self.device, dtype=torch.float64)
        first = torch.searchsorted(self.heights, draws).clamp(max=len(self.heights) - 1)
        concepts = self.captions.concept[first[: size - n]]
        place = torch.rand(size - n, generator=generator, device=self.device)
        place = (place * self.counts[concepts]).long().minimum(self.counts[concepts] - 1)
        return torch.cat([first, self.ordered[self.begins[concepts] + place]])

    def loss(self) -> torch.Tensor:
        """Contrastive loss of this step's batch."""
        generator = torch.Generator(self.device)
        generator.manual_seed(self.recipe.seed * 1_000_003 + self.step)
        rows = self.draw_rows(generator)
        captions = self.captions.draw(rows, generator)
        truth = self.captions.truth(rows, captions)
        pixels = self.corpus.pixels
        mono = pixels.colour_row[rows] < 0
        picked = pixels.pick(rows), mono, self.flippable[rows]
        images = augment(*picked, self.strength(), generator)
        with torch.autocast(self.device, torch.bfloat16):
            f = self.towers.image(images)  # [B, E]
            t = self.towers.text(captions.tokens, captions.ends)  # [B, E]
        return contrastive_loss(f, t, self.towers.clip.logit_scale.exp(), truth)

    def strength(self) -> float:
        """Strength of this step's augmentation: it rises, stays, and falls at last."""
        r, done = self.recipe, self.step / self.total
        if done < r.calm_from:
            return r.strength * min(1.0, 0.1 + 0.9 * done / r.ramp)
        left = max(0.0, (1 - done) / (1 - r.calm_from))
        return r.calm + (r.strength - r.calm) * left

    def rate(self) -> float:
        """Learning rate of this step: a linear warm-up, then a cosine to zero."""
        r = self.recipe
        if self.step < r.warmup:
            return r.lr * (self.step + 1) / r.warmup
        done = (self.step - r.warmup) / max(1, self.total - r.warmup)
        return r.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def update(self) -> torch.Tensor:
        """One optimiser step; returns the loss."""
        self.towers.train()
        loss = self.loss()
        self.towers.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.towers.parameters(), 1.0)
        self.optimizers.step(self.rate())
        with torch.no_grad():
            self.towers.clip.logit_scale.clamp_(max=math.log(100))
        self.step += 1
        return loss.detach()

    def train(self, every: int = 250, minutes: float = math.inf) -> None:
        """Runs to the end; validates and saves every so many steps.

        Args:
            every: Steps from one validation to the next.
            minutes: Where the steps would take longer than this, their number is cut, and the
                schedules end earlier. The history tells.
        """
        losses, last, since = [], self.step, time.perf_counter()
        deadline = since + 60 * minutes
        while self.step < self.total:
            losses.append(self.update())
            if self.step % every and self.step != self.total:
                continue
            loss = float(torch.stack(losses).mean())  # waits for a GPU
            scores, now = self.validate(), time.perf_counter()
            pace, self.seconds = (now - since) / (self.step - last), self.seconds + now - since
            since, last, losses = now, self.step, []
            if self.step < self.total and minutes < math.inf:
                left = max(1, int((deadline - now) / pace))
                self.total = min(self.recipe.steps, self.step + left)
            speed = round(self.recipe.batch / pace)
            self.record({"step": self.step, "loss": loss, **scores, "pairs_per_second": speed})

    def record(self, row: dict[str, float]) -> None:
        """Adds a row to the history and saves all."""
        self.history.append(row | {"of": self.total, "seconds": round(self.seconds)})
        print(*(f"{key} {value:.5g}" for key, value in self.history[-1].items()), flush=True)
        self.save()

    def save(self) -> None:
        """Writes the checkpoint beside the old one, then swaps them; weights and report too."""
        state = {
            "recipe": asdict(self.recipe), "towers": self.towers.state_dict(), "step": self.step,
            "total": self.total, "optimizers": self.optimizers.state(), "history": self.history,
            "seconds": self.seconds,
        }  # fmt: skip
        torch.save(state, self.folder / "checkpoint.part")
        os.replace(self.folder / "checkpoint.part", self.folder / "checkpoint.pt")
        save_parts(self.towers, self.captions.vocabulary, self.folder)
        self.report()

    def resume(self) -> None:
        """Goes on from the folder's checkpoint, if there is one of the same recipe."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise SystemExit(f"{path} is of another recipe: choose another --run folder.")
        self.towers.load_state_dict(state["towers"])
        self.optimizers.load(state["optimizers"])
        self.step, self.total = state["step"], state["total"]
        self.history, self.seconds = state["history"], state["seconds"]

    def report(self) -> Path:
        """Writes the result file into the folder: recipe, curves, sizes and time."""
        clip, corpus = self.towers.clip, self.corpus
        trained = [d for d, c in zip(corpus.drawings, corpus.chances, strict=True) if c > 0]

        def count(*modules: torch.nn.Module) -> int:
            return sum(p.numel() for m in modules for p in m.parameters())

        data = {
            "recipe": {**asdict(self.recipe), "steps": self.recipe.steps},
            "history": self.history,
            "seconds": self.seconds,
            "drawings": len(trained),
            "concepts": len({d.concept for d in trained}),
            "houses": sorted({d.house for d in trained}),
            "held_out": {kind: len(rows) for kind, rows in self.validate.rows.items()},
            "held_out_classes": {kind: len(names) for kind, names in self.validate.names.items()},
            "tokens_in_use": len(self.captions.vocabulary),
            "parameters": {
                "image tower": count(clip.visual),
                "text tower": count(clip.transformer, clip.ln_final),
                "token table in use": count(clip.token_embedding),
            },
        }
        if self.step == self.total:
            data["held_out_by_template"] = self.validate.by_template()
        seeds = [self.recipe.seed]
        return save_result(RESULT, data, self.command(), seeds, self.device, self.folder)

    def command(self) -> str:
        """What to type for the same run."""
        usual, words = asdict(Recipe()), f"python -m {MODULE} --run {self.folder.name}"
        unusual = {k: v for k, v in asdict(self.recipe).items() if v != usual[k]}
        options = unusual | ({"device": self.device} if self.device != "cpu" else {})
        return words + "".join(f" --{k.replace('_', '-')} {v}" for k, v in options.items())


def publish(folder: Path, target: Path = ICON_CLIP) -> None:
    """Makes the package's weights and the result file out of a run's folder.

    Only the small files are needed: `weights-*.safetensors` and the result file. So the run may
    have been on another machine.
    """
    write_folder(load_parts(folder), target)
    shutil.copyfile(folder / f"{RESULT}.json", results_folder(make=True) / f"{RESULT}.json")


def main(
    run: Annotated[Path, typer.Option(help="Folder of checkpoints, weights and curves.")],
    pairs: Annotated[int, typer.Option(help="Pictures to see.")] = Recipe.pairs,
    batch: Annotated[int, typer.Option(help="Pairs of picture and caption.")] = Recipe.batch,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = Recipe.lr,
    emoji_share: Annotated[float, typer.Option(help="Share of emoji.")] = Recipe.emoji_share,
    without_house: Annotated[str, typer.Option(help="House to hold out, for trials.")] = "",
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    minutes: Annotated[float, typer.Option(help="End the schedule by then.")] = math.inf,
    every: Annotated[int, typer.Option(help="Steps between validations.")] = 250,
    fused: Annotated[
        bool, typer.Option("--compile", help="Compile the image tower, for a CPU.")
    ] = False,
    drawings: Annotated[Path | None, typer.Option(help="What --pack wrote, without npm.")] = None,
    pack: Annotated[Path | None, typer.Option(help="Pack the drawings there and stop.")] = None,
    train: Annotated[bool, typer.Option(help="Train; else only publish.")] = True,
    to_package: Annotated[
        bool, typer.Option("--publish", help="Write the package's weights and results/.")
    ] = False,
) -> None:
    """Pretrains icon-clip, or goes on from the run folder's checkpoint."""
    if pack:
        return drawn.pack(drawn.drawings(), pack)
    if train:
        recipe = Recipe(
            pairs=pairs, batch=batch, lr=lr, emoji_share=emoji_share,
            without_house=without_house, seed=seed,
        )  # fmt: skip
        state = Run(recipe, run, device, drawings)
        state.resume()
        if fused:
            state.towers.clip.visual.compile()
        state.train(every, minutes)
    if to_package:
        publish(run)


if __name__ == "__main__":
    typer.run(main)
