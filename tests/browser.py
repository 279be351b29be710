"""A page opened in a real headless browser: what it looks like to a reader, and whether anything went wrong."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any, Literal

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1240,1000"]
# Without these it looks for its maker's hosts at every start.
_FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
_FLAGS += ["--enable-logging=stderr"]

Scheme = Literal["light", "dark"]

_PROBE = """<script>
const violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(event.blockedURI));
addEventListener("load", () => {
  const images = [...document.images];
  document.documentElement.dataset.seen = JSON.stringify({
    images: images.length,
    broken: images.filter((image) => !image.complete || image.naturalWidth === 0).length,
    nameless: images.filter((image) => !image.alt).length,
    fetched: performance.getEntriesByType("resource").map((entry) => entry.name).filter((n) => !n.startsWith("data:")),
    background: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
    wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    headings: [...document.querySelectorAll("h1, h2, h3")].map((heading) => heading.textContent),
    charts: document.querySelectorAll("svg[role=img][aria-label]").length,
    violations,
  });
});
</script>"""


def find_browser() -> str:
    """Return the program of a browser that is installed; skips the test where there is none."""
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed to look at pages with")
    return program


def look(page: Path, scheme: Scheme, scratch: Path) -> dict[str, Any]:
    """Return what a headless browser saw of `page`, and `console`: its messages. Skips where there is none."""
    browser = find_browser()
    text = page.read_text(encoding="utf-8")
    policy = "style-src 'unsafe-inline'"
    assert text.count(policy) == 1, "the page's own policy allows no script; the probe needs a place to ask for one"
    probed = text.replace(policy, f"{policy}; script-src 'unsafe-inline'").replace("<title>", f"{_PROBE}<title>", 1)
    copy = scratch / f"{scheme}.html"
    copy.write_text(probed, encoding="utf-8")
    setting = f"--blink-settings=preferredColorScheme={'0' if scheme == 'dark' else '1'}"
    command = [browser, *_FLAGS, setting, f"--user-data-dir={scratch / scheme}", "--dump-dom", copy.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=240, check=True)
    seen = re.search(r'data-seen="([^"]*)"', ran.stdout)
    assert seen, f"the page did not finish loading: {ran.stderr[-2000:]}"
    console = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
    return {**json.loads(unescape(seen.group(1))), "console": console}
