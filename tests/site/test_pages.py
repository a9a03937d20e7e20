"""Every page in a real browser: it loads, asks nobody else, and can be read."""

from pathlib import Path

import pytest
from conftest import SCREENS, Visitor
from pages import PAGES

LEGIBLE = (Path(__file__).parent / "legible.js").read_text(encoding="utf-8")
OTHERS = ["search", "genindex"]
LOOKS = {"light": ("light", 1280), "dark": ("dark", 1280), "phone": ("light", 390)}
LOOKS |= {"phone-dark": ("dark", 390)}


@pytest.mark.parametrize("name", PAGES + OTHERS)
def test_page_loads_clean(visit: Visitor, name: str) -> None:
    visit.open(name)
    visit.page.mouse.wheel(0, 100_000)
    visit.wait_until_still()
    assert visit.problems == []
    assert visit.page.locator("h1").count() >= 1


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_page_is_legible(visit: Visitor, name: str, look: str) -> None:
    mode, width = LOOKS[look]
    visit.open(name, mode, width)
    assert visit.page.evaluate("document.documentElement.dataset.theme") == mode
    SCREENS.mkdir(parents=True, exist_ok=True)
    visit.page.screenshot(path=SCREENS / f"{name}-{look}.png", full_page=True)
    assert visit.page.evaluate(LEGIBLE) == []
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert visit.page.evaluate(wide) == 0, f"{name} scrolls sideways at {width} pixels"


@pytest.mark.parametrize("name", PAGES)
def test_images_are_described(visit: Visitor, name: str) -> None:
    visit.open(name)
    bad = visit.page.evaluate(
        """() => [...document.querySelectorAll("article img, article canvas")]
        .filter(image => (image.getAttribute("alt") || image.getAttribute("aria-label") || "")
            .trim().split(/\\s+/).length < 4)
        .map(image => (image.getAttribute("src") || "canvas").slice(0, 80))"""
    )
    assert bad == [], "these images have no sentence as their alt text"


@pytest.mark.parametrize("name", PAGES)
def test_images_have_loaded(visit: Visitor, name: str) -> None:
    visit.open(name)
    visit.page.evaluate("document.querySelectorAll('img').forEach(i => { i.loading = 'eager'; })")
    visit.page.wait_for_function("[...document.images].every(image => image.complete)")
    empty = "[...document.images].filter(i => !i.naturalWidth).map(i => i.src.slice(0, 80))"
    assert visit.page.evaluate(empty) == []


@pytest.mark.parametrize("name", PAGES)
def test_images_keep_their_proportions(visit: Visitor, name: str) -> None:
    visit.open(name, width=390)
    bad = visit.page.evaluate(
        """() => [...document.querySelectorAll("article img")].filter(image => {
            const box = getComputedStyle(image);
            const pad = (a, b) => parseFloat(box[a]) + parseFloat(box[b]);
            const wide = image.clientWidth - pad("paddingLeft", "paddingRight");
            const high = image.clientHeight - pad("paddingTop", "paddingBottom");
            const natural = image.naturalWidth / image.naturalHeight;
            return wide > 20 && Math.abs(wide / high / natural - 1) > 0.05;
        }).map(image => (image.alt || image.src).slice(0, 80))"""
    )
    assert bad == []


@pytest.mark.parametrize("name", ["notation"])
def test_formulas_are_set(visit: Visitor, name: str) -> None:
    visit.open(name)
    visit.page.wait_for_selector("mjx-container")
    assert visit.page.locator("mjx-merror").count() == 0
    fonts = visit.page.evaluate(
        "document.fonts.ready.then(() => [...document.fonts].map(f => f.family))"
    )
    assert any("MJXTEX" in font for font in fonts)


def test_search_finds_a_glossary_term(visit: Visitor) -> None:
    visit.open("intro")
    visit.page.locator("button.search-button__button:visible, .search-button:visible").first.click()
    box = visit.page.locator("input[type=search]:visible").first
    box.fill("harmonic mean")
    box.press("Enter")
    visit.page.wait_for_selector("#search-results li a")
    links = visit.page.locator("#search-results li a").evaluate_all("all => all.map(a => a.href)")
    assert any("glossary.html" in link for link in links), links
    assert visit.problems == []


def test_colour_mode_button(visit: Visitor) -> None:
    visit.open("intro")
    seen = set()
    for _ in range(3):
        visit.page.locator("button.theme-switch-button:visible").first.click()
        seen.add(visit.page.evaluate("document.documentElement.dataset.mode"))
    assert seen == {"auto", "light", "dark"}
