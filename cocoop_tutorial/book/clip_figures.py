"""Figures of chapter 1: cosines, examples, answers, templates."""

import io
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cocoop_tutorial.book.plots import STYLE, figure, image_grid, palette
from cocoop_tutorial.book.sheets import sheet
from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.icons import drawings, names
from cocoop_tutorial.datasets.splits import Dataset
from cocoop_tutorial.evaluation.accuracy import Evaluation

FRAME = "#D55E00"
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
        2, 1, figsize=(4.8, 0.55 * len(texts) + 1.1), height_ratios=(1.1, 0.55 * len(texts)),
        gridspec_kw={"hspace": 0},
    )  # fmt: skip
    top.imshow(sheet([images], 96, 12), interpolation="lanczos", aspect="equal")
    top.axis("off")
    top.set_anchor("S")
    low, high = table.amin(dim=0), table.amax(dim=0)
    shade = ((table - low) / (high - low).clamp(min=1e-6)).numpy()
    look = {"cmap": "Blues", "vmin": -0.1, "vmax": 1.2, "cbar": False, "annot_kws": {"size": 9}}
    sns.heatmap(shade, annot=table.numpy(), fmt=".2f", yticklabels=texts, ax=ax, **look)
    ax.set(xticks=[])
    ax.tick_params(length=0, rotation=0)
    for x, y in enumerate(table.argmax(dim=0).tolist()):
        place = (x + 0.04, y + 0.06)
        ax.add_patch(plt.Rectangle(place, 0.92, 0.88, fill=False, linewidth=2.2, edgecolor=FRAME))
    fig.set_dpi(200)  # it comes before the set-up cell, which makes the others sharp
    return fig


def media_of(data: Dataset) -> list[str]:
    """How each test picture is drawn, such as "outline"; "photo" outside the embedded world."""
    if data.name not in icons.NAMES:
        return ["photo"] * len(data.test)
    return [icons.medium(path) for path, _ in data.test.samples]


def right_examples(result: Evaluation, media: Sequence[str], count: int = 4) -> list[int]:
    """Right answers of different classes and, where there are enough, of different media.

    The list of classes is cut into `count` equal parts. Of each part it takes the first image that
    is named right in a medium that was not taken yet; if there is none, the first named right.

    Args:
        result: An evaluation of N images.
        media: N words.
        count: How many examples; a part without a right answer has none.

    Returns:
        Positions in the evaluated split.
    """
    chosen: list[int] = []
    part = result.labels * count // len(result.classnames)  # [N]
    for number in range(count):
        right = (result.correct & (part == number)).nonzero().flatten().tolist()
        seen = {media[i] for i in chosen}
        chosen += ([i for i in right if media[i] not in seen] or right)[:1]
    return chosen


def posed(package: str, concept: str) -> Drawn:
    """A package's first drawing of a concept as a picture, made as those of the datasets are."""
    drawing = next(d for d in names.read(package) if d.concept == concept)
    return Image.open(io.BytesIO(drawings.png(drawings.pose(drawing, concept))))


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
        captions.append("\n".join(textwrap.fill(line, 12) for line in lines))
    return image_grid(images, captions, columns=6, size=0.8)


@plt.rc_context(STYLE)
def template_figure(single: Mapping[str, float], ensembles: Mapping[str, float]) -> Figure:
    """Accuracy of templates, from the best to the worst, and of ensembles below them.

    Dots and no bars, so that the axis may begin where the values do and shows single points.

    Args:
        single: Accuracy in percent by template.
        ensembles: Accuracy in percent by ensemble.
    """
    ordered = dict(sorted(single.items(), key=lambda item: -item[1]))
    rows = [("CLIP", *item) for item in ordered.items()]
    rows += [("CLIP ensemble", *item) for item in ensembles.items()]
    table = pd.DataFrame(rows, columns=["kind", "template", "accuracy (%)"])
    fig, ax = figure(figsize=(4.8, 0.27 * len(rows) + 0.7))
    look = {"palette": palette(table.kind.unique()), "legend": False, "jitter": False, "size": 7}
    sns.stripplot(table, x="accuracy (%)", y="template", hue="kind", ax=ax, **look)
    for place, value in enumerate(table["accuracy (%)"]):
        ax.annotate(f"{value:.1f}", (value, place), (6, 0), textcoords="offset points", va="center")
    ax.margins(x=0.15)
    ax.set(ylabel="")
    return fig


@plt.rc_context(STYLE)
def template_table_figure(table: pd.DataFrame) -> Figure:
    """Templates by datasets: points above or below the mean of a dataset; its best is framed.

    Args:
        table: Accuracy in percent, one row per template and one column per dataset.
    """
    short = table.rename(columns=lambda name: name.removeprefix("icons_"))
    above = short - short.mean()
    fig, ax = figure(figsize=(5.4, 0.3 * len(table) + 1.2))
    reach = above.stack().abs().quantile(0.9)  # one bad template would make all others pale
    look = {"cmap": "PuOr", "vmin": -reach, "vmax": reach, "cbar": False, "annot_kws": {"size": 8}}
    numbers = above.map(lambda points: str(round(points)))
    sns.heatmap(above, annot=numbers, fmt="", ax=ax, **look)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.set_xticks(ax.get_xticks(), list(short), rotation=60, ha="left")
    ax.grid(visible=False)
    for x, y in enumerate(above.to_numpy().argmax(axis=0)):
        ax.add_patch(plt.Rectangle((x, y), 1, 1, fill=False, linewidth=1.6, edgecolor="black"))
    return fig
