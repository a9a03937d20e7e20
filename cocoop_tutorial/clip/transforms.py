"""From a PIL image to a normalised tensor, as the official protocol has it (chapter 2)."""

import math
from collections.abc import Callable
from typing import Any

import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

Transform = Callable[[Image.Image], Tensor]


def eval_transform(config: dict[str, Any]) -> Transform:
    """Resize (bicubic), centre crop, normalise: the same pixels every time.

    Args:
        config: open_clip's `preprocess_cfg` of the backbone.

    Returns:
        A function from a PIL image to `[3, H, W]`.
    """
    return image_transform_v2(PreprocessCfg(**config), is_train=False)


class TrainTransform:
    """A random crop of 8-100% of the area, resized (bicubic), and a flip for every second image.

    The same draws as torchvision's `RandomResizedCrop` and `RandomHorizontalFlip`, but from a
    generator that the caller may give: with one generator an image, threads can decode in any
    order and the pixels stay the same.
    """

    def __init__(self, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.size, self.mean, self.std = size, mean, std
        self.scale, self.ratio = (0.08, 1.0), (3 / 4, 4 / 3)  # official INPUT.RRCROP_SCALE

    def __call__(self, image: Image.Image, generator: torch.Generator | None = None) -> Tensor:
        """Draws one crop of `image`.

        Args:
            image: PIL image of any size.
            generator: Source of the draw; None takes torch's global one.

        Returns:
            `[3, size, size]`, normalised.
        """
        top, left, height, width = self._box(image.height, image.width, generator)
        image = F.resized_crop(
            image.convert("RGB"), top, left, height, width,
            [self.size, self.size], InterpolationMode.BICUBIC,
        )  # fmt: skip
        if torch.rand(1, generator=generator) < 0.5:
            image = F.hflip(image)
        return F.normalize(F.to_tensor(image), self.mean, self.std)

    def _box(self, height: int, width: int, g: torch.Generator | None) -> tuple[int, ...]:
        """Top, left, height, width of the crop; the centre when ten draws do not fit."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * torch.empty(1).uniform_(*self.scale, generator=g).item()
            aspect = torch.exp(torch.empty(1).uniform_(low, high, generator=g)).item()
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                top = torch.randint(0, height - h + 1, (1,), generator=g).item()
                left = torch.randint(0, width - w + 1, (1,), generator=g).item()
                return int(top), int(left), h, w
        w = min(width, round(height * self.ratio[1]))
        h = min(height, round(width / self.ratio[0]))
        return (height - h) // 2, (width - w) // 2, h, w
