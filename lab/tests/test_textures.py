"""Photographs are taken by the licence that is stated for each."""

import zipfile
from pathlib import Path

import pytest

from anomalens.errors import InputError
from anomalens_lab.textures import ATTRIBUTION, clean_stanzas, take_clean

STATED = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: The team
License: GPL-2+

Files:
 base/textures/wall.jpg
 base/textures/gone.jpg
Copyright:
 Ann Author
 .
 Ben Builder
License: CC-BY-3.0

Files: base/textures/free.tga
Copyright: nobody
License: public-domain
 Given away.

Files: base/textures/same.jpg
Copyright: Cid
License: CC-BY-SA-3.0

License: CC-BY-3.0
 The text of the licence.
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a folder laid out as the unpacked package is."""
    root = tmp_path / "unpacked"
    stated = root / "usr/share/doc/ufoai-textures/copyright"
    stated.parent.mkdir(parents=True)
    stated.write_text(STATED)
    archive = root / "usr/share/games/ufoai/base/0textures.pk3"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as pictures:
        for name in ("wall.jpg", "free.tga", "same.jpg", "team.jpg"):
            pictures.writestr(f"textures/{name}", name)
    return root


def test_only_clean_pictures_are_taken_and_their_authors_named(package: Path, tmp_path: Path) -> None:
    out = tmp_path / "textures"
    assert take_clean(package, out) == 2
    assert {p.name for p in out.rglob("*.*")} == {"wall.jpg", "free.tga", ATTRIBUTION}
    said = (out / ATTRIBUTION).read_text()
    assert "CC-BY-3.0\nAnn Author, Ben Builder\n  textures/wall.jpg\n" in said
    assert "gone.jpg" not in said


def test_share_alike_is_not_attribution() -> None:
    assert [stated.licence for stated in clean_stanzas(STATED)] == ["CC-BY-3.0", "public-domain"]


def test_a_folder_that_is_no_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere holds no unpacked ufoai-textures"):
        take_clean(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
