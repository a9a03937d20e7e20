"""Links and anchors inside the site, and the launch buttons."""

from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest
from bs4 import BeautifulSoup
from pages import BOOK, CHAPTERS, PAGES

REPOSITORY = "https://github.com/cocoop-tutorial/cocoop-tutorial"


@cache
def parse(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(path: Path) -> frozenset[str]:
    return frozenset(tag["id"] for tag in parse(path).find_all(id=True))


@pytest.mark.parametrize("name", PAGES)
def test_internal_links_resolve(html: Path, name: str) -> None:
    dead = []
    for tag in parse(html / f"{name}.html").find_all(["a", "link", "script", "img"]):
        link = tag.get("href") or tag.get("src")
        if not link or urlparse(link).scheme in {"http", "https", "mailto", "data"}:
            continue
        path, anchor = urldefrag(urljoin(f"/{name}.html", link))
        target = html / unquote(urlparse(path).path).lstrip("/")
        target = target / "index.html" if target.is_dir() else target
        if not target.exists():
            dead.append(link)
        elif anchor and target.suffix == ".html" and unquote(anchor) not in anchors(target):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_launch_button_opens_this_notebook(html: Path, name: str) -> None:
    links = [tag["href"] for tag in parse(html / f"{name}.html").find_all("a", href=True)]
    path = f"book/{name}.ipynb"
    slug = REPOSITORY.removeprefix("https://github.com/")
    assert f"https://colab.research.google.com/github/{slug}/blob/main/{path}" in links
    assert (BOOK.parent / path).exists()
