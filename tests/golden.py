"""The stored figures of other programs' runs on the synthetic weights: one JSON file a method in tests/golden/."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("golden")


@cache
def load(name: str) -> dict[str, Any]:
    """Return the figures of one method ("anoclip", "anomalyclip", "aprilgan", "crane", "winclip"); do not change them.

    `clip` is the geometry for `synthetic.state_dict`, `inputs` the rules for `synthetic.make` and its neighbours,
    `values` the entries for `synthetic.compare`.
    """
    stored: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return stored
