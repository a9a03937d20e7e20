"""Random poses, strokes, inks, light and backgrounds, so that only what is drawn stays.

All of a batch at once, on whatever device it lies.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, so that its preprocessing fits
STD = (0.26862954, 0.26130258, 0.27577711)
LUMA = (0.299, 0.587, 0.114)
SIZE = 64  # pixels of a training picture


@dataclass(frozen=True)
class Dice:
    """Random numbers for a batch of n; `strength` scales every range and chance."""

    n: int
    strength: float
    generator: torch.Generator

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """`[n, *shape]`, evenly between low and high."""
        device = self.generator.device
        return (
            torch.rand(self.n, *shape, generator=self.generator, device=device) * (high - low) + low
        )

    def around(self, middle: float, spread: float, *shape: int) -> torch.Tensor:
        """`[n, *shape]`, evenly around a middle, closer to it the lower the strength."""
        return middle + self.strength * self.uniform(-spread, spread, *shape)

    def chance(self, p: float) -> torch.Tensor:
        """Bool [n, 1, 1, 1], rarer the lower the strength."""
        return self.uniform(0, 1, 1, 1, 1) < p * self.strength


def normalise(rgb: torch.Tensor) -> torch.Tensor:
    """[B, 3, H, W] in 0..1 -> CLIP's normalisation."""
    mean = torch.tensor(MEAN, device=rgb.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=rgb.device).view(1, 3, 1, 1)
    return (rgb - mean) / std


def plain(rgba: torch.Tensor) -> torch.Tensor:
    """Drawings on white, premultiplied [B, 4, S, S] in 0..1 -> normalised [B, 3, 64, 64]."""
    x = F.interpolate(rgba, (SIZE, SIZE), mode="bicubic", antialias=True)
    return normalise((x[:, :3] + 1 - x[:, 3:]).clamp(0, 1))


