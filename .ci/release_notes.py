"""Write what is new in the version that was built: its section of CHANGELOG.md, to dist/release-notes.md.

    python .ci/release_notes.py

Fails where the section is missing or empty, or where the files in dist/ are of another version.
"""

import re
import sys
from pathlib import Path


def notes(changelog: str, version: str) -> str:
    """Return the section of a version; of the changes not released yet where that has none. Raises ValueError."""
    parts = re.findall(r"^## \[?([^\s\]]+)\]?.*\n([\s\S]*?)(?=^## |\Z)", changelog, re.MULTILINE)
    sections: dict[str, str] = dict(parts)
    text = sections.get(version, sections.get("Unreleased", "")).strip()
    if not text:
        raise ValueError(f"CHANGELOG.md says nothing about {version}")
    return f"# anomalens {version}\n\n{text}\n"


def main() -> int:
    """Write the notes; return 1 where there are none."""
    source = Path("src/anomalens/_version.py").read_text(encoding="utf-8")
    version = re.findall(r'__version__ = "(.+)"', source)[0]
    built = sorted(path.name for path in Path("dist").iterdir() if path.suffix in (".whl", ".gz"))
    if len(built) != 2 or not all(name.startswith(f"anomalens-{version}") for name in built):
        print(f"dist/ holds {', '.join(built)}, and not a wheel and an archive of {version}", file=sys.stderr)
        return 1
    text = notes(Path("CHANGELOG.md").read_text(encoding="utf-8"), version)
    Path("dist/release-notes.md").write_text(text, encoding="utf-8")
    print(f"dist/: {', '.join(built)}, release-notes.md ({len(text.splitlines())} lines)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
