"""Figures of the appendix on pretraining: drawings by house, training pictures, curves."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from cocoop_tutorial.book.plots import STYLE, figure
from cocoop_tutorial.book.sheets import SIDE, sheet
from cocoop_tutorial.datasets.icons import drawings, houses, names, sources
from cocoop_tutorial.pretraining import augment, corpus
from cocoop_tutorial.pretraining.captions import Captions

ROLES = {"pretrain": "#0072B2", "source": "#D55E00", "shift": "#7A3E9D"}
GAP = 8  # pixels between two drawings
Drawn = Image.Image
Found = tuple[str, list[names.Drawing | None]]  # a house, and its drawing of each concept


@plt.rc_context(STYLE)
def house_figure(concepts: Sequence[str], others: int = 5) -> Figure:
    """The same concepts drawn by houses of each role: all of pretraining's, some of the others.

    Args:
        concepts: What to show, one per column.
        others: Houses of each other role: the first ones of the table that draw all concepts.
    """
    rows: list[list[Drawn | None]] = []
    labels: list[tuple[str, str]] = []
    for role in houses.ROLES:
        for house, found in _drawing_houses(role, concepts, others):
            labels.append((role, house))
            rows.append([drawing and _render(drawing) for drawing in found])
    fig, ax = figure(figsize=(0.42 * len(concepts) + 1.7, 0.4 * len(rows) + 0.8))
    ax.imshow(sheet(rows, SIDE, GAP), interpolation="lanczos")
    step = SIDE + GAP
    ax.set_yticks([step * i + SIDE / 2 for i in range(len(rows))], [house for _, house in labels])
    for label, (role, _) in zip(ax.get_yticklabels(), labels, strict=True):
        label.set_color(ROLES[role])
    ax.xaxis.tick_top()
    ax.set_xticks([step * i + SIDE / 2 for i in range(len(concepts))], concepts, rotation=45)
    for i in range(1, len(rows)):
        if labels[i][0] != labels[i - 1][0]:
            ax.axhline(step * i - GAP / 2, color="#555555", linewidth=1.2)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    return fig


def _drawing_houses(role: str, concepts: Sequence[str], others: int) -> Iterator[Found]:
    """Houses of a role with their drawings; few are looked at, because reading takes time."""
    mine = (house for house in houses.HOUSES if house.role == role)
    found = ((house.name, _first_drawings(house, concepts)) for house in mine)
    if role == "pretrain":
        return found
    return islice((pair for pair in found if None not in pair[1]), others)


def _first_drawings(house: houses.House, concepts: Sequence[str]) -> list[names.Drawing | None]:
    """A house's first drawing of each concept."""
    found: dict[str, names.Drawing] = {}
    for package in house.packages:
        for drawing in names.read(package):
            found.setdefault(drawing.concept, drawing)
    return [found.get(concept) for concept in concepts]


def _render(drawing: names.Drawing) -> Drawn:
    ink = drawings.rasterise(sources.svg(drawing.package, drawing.icon, SIDE))
    paper = Image.new("RGB", ink.size, "white")
    paper.paste(ink, mask=ink)
    return paper


@plt.rc_context(STYLE)
def augmented_figure(drawn: Sequence[names.Drawing], strength: float, columns: int = 7) -> Figure:
    """Drawings as they are, on the left, and training pictures that were made from them.

    Args:
        drawn: One per row.
        strength: Of the augmentation, from 0 to 1.
        columns: Training pictures of each.
    """
    generator, rows = torch.Generator().manual_seed(1), []
    for drawing in drawn:
        rgba = _rgba(drawing)[None]  # [1, 4, S, S]
        many = rgba.expand(columns, -1, -1, -1)
        mono = (rgba[:, :3].amax(dim=(1, 2, 3)) == 0).expand(columns)
        made = augment.augment(many, mono, torch.zeros_like(mono), strength, generator)
        rows.append([_picture(pixels) for pixels in (*augment.plain(rgba), *made)])
    fig, ax = figure(figsize=(0.7 * (columns + 1), 0.7 * len(rows)))
    ax.imshow(sheet(rows, augment.SIZE, GAP), interpolation="lanczos")
    ax.axvline(augment.SIZE + GAP / 2, color="#555555", linewidth=1.2)
    ax.axis("off")
    return fig


def _rgba(drawing: names.Drawing) -> Tensor:
    """A drawing as pretraining stores it: premultiplied [4, S, S], from 0 to 1."""
    svg = sources.svg(drawing.package, drawing.icon, corpus.STORED)
    return torch.from_numpy(corpus.rasterise(svg)).float() / 255


def _picture(pixels: Tensor) -> Drawn:
    """A normalised picture [3, H, W] as an image."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (augment.MEAN, augment.STD))
    return to_pil_image((pixels * std + mean).clamp(0, 1))


def caption_table(drawn: Sequence[names.Drawing], each: int = 3) -> pd.DataFrame:
    """Captions that pretraining may draw for some drawings, and which drawings they are true of.

    Args:
        drawn: Drawings that differ in package or name.
        each: Captions of each drawing.

    Returns:
        One row per caption and one column per drawing: "true", "false", or "" for neither.
    """
    coloured = [bool(_rgba(drawing)[:3].any()) for drawing in drawn]
    captions = Captions(list(drawn), np.array(coloured), 32, subject_share=0.6, synonym_share=0)
    rows = torch.arange(len(drawn)).repeat_interleave(each)
    found = captions.draw(rows, torch.Generator().manual_seed(1))
    verdicts = captions.truth(rows, found)[::each].T  # [captions, drawings]
    texts = [_text(captions, tokens) for tokens in found.tokens.tolist()]
    labels = [f"{d.concept} ({d.package})" for d in drawn]
    words = {1: "true", -1: "false", 0: ""}
    table = pd.DataFrame(verdicts.numpy(), texts, labels).map(words.__getitem__)
    return table[~table.index.duplicated()]


def _text(captions: Captions, tokens: Sequence[int]) -> str:
    ids = [captions.vocabulary[t] for t in tokens if t not in (0, captions.start, captions.end)]
    return SimpleTokenizer().decode(ids).strip().replace(" ,", ",").replace(" .", ".")


@plt.rc_context(STYLE)
def pretraining_figure(data: Mapping[str, Any]) -> Figure:
    """Loss and accuracy on held-out drawings along a pretraining run.

    Args:
        data: Of `results/pretrain_icon_clip.json`.
    """
    history = pd.DataFrame(data["history"])
    accuracy = history.melt("step", ["emoji", "icon"], "held-out drawings", "accuracy (%)")
    fig, (left, right) = figure(1, 2, figsize=(5.0, 2.5))
    sns.lineplot(history, x="step", y="loss", color=ROLES["pretrain"], ax=left)
    sns.lineplot(accuracy, x="step", y="accuracy (%)", hue="held-out drawings", ax=right)
    left.set_ylim(bottom=0)
    right.set_ylim(0, 100)
    return fig
