"""Figures of chapter 1: cosines, drawings by house, pretraining curves, answers, templates."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cocoop_tutorial.book.plots import STYLE, figure, image_grid, palette
from cocoop_tutorial.book.sheets import sheet
from cocoop_tutorial.datasets.emoji import drawings, sources
from cocoop_tutorial.evaluation.accuracy import Evaluation

SEEN, UNSEEN = "#0072B2", "#D55E00"  # houses that pretraining saw, and the others
Drawn = Image.Image


@plt.rc_context(STYLE)
def cosine_figure(images: Sequence[Drawn], texts: Sequence[str], cosines: Tensor) -> Figure:
    """A table of cosines with an image above each column, and each image's best text framed.

    Colours compare the texts of one image, so each column has its own scale.

    Args:
        images: B pictures.
        texts: One prompt per row.
        cosines: `[B, texts]`.
    """
    table = cosines.T.cpu()  # one row per text
    fig, (top, ax) = figure(
        2, 1, figsize=(5.6, 4.6), height_ratios=(1, len(texts)), gridspec_kw={"hspace": 0}
    )
    top.imshow(sheet([images], 96, 12), interpolation="lanczos", aspect="equal")
    top.axis("off")
    low, high = table.amin(dim=0), table.amax(dim=0)
    shade = ((table - low) / (high - low).clamp(min=1e-6)).numpy()
    look = {"cmap": "Blues", "vmin": -0.1, "vmax": 1.2, "cbar": False, "annot_kws": {"size": 8}}
    sns.heatmap(shade, annot=table.numpy(), fmt=".2f", yticklabels=texts, ax=ax, **look)
    ax.set(xticks=[])
    ax.tick_params(length=0, rotation=0)
    for x, y in enumerate(table.argmax(dim=0).tolist()):
        place = (x + 0.04, y + 0.06)
        ax.add_patch(plt.Rectangle(place, 0.92, 0.88, fill=False, linewidth=2.2, edgecolor=UNSEEN))
    fig.set_dpi(200)  # this figure comes before the set-up cell that makes the others sharp
    return fig


@plt.rc_context(STYLE)
def house_figure(concepts: Sequence[str], side: int = 64) -> Figure:
    """The same concepts as drawn by every set, with the pretraining's sets on the left.

    Args:
        concepts: Slugs, one per row.
        side: Pixels of a drawing.
    """
    packages = [p for role in ("pretrain", "evaluate") for p in _emoji_packages(role)]
    rows = [[_drawing(p.name, slug, side) for p in packages] for slug in concepts]
    fig, ax = figure(figsize=(5.8, 0.42 * len(concepts) + 1.9))
    ax.imshow(sheet(rows, side, 8), interpolation="lanczos")
    places = [(side + 8) * i + side / 2 for i in range(len(packages))]
    ax.xaxis.tick_top()
    ax.set_xticks(places, [p.name for p in packages], rotation=90, va="bottom")
    for label, package in zip(ax.get_xticklabels(), packages, strict=True):
        label.set_color(SEEN if package.role == "pretrain" else UNSEEN)
    words = [slug.replace("-", " ") for slug in concepts]
    ax.set_yticks([(side + 8) * i + side / 2 for i in range(len(concepts))], words)
    ax.axvline((side + 8) * len(_emoji_packages("pretrain")) - 4, color="#555555", lw=1.5)
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    return fig


def _emoji_packages(role: str) -> list[sources.Package]:
    return [p for p in sources.PACKAGES if p.role == role and p.emoji]


def _drawing(package: str, slug: str, side: int) -> Drawn | None:
    icon = sources.drawn(package).get(slug)
    if icon is None:
        return None
    return Image.fromarray(drawings.on_white(drawings.rasterise(package, icon, side)))


def houses_by_role() -> dict[str, str]:
    """The houses of each role as text, separated by commas; no house has two roles."""
    houses: dict[str, list[str]] = {}
    for package in sources.PACKAGES:
        names = houses.setdefault(package.role, [])
        if package.house not in names:
            names.append(package.house)
    return {role: ", ".join(names) for role, names in houses.items()}


@plt.rc_context(STYLE)
def pretraining_figure(data: Mapping[str, Any]) -> Figure:
    """Loss and validation accuracy of a pretraining run; dotted: where the bank and rounds begin.

    Args:
        data: Of `results/pretrain_emoji_clip.json`.
    """
    history, recipe = pd.DataFrame(data["history"]), data["recipe"]
    _, *later, _ = recipe["begins"]
    begins = {"bank": recipe["bank_from"] * later[0]}
    begins |= {f"round {k}": step for k, step in enumerate(later, start=2)}
    fig, axes = figure(1, 2, figsize=(5.6, 2.5))
    shown = {"loss": "training loss", "val": "validation accuracy (%)"}
    for ax, (column, label) in zip(axes, shown.items(), strict=True):
        sns.lineplot(history, x="step", y=column, color=SEEN, ax=ax)
        ax.set(ylabel=label, ylim=(0, None))
        for begin in begins.values():
            ax.axvline(begin, color="#555555", linestyle=":", linewidth=1)
    for name, begin in begins.items():
        axes[0].text(begin, axes[0].get_ylim()[1], f" {name}", va="top", fontsize=8)
    return fig


def answer_figure(result: Evaluation, images: Sequence[Drawn], places: Sequence[int]) -> Figure:
    """Pictures with the model's answers, and the true name under a wrong one.

    Args:
        result: An evaluation.
        images: The pictures at `places`.
        places: Positions in the evaluated split.
    """
    captions = []
    for i in places:
        guess, truth = (result.classnames[k] for k in (result.predictions[i], result.labels[i]))
        lines = [guess] if guess == truth else [f"{guess}?", f"no: {truth}"]
        captions.append("\n".join(textwrap.fill(line, 18) for line in lines))
    return image_grid(images, captions, columns=6, size=1.2)


@plt.rc_context(STYLE)
def template_figure(single: Mapping[str, float], ensembles: Mapping[str, float]) -> Figure:
    """Accuracy of templates, from the best to the worst, and of ensembles below them.

    Args:
        single: Accuracy in percent by template.
        ensembles: Accuracy in percent by ensemble.
    """
    kinds = {"CLIP": pd.Series(single).sort_values(ascending=False), "CLIP ensemble": ensembles}
    rows = [(kind, name, value) for kind, found in kinds.items() for name, value in found.items()]
    fig, ax = figure(figsize=(5.4, 0.27 * len(rows) + 0.7))
    look = {"palette": palette(kinds), "saturation": 1, "edgecolor": "white", "legend": False}
    table = pd.DataFrame(rows, columns=["kind", "template", "accuracy (%)"])
    sns.barplot(table, x="accuracy (%)", y="template", hue="kind", ax=ax, **look)
    for drawn in ax.containers:
        ax.bar_label(drawn, fmt="%.1f", fontsize=8, padding=2)
    ax.set(ylabel="")
    return fig
