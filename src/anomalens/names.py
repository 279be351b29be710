r"""Write any file name as text, and read it back; find the home folder that a name may begin with.

On Linux a name is bytes, and need not be UTF-8. Python then holds it as text with half surrogate pairs (U+DC80 to
U+DCFF, one for each byte), which no UTF-8 file can store. Results (rows, tables, Parquet) hold a name in *text form*:
these characters as escapes, `pi\udce8ce.jpg`, and everything else as it is. A name that looks escaped itself has its
backslash written `\u005c`, so that every text stands for one name.
"""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

_NO_TEXT = re.compile("[\ud800-\udfff]")
# A backslash that would be read as the beginning of an escape.
_LOOKS_ESCAPED = re.compile(r"\\(?=u005c|ud[89a-f][0-9a-f]{2})")
_ESCAPED = re.compile(r"\\u(005c|d[89a-f][0-9a-f]{2})")


def name_text(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str:
    """Return the text form of a name or path: valid Unicode, equal to the name unless that is no text."""
    plain = _LOOKS_ESCAPED.sub(r"\\u005c", os.fsdecode(path))
    return _NO_TEXT.sub(lambda match: f"\\u{ord(match[0]):04x}", plain)


def name_path(text: str) -> str:
    """Return the name or path that a text form stands for, as Python opens it; what is no text form stays as it is."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def is_text(value: str) -> bool:
    """Return whether `value` can be stored as UTF-8."""
    return _NO_TEXT.search(value) is None


def printable(text: str) -> str:
    """Return `text` with everything escaped that a terminal would act on (other than new lines) or cannot show."""
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)


def on_one_line(text: str) -> str:
    """Return `text` with everything escaped that would break its line, that a terminal would act on or cannot show."""
    return printable(text).replace("\n", "\\n")


def at_home(name: str | os.PathLike[str]) -> Path:
    """Return a name as a path in which a leading `~` is the home folder, unless there is a file of that name."""
    path = Path(name)
    return path if not str(path).startswith("~") or os.path.lexists(path) else Path(os.path.expanduser(path))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'mvtec'?)" with the known name that is most like `name`, in any case; "" if none is."""
    close = closest(name, known)
    return "" if close is None else f" (did you mean {close!r}?)"


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like `name`, in any case; None if none is."""
    plain = {each.casefold(): each for each in known}
    close = get_close_matches(name.strip().casefold(), plain, n=1)
    return plain[close[0]] if close else None
