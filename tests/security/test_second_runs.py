"""Two runs into one place: the second is told who holds it and exits 2; nothing of the first is touched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anomalens.locks import locked
from commands import Command

COMMANDS = {
    "detect": ("detect", "{data}", "--out", "{out}"),
    "evaluate": ("evaluate", "--data", "{data}", "--out", "{out}", "--eval-size", "32"),
    "benchmark": ("benchmark", "--method", "winclip", "--data", "{data}", "--out", "{out}", "--eval-size", "32"),
    "train": ("train", "anomalyclip", "--data", "{data}", "--out", "{out}/a.safetensors", "--set", "n_ctx=5"),
    "export": ("export", "--out", "{out}/a.onnx", "--method", "winclip"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_second_run_is_refused(
    command: str, run: Command, dataset: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    values = {"data": dataset, "out": tmp_path}
    arguments = [part.format(**values) for part in COMMANDS[command]]
    if "--method" not in arguments and command != "train":
        arguments += ["--method", "winclip"]
    arguments += ["--backbone", str(tiny_weights)]
    place = next((Path(part) for part in arguments if part.endswith((".safetensors", ".onnx"))), tmp_path)
    with locked(tmp_path if place == tiny_weights else place, "the first"):
        ran = run(*arguments)
        files = sorted(path.name for path in tmp_path.iterdir())
    assert ran.code == 2, ran.err
    assert f"by another run (the first, process {os.getpid()} on" in ran.err
    assert ran.err.count("error:") == 1
    assert "Traceback" not in ran.err
    assert all(".lock" in name for name in files), files


def test_two_processes_at_once_give_every_row_once(dataset: Path, tiny_weights: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "anomalens", "detect", str(dataset), "--method", "winclip"]
    arguments += ["--backbone", str(tiny_weights), "--out", str(tmp_path / "out"), "--offline"]
    both = [subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    paths = [row["path"] for row in rows]
    assert codes == [0, 2], errors
    assert len(paths) == len(set(paths)) == 8 + 4
