"""One run at a time in one place; whoever comes second is told who holds it; a dead run holds nobody up."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from anomalens.errors import ConfigError
from anomalens.locks import is_lock, locked


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    with (
        locked(tmp_path, "detect"),
        pytest.raises(ConfigError, match=rf"another run \(detect, process {os.getpid()} on \S+, since 20\S+\)"),
        locked(tmp_path, "evaluate"),
    ):
        pass
    assert not list(tmp_path.iterdir())
    with locked(tmp_path, "evaluate"):
        assert all(is_lock(path.name) for path in tmp_path.iterdir())


def test_a_file_is_locked_beside_itself(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "a", "train"),
        locked(tmp_path / "b", "train"),
        pytest.raises(ConfigError, match="a is being"),
        locked(tmp_path / "a", "export"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def _hold(place: Path, then: str) -> "subprocess.Popen[str]":
    code = (
        "import os, sys, time; from pathlib import Path; from anomalens.locks import locked\n"
        f"with locked(Path(sys.argv[1]), 'detect'):\n    print('held', flush=True)\n    {then}"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_holds_it_until_it_dies(tmp_path: Path) -> None:
    process = _hold(tmp_path, "time.sleep(60)")
    try:
        with pytest.raises(ConfigError, match=f"process {process.pid} on"), locked(tmp_path, "detect"):
            pass
    finally:
        process.kill()
        process.communicate()
    assert list(tmp_path.iterdir())
    with locked(tmp_path, "detect"):
        pass
    assert not list(tmp_path.iterdir())


def test_waiting_for_another_thread(tmp_path: Path) -> None:
    order: list[str] = []
    inside = threading.Event()

    def work() -> None:
        with locked(tmp_path, "features"):
            inside.set()
            threading.Event().wait(0.2)
            order.append("first")

    thread = threading.Thread(target=work)
    thread.start()
    inside.wait()
    with locked(tmp_path, "features", wait=True):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    place = tmp_path / "out"
    place.mkdir()
    for name in (".lock", ".lock.json"):
        (place / name).symlink_to(victim)
    with pytest.raises(OSError, match="lock"), locked(place, "detect"):
        pass
    (place / ".lock").unlink()
    with locked(place, "detect"):
        pass
    assert victim.read_text() == "kept"
