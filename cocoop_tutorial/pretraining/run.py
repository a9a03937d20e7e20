"""Pretrains `emoji-clip`, the small real CLIP that the embedded world runs on (chapter 1).

    python -m cocoop_tutorial.pretraining.run --run data/cache/pretrain --compile --publish

The run can be stopped at any time; the same command goes on from its last checkpoint. The
model is open_clip's own `CLIP` class with CLIP's own tokenizer.
"""

import bisect
import itertools
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from open_clip.model import CLIP
from safetensors.torch import save_file
from tqdm import tqdm

from cocoop_tutorial.clip.load import EMOJI_CLIP
from cocoop_tutorial.pretraining import corpus as pairs
from cocoop_tutorial.results import save_result

VOCABULARY = 49408  # CLIP's tokenizer
MODEL = {
    "embed_dim": 256,
    "vision_cfg": {"layers": [1, 2, 2, 1], "width": 32, "image_size": 64, "patch_size": None},
    "text_cfg": {
        "context_length": 32, "vocab_size": VOCABULARY, "width": 192, "heads": 3, "layers": 4,
    },
}  # fmt: skip


SIDES = (0.75, 0.8125, 0.875, 0.9375, 1.0)  # shares of the picture's side, to choose one by


@dataclass(frozen=True)
class Round:
    """A part of a run with a warm-up and a cosine of its own; each goes on from the last."""

    images: int  # augmented pictures seen
    lr: float  # highest
    strength: float  # of the augmentation at its highest
    muon: bool = True  # for kernels and inner matrices; AdamW for the rest


