import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_clips import small_clip

from cocoop_tutorial.errors import PromptError, UnknownNameError
from cocoop_tutorial.text_encoder.prompts import (
    POSITIONS,
    ClassPrompts,
    check_classnames,
    fill_template,
    initial_context,
)
from cocoop_tutorial.text_encoder.reference import insert_context

NAMES = ["face", "cougar_body", "Great Wall of China at sunrise", "a&m!", "st. bernard's"]
# No "&": HTML entities are cleaned across a whole text, which names do not have.
LETTERS = "abcdefghijklmnopqrstuvwxyzABC0123456789.,;:!?'\"()[]{}<>|/-+*%$#@^~`=éñß猫"
words = st.text(LETTERS, min_size=1, max_size=9)
names = st.lists(words, min_size=1, max_size=4).map("_".join)


def official_prompt(name: str, context: torch.Tensor, position: str) -> torch.Tensor:
    """One prompt `[T, D]` by the official recipe: placeholders, cut after them, concatenate."""
    clip, n_ctx = small_clip(context_length=77), len(context)
    name = name.replace("_", " ")
    text = " ".join(["X"] * n_ctx) + " " + name + "."
    embedded = clip.text_tower.token_embedding(clip.tokenize([text])[0])
    start, rest = embedded[:1], embedded[1 + n_ctx :]
    length, half = len(clip.tokenizer.encode(name)), n_ctx // 2
    parts = {
        "end": [start, context, rest],
        "middle": [start, context[:half], rest[:length], context[half:], rest[length:]],
        "front": [start, rest[:length], context, rest[length:]],
    }
    return torch.cat(parts[position])


def assert_official(name: str, n_ctx: int, position: str) -> None:
    clip = small_clip(context_length=77)
    prompts = ClassPrompts(clip, [name], n_ctx, position)
    context = torch.randn(n_ctx, clip.text_width)
    embedded = clip.text_tower.token_embedding(prompts.tokens)
    ours = insert_context(embedded, context.unsqueeze(0), prompts.context_slots)[0]
    assert torch.equal(ours, official_prompt(name, context, position))
    end = prompts.end_positions[0]
    assert prompts.tokens[0, end] == clip.tokenizer.eot_token_id
    assert not prompts.tokens[0, end + 1 :].any()


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("n_ctx", [1, 4, 5, 16])
@pytest.mark.parametrize("name", NAMES)
def test_layout_is_the_official_one(name: str, n_ctx: int, position: str) -> None:
    assert_official(name, n_ctx, position)


@settings(deadline=None, max_examples=60)
@given(name=names, n_ctx=st.integers(1, 16), position=st.sampled_from(POSITIONS))
def test_layout_is_the_official_one_for_any_name(name: str, n_ctx: int, position: str) -> None:
    assume(n_ctx + len(small_clip().tokenizer.encode(name)) < 70)
    assert_official(name, n_ctx, position)


def test_shapes_and_name_lengths() -> None:
    clip = small_clip()
    prompts = ClassPrompts(clip, NAMES, 4)
    assert prompts.tokens.shape == (5, 32)
    assert prompts.context_slots.shape == (5, 4)
    assert prompts.end_positions.shape == (5,)
    around = 4 + 3  # context, start token, ".", end token
    assert [len(sequence) - around for sequence in prompts.sequences[:3]] == [1, 2, 6]
    assert not prompts.state_dict(), "follows from names and backbone, so it is not saved"


@settings(deadline=None, max_examples=30)
@given(n_ctx=st.integers(1, 29), length=st.integers(1, 29))
def test_a_prompt_fits_exactly_or_is_refused(n_ctx: int, length: int) -> None:
    clip, name = small_clip(), " ".join(["cat"] * length)
    if n_ctx + length + 3 <= clip.context_length:  # start token, ".", end token
        end = ClassPrompts(clip, [name], n_ctx).end_positions.item()
        assert end == n_ctx + length + 2
    else:
        with pytest.raises(PromptError, match=r"tokens.*reads 32"):
            ClassPrompts(clip, [name], n_ctx)


@pytest.mark.parametrize("bad", [[], "", [""], ["cat", "  "], ["cat", "_"]])
def test_empty_names(bad: list[str]) -> None:
    with pytest.raises(PromptError, match="empty"):
        check_classnames(bad)


def test_a_name_is_text() -> None:
    with pytest.raises(PromptError, match="class 1 has the name None, of type NoneType"):
        check_classnames(["cat", None])


def test_a_name_without_tokens() -> None:
    with pytest.raises(PromptError, match="read nothing"):
        ClassPrompts(small_clip(), ["cat", "&nbsp;"], 4)


@pytest.mark.parametrize("bad", [["cat", "cat"], ["hot dog", "hot_dog"], ["Cat", "cat"]])
def test_duplicate_names(bad: list[str]) -> None:
    with pytest.raises(PromptError, match="allow_duplicates"):
        ClassPrompts(small_clip(), bad, 4)
    assert ClassPrompts(small_clip(), bad, 4, allow_duplicates=True).classnames == bad


def test_position_with_a_slip_of_the_pen() -> None:
    with pytest.raises(UnknownNameError, match="'middle'"):
        ClassPrompts(small_clip(), ["cat"], 4, "midle")


@pytest.mark.parametrize(
    "bad", ["a photo", "{} or {}", "{0}", "{name}", "a {", "", "{:>9}", "{!r}"]
)
def test_bad_templates(bad: str) -> None:
    with pytest.raises(PromptError, match="once, where the class name goes"):
        fill_template(bad, ["cat"])


def test_templates_fill_in_names() -> None:
    assert fill_template("{} texture.", ["hot_dog"]) == ["hot dog texture."]
    assert fill_template("a {{{}}}", ["{}"]) == ["a {{}}"]


def test_context_from_words_is_their_embedding() -> None:
    clip = small_clip()
    ids = clip.tokenize(["a photo of a"])[0, 1:5]
    wanted = clip.text_tower.token_embedding(ids)
    for text in ("a photo of a", "a_photo_of_a"):
        assert torch.equal(initial_context(clip, 4, text), wanted)
    assert torch.equal(initial_context(clip, None, "a photo of a"), wanted)
    assert torch.equal(initial_context(clip, 4, "a photo of a", 3), wanted.expand(3, -1, -1))


def test_random_context_is_the_official_draw() -> None:
    torch.manual_seed(3)
    context = initial_context(small_clip(), 16, None)
    specific = initial_context(small_clip(), 16, "", 5)
    torch.manual_seed(3)
    assert torch.equal(context, torch.empty(16, 32).normal_(std=0.02))
    assert torch.equal(specific, torch.empty(5, 16, 32).normal_(std=0.02))


@pytest.mark.parametrize(
    ("n_ctx", "words", "message"),
    [
        (16, "a photo of a", "4 tokens, but n_ctx=16"),
        (2, "accordionist", "tokens"),
        (0, None, "at least one"),
        (None, None, "at least one"),
        (-3, "", "at least one"),
        (2.0, None, "n_ctx is 2.0"),
        (4, 5, "ctx_init is 5"),
        (4, False, "ctx_init is False"),
        (None, "  ", "no word that small-vit-gelu can read"),
        (10**8, None, "lower n_ctx"),  # before memory for them is taken
    ],
)
def test_bad_contexts(n_ctx: int | None, words: str | None, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        initial_context(small_clip(), n_ctx, words)
