"""The prompt box of chapter 1 reads and answers in the browser as the library does in Python."""

import pytest
from conftest import Visitor
from prompt_pages import nearest_template, page_data, unpack

from cocoop_tutorial.book.prompt_box import find_class


@pytest.mark.parametrize("width", [1280, 390])
def test_typing_changes_the_answer(visit: Visitor, width: int) -> None:
    visit.open("01_clip", width=width)
    root = visit.page.locator(".cocoop-interactive").filter(has=visit.page.get_by_label("Type a"))
    script = root.locator("script").inner_text()
    data = page_data(script)
    texts, images = (unpack(data[part], data["width"]) for part in ("texts", "images"))
    names, templates = data["names"], data["templates"]
    field, status = root.get_by_label("Type a prompt"), root.get_by_role("status")
    asked = [t.format(n) for t, n in zip(templates, names, strict=False)]
    seen = set()
    for number, text in enumerate([*asked, "graffiti", f"look, {names[-1].upper()}!"]):
        picture = number % len(images)
        root.get_by_role("button").nth(picture).click()
        field.fill(text)
        typed = find_class(text, names)
        name = "" if typed is None else names[typed]
        t = nearest_template(text, name, templates)
        rows = texts[t * len(names) : (t + 1) * len(names)]
        answer = names[int((rows @ images[picture]).argmax())]
        said = status.inner_text()
        assert said.startswith(f"Answer: {answer}. ")
        assert f"“{templates[t].replace('{}', name) if name else templates[t]}”" in said
        seen.add(said)
    assert len(seen) > len(templates)
    assert visit.problems == []


def test_the_box_works_from_the_keyboard(visit: Visitor) -> None:
    visit.open("01_clip")
    root = visit.page.locator(".cocoop-interactive").filter(has=visit.page.get_by_label("Type a"))
    status = root.get_by_role("status")
    root.get_by_label("Type a prompt").focus()
    before = status.inner_text()
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")  # the second picture
    assert status.inner_text() != before
    assert root.get_by_role("button").nth(1).get_attribute("aria-pressed") == "true"
