"""Seeds: the same number draws the same, whatever its type, and nothing else is taken."""

import random
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from small_clips import small_clip

from cocoop_tutorial import Dataset, ImageFolder, Split, TrainConfig, few_shot
from cocoop_tutorial.book.notebook import seed_everything
from cocoop_tutorial.errors import DataError, SettingError
from cocoop_tutorial.experiments.methods import METHODS
from cocoop_tutorial.seeds import as_int, check_seed
from cocoop_tutorial.text_encoder.words import random_like

SAMPLES = [(Path(f"{y}/{i}.png"), y) for y in range(2) for i in range(30)]
DATA = Dataset("any", ["ant", "bee"], Split(SAMPLES), Split(), Split())
WRONG = ["1", b"1", 1.0, 1.5, np.float32(1), True, np.True_, None, [1], Decimal(1), -1, 2**64]


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)])
def test_any_integral_seed_equals_the_int(seed: object, image_folder: Path) -> None:
    assert type(check_seed(seed)) is int and check_seed(seed) == 3
    assert few_shot(DATA, 16, seed).train == few_shot(DATA, 16, 3).train
    assert ImageFolder(image_folder, seed=seed).test == ImageFolder(image_folder, seed=3).test


@pytest.mark.parametrize("seed", WRONG, ids=repr)
def test_anything_else_is_an_error_that_names_the_seed(seed: object, image_folder: Path) -> None:
    for draw in (
        lambda: few_shot(DATA, 16, seed),
        lambda: ImageFolder(image_folder, seed=seed),
        lambda: METHODS["coop"].build(small_clip(), DATA, seed),
        lambda: seed_everything(seed),
        lambda: random_like(torch.ones(1, 2), seed),
        lambda: TrainConfig(seed=seed),
    ):
        with pytest.raises(SettingError, match=r"seed is .*whole number from 0"):
            draw()


def test_the_largest_seed_is_one_that_every_generator_takes() -> None:
    largest = check_seed(2**64 - 1)
    torch.Generator().manual_seed(largest)
    random.Random(largest)
    np.random.default_rng(largest)


@pytest.mark.parametrize("shots", ["16", 2.0, True, None], ids=repr)
def test_shots_are_a_whole_number(shots: object) -> None:
    with pytest.raises(DataError, match="shots is"):
        few_shot(DATA, shots)
    assert few_shot(DATA, np.int64(4)).train == few_shot(DATA, 4).train


def test_as_int_keeps_large_numbers() -> None:
    assert as_int(10**30) == 10**30 and as_int(np.uint64(2**63)) == 2**63
