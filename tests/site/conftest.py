"""The built site, served on loopback, and one real browser to open it with."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Request, sync_playwright

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
SCREENS = ROOT / "_build" / "screens"
PATIENCE = float(os.environ.get("COCOOP_BROWSER_MS", 180_000))  # milliseconds
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep all site tests on one worker: they share a server and a browser."""
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group("site"))


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a line of log for each."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the built site."""
    assert (HTML / "index.html").exists(), "the site is not built: run `make book` first"
    return HTML


@pytest.fixture(scope="session")
def server(html: Path) -> Iterator[str]:
    """The address of the site on this machine."""
    handler = partial(QuietHandler, directory=str(html))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


def find_chromium() -> str:
    """Return the browser's path; fail with the script's advice if there is none."""
    script = [str(Path(__file__).parent / "browser.sh"), sys.executable]
    found = subprocess.run(script, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.fail(found.stderr, pytrace=False)
    return found.stdout.split()[-1]


@pytest.fixture(scope="session")
def browser_context() -> Iterator[BrowserContext]:
    """One Chromium with a new profile; it may reach nothing but this machine."""
    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=find_chromium(),
            headless=True,
            args=FLAGS,
            viewport={"width": 1280, "height": 900},
        )
        context.set_default_timeout(PATIENCE)
        yield context
        context.close()


@pytest.fixture
def visit(browser_context: BrowserContext, server: str) -> "Iterator[Visitor]":
    """Opens pages and collects what went wrong on them."""
    visitor = Visitor(browser_context, server)
    yield visitor
    visitor.page.close()


class Visitor:
    """A browser tab that records console errors, failed requests and foreign hosts."""

    def __init__(self, context: BrowserContext, server: str) -> None:
        self.server = server
        self.page = context.new_page()
        self.problems: list[str] = []
        note = self.problems.append
        self.page.on("console", lambda m: note(f"console: {m.text}") if m.type == "error" else None)
        self.page.on("pageerror", lambda error: note(f"script: {error}"))
        self.pending: set[Request] = set()
        self.page.on("request", lambda r: self.pending.add(r))
        self.page.on("requestfinished", lambda r: self.pending.discard(r))
        self.page.on("requestfailed", lambda r: self.pending.discard(r))
        self.page.on("request", lambda r: None if self.is_local(r.url) else note(f"asks {r.url}"))
        self.page.on("requestfailed", lambda r: note(f"failed: {r.url}"))
        self.page.on("response", lambda r: note(f"{r.status}: {r.url}") if r.status > 399 else None)

    def is_local(self, url: str) -> bool:
        """Say whether an address is on this server or inside the page itself."""
        return url.startswith((self.server, "data:", "blob:", "about:"))

    def wait_until_still(self) -> None:
        """Wait until no request has been under way for half a second.

        Playwright's own "networkidle" is sometimes never told, though all requests have ended.
        """
        end, still = time.monotonic() + PATIENCE / 1000, 0
        while still < 5:
            self.page.wait_for_timeout(100)
            still = 0 if self.pending else still + 1
            assert time.monotonic() < end, f"still loading: {[r.url for r in self.pending]}"

    def open(self, name: str, mode: str = "light", width: int = 1280) -> None:
        """Open a page of the book in a colour mode at a width, and wait until it is still."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme=mode)  # the book's default mode is "auto"
        self.pending.clear()
        self.page.goto(f"{self.server}/{name}.html", wait_until="load")
        self.wait_until_still()
        self.page.wait_for_function("document.documentElement.dataset.theme !== undefined")
