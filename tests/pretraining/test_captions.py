"""What drawings are called: grammar, composed tokens, and which captions are true of which."""

import numpy as np
import open_clip
import pytest
import torch

from cocoop_tutorial.datasets.icons.names import Drawing
from cocoop_tutorial.pretraining import captions as words


def drawing(concept: str, medium: str = "outline", subject: str = "", *others: str) -> Drawing:
    return Drawing("package", "icon", "house", concept, medium, tuple(subject.split()), others)


MOUSE = [
    drawing("mouse", "emoji", "animal mammal", "rodent"),
    drawing("mouse", "outline", "computers"),
    drawing("mouse", "solid"),
    drawing("rodent", "outline", "animals"),
    drawing("cat", "emoji", "animal"),
]


@pytest.fixture(scope="module")
def mice() -> words.Captions:
    return words.Captions(MOUSE, np.array([True, False, False, False, True]), 32, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("apple", "an icon of an apple"),
        ("cat", "an icon of a cat"),
        ("scissors", "an icon of scissors"),
        ("bread", "an icon of bread"),
        ("unicorn", "an icon of a unicorn"),
        ("hourglass", "an icon of an hourglass"),
        ("glass", "an icon of a glass"),
        ("2 arrows", "an icon of 2 arrows"),
    ],
)
def test_names_get_the_article_that_english_wants(name: str, caption: str) -> None:
    assert words.fill("an icon of a {}", name) == caption


def test_a_composed_caption_has_the_tokens_of_the_whole_text(mice: words.Captions) -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    drawn = mice.draw(torch.arange(5).repeat(40), torch.Generator().manual_seed(0))
    vocabulary = torch.tensor(mice.vocabulary)
    texts = set()
    for tokens, end in zip(drawn.tokens, drawn.ends, strict=True):
        assert tokens[end] == mice.end and (tokens[end + 1 :] == 0).all()
        ids = vocabulary[tokens][1:end].tolist()
        text = words._tokenizer.decode(ids).strip()
        assert tokenizer(text)[0, 1 : end + 1].tolist() == [*ids, words.END]
        texts.add(text)
    assert len(texts) > 60
    assert any(", a type of animal" in t.replace(" ,", ",") for t in texts)


def test_compact_ids_are_those_of_the_tokenizer(mice: words.Captions) -> None:
    row = mice.compact(["an icon of a mouse"])[0]
    expected = open_clip.get_tokenizer("ViT-B-32")("an icon of a mouse")[0, :32]
    assert torch.equal(torch.tensor(mice.vocabulary)[row], expected)


def test_forms_suit_the_medium(mice: words.Captions) -> None:
    rows = torch.tensor([0, 1, 2]).repeat_interleave(300)
    kinds = mice.draw(rows, torch.Generator().manual_seed(0)).kind.view(3, 300)
    said = [{words.KINDS[k] for k in row.tolist()} for row in kinds]
    assert "an emoji" in said[0] and "emoji" in said[0] and "an icon" not in said[0]
    assert "outline" in said[1] and "an icon" in said[1] and not {"an emoji", "solid"} & said[1]
    assert "solid" in said[2] and "outline" not in said[2]


def truth(mice: words.Captions, name: str, kind: str = "any", subject: str = "") -> list[int]:
    """The verdict on one caption for each drawing of MOUSE, from a batch with it at the end."""
    names = [*mice.concept_names, "rodent"]
    said = [names.index(name), words.KINDS.index(kind), ["", *words.SUBJECTS].index(subject)]
    columns = [torch.tensor([value] * 6) for value in said]
    drawn = words.Drawn(torch.zeros(6, 32), torch.zeros(6), *columns)
    return mice.truth(torch.tensor([0, 1, 2, 3, 4, 4]), drawn)[:5, 5].tolist()


def test_a_name_is_true_of_all_that_it_means(mice: words.Captions) -> None:
    assert truth(mice, "mouse") == [1, 1, 1, -1, -1]


def test_medium_and_subject_tell_like_named_drawings_apart(mice: words.Captions) -> None:
    assert truth(mice, "mouse", "solid") == [-1, -1, 1, -1, -1]
    assert truth(mice, "mouse", "an icon") == [-1, 1, 1, -1, -1]
    # What the package does not tell is left open.
    assert truth(mice, "mouse", subject="animal") == [1, -1, 0, -1, -1]
    assert truth(mice, "mouse", subject="device") == [-1, 1, 0, -1, -1]


def test_a_synonym_counts_neither_for_nor_against(mice: words.Captions) -> None:
    assert truth(mice, "rodent") == [0, 0, 0, 1, -1]


def test_subjects_are_pooled_by_name_only_where_it_means_one_thing() -> None:
    birds = [drawing("owl", "emoji", "animal bird"), drawing("owl")]
    assert words.pool_subjects(birds)[1] == {"animal", "bird"}
    assert words.pool_subjects(MOUSE)[2] == set()
