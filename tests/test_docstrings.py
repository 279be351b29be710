"""Check that every docstring of product and laboratory begins with a verb, and that comments stand above fields."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "lab" / "src").rglob("*.py")])

# Words that begin a phrase without a verb. What else begins such a phrase is told by its form.
NO_VERBS = re.compile(
    "a|an|the|all|any|both|each|either|every|neither|no|none|one|some|three|two|another|other|this|that|these|those|it|its"
    "|our|their|and|as|at|by|for|from|if|in|into|is|of|on|or|to|with|without|how|what|when|where|whether|which|who|whose"
    "|why|true|false|base|class|config|everything|function|helper|image|input|item|method|module|nothing|object|option"
    "|output|property|random|result|row|something|thing|value|image-level|per-image|gaussian|bilinear|euclidean"
)


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and text of every docstring, also of private functions and of those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


def begins_with_verb(text: str) -> bool:
    """Tell whether a docstring seems to begin with a verb in its plain form."""
    first, _, rest = text.partition(" ")
    word = first.rstrip(",")
    if not re.fullmatch(r"[A-Z][a-z]+(-[a-z]+)?", word) or NO_VERBS.fullmatch(word.lower()):
        return False
    # Nouns in the plural and "Returns"; "Pass" and "Process" are verbs.
    if word.endswith("s") and not word.endswith("ss"):
        return False
    return not rest.startswith("of ")


def test_docstrings_begin_with_a_verb() -> None:
    faulty = [
        f"{file.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for file in FILES
        for line, text in docstrings(ast.parse(file.read_text("utf-8")))
        if not begins_with_verb(text)
    ]
    assert not faulty, "these docstrings do not begin with a verb:\n" + "\n".join(faulty)


@pytest.mark.parametrize(
    "text",
    [
        "The map.",
        "Whether it works.",
        "Returns a map.",
        "Number of maps.",
        "AnoCLIP: prompts.",
        "[B] scores",
        "Maps by",
    ],
)
def test_phrases_without_a_verb_are_found(text: str) -> None:
    assert not begins_with_verb(text)


def trailing_comments(file: Path) -> Iterator[str]:
    """Yield every field of a class that has a comment behind it, as "path:line: text"."""
    text = file.read_text("utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        for field in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(field, ast.AnnAssign) and field.end_lineno is not None:
                line = lines[field.end_lineno - 1]
                behind = line.encode()[field.end_col_offset :].decode().strip()
                if behind.startswith("#") and not behind.startswith(("# type:", "# noqa")):
                    yield f"{file.relative_to(ROOT)}:{field.end_lineno}: {line.strip()}"


def test_comments_stand_above_fields() -> None:
    faulty = [place for file in FILES for place in trailing_comments(file)]
    assert not faulty, "these comments stand behind their fields:\n" + "\n".join(faulty)
