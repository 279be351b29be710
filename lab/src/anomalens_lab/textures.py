"""Take the photographs of surfaces under clean licences out of the Debian package `ufoai-textures`.

Its copyright file states a licence for each picture. Clean are those that ask for nothing or for attribution, so that
weights learned with them can be under Apache-2.0.
"""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from anomalens.errors import InputError
from anomalens.files import atomic_write

CLEAN = ("public-domain", "CC-BY-3.0", "Expat")
"""Licences of the photographs that are taken."""
ATTRIBUTION = "attribution.txt"
"""File that says whose the taken photographs are."""
_STATED = Path("usr/share/doc/ufoai-textures/copyright")
_PICTURES = Path("usr/share/games/ufoai/base/0textures.pk3")
_STANZA = re.compile(r"^Files:(.*?)^Copyright:(.*?)^License:[ \t]*(\S+)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Stated:
    """Hold what a copyright file states of some pictures."""

    licence: str
    holders: tuple[str, ...]
    # As in the archive of pictures.
    files: tuple[str, ...]


def clean_stanzas(text: str) -> list[Stated]:
    """Return what a copyright file in Debian's format states of the pictures under a licence of `CLEAN`."""
    clean = []
    for stanza in text.split("\n\n"):
        if (stated := _STANZA.search(stanza)) and stated[3] in CLEAN:
            holders = tuple(dict.fromkeys(line.strip() for line in stated[2].splitlines() if line.strip(" .")))
            clean.append(Stated(stated[3], holders, tuple(f.removeprefix("base/") for f in stated[1].split())))
    return clean


def take_clean(package: Path, out: Path) -> int:
    """Take the clean photographs out of the unpacked `package`, with a file of whose they are; returns their number.

    Raises InputError where `package` is no unpacked ufoai-textures.
    """
    try:
        stanzas = clean_stanzas((package / _STATED).read_text(encoding="utf-8"))
        with zipfile.ZipFile(package / _PICTURES) as pictures:
            archived = set(pictures.namelist())
            kept = [Stated(s.licence, s.holders, tuple(f for f in s.files if f in archived)) for s in stanzas]
            pictures.extractall(out, [file for stated in kept for file in stated.files])
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{package} holds no unpacked ufoai-textures: {error}") from error
    blocks = [f"{s.licence}\n{', '.join(s.holders)}\n" + "".join(f"  {file}\n" for file in s.files) for s in kept]
    atomic_write(out / ATTRIBUTION, "\n".join(blocks))
    return sum(len(stated.files) for stated in kept)
