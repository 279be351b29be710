"""Atomic writing, digests, and the disk's room."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anomalens.errors import ConfigError, InputError
from anomalens.files import (
    atomic_write,
    cache_folder,
    digest,
    file_digest,
    json_ready,
    make_folder,
    remove_unfinished,
    require_room,
    stamp,
    write_json,
)


def test_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "ä b.txt"
    atomic_write(target, "first")
    atomic_write(target, b"second")
    assert target.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failure_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "kept.txt"
    atomic_write(target, "old")

    def full(*_: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        atomic_write(target, "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    kept = tmp_path / "deep" / "kept.txt"
    kept.parent.mkdir()
    atomic_write(kept, "old")
    code = (
        "import os, sys; from anomalens.files import atomic_write\n"
        "os.replace = lambda *paths: os._exit(9)\n"
        "atomic_write(sys.argv[1], 'new')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(kept)], check=False).returncode == 9
    assert len(list(kept.parent.iterdir())) == 2
    remove_unfinished(tmp_path)
    assert list(kept.parent.iterdir()) == [kept]
    assert kept.read_text() == "old"


def test_only_what_belongs_to_a_file_is_removed_for_it(tmp_path: Path) -> None:
    code = (
        "import os, sys; from anomalens.files import atomic_write\n"
        "os.replace = lambda *paths: os._exit(9)\n"
        "atomic_write(sys.argv[1], 'new')"
    )
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    remove_unfinished(tmp_path / "a")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_links_are_replaced_and_probes_follow_none(tmp_path: Path) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.write_text("kept")
    out.mkdir()
    for name in (".writable", "target"):
        (out / name).symlink_to(victim)
    make_folder(out)
    atomic_write(out / "target", "new")
    assert victim.read_text() == "kept"
    assert not (out / "target").is_symlink()


def test_a_folder_that_cannot_be_written_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / "a\0b"):
        with pytest.raises(ConfigError, match=r"^cannot write to .*; choose another --out$"):
            make_folder(folder)
    make_folder(tmp_path / "deep" / "out")
    assert not list((tmp_path / "deep" / "out").iterdir())


def test_json_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())
    write_json(tmp_path / "a.json", {"größe": 1.5})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"größe": 1.5}


def test_json_ready_is_what_json_gives_back() -> None:
    assert json_ready({"sizes": (1, 2), 3: None}) == {"sizes": [1, 2], "3": None}


def test_digests_are_sha256_of_the_content(tmp_path: Path) -> None:
    content = "größe".encode() * 100_000
    (tmp_path / "a").write_bytes(content)
    assert file_digest(tmp_path / "a") == digest(content) == hashlib.sha256(content).hexdigest()
    assert digest("größe") == hashlib.sha256("größe".encode()).hexdigest()


def test_stamp_tells_versions_apart(tmp_path: Path) -> None:
    assert stamp(None) is stamp(tmp_path / "absent") is None
    path = tmp_path / "sub" / "a.txt"
    path.parent.mkdir()
    path.write_text("first")
    before = stamp(tmp_path)
    assert before == [["sub", [["a.txt", [5, path.stat().st_mtime_ns]]]]]
    path.write_text("longer")
    assert stamp(tmp_path) != before


def test_room_on_the_disk(tmp_path: Path) -> None:
    require_room(tmp_path, 1, "the features")
    with pytest.raises(InputError, match=r"the features take 1000000000\.0 GB and \d+\.\d GB are free"):
        require_room(tmp_path, 10**18, "the features")


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("ANOMALENS_CACHE", raising=False)
    assert cache_folder() == Path("/x/anomalens")
    monkeypatch.setenv("ANOMALENS_CACHE", "/y")
    assert cache_folder() == Path("/y")
