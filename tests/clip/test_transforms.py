"""The pixels that a backbone sees."""

import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from cocoop_tutorial.clip.transforms import TrainTransform, eval_transform

MEAN, STD = (0.48, 0.45, 0.40), (0.26, 0.26, 0.27)
BICUBIC = T.InterpolationMode.BICUBIC


def picture(width: int, height: int) -> Image.Image:
    return Image.effect_mandelbrot((width, height), (-2, -1, 1, 1), 20).convert("RGB")


@pytest.mark.parametrize("size", [(90, 40), (40, 90), (64, 64)])
def test_test_transform_is_resize_crop_normalise(size: tuple[int, int]) -> None:
    ours = eval_transform({"size": 32, "mean": MEAN, "std": STD})(picture(*size))
    official = T.Compose(
        [T.Resize(32, BICUBIC), T.CenterCrop(32), T.ToTensor(), T.Normalize(MEAN, STD)]
    )
    assert torch.equal(ours, official(picture(*size)))


@pytest.mark.parametrize("size", [(90, 40), (33, 200), (2, 200)])
def test_train_transform_draws_as_torchvision(size: tuple[int, int]) -> None:
    official = T.Compose(
        [
            T.RandomResizedCrop(32, scale=(0.08, 1.0), interpolation=BICUBIC),
            T.RandomHorizontalFlip(),
            T.ToTensor(),
            T.Normalize(MEAN, STD),
        ]
    )
    ours = TrainTransform(32, MEAN, STD)
    for seed in range(20):
        torch.manual_seed(seed)
        expected = official(picture(*size))
        torch.manual_seed(seed)
        torch.testing.assert_close(ours(picture(*size)), expected)


def test_a_generator_makes_the_draw_independent_of_the_global_state() -> None:
    ours = TrainTransform(32, MEAN, STD)
    torch.manual_seed(1)
    first = ours(picture(50, 50), torch.Generator().manual_seed(7))
    torch.manual_seed(2)
    second = ours(picture(50, 50), torch.Generator().manual_seed(7))
    other = ours(picture(50, 50), torch.Generator().manual_seed(8))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
