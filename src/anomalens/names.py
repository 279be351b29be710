r"""Write any file name as text, and read it back.

On Linux a name is bytes, and need not be UTF-8; Python then holds it as text that no UTF-8 file can store. Results
(rows, tables, Parquet) hold a name as *text form*: bytes that are no UTF-8 are written `\xe8`, everything else as it
is. A name that has such characters itself has its backslash written `\x5c`, so that every text stands for one name.
"""

import os
import re

_NO_TEXT = re.compile("[\ud800-\udfff]")
# A backslash that would be read as the beginning of an escape.
_LOOKS_ESCAPED = re.compile(r"\\(?=x[0-9a-f]{2}|ud[89a-f][0-9a-f]{2})")
_ESCAPED = re.compile(r"\\x(5c|[89a-f][0-9a-f])|\\u(d[89a-f][0-9a-f]{2})")
# Python holds a byte 0x80 ... 0xff that is no UTF-8 as the character U+DC80 ... U+DCFF.
_BYTES_FROM = 0xDC00


def name_text(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str:
    """Return the text form of a name or path: valid Unicode, equal to the name unless that is no text."""
    return _NO_TEXT.sub(_escaped, _LOOKS_ESCAPED.sub(r"\\x5c", os.fsdecode(path)))


def name_path(text: str) -> str:
    """Return the name or path that a text form stands for, as Python opens it; what is no text form stays as it is."""
    return _ESCAPED.sub(_read, text)


def is_text(value: str) -> bool:
    """Return whether `value` can be stored as UTF-8."""
    return _NO_TEXT.search(value) is None


def _escaped(match: "re.Match[str]") -> str:
    code = ord(match[0])
    return f"\\x{code - _BYTES_FROM:02x}" if 0x80 <= code - _BYTES_FROM <= 0xFF else f"\\u{code:04x}"


def _read(match: "re.Match[str]") -> str:
    if match[2]:
        return chr(int(match[2], 16))
    code = int(match[1], 16)
    return "\\" if match[1] == "5c" else chr(_BYTES_FROM + code)
