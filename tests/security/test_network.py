"""Nobody is told anything: no command and no engine opens a connection or looks up a host, nor writes into the home."""

import subprocess
import sys
from pathlib import Path

import pytest

from anomalens.extras import optional

pytestmark = pytest.mark.slow

GUARD = """
import socket, sys

def refuse(*arguments, **more):
    print("NETWORK", arguments, file=sys.stderr, flush=True)
    raise OSError("no network in this test")

socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refuse

from anomalens.cli import main

def run(*arguments):
    sys.argv = ["anomalens", *arguments]
    try:
        main()
    except SystemExit as stop:
        print("EXIT", stop.code or 0, *arguments, file=sys.stderr)

data, weights, out = sys.argv[1:]
own = ("--method", "winclip", "--backbone", weights, "--offline")
run("export", "--format", "openvino", "--out", f"{out}/m.xml", "--check", data, *own)
run("detect", data, "--method", f"{out}/m.xml", "--out", f"{out}/openvino")
run("fit", data, "--out", f"{out}/part.anomalens", "--size", "64", *own)
run("recipe", "show", f"{out}/part.anomalens")
run("detect", data, "--recipe", f"{out}/part.anomalens", "--backbone", weights, "--out", f"{out}/taught")
run("detect", data, "--out", f"{out}/torch", *own)
run("evaluate", "--data", data, "--out", f"{out}/evaluated", "--eval-size", "32", *own)
run("report", f"{out}/evaluated")
run("benchmark", "--data", data, "--out", f"{out}/benchmark", "--eval-size", "32", *own)
run("calibrate", "--data", data, "--out", f"{out}/calibration.json", *own)
run("train", "anomalyclip", "--data", data, "--backbone", weights, "--epochs", "1", "--set", "n_ctx=5",
    "--out", f"{out}/learned.safetensors", "--offline")
run("methods"), run("backbones"), run("checkpoints"), run("info"), run("data", "list"), run("data", "check", data)
"""


def test_no_command_touches_the_network(dataset: Path, tiny_weights: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "out").mkdir()
    environment = {"HOME": str(home), "ANOMALENS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        [sys.executable, "-c", GUARD, str(dataset), str(tiny_weights), str(tmp_path / "out")],
        capture_output=True, text=True, check=False, env=environment, timeout=300,
    )  # fmt: skip
    assert "NETWORK" not in ran.stderr, ran.stderr
    codes = [line for line in ran.stderr.splitlines() if line.startswith("EXIT")]
    assert all(line.startswith("EXIT 0") for line in codes), ran.stderr[-3000:]
    assert not list(home.rglob("*")), sorted(home.rglob("*"))


def test_openvino_does_without_its_reports() -> None:
    optional("openvino", "openvino")
    assert sys.modules["openvino_telemetry"] is None