@dataclass(frozen=True)
class Recipe:
    """Settings of a pretraining run."""

    rounds: tuple[Round, ...] = (
        Round(1_400_000, 1e-3, 0.5, muon=False),
        Round(1_600_000, 7e-4, 0.5),
        Round(1_300_000, 7e-4, 0.75),  # what is left to gain then is mostly other houses' style
    )
    batch: int = 256  # pairs of a picture and a caption, no concept twice
    emoji_share: float = 0.95  # of the pairs; the rest are general icons
    weight_decay: float = 0.05
    warmup: int = 200  # steps of each round
    ramp: float = 0.6  # share of round 1 over which strength is reached: the towers underfit
    calm_from: float = 0.87  # share of a round after which it falls, towards plain drawings
    calm: float = 0.15  # strength at the end of a round
    bank_from: float = 0.25  # share of round 1 after which the bank joins the loss
    tokens: int = 16  # captions are cut here: the longest name has 14 tokens
    held_out_share: float = 0.05  # of the emoji drawings, for the validation curve
    without_house: str = ""  # a pretraining house to validate on, for choosing the recipe
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.begins[-1]

    @property
    def begins(self) -> list[int]:
        """The step at which each round begins, and the one after the last."""
        seen = itertools.accumulate((r.images for r in self.rounds), initial=0)
        return [images // self.batch for images in seen]


class Towers(torch.nn.Module):
    """open_clip's CLIP with a token table of only the tokens that captions use.

    A full table has 49,408 rows, and an optimiser would touch all of them at every step.
    """

    def __init__(self, recipe: Recipe, vocabulary: int) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        text = {**MODEL["text_cfg"], "vocab_size": vocabulary}
        self.clip = CLIP(MODEL["embed_dim"], MODEL["vision_cfg"], text)
        self.clip.visual.to(memory_format=torch.channels_last)

    def image(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, 64, 64] -> [B, E], normalised."""
        visual = self.clip.visual
        # Validation comes in batches of other sizes, not worth a compilation each.
        run = visual if self.training else visual.forward
        return F.normalize(run(x.contiguous(memory_format=torch.channels_last)).float(), dim=-1)

    def text(self, tokens: torch.Tensor, end: int) -> torch.Tensor:
        """Compact token ids [T, L] -> [T, E], normalised.

        Captions go through in four groups of like length, each cut after its last end token.
        """
        ends = (tokens == end).int().argmax(dim=1)
        order = ends.argsort()
        parts = order.tensor_split(min(4, len(order)))
        groups = [self._captions(tokens[part], ends[part]) for part in parts]
        return torch.cat(groups)[order.argsort()]

    def _captions(self, tokens: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        length = 2 * math.ceil((int(ends.max()) + 1) / 2)  # few shapes: CPU kernels are cached
        clip, tokens = self.clip, tokens[:, :length]
        x = clip.token_embedding(tokens) + clip.positional_embedding[: tokens.shape[1]]
        x = clip.transformer(x, attn_mask=clip.attn_mask[: x.shape[1], : x.shape[1]])
        x = clip.ln_final(x[torch.arange(len(x)), ends])
        return F.normalize((x @ clip.text_projection).float(), dim=-1)


def contrastive_loss(
    f: torch.Tensor, t: torch.Tensor, scale: torch.Tensor, others: torch.Tensor
) -> torch.Tensor:
    """Symmetric contrastive loss of CLIP (2103.00020, figure 3), with captions of other batches.

    Args:
        f: image features [B, E], normalised.
        t: text features [B, E], normalised; caption i belongs to image i and to no other.
        scale: the logit scale.
        others: features [X, E] of captions that belong to no image of the batch; X may be 0.

    Introduced in chapter 1.
    """
    logits = scale * f @ torch.cat([t, others]).T  # [B, B + X]
    label = torch.arange(len(f), device=f.device)
    return (F.cross_entropy(logits, label) + F.cross_entropy(logits[:, : len(f)].T, label)) / 2


def is_inner(name: str, weight: torch.Tensor) -> bool:
    """Whether Muon may train a weight: a kernel, or a matrix of a text block.

    Tables and outer projections are AdamW's, as Muon's authors advise; so is the attention pool,
    whose large squares would be most of Muon's arithmetic.
    """
    outer = ("embedding", "projection", "attnpool")
    return weight.ndim >= 2 and not any(part in name for part in outer)


def as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """A kernel [O, I, h, w], kept channels last, as [O, h * w * I]; a matrix as it is."""
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight


class Run:
    """State of a pretraining run: towers, optimiser, bank of captions' features, history."""

    def __init__(self, recipe: Recipe, folder: Path, device: str) -> None:
        self.recipe, self.folder, self.device = recipe, folder, device
        self.corpus = pairs.load_corpus(
            recipe.tokens, recipe.held_out_share, recipe.without_house, recipe.seed
        )
        self.end = int(np.flatnonzero(self.corpus.vocabulary == pairs.END)[0])
        self.towers = Towers(recipe, len(self.corpus.vocabulary)).to(device)
        self.bank = torch.zeros(len(self.corpus.members), MODEL["embed_dim"], device=device)
        self.step, self.history, self.seconds = 0, [], 0.0
        self.optimizers = self.start_round()

    def start_round(self) -> list[torch.optim.Optimizer]:
        """AdamW for all weights; in rounds with Muon that takes the towers' inner matrices."""
        r = self.recipe
        named = dict(self.towers.named_parameters()) if self.progress()[0].muon else {}
        self.matrices = {  # each as rows of outputs, the way Muon wants it, in the same memory
            p: torch.nn.Parameter(as_matrix(p.detach())) for n, p in named.items() if is_inner(n, p)
        }
        rest = [p for p in self.towers.parameters() if p not in self.matrices]
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": r.weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        adamw = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
        if not self.matrices:
            return [adamw]
        options = {"weight_decay": r.weight_decay, "adjust_lr_fn": "match_rms_adamw"}
        return [adamw, torch.optim.Muon(self.matrices.values(), **options)]

    def progress(self) -> tuple[Round, int, int]:
        """The round of this step, and the step within it, out of how many."""
        begins = self.recipe.begins
        k = min(bisect.bisect(begins, self.step), len(begins) - 1)  # a finished run: the last
        return self.recipe.rounds[k - 1], self.step - begins[k - 1], begins[k] - begins[k - 1]

    def loss(self) -> torch.Tensor:
        """Contrastive loss of this step's batch; the bank adds captions of earlier batches.

        An emoji comes up every seven steps, so its banked caption is nearly fresh. Each image is
        thus told from all emoji at once, for the price of one matrix product.
        """
        r, c = self.recipe, self.corpus
        seed = (r.seed, self.step)
        rows, concepts, tokens = pairs.draw_batch(c, r.batch, r.emoji_share, seed)
        picked = c.pixels[rows], c.mono[rows], c.flippable[rows]
        images = pairs.augment(*picked, seed, self.strength())
        with torch.autocast(self.device, torch.bfloat16):
            f = self.towers.image(images.to(self.device))  # [B, E]
            t = self.towers.text(tokens.to(self.device), self.end)  # [B, E]
        others = self.stale(concepts)
        self.bank[concepts] = t.detach()
        return contrastive_loss(f, t, self.towers.clip.logit_scale.exp(), others)

    def stale(self, concepts: np.ndarray) -> torch.Tensor:
        """Banked features [X, E] of the emoji captions outside the batch; none at first."""
        if self.step < self.recipe.bank_from * self.recipe.begins[1]:
            return self.bank[:0]
        wanted = self.corpus.is_emoji.copy()
        wanted[concepts] = False
        return self.bank[np.flatnonzero(wanted)]

    def strength(self) -> float:
        """Strength of this step's augmentation: it rises in round 1, stays, and falls at last."""
        r, (part, step, steps) = self.recipe, self.progress()
        done = step / steps
        if done < r.calm_from:
            rising = 0.1 + done / r.ramp if part is r.rounds[0] else 1.0
            return part.strength * min(1.0, rising)
        left = (1 - done) / (1 - r.calm_from)
        return r.calm + (part.strength - r.calm) * left

    def rate(self) -> float:
        """Learning rate of this step: in each round a linear warm-up, then a cosine to zero."""
        warmup, (part, step, steps) = self.recipe.warmup, self.progress()
        if step < warmup:
            return part.lr * (step + 1) / warmup
        return part.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    def update(self) -> float:
        """One optimiser step; returns the loss."""
        self.towers.train()
        loss = self.loss()
        self.towers.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.towers.parameters(), 1.0)
        for p, matrix in self.matrices.items():
            matrix.grad = as_matrix(p.grad)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate()
            optimizer.step()
        with torch.no_grad():
            self.towers.clip.logit_scale.clamp_(max=math.log(100))
        self.step += 1
        if self.step in self.recipe.begins[1:-1]:  # before anything is saved
            self.optimizers = self.start_round()
        return float(loss.detach())

    @torch.no_grad()
    def accuracy(self, rows: np.ndarray, concepts: np.ndarray, side: float = 1.0) -> float:
        """Zero-shot top-1 (%) on plain drawings, all emoji as classes.

        Args:
            rows: of the drawings.
            concepts: what each of them shows, an emoji.
            side: share of the picture's side that a drawing takes up.
        """
        self.towers.eval()
        c = self.corpus
        emoji = np.flatnonzero(c.is_emoji)
        texts = [pairs.EVALUATION_TEMPLATE.format(c.concept_names[i]) for i in emoji]
        tokens = c.compact(texts, self.recipe.tokens).to(self.device)
        t = torch.cat([self.towers.text(part, self.end) for part in tokens.split(256)])
        hits = 0
        for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 250)):
            f = self.towers.image(pairs.plain(c.pixels[rows[part]], side).to(self.device))
            hits += int((emoji[(f @ t.T).argmax(1).cpu()] == concepts[part]).sum())
        return 100 * hits / max(1, len(rows))

    def validate(self, side: float = 1.0) -> float:
        """Accuracy (%) on held-out drawings of pretraining houses."""
        rows, concepts = self.corpus.held_out
        return self.accuracy(rows[:1500], concepts[:1500], side)

    def seen(self) -> float:
        """Accuracy (%) on drawings that it trains on: the first one of each emoji."""
        emoji = np.flatnonzero(self.corpus.is_emoji)
        return self.accuracy(np.array([self.corpus.members[i][0] for i in emoji]), emoji)

    def save(self) -> None:
        """Writes the checkpoint beside the old one, then swaps them."""
        state = {
            "recipe": asdict(self.recipe), "towers": self.towers.state_dict(), "step": self.step,
            "optimizers": [o.state_dict() for o in self.optimizers], "bank": self.bank,
            "history": self.history, "seconds": self.seconds,
        }  # fmt: skip
        torch.save(state, self.folder / "checkpoint.part")
        os.replace(self.folder / "checkpoint.part", self.folder / "checkpoint.pt")

    def resume(self) -> None:
        """Goes on from the folder's checkpoint, if there is one of the same recipe."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise SystemExit(f"{path} is of another recipe: choose another --run folder.")
        self.towers.load_state_dict(state["towers"])
        self.bank.copy_(state["bank"])
        self.step, self.history = state["step"], state["history"]
        self.seconds = state["seconds"]
        self.optimizers = self.start_round()
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def train(self, every: int = 250) -> None:
        """Runs to the end; validates and saves every so many steps."""
        total, losses, since = self.recipe.steps, [], time.perf_counter()
        bar = tqdm(initial=self.step, total=total, desc="pretraining", mininterval=5)
        while self.step < total:
            losses.append(self.update())
            bar.update()
            if self.step % every == 0 or self.step == total:
                self.seconds += time.perf_counter() - since
                since = time.perf_counter()
                row = {"step": self.step, "loss": float(np.mean(losses)), "val": self.validate()}
                self.history.append(row)
                bar.set_postfix(row)
                self.save()
                losses = []
        (self.folder / "history.json").write_text(json.dumps(self.history))


def export(run: Run, target: Path) -> None:
    """Writes the towers as an open_clip model directory, fp16, with the full token table.

    Rows of tokens that no caption used are zero: they cost nothing once compressed.
    """
    state = {k: v.detach().cpu() for k, v in run.towers.clip.state_dict().items()}
    rows = torch.zeros(VOCABULARY, state["token_embedding.weight"].shape[1])
    rows[torch.from_numpy(run.corpus.vocabulary)] = state["token_embedding.weight"]
    state["token_embedding.weight"] = rows
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}
    target.mkdir(parents=True, exist_ok=True)
    save_file(half, target / "open_clip_model.safetensors")
    (target / "open_clip_model.safetensors").chmod(0o644)  # safetensors makes it private
    config = {
        "model_cfg": MODEL,
        "preprocess_cfg": {"mean": list(pairs.MEAN), "std": list(pairs.STD),
                           "interpolation": "bicubic", "resize_mode": "shortest"},
    }  # fmt: skip
    (target / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")


def report(run: Run) -> Path:
    """Writes results/pretrain_emoji_clip.json: recipe, curves, sizes and time."""
    clip, corpus = run.towers.clip, run.corpus

    def count(*modules: torch.nn.Module) -> int:
        return sum(p.numel() for m in modules for p in m.parameters())

    data = {
        "recipe": {**asdict(run.recipe), "begins": run.recipe.begins},
        "history": run.history,
        "seconds": run.seconds,
        "drawings": sum(len(set(m.tolist())) for m in corpus.members),
        "held_out": len(corpus.held_out[0]),
        "seen": run.seen(),
        "held_out_by_side": {side: run.validate(side) for side in SIDES},
        "emoji_concepts": int(corpus.is_emoji.sum()),
        "icon_concepts": int((~corpus.is_emoji).sum()),
        "tokens_in_use": len(corpus.vocabulary),
        "parameters": {
            "image tower": count(clip.visual),
            "text tower": count(clip.transformer, clip.ln_final),
            "token table in use": count(clip.token_embedding),
        },
    }
    command = (
        "python -m cocoop_tutorial.pretraining.run --run data/cache/pretrain --compile --publish"
    )
    return save_result("pretrain_emoji_clip", data, command, [run.recipe.seed], run.device)


def main(
    run: Annotated[Path, typer.Option(help="Folder of checkpoints and curves.")],
    emoji_share: Annotated[float, typer.Option(help="Share of emoji captions.")] = (
        Recipe.emoji_share
    ),
    without_house: Annotated[str, typer.Option(help="House to hold out, for trials.")] = "",
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    fused: Annotated[
        bool, typer.Option("--compile", help="Compile the image tower: a quarter faster.")
    ] = False,
    publish: Annotated[
        bool, typer.Option(help="Write the package's weights, and the curves to results/.")
    ] = False,
) -> None:
    """Pretrains emoji-clip, or goes on from the run folder's checkpoint."""
    recipe = Recipe(emoji_share=emoji_share, without_house=without_house, seed=seed)
    run.mkdir(parents=True, exist_ok=True)
    state = Run(recipe, run, device)
    state.resume()
    if fused:
        state.towers.clip.visual.compile()
    state.train()
    if publish:
        export(state, EMOJI_CLIP)
        report(state)


if __name__ == "__main__":
    typer.run(main)
