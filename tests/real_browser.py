"""Pages in a real browser that is used: widths, themes, keys, the console, and rules of accessibility."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from browser import find_browser

WIDTHS = (375, 1240, 3840)
"""Pixels: a telephone, a laptop, a large screen."""
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

_AXE = Path(__file__).parent / "vendor" / "axe.min.js"


@dataclass
class Tab:
    """Hold an open page."""

    # A page of Playwright.
    page: Any
    # What the console and the page's own policy complained about.
    complaints: list[str] = field(default_factory=list)

    def sticks_out(self) -> bool:
        """Return whether something is wider than the window."""
        root = "document.documentElement"
        return bool(self.page.evaluate(f"{root}.scrollWidth > {root}.clientWidth"))

    def serious_findings(self) -> list[str]:
        """Return what axe-core calls serious or critical: rule and element."""
        self.page.evaluate(_AXE.read_text(encoding="utf-8"))
        violations = self.page.evaluate("axe.run()")["violations"]
        return [
            f"{rule['id']}: {node['html'][:200]}"
            for rule in violations
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]


@contextmanager
def started() -> Iterator[Any]:
    """Start the browser that is installed; skip where there is none or nothing to steer it with."""
    steering = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = find_browser()
    with steering.sync_playwright() as programs:
        browser = programs.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def new_tab(browser: Any, **context: Any) -> Tab:
    """Open an empty page in a window of its own; `context` says how it is, for instance its `viewport`."""
    tab = Tab(browser.new_page(**context))
    tab.page.on("console", lambda message: tab.complaints.append(message.text))
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    return tab


@contextmanager
def opened(page: Path, width: int = 1240, scheme: str = "light") -> Iterator[Tab]:
    """Open a file in a window of a width and a theme; note whatever else it asks for."""
    with started() as browser:
        tab = new_tab(browser, viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab.page.on("request", lambda request: _note_request(tab, request.url, page))
        tab.page.goto(page.as_uri())
        yield tab


def _note_request(tab: Tab, url: str, page: Path) -> None:
    if url != page.as_uri() and not url.startswith("data:"):
        tab.complaints.append(f"asked for {url}")
