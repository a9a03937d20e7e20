"""The README's picture: what emoji-clip sees in each of the emoji datasets."""

import textwrap
from pathlib import Path

import torch

from cocoop_tutorial.book.plots import image_grid
from cocoop_tutorial.clip.load import load_clip
from cocoop_tutorial.datasets import emoji, load_dataset
from cocoop_tutorial.models.zero_shot import ZeroShotCLIP


@torch.no_grad()
def draw_hero(to: Path) -> None:
    """Draws two test images per dataset, each over the name that emoji-clip gives it.

    Args:
        to: Picture file to write.
    """
    clip = load_clip("emoji-clip", device="cpu")
    pictures, captions = [], []
    for data in (load_dataset(name) for name in emoji.NAMES if name not in emoji.SHIFTS):
        model = ZeroShotCLIP(clip, data.classnames, data.template)
        for i in (0, len(data.test) // 2 + 1):  # not chosen by what can be seen on them
            pictures.append(data.test[i][0])
            guess = model(clip.preprocess(pictures[-1])[None]).argmax()
            captions.append(textwrap.fill(data.classnames[guess], 12))
    fig = image_grid(pictures, captions, columns=11)
    fig.savefig(to, dpi=150, bbox_inches="tight", facecolor="white")
