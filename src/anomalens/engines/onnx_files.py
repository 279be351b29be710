"""Find the files that an .onnx file reads besides itself, without the package onnx.

A graph may keep its numbers in other files, which it names. Only these names are looked for: the file is walked as
Protocol Buffers lay it out (a number for each field, and the length of its content), along the few fields that lead to
a tensor. The numbers of the fields are those of onnx.proto.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from anomalens.errors import WeightsError
from anomalens.untrusted import open_regular

# Kind of message -> number of a field -> kind of message in it.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2  # fields of an entry
_MOST_DEPTH = 64
_BYTES_OF = {1: 8, 5: 4}  # wire type -> bytes of a number of fixed size


def external_files(model: Path) -> list[str]:
    """Return the names of the files in the model's folder that hold its numbers; usually there are none.

    Raises WeightsError where the file cannot be read, is no .onnx, or names files of another folder.
    """
    try:
        with (
            open_regular(model) as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
            memoryview(content) as view,
        ):
            names = sorted(set(_locations(view, 0, len(view), "model", 0)))
    except (OSError, ValueError, IndexError) as error:
        raise WeightsError(f"{model}: cannot read it as an ONNX file; export it again") from error
    for name in names:
        if not name or Path(name).name != name or "\\" in name:
            raise WeightsError(f"{model}: takes its numbers from {name!r}, which is no file of its folder")
    return names


def _locations(view: memoryview, start: int, end: int, kind: str, depth: int) -> Iterator[str]:
    """Yield the names in the message of a kind that lies between two offsets. Raises ValueError, IndexError."""
    if depth > _MOST_DEPTH:
        raise ValueError("too deep")
    for field, begin, stop in _content(view, start, end):
        inner = _FIELDS[kind].get(field)
        if inner == "entry":
            entry = {number: bytes(view[first:last]) for number, first, last in _content(view, begin, stop)}
            if entry.get(_KEY) == b"location":
                yield entry.get(_VALUE, b"").decode("utf-8")
        elif inner:
            yield from _locations(view, begin, stop, inner, depth + 1)


def _content(view: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, first and last offset of every field with a length. Raises ValueError, IndexError."""
    while start < end:
        tag, start = _number(view, start)
        wire = tag & 7
        if wire == 0:
            _, start = _number(view, start)
        elif wire == 2:
            length, start = _number(view, start)
            yield tag >> 3, start, start + length
            start += length
        else:
            # Any other is no wire type of an ONNX file: beyond the end is an error.
            start += _BYTES_OF.get(wire, end)
    if start != end:
        raise ValueError("cut off")


def _number(view: memoryview, start: int) -> tuple[int, int]:
    """Return a number of variable length, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = view[start]
        start += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, start
    raise ValueError("a number without an end")
