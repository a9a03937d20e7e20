"""The README's picture: what icon-clip sees in each of the icon datasets."""

import textwrap
from pathlib import Path

import torch

from cocoop_tutorial.book.plots import image_grid
from cocoop_tutorial.clip.load import load_clip
from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.load import load_dataset
from cocoop_tutorial.models.zero_shot import ZeroShotCLIP


@torch.no_grad()
def draw_hero(to: Path) -> None:
    """Draws two test images per dataset, each over the name that icon-clip gives it.

    Args:
        to: Picture file to write.
    """
    clip = load_clip("icon-clip", device="cpu")
    pictures, captions = [], []
    for data in map(load_dataset, icons.MAIN):
        model = ZeroShotCLIP(clip, data.classnames, data.template)
        for i in (0, len(data.test) // 2 + 1):  # not chosen by what can be seen on them
            pictures.append(data.test[i][0])
            guess = model(clip.preprocess(pictures[-1])[None]).argmax()
            captions.append(textwrap.fill(data.classnames[guess], 12))
    fig = image_grid(pictures, captions, columns=11)
    fig.savefig(to, dpi=150, bbox_inches="tight", facecolor="white")
