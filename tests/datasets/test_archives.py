"""Archives of strangers: what they may hold comes out, everything else is one line, and nothing of it stays."""

import io
import os
import random
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from anomalens.datasets import archives
from anomalens.datasets.archives import is_archive, unpack, unpacked
from anomalens.errors import InputError


def zipped(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as container:
        for name, content in files.items():
            container.writestr(name, content)
    return path


def taped(path: Path, *members: tarfile.TarInfo, content: bytes = b"1", mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tape:  # type: ignore[call-overload]
        for member in members:
            member.size = len(content) if member.isreg() else 0
            tape.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return path


def of_kind(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_files_of_a_tar_come_out(tmp_path: Path, mode: str) -> None:
    archive = taped(tmp_path / "a.tar", of_kind("./set", tarfile.DIRTYPE), tarfile.TarInfo("./set/a.png"), mode=mode)
    (tmp_path / "out").mkdir()
    unpack(archive, tmp_path / "out")
    assert below(tmp_path / "out") == {"set/a.png": b"1"}


def test_files_of_a_zip_come_out_without_what_systems_add(tmp_path: Path) -> None:
    files = {"set/a.png": b"1", "set/": b"", "__MACOSX/set/._a.png": b"x", "set/.DS_Store": b"x", "set/Ü b.png": b"2"}
    (tmp_path / "out").mkdir()
    seen: list[int] = []
    unpack(zipped(tmp_path / "a.zip", **files), tmp_path / "out", seen.append)
    assert below(tmp_path / "out") == {"set/a.png": b"1", "set/Ü b.png": b"2"}
    assert len(seen) == 2


def names(*names: str) -> list[Callable[[Path], Path]]:
    """Return makers of a zip and of a tar that hold a file of each name."""

    def in_zip(name: str) -> Callable[[Path], Path]:
        return lambda folder: zipped(folder / "a.zip", **{name: b"1"})

    def in_tar(name: str) -> Callable[[Path], Path]:
        return lambda folder: taped(folder / "a.tar", tarfile.TarInfo(name))

    return [make(name) for name in names for make in (in_zip, in_tar)]


OUTSIDE = names(
    "../up.png", "set/../../up.png", "/etc/passwd", "C:/up.png", "set\\..\\..\\up.png", ".", f"{'x' * 300}.png"
)


@pytest.mark.parametrize("make", OUTSIDE)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    refused(tmp_path, make(tmp_path), "leads out of the folder")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive = taped(tmp_path / "a.tar", tarfile.TarInfo("a.png"), of_kind("b", kind, "/etc"), tarfile.TarInfo("b/c"))
    refused(tmp_path, archive, "'b' is a link or a device")


def test_links_of_a_zip_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as container:
        container.writestr(link, "/etc")
    refused(tmp_path, tmp_path / "a.zip", "'link' is a link or a device")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_ALWAYS_ALLOWED", 1000)
    zeros = bytes(10**6)
    refused(tmp_path, zipped(tmp_path / "a.zip", **{f"{number}.png": zeros for number in range(5)}), "far more")
    refused(tmp_path, taped(tmp_path / "a.tgz", tarfile.TarInfo("a"), content=zeros), "far more")
    monkeypatch.setattr(archives, "_MOST_FILES", 2)
    refused(tmp_path, zipped(tmp_path / "b.zip", **{str(number): b"1" for number in range(3)}), "more than 2 files")


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path: Path) -> None:
    content = bytearray(zipped(tmp_path / "a.zip", **{"a.png": bytes(10**5)}).read_bytes())
    for place in (content.index(b"PK\x03\x04") + 22, content.index(b"PK\x01\x02") + 24):
        content[place : place + 4] = struct.pack("<I", 10)
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path, tmp_path / "a.zip", "damaged archive|far more")


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "a.zip", **{"a.png": os.urandom(5000)}).read_bytes()
    tape = taped(tmp_path / "a.tgz", tarfile.TarInfo("a.png"), content=os.urandom(5000)).read_bytes()
    packed = taped(tmp_path / "a.txz", tarfile.TarInfo("a.png"), content=os.urandom(5000), mode="w:xz").read_bytes()
    broken = bytearray(whole)
    broken[2000] ^= 255
    for content in (whole[:3000], bytes(broken), tape[:3000], packed[:3000], b"", b"no archive at all"):
        (tmp_path / "b.zip").write_bytes(content)
        refused(tmp_path, tmp_path / "b.zip", r"damaged archive|cannot be unpacked|cut off")
    locked = bytearray(whole)
    for place in (locked.index(b"PK\x03\x04") + 6, locked.index(b"PK\x01\x02") + 8):
        locked[place] |= 1
    (tmp_path / "b.zip").write_bytes(locked)
    refused(tmp_path, tmp_path / "b.zip", "locked by a password")


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:xz"])
def test_whatever_is_wrong_with_an_archive_is_an_error_of_ours(tmp_path: Path, kind: str) -> None:
    content = random.Random(0).randbytes(200) + bytes(200)
    if kind == "zip":
        whole = zipped(tmp_path / "whole", **{"set/a.png": content, "set/ü.png": b"2"}).read_bytes()
    else:
        members = (tarfile.TarInfo("set/a.png"), tarfile.TarInfo("set/ü.png"))
        whole = taped(tmp_path / "whole", *members, content=content, mode=kind).read_bytes()
    draw, archive, out = random.Random(1), tmp_path / "archive", tmp_path / "out"
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 5))):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        archive.write_bytes(damaged)
        out.mkdir()
        with suppress(InputError):
            unpack(archive, out)
        shutil.rmtree(out)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    archive = taped(tmp_path / "a.tar", tarfile.TarInfo("a.png"), tarfile.TarInfo("a.png"))
    refused(tmp_path, archive, r"'a\.png' is there twice")


def test_no_room_is_said_before_a_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 0}))
    refused(tmp_path, zipped(tmp_path / "a.zip", **{"a.png": b"1"}), "are free")


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / ".unpacking-out"
    leftover.mkdir()
    (leftover / "half").write_bytes(b"1")
    archive = zipped(tmp_path / "a.zip", **{"a.png": b"1"})
    done: list[tuple[int, int]] = []
    with unpacked([archive], tmp_path / "out", lambda now, total: done.append((now, total))) as folder:
        assert below(folder) == {"a.png": b"1"}
    assert not leftover.exists()
    assert done[-1][1] == archive.stat().st_size


def test_archives_are_known_by_their_names(tmp_path: Path) -> None:
    for name in ("a.ZIP", "a.tar", "a.tar.xz", "a.tgz"):
        (tmp_path / name).write_bytes(b"")
        assert is_archive(tmp_path / name)
    (tmp_path / "folder.zip").mkdir()
    assert not is_archive(tmp_path / "folder.zip")
    assert not is_archive(tmp_path / "a.png")


def refused(folder: Path, archive: Path, words: str) -> None:
    """Expect one line that names the archive, and nothing of it on the disk, neither beside nor above its place."""
    before = set(folder.rglob("*"))
    with (
        pytest.raises(InputError, match=words) as caught,
        unpacked([archive], folder / "deep" / "out"),
    ):
        pytest.fail("it was unpacked")
    assert archive.name in str(caught.value) or "are free" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert set(folder.rglob("*")) - before <= {folder / "deep"}
    assert not (folder.parent / "up.png").exists()
