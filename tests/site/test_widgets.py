"""The interactive figures work on the static page, without a kernel or a server."""

import pytest
from conftest import Visitor
from pages import CHAPTERS
from playwright.sync_api import Locator

SETTINGS = ".noUi-handle, input:not([type=hidden]), select, [role=slider]"
CONTROLS = f"{SETTINGS}, .cocoop-interactive button"
CHOICES = ".widget-toggle-buttons, .cocoop-interactive"  # groups of buttons, the first one chosen


def look(output: Locator) -> bytes:
    """Return the pixels of one cell's output."""
    return output.screenshot(animations="disabled")


def controls_of(cell: Locator) -> list[Locator]:
    """Return all that can be set, and the last button of each group: the first shows no change."""
    found = [item for item in cell.locator(SETTINGS).all() if item.is_visible()]
    groups = [group.get_by_role("button") for group in cell.locator(CHOICES).all()]
    lasts = [buttons.last for buttons in groups if buttons.count() > 1]
    return found + [button for button in lasts if button.is_visible()]


def operate(control: Locator) -> None:
    """Change a control as a reader would, by keyboard or mouse."""
    tag = control.evaluate("e => e.tagName.toLowerCase()")
    kind = control.evaluate("e => e.type || ''")
    control.scroll_into_view_if_needed()
    if tag == "select":
        chosen = control.evaluate("e => e.selectedIndex")
        total = control.evaluate("e => e.options.length")
        control.select_option(index=(chosen + 1) % total)
    elif tag == "input" and kind in {"text", "search"}:
        control.fill("an emoji of a dog")
        control.press("Enter")
    elif tag == "button" or kind in {"checkbox", "radio", "button"}:
        control.click()
    else:
        control.focus()
        for _ in range(3):
            control.press("ArrowRight")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", CHAPTERS)
def test_widgets_change_what_is_shown(visit: Visitor, name: str, width: int) -> None:
    visit.open(name, width=width)
    if visit.page.locator("script[type='application/vnd.jupyter.widget-view+json']").count():
        visit.page.wait_for_selector(".jupyter-widgets")
        visit.wait_until_still()
    cells = visit.page.locator(".cell_output").filter(has=visit.page.locator(CONTROLS)).all()
    cells = [cell for cell in cells if cell.is_visible()]
    assert cells, "a chapter needs an interactive figure that works on the page"
    for cell in cells:
        controls = controls_of(cell)
        assert controls
        for control in controls:
            before = look(cell)
            operate(control)
            visit.page.wait_for_timeout(300)
            assert look(cell) != before, f"{control} moved nothing"
    assert visit.problems == []
