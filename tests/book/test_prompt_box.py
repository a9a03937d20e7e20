"""The prompt box: how it reads a text, what it stores, and what it answers."""

import re
from pathlib import Path

import pytest
import torch
from prompt_pages import nearest_prompt, page_data, unpack
from torch.nn import functional as F

from cocoop_tutorial import Split, ZeroShotCLIP, image_features, load_clip
from cocoop_tutorial.book import prompt_box as box

NAMES = ["cat", "cat face", "pot of food", "leaf fluttering in wind"]
TEMPLATES = ["an icon of a {}.", "{}", "a photo of a {}.", "a {}, a type of food."]
PROMPTS = box.known_prompts(TEMPLATES, NAMES)


def test_knows_each_class_in_each_template() -> None:
    assert len(PROMPTS) == len(TEMPLATES) * len(NAMES)
    assert PROMPTS[2 * len(NAMES) + 1] == "a photo of a cat face."
    assert PROMPTS.index(box.as_read("  A photo of   a CAT.")) == 2 * len(NAMES)
    for other in ("a photo of a cat", "a photo of the cat.", "asdf", ""):
        assert box.as_read(other) not in PROMPTS


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("a photo of a cat", "a photo of a cat."),
        ("my fotos of a cat face", "a photo of a cat face."),
        ("pto of food", "pot of food"),
        ("a cat face, a tipe of food", "a cat face, a type of food."),
        ("LEAF fluttering", "leaf fluttering in wind"),
        ("ü", PROMPTS[0]),  # like none of them
        ("", PROMPTS[0]),
    ],
)
def test_offers_the_nearest_prompt(text: str, prompt: str) -> None:
    assert nearest_prompt(text, PROMPTS) == prompt


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a photo of a Cat!", "cat"),
        ("the face of a cat face", "cat face"),
        ("some food", None),
        ("a catalogue", None),
        ("", None),
    ],
)
def test_finds_the_whole_name_of_a_class(text: str, name: str | None) -> None:
    found = box.find_class(text, NAMES)
    assert (None if found is None else NAMES[found]) == name


@pytest.mark.parametrize(
    ("text", "name", "template"),
    [
        ("My Cat face, {huge}", "cat face", "My {}, (huge)"),
        ("a catalogue of a cat", "cat", "a catalogue of a {}"),
        ("some food", "pot of food", None),
    ],
)
def test_makes_a_template_of_a_text(text: str, name: str, template: str | None) -> None:
    assert box.template_of(text, name) == template


def test_small_integers_keep_the_cosines() -> None:
    rows = F.normalize(torch.randn(40, 256, generator=torch.Generator().manual_seed(0)), dim=-1)
    back = torch.tensor(unpack(box.to_bytes(rows), 256)).float()
    assert (back @ back.T - rows @ rows.T).abs().max() < 3e-3


def test_shows_the_typed_class_even_if_it_is_unlikely() -> None:
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05])
    rows = box.answer_rows(shares, NAMES, truth=1, typed=3, top=2)
    assert [label for label, _, _ in rows] == ["cat", "cat face (true)", NAMES[3]]
    assert [stands_out for _, _, stands_out in rows] == [False, False, True]


@pytest.fixture(scope="module")
def clip(model_dir: Path):
    return load_clip(f"local-dir:{model_dir}", device="cpu")


@pytest.fixture
def split(image_folder: Path) -> Split:
    files = sorted(image_folder.rglob("*.png"))
    return Split([(path, i % len(NAMES)) for i, path in enumerate(files)])


def test_page_holds_what_the_models_say(clip, split: Split) -> None:
    models = {t: ZeroShotCLIP(clip, NAMES, t) for t in TEMPLATES}
    chosen = [3, 8, 20]
    page = box.prompt_box(models, split, chosen, 'a "cat" <b>').data
    data = page_data(page)
    texts, images = (torch.tensor(unpack(data[k], data["width"])) for k in ("texts", "images"))
    texts = texts.float().view(len(TEMPLATES), len(NAMES), -1)
    features, labels = image_features(clip, split)
    for t, model in enumerate(models.values()):
        wanted = model.logits_from_features(features).softmax(dim=1)
        got = (data["scale"] * images.float() @ texts[t].T).softmax(dim=1)
        assert torch.allclose(got, wanted[chosen], atol=0.02)
        hits = (wanted.argmax(dim=1) == labels).float().mean().item()
        assert data["accuracy"][t] == pytest.approx(100 * hits, abs=0.06)
    assert data["prompts"] == PROMPTS
    assert data["labels"] == [split.labels[i] for i in chosen]
    assert page.count("data-picture=") == len(chosen)
    assert 'value="a &quot;cat&quot; &lt;b&gt;"' in page
    assert "__" not in re.sub(r"var data = .*", "", page), "a place was left unfilled"


def test_live_box_answers_any_words(clip, split: Split) -> None:
    live = box.live_prompt_box(ZeroShotCLIP(clip, NAMES, TEMPLATES[0]), split, [0, 5])
    text, choose, answer = live.children
    seen = [answer.value]
    for typed in ("a photo of a cat face", "something without a name {}", "wind <i>"):
        text.value = typed
        seen.append(answer.value)
    choose.value = 5
    seen.append(answer.value)
    assert len(set(seen)) == len(seen)
    assert "something without a name {}" in seen[2]
    assert "wind &lt;i&gt;" in seen[3] and "<i>" not in seen[3]


def test_live_box_uses_the_typed_words_for_all_classes(clip, split: Split) -> None:
    live = box.live_prompt_box(ZeroShotCLIP(clip, NAMES, TEMPLATES[0]), split, [0])
    live.children[0].value = "a small picture of a cat face."
    model = ZeroShotCLIP(clip, NAMES, "a small picture of a {}.")
    features, _ = image_features(clip, split)
    share = model.logits_from_features(features[:1]).softmax(dim=1)[0, NAMES.index("cat face")]
    assert f"{100 * share:.1f}%" in live.children[2].value


def test_live_box_says_when_words_are_too_many(clip, split: Split) -> None:
    live = box.live_prompt_box(ZeroShotCLIP(clip, NAMES, TEMPLATES[0]), split, [0])
    live.children[0].value = "<b> " + 20 * "very " + "small cat"
    assert "tokens long" in live.children[2].value and "&lt;b&gt;" in live.children[2].value
