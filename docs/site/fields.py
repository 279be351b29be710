"""Show in the reference what comments say of a field: they stand in the lines above it."""

import ast
from pathlib import Path
from typing import Any

from griffe import Attribute, Docstring, Extension, ObjectNode


class FieldComments(Extension):
    """Take the comment above a field, or the help of an option, for its description."""

    def on_attribute_instance(self, *, node: ast.AST | ObjectNode, attr: Attribute, **_: Any) -> None:
        """Describe a field that has no docstring."""
        option = getattr(node, "value", None)
        if isinstance(option, ast.Call) and getattr(option.func, "id", "") == "_option":
            # An option of loading: its default is the first argument, its help the second.
            attr.value = ast.unparse(option.args[0])
            attr.docstring = Docstring(ast.literal_eval(option.args[1]), parent=attr)
        elif attr.docstring is None and attr.lineno is not None and isinstance(attr.filepath, Path):
            lines: list[str] = []
            for line in reversed(attr.lines_collection[attr.filepath][: attr.lineno - 1]):
                if not line.lstrip().startswith("#"):
                    break
                lines.insert(0, line.lstrip().removeprefix("#").strip())
            if lines:
                attr.docstring = Docstring(" ".join(lines), parent=attr)
