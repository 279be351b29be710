"""The public face does not change unnoticed: names and signatures as they were when they were last renewed.

To renew them on purpose: python tests/test_api.py
"""

import inspect
from pathlib import Path

import anomalens

STORED = Path(__file__).parent / "golden" / "api.txt"


def face() -> str:
    """List every public name with its signature, and the public members of classes."""
    lines = []
    for name in sorted(anomalens.__all__):
        value = getattr(anomalens, name)
        if name == "__version__":
            continue
        lines.append(f"{name}{_signature(value)}")
        if inspect.isclass(value):
            for member, inner in sorted(vars(value).items()):
                if member.startswith("_"):
                    continue
                shown = _signature(inner) if callable(inner) or isinstance(inner, (classmethod, staticmethod)) else ""
                lines.append(f"    .{member}{shown}")
    return "\n".join(lines) + "\n"


def _signature(value: object) -> str:
    function = getattr(value, "__func__", value)
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    # Types are checked by mypy, and every Python writes them in its own way.
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def test_the_public_face_is_the_one_stored() -> None:
    assert face() == STORED.read_text(encoding="utf-8"), "meant? then renew it: python tests/test_api.py"


if __name__ == "__main__":
    STORED.write_text(face(), encoding="utf-8")
