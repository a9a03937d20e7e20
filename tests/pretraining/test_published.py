"""The weights in the package: what their card says, their size, where they come from."""

import zlib

import pytest
import torch

from cocoop_tutorial import load_clip, load_result
from cocoop_tutorial.clip.load import ICON_CLIP
from cocoop_tutorial.datasets.icons import houses

WEIGHTS = ICON_CLIP / "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def data() -> dict:
    return load_result("pretrain_icon_clip")["data"]


def test_only_pretraining_houses_were_seen(data: dict) -> None:
    assert set(data["houses"]) == {h.name for h in houses.HOUSES if h.role == "pretrain"}
    assert data["recipe"]["without_house"] == ""


def test_the_card_names_every_house_with_its_licences_and_the_counts(data: dict) -> None:
    card = (ICON_CLIP / "README.md").read_text(encoding="utf-8")
    for house in houses.HOUSES:
        line = f"| {house.name} | {', '.join(house.packages)} |"
        assert (line in card) == (house.role == "pretrain")
        if house.role == "pretrain":
            row = next(row for row in card.splitlines() if row.startswith(line))
            assert all(licence in row for licence in house.licence.split())
    assert f"{data['drawings']:,} drawings of {data['concepts']:,} concepts" in card


def test_the_run_went_to_the_end_of_its_schedule(data: dict) -> None:
    steps = [row["step"] for row in data["history"]]
    assert steps == sorted(steps)
    assert steps[-1] == data["history"][-1]["of"]
    assert data["history"][-1]["loss"] == min(row["loss"] for row in data["history"])


def test_the_file_is_small_and_compresses_well() -> None:
    content = WEIGHTS.read_bytes()
    assert len(content) < 40e6
    assert len(zlib.compress(content)) < 20e6


def test_it_loads_by_name_and_tells_words_in_use_from_others(data: dict) -> None:
    clip = load_clip("icon-clip", device="cpu")
    used = (clip.model.token_embedding.weight != 0).any(1)
    assert clip.image_size == 64
    assert int(used.sum()) == data["tokens_in_use"]
    assert used[clip.tokenizer("an outline icon of a crane, a type of bird.")[0]].all()
    with torch.no_grad():
        texts = ["cat", "dog", "an icon of a cat."]
        t = clip.model.encode_text(clip.tokenizer(texts), normalize=True)
    assert t[0] @ t[2] > t[1] @ t[2] + 0.3
