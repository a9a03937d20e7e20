"""The prompt box of chapter 1 reads and answers in the browser as the library does in Python."""

import pytest
from conftest import Visitor
from playwright.sync_api import Locator
from prompt_pages import nearest_prompt, page_data, unpack

from cocoop_tutorial.book.prompt_box import known_prompts


def box_of(visit: Visitor) -> tuple[Locator, dict]:
    """The box of the open page, and what it holds."""
    root = visit.page.locator(".cocoop-interactive").filter(has=visit.page.get_by_label("Type a"))
    script = root.locator("script").inner_text()
    return root, page_data(script)


@pytest.mark.parametrize("width", [1280, 390])
def test_every_known_prompt_is_answered(visit: Visitor, width: int) -> None:
    visit.open("01_clip", width=width)
    root, data = box_of(visit)
    texts, images = (unpack(data[part], data["width"]) for part in ("texts", "images"))
    names, templates = data["names"], data["templates"]
    assert data["prompts"] == known_prompts(templates, names)
    field, status = root.get_by_label("Type a prompt"), root.get_by_role("status")
    seen = set()
    for t, template in enumerate(templates):
        k, picture = 3 * t % len(names), t % len(images)
        root.locator("[data-picture]").nth(picture).click()
        field.fill(template.format(names[k]).upper())
        order = (texts[t * len(names) : (t + 1) * len(names)] @ images[picture]).argsort()[::-1]
        said = status.inner_text()
        assert said.startswith(f"Answer: {names[order[0]]}. ")
        assert f"ranks {order.tolist().index(k) + 1} of {len(names)}. " in said
        assert f"“{template}”" in said
        assert root.locator("[data-offer]").is_hidden()
        seen.add(said)
    assert len(seen) == len(templates)
    assert visit.problems == []


@pytest.mark.parametrize("text", ["asdf", "", "a phot of an", "a <b>cat</b>"])
def test_other_words_get_no_answer_but_an_offer(visit: Visitor, text: str) -> None:
    visit.open("01_clip")
    root, data = box_of(visit)
    field, status = root.get_by_label("Type a prompt"), root.get_by_role("status")
    bars, offer = root.locator("svg"), root.locator("[data-offer]")
    assert bars.is_visible() and offer.is_hidden()
    field.fill(text)
    assert "has not encoded these words" in status.inner_text()
    assert "Answer" not in status.inner_text() and bars.is_hidden()
    nearest = nearest_prompt(text, data["prompts"])
    assert offer.inner_text() == nearest
    offer.click()
    assert field.input_value() == nearest
    assert status.inner_text().startswith("Answer: ")
    assert bars.is_visible() and offer.is_hidden()
    assert visit.problems == []


def test_the_box_opens_on_a_right_answer(visit: Visitor) -> None:
    visit.open("01_clip")
    root, data = box_of(visit)
    truth = data["names"][data["labels"][0]]
    assert root.get_by_role("status").inner_text().startswith(f"Answer: {truth}. ")
    assert root.locator("[data-picture]").first.get_attribute("aria-pressed") == "true"


def test_the_box_works_from_the_keyboard(visit: Visitor) -> None:
    visit.open("01_clip")
    root, _ = box_of(visit)
    status = root.get_by_role("status")
    root.get_by_label("Type a prompt").focus()
    before = status.inner_text()
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")  # the second picture
    assert status.inner_text() != before
    assert root.locator("[data-picture]").nth(1).get_attribute("aria-pressed") == "true"
