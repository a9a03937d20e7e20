"""The README's picture: what icon-clip sees in each of the icon datasets."""

import io
import textwrap
from pathlib import Path

import torch

from cocoop_tutorial.book.plots import image_grid
from cocoop_tutorial.clip.load import load_clip
from cocoop_tutorial.datasets import icons
from cocoop_tutorial.datasets.load import load_dataset
from cocoop_tutorial.errors import SettingError
from cocoop_tutorial.files import check_folder, write_atomic
from cocoop_tutorial.models.zero_shot import ZeroShotCLIP


@torch.no_grad()
def draw_hero(to: Path) -> None:
    """Draws two test images per dataset, each over the name that icon-clip gives it.

    Args:
        to: Picture file to write, a PNG.

    Raises:
        SettingError: Its name says that it is another kind of picture.
        FileError: It cannot be written.
    """
    if to.suffix.lower() != ".png":
        raise SettingError(f"{to} must end with .png, because the picture is a PNG.")
    check_folder(to.parent)
    clip = load_clip("icon-clip", device="cpu")
    pictures, captions = [], []
    for data in map(load_dataset, icons.MAIN):
        model = ZeroShotCLIP(clip, data.classnames, data.template)
        for i in (0, len(data.test) // 2 + 1):  # not chosen by what can be seen on them
            pictures.append(data.test[i][0])
            guess = model(clip.preprocess(pictures[-1])[None]).argmax()
            captions.append(textwrap.fill(data.classnames[guess], 12))
    fig = image_grid(pictures, captions, columns=11)
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=150, bbox_inches="tight", facecolor="white")
    write_atomic(to, file.getvalue())
