"""Real open_clip models, small enough to build in a moment."""

from functools import cache

import torch
from open_clip.model import CLIP, CustomTextCLIP

from cocoop_tutorial import FrozenCLIP

VIT = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1, "head_width": 32}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32}
TEXT = {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}

KINDS = ("vit-quickgelu", "vit-gelu", "resnet", "custom-text", "not-causal")


@cache
def small_clip(kind: str = "vit-gelu", context_length: int = 32, seed: int = 0) -> FrozenCLIP:
    """A random CLIP of one of KINDS; the same call gives the same object."""
    text = {**TEXT, "context_length": context_length, "no_causal_mask": kind == "not-causal"}
    build = CustomTextCLIP if kind in ("custom-text", "not-causal") else CLIP
    vision = RESNET if kind == "resnet" else VIT
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(48, vision, text, quick_gelu=kind == "vit-quickgelu")
    return FrozenCLIP(model, f"small-{kind}")


def random_features(clip: FrozenCLIP, n: int, seed: int = 0) -> torch.Tensor:
    """`[n, E]`, L2-normalised."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n, clip.embed_dim, generator=generator)
    return torch.nn.functional.normalize(drawn, dim=-1)
