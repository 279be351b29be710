"""Fill in what a package index shows: the project's addresses, and the README with links that work from there.

Hatchling calls `update` whenever the package is built (see `hooks.custom` in pyproject.toml, which holds the address).
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)")


class MetadataHook(MetadataHookInterface):
    """Add `readme` and `urls` to the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add both; without an address, links become their text and pictures are left out."""
        address, tag = self.config["repository"].rstrip("/"), f"v{metadata['version']}"
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": readme_elsewhere(text, address, tag)}
        metadata["urls"] = project_urls(address, tag)


def readme_elsewhere(text: str, address: str, tag: str) -> str:
    """Return the README with absolute links to its files as they are at a tag."""

    def linked(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        if not address:
            return "" if picture else words
        return f"{picture}[{words}]({address}/{'raw' if picture else 'blob'}/{tag}/{target})"

    return _LINK.sub(linked, text)


def project_urls(address: str, tag: str) -> dict[str, str]:
    """Return the addresses of the project by name; none without a repository."""
    if not address:
        return {}
    return {
        "Repository": address,
        "Issues": f"{address}/issues",
        "Documentation": f"{address}/blob/{tag}/docs/index.md",
        "Changes": f"{address}/blob/{tag}/CHANGELOG.md",
    }