def augment(
    rgba: torch.Tensor,
    mono: torch.Tensor,
    flippable: torch.Tensor,
    strength: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """Makes a picture of each drawing.

    Args:
        rgba: [B, 4, S, S] in 0..1, premultiplied.
        mono: bool [B]; line art, which may take any stroke and ink.
        flippable: bool [B].
        strength: 0 to 1; training starts low, or it starts slowly.
        generator: Of every random choice.

    Returns:
        [B, 3, 64, 64], normalised.
    """
    dice = Dice(len(rgba), strength, generator)
    mono = mono.view(-1, 1, 1, 1)
    alpha = torch.where(mono, _stroke(rgba[:, 3:], dice), rgba[:, 3:])
    poses = _poses(flippable & dice.chance(0.5).view(-1), dice)
    x = F.grid_sample(torch.cat([rgba[:, :3], alpha], 1), poses + _warp(dice), align_corners=False)
    colours, alpha = x[:, :3], x[:, 3:]
    background = _backgrounds(dice)
    colours = torch.where(mono, _ink(background, dice) * alpha, colours) * _light(dice)
    return normalise(_jitter(colours + background * (1 - alpha), dice))


def _stroke(alpha: torch.Tensor, dice: Dice) -> torch.Tensor:
    """Thicker or thinner lines: houses agree on none. A line never thins away."""
    wide = F.max_pool2d(alpha, 3, 1, 1)
    thin = -F.max_pool2d(-alpha, 3, 1, 1)
    kept = thin.mean((2, 3), keepdim=True) > 0.55 * alpha.mean((2, 3), keepdim=True)
    amount = dice.around(0, 1, 1, 1, 1)
    thinned = torch.where(kept, alpha.lerp(thin, -amount), alpha)
    return torch.where(amount > 0, alpha.lerp(wide, amount), thinned)


def _ink(background: torch.Tensor, dice: Dice) -> torch.Tensor:
    """Ink [B, 3, 1, 1] for line art: black, or a colour that shows on the background."""
    luma = torch.tensor(LUMA, device=background.device).view(1, 3, 1, 1)
    ground = (background.mean((2, 3), keepdim=True) * luma).sum(1, keepdim=True)
    ink = torch.where(dice.chance(0.7), dice.uniform(0, 1, 3, 1, 1), torch.zeros_like(ground))
    faint = ((ink * luma).sum(1, keepdim=True) - ground).abs() < 0.3
    shown = torch.where(ground < 0.5, 0.6 + 0.4 * ink, 0.35 * ink)
    return torch.where(faint, shown, ink)


def _poses(flip: torch.Tensor, dice: Dice) -> torch.Tensor:
    """Sampling grids [B, 64, 64, 2] of random turns, zooms, shears and shifts."""
    angle = dice.around(0, 0.5)
    zoom = 1 / dice.around(0.84, 0.26)
    shear, stretch = dice.around(0, 0.15), dice.around(1, 0.13)
    cos, sin = angle.cos(), angle.sin()
    across = torch.where(flip, -zoom, zoom) * stretch
    room = (1 - 1 / zoom).clamp(min=0.06)[:, None]
    shift = dice.uniform(-1, 1, 2) * room * zoom[:, None]
    theta = torch.stack(
        [across * cos, zoom * (shear - sin), shift[:, 0], across * sin, zoom * cos, shift[:, 1]], 1
    )
    return F.affine_grid(theta.view(-1, 2, 3), [dice.n, 4, SIZE, SIZE], align_corners=False)


@lru_cache(maxsize=8)
def _weights(few: int, mode: str, device: torch.device) -> torch.Tensor:
    """[SIZE, few]: how much each of a few points counts at each pixel of a side."""
    ones = torch.eye(few, device=device).view(few, 1, few, 1)
    return F.interpolate(ones, (SIZE, 1), mode=mode).view(few, SIZE).T.contiguous()


def _smooth(points: torch.Tensor, mode: str) -> torch.Tensor:
    """`F.interpolate` of [B, C, few, few] to [B, C, 64, 64], ten times faster on a GPU."""
    weights = _weights(points.shape[-1], mode, points.device)
    return weights @ points @ weights.T


def _warp(dice: Dice) -> torch.Tensor:
    """Smooth shifts [B, 64, 64, 2] of sampling points: no two houses agree on proportions."""
    return _smooth(dice.around(0, 0.16, 2, 4, 4), "bicubic").permute(0, 2, 3, 1)


def _light(dice: Dice) -> torch.Tensor:
    """Smooth shade [B, 1, 64, 64], at most 1: some houses shade what others paint flat."""
    return _smooth(dice.around(0.9, 0.4, 1, 3, 3), "bilinear").clamp(0, 1)


def _backgrounds(dice: Dice) -> torch.Tensor:
    """White, plain, graded or cloudy backgrounds [B, 3, 64, 64]."""
    first, second = dice.uniform(0, 1, 3, 1, 1), dice.uniform(0, 1, 3, 1, 1)
    ramp = torch.linspace(0, 1, SIZE, device=first.device).view(1, 1, SIZE, 1)
    graded, cloudy, white = dice.chance(0.4), dice.chance(0.3), ~dice.chance(0.9)
    result = first + torch.where(graded, (second - first) * ramp, 0).expand(-1, -1, -1, SIZE)
    clouds = _smooth(dice.uniform(0, 1, 3, 5, 5), "bicubic").clamp(0, 1)
    return torch.where(white, 1.0, torch.where(cloudy, clouds, result))


def _jitter(rgb: torch.Tensor, dice: Dice) -> torch.Tensor:
    """Colour, contrast, grey, blur and holes on [B, 3, 64, 64] in 0..1."""
    luma = torch.tensor(LUMA, device=rgb.device).view(1, 3, 1, 1)
    grey = (rgb * luma).sum(1, keepdim=True)
    saturation = torch.where(dice.chance(0.12), 0.0, dice.around(1, 0.6, 1, 1, 1))
    coloured = grey + (rgb - grey) * saturation
    # Channels swapped: the same shape in wrong colours.
    coloured = torch.where(dice.chance(0.08), coloured.flip(1), coloured)
    contrast, light = dice.around(1, 0.4, 1, 1, 1), dice.around(0, 0.15, 1, 1, 1)
    coloured = (coloured - 0.5) * contrast + 0.5 + light
    coloured = torch.where(dice.chance(0.07), torch.sigmoid((grey - 0.55) * 25), coloured)
    blurred = F.avg_pool2d(coloured, 3, 1, 1, count_include_pad=False)
    coloured = torch.where(dice.chance(0.15), blurred, coloured)
    mean = coloured.mean((2, 3), keepdim=True)
    return torch.where(_holes(dice), mean, coloured).clamp(0, 1)


def _holes(dice: Dice) -> torch.Tensor:
    """Bool [B, 1, 64, 64]: a square that is cut out of some pictures."""
    corner, side = dice.uniform(0, 0.7, 2), dice.uniform(0.15, 0.3, 1)
    place = torch.linspace(0, 1, SIZE, device=corner.device)
    inside = (place >= corner[..., None]) & (place < (corner + side)[..., None])  # [B, 2, 64]
    square = inside[:, 0, :, None] & inside[:, 1, None, :]
    return square[:, None] & dice.chance(0.2)
