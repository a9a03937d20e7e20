"""Chooses the images of `emoji_objects_a`, as ImageNet-A was chosen: another model gets them wrong.

    python -m cocoop_tutorial.pretrain --run data/cache/other --to data/cache/other-clip
        --width 16 --images 150000 --seed 1 --small-share 0 --restart-steps 0
    python -m cocoop_tutorial.datasets.emoji.hard data/cache/other-clip

The other model is a narrower CLIP from another seed and a short run. It is fixed: its choice is
kept in hard.json, so that nobody needs it to use the data set. (Chapter 2.)
"""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from cocoop_tutorial.backbones import load_clip
from cocoop_tutorial.datasets.emoji import TEMPLATE
from cocoop_tutorial.datasets.emoji import making


@torch.no_grad()
def main(
    model: Annotated[Path, typer.Argument(help="open_clip folder of the other model.")],
) -> None:
    """Writes hard.json: the candidates that the model classifies wrongly among all classes."""
    clip = load_clip(f"local-dir:{model}", device="cpu")
    names = [making.class_name(c) for c in making.classes(making.SOURCE)]
    label = {c.slug: i for i, c in enumerate(making.classes(making.SOURCE))}
    weights = clip.encode_text([TEMPLATE.format(name) for name in names])  # [K, E]
    candidates, wrong = making.hard_candidates(), []
    for start in range(0, len(candidates), 256):
        batch = candidates[start : start + 256]
        images = torch.stack([clip.preprocess(making.compose(p)) for p in batch])
        guesses = (clip.encode_image(images) @ weights.T).argmax(dim=1).tolist()
        wrong += [p for p, g in zip(batch, guesses, strict=True) if g != label[p.concept]]
    listed = [[p.concept, p.package, p.number] for p in wrong]
    text = json.dumps({"candidates": len(candidates), "pictures": listed}, indent=None)
    making.HARD_LIST.write_text(text.replace("], [", "],\n[") + "\n")
    print(f"{len(wrong)} of {len(candidates)} candidates are hard")


if __name__ == "__main__":
    typer.run(main)
