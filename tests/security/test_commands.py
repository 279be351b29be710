"""Commands given files that are none, or that run out of something: one line, nothing started, nothing waited for."""

import os
import sys
from pathlib import Path

import pytest

from anomalens.cli.application import run_app
from commands import Command

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pipes in the file system, other programs")

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
OPTIONS = ("--roi", "--calibration", "--recipe", "--checkpoint", "--method", "--backbone")


@pytest.mark.parametrize("option", OPTIONS)
def test_pipes_are_not_waited_for(option: str, run: Command, dataset: Path, tmp_path: Path) -> None:
    suffix = {"--recipe": ".anomalens", "--method": ".onnx", "--backbone": ".safetensors"}.get(option, "")
    os.mkfifo(tmp_path / f"pipe{suffix}")
    ran = run("detect", str(dataset), option, str(tmp_path / f"pipe{suffix}"), "--out", str(tmp_path / "out"))
    assert ran.code == 2
    assert ran.err.count("error:") == 1
    assert "Traceback" not in ran.err


def test_no_other_program_is_started(
    run: Command, dataset: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An EPS picture makes Pillow start Ghostscript, if it may."""
    started = tmp_path / "started"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {started}\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    picture = tmp_path / "picture.png"
    picture.write_bytes(EPS)
    own = ("--method", "winclip", "--backbone", str(tiny_weights))
    assert run("detect", str(picture), "--out", str(tmp_path / "1"), *own).code == 1
    assert run("detect", str(dataset), "--roi", str(picture), "--out", str(tmp_path / "2"), *own).code == 2
    assert run("fit", str(picture), "--out", str(tmp_path / "a.anomalens"), *own).code == 2
    assert not started.exists()


@pytest.mark.parametrize(
    "error", [MemoryError(), RecursionError("maximum recursion depth exceeded"), RuntimeError("CUDA out of memory")]
)
def test_running_out_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def app() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_app(app)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
