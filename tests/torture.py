"""Kill, damage and mislead anomalens for ten minutes, and print counts: `make torture`.

    kills       every command that writes, ended at random moments (SIGKILL) and started again until it is through;
                the result must be that of a run nobody disturbed
    images      damaged ones, and some that claim to be enormous, in one run of `detect` each
    metadata    damaged JSON, headers and tables through every reader
    names       hostile file names through detect, evaluate and report

Nothing may be lost, written outside, hang for more than ten seconds, take more than 1.5 GB, end in a traceback or touch
the network. Each run is a fork of this process, which has the libraries loaded: a start costs nothing. Not for Windows.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from PIL import Image

import hostile
from anomalens.cli import main
from anomalens.errors import AnomalensError
from anomalens.files import file_digest
from security import test_metadata
from security.recipes import write_weights

LIMIT = 1.5e9
"""Bytes of memory that a run may take, the libraries included."""

SLOWEST = 10.0
"""Seconds of processor time that one image, or seconds that one file of metadata, may take."""

_PATIENCE = 120.0  # seconds after which a whole run counts as hanging

Task = Callable[[], object]


class Ended(NamedTuple):
    """How a run ended."""

    # Exit status; negative: the signal that killed it.
    code: int
    output: str
    seconds: float
    # Seconds of processor time: what others do on this machine does not count.
    busy: float
    # Largest memory in bytes.
    memory: int


class Torture:
    """A place to work in, and what was counted."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.chance = root, random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.memory, self.slowest = 0, 0.0

    def fault(self, text: str) -> None:
        """Note something that must not be."""
        self.faults.append(text)
        print(f"FAULT {text}", flush=True)

    def run(self, task: Task, kill_after: float | None = None) -> Ended:
        """Do a task in a fork, killed after some seconds, and hold it to the limits that all runs have."""
        log = self.root / "log.txt"
        began = time.monotonic()
        process = os.fork()
        if process == 0:
            _child(task, log)
        deadline = began + (_PATIENCE if kill_after is None else kill_after)
        while True:
            ended, status, usage = os.wait4(process, os.WNOHANG)
            if ended:
                break
            if time.monotonic() >= deadline:
                os.kill(process, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.002)
        seconds = time.monotonic() - began
        scale = 1 if sys.platform == "darwin" else 1024
        output, busy = log.read_text(errors="replace"), usage.ru_utime + usage.ru_stime
        result = Ended(os.waitstatus_to_exitcode(status), output, seconds, busy, usage.ru_maxrss * scale)
        if kill_after is None and seconds >= _PATIENCE:
            self.fault(f"a run hangs: {result.output[-300:]}")
        if "Traceback" in result.output:
            self.fault(f"a traceback: {result.output[-1500:]}")
        if "NETWORK" in result.output:
            self.fault(f"the network was touched: {result.output[-300:]}")
        if result.memory > LIMIT:
            self.fault(f"{result.memory / 1e9:.2f} GB of memory: {result.output[-300:]}")
        self.memory = max(self.memory, result.memory)
        return result

    def command(self, *arguments: object, kill_after: float | None = None) -> Ended:
        """Run `anomalens` with arguments."""
        return self.run(lambda: _main([str(part) for part in arguments]), kill_after)


def _main(arguments: list[str]) -> None:
    sys.argv = ["anomalens", *arguments]
    main()


def _child(task: Task, log: Path) -> None:
    """Do a task, with both outputs in a file and no network; never returns."""
    code = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        socket.getaddrinfo = socket.create_connection = _refuse
        socket.socket.connect = socket.socket.sendto = _refuse  # type: ignore[method-assign]
        task()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _refuse(*arguments: object, **more: object) -> Any:
    print("NETWORK", arguments, file=sys.stderr, flush=True)
    raise OSError("no network here")


# ------------------------------------------------------------------------------------------------------------ material
def write_dataset(folder: Path, images: int) -> Path:
    """Write normal and anomalous images with masks, in the layout of MVTec; return the folder."""
    chance = np.random.default_rng(0)
    for part in ("nut/test/good", "nut/test/hole", "nut/ground_truth/hole"):
        (folder / part).mkdir(parents=True)
    for number in range(images):
        picture = chance.integers(20, 90, (64, 64, 3), np.uint8)
        if number % 2:
            picture[10 : 20 + number, 10:40] = 230
            mask = (picture[..., 0] > 200).astype(np.uint8) * 255
            Image.fromarray(mask).save(folder / "nut/ground_truth/hole" / f"{number:03d}_mask.png")
        Image.fromarray(picture).save(folder / "nut/test" / ("hole" if number % 2 else "good") / f"{number:03d}.png")
    return folder


# --------------------------------------------------------------------------------------------------------------- kills
class Killing(NamedTuple):
    """A command to be killed: its arguments, where {out} is the place it writes to, and what it must leave."""

    name: str
    arguments: Sequence[object]
    # Added when it is started again.
    again: Sequence[object]
    # What a finished run is compared by.
    result: Callable[[Path], object]
    kills: int


def rows(out: Path) -> object:
    """Return what the rows of a run say, and how many pictures it left.

    Batches of a resumed run are others, which scores may show in the sixth digit.
    """
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    said = [(row["path"], row["label"], round(row["score"], 4), row["heatmap"]) for row in map(json.loads, lines)]
    return said, len(list((out / "heatmaps").iterdir())), len(list((out / "masks").iterdir()))


def numbers(out: Path) -> object:
    """Return the numbers of an evaluation."""
    content = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return content["classes"], (out / "scores.csv").read_text(encoding="utf-8")


def cells(out: Path) -> object:
    """Return the table of a benchmark."""
    return (out / "results.csv").read_text(encoding="utf-8")


def checkpoint(out: Path) -> object:
    """Return the hash of a trained checkpoint, whose log must be whole lines."""
    log = (out / "a.jsonl").read_text(encoding="utf-8").splitlines()
    return file_digest(out / "a.safetensors"), json.loads(log[-1])["event"]


def kill_commands(torture: Torture, data: Path, weights: Path, share: float) -> None:
    """Kill every command that writes, at random moments, and compare what comes of it."""
    own = ("--backbone", weights, "--offline")
    winclip = ("--method", "winclip", *own)
    good = data / "nut/test/good"
    learn = ("train", "anomalyclip", "--data", f"mvtec:{data}", "--epochs", 4, "--set", "n_ctx=5", *own)
    evaluated = torture.root / "evaluated"
    torture.command("evaluate", "--data", f"mvtec:{data}", "--eval-size", 64, *winclip, "--out", evaluated)
    commands = [
        Killing("detect", ("detect", data / "nut/test", *winclip, "--out", "{out}"), ("--resume",), rows, 30),
        Killing("evaluate", ("evaluate", "--data", f"mvtec:{data}", "--eval-size", 64, *winclip, "--out", "{out}"), (),
                numbers, 16),
        Killing("benchmark", ("benchmark", "--method", "winclip", "--method", "anoclip", "--data", f"mvtec:{data}",
                              "--eval-size", 64, *own, "--out", "{out}"), (), cells, 14),
        Killing("train", (*learn, "--out", "{out}/a.safetensors"), (), checkpoint, 20),
        Killing("calibrate", ("calibrate", "--normals", good, "--fpr", "0.1", *winclip, "--out", "{out}/c.json"), (),
                lambda out: json.loads((out / "c.json").read_text())["calibration"], 10),
        Killing("fit", ("fit", good, *own, "--method", "winclip", "--size", 64, "--out", "{out}/p.anomalens"), (),
                lambda out: file_digest(out / "p.anomalens"), 10),
        Killing("report", ("report", evaluated, "--out", "{out}/page.html"), (),
                lambda out: file_digest(out / "page.html"), 10),
        Killing("export", ("export", "--out", "{out}/m.onnx", "--check", good / "000.png", *winclip), (),
                lambda out: sorted(path.name for path in out.iterdir()), 4),
    ]  # fmt: skip
    for command in commands:
        _kill(torture, command, max(1, round(command.kills * share)))
        print(f"kills of {command.name} are done", flush=True)


def _kill(torture: Torture, command: Killing, kills: int) -> None:
    def out(name: str) -> Path:
        folder = torture.root / name / command.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def arguments(folder: Path) -> list[str]:
        return [str(part).format(out=folder) for part in command.arguments]

    whole = torture.command(*arguments(out("whole")))
    if whole.code:
        torture.fault(f"{command.name} fails undisturbed: {whole.output[-500:]}")
        return
    wanted, done, round_number = command.result(out("whole")), 0, 0
    while done < kills:
        folder, begun = out(f"killed-{round_number}"), False
        round_number += 1
        for _ in range(5):
            ended = torture.command(
                *arguments(folder),
                *(command.again if begun else ()),
                kill_after=whole.seconds * torture.chance.random(),
            )
            if ended.code != -signal.SIGKILL:
                break
            done += 1
            begun = True
            _check_lines(torture, folder)
        if ended.code == -signal.SIGKILL:
            ended = torture.command(*arguments(folder), *command.again)
        torture.counts[f"kills of {command.name}"] = done
        if ended.code:
            torture.fault(f"{command.name} does not go on: {ended.output[-500:]}")
        elif command.result(folder) != wanted:
            torture.fault(f"{command.name} gives another result after kills: {str(command.result(folder))[:500]}")
        if left := [path.name for path in folder.rglob(".*")]:
            torture.fault(f"{command.name} leaves {left[:5]}")


def _check_lines(torture: Torture, folder: Path) -> None:
    """Check that every file of a killed run is whole: JSON to the last sign, rows but for a torn last one."""
    for path in folder.rglob("*.json"):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            torture.fault(f"{path.name} is torn")
    for path in folder.rglob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            json.loads(line)


# -------------------------------------------------------------------------------------------------------------- images
def images(torture: Torture, weights: Path, count: int) -> None:
    """Give damaged images to `detect`, and enormous ones one by one, with the time each takes."""
    folder = torture.root / "damaged"
    folder.mkdir()
    for number, (suffix, content) in enumerate(hostile.damaged_pictures(count, seed=3)):
        (folder / f"{number:05d}.{suffix}").write_bytes(content)
    own = ("--method", "winclip", "--backbone", weights, "--offline")
    ended = torture.command("detect", folder, *own, "--out", torture.root / "damaged-out")
    found = (torture.root / "damaged-out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    torture.counts["damaged images"] = len(found)
    if len(found) != count or ended.code not in (0, 1):
        torture.fault(f"{len(found)} rows of {count} damaged images: {ended.output[-500:]}")
    if any(len(json.loads(line).get("error", "")) > 1000 for line in found):
        torture.fault("an error of more than 1,000 signs")
    bombs = torture.root / "enormous"
    bombs.mkdir()
    for name, make in (hostile.REFUSED | hostile.ENORMOUS).items():
        (bombs / name).write_bytes(make())
        ended = torture.command("detect", bombs / name, *own, "--out", torture.root / "enormous-out" / name)
        torture.slowest = max(torture.slowest, ended.busy)
        torture.counts["enormous images"] += 1
        if ended.code not in (0, 1) or ended.busy > SLOWEST:
            torture.fault(f"{name}: {ended.busy:.1f} s, status {ended.code}: {ended.output[-300:]}")
    ended = torture.command("detect", bombs, *own, "--workers", 8, "--out", torture.root / "enormous-out" / "together")
    if ended.code not in (0, 1):
        torture.fault(f"enormous images together: {ended.output[-300:]}")


# ------------------------------------------------------------------------------------------------------------ metadata
def metadata(torture: Torture, count: int) -> None:
    """Give damaged files to every reader, each kind in a fork of its own."""
    for kind, prepare in test_metadata.KINDS.items():
        folder = torture.root / "metadata" / kind
        folder.mkdir(parents=True)

        def attack(prepare: Any = prepare, folder: Path = folder) -> None:
            attempt = prepare()
            for number, content in enumerate(hostile.texts(attempt.whole, count, seed=11)):
                place = folder / str(number)
                place.mkdir()
                began = time.monotonic()
                with contextlib.suppress(AnomalensError):
                    attempt(place, content)
                if time.monotonic() - began > SLOWEST:
                    raise RuntimeError(f"file {number} took more than {SLOWEST} seconds")

        ended = torture.run(attack)
        torture.counts["damaged files of metadata"] += count
        if ended.code:
            torture.fault(f"{kind}: status {ended.code}: {ended.output[-800:]}")


# --------------------------------------------------------------------------------------------------------------- names
def names(torture: Torture, weights: Path) -> None:
    """Give hostile names to detect, evaluate and report."""
    root = torture.root / "names"
    picture = hostile.pictures(5)["png"]
    for part in ("normal", "anomalous"):
        (root / part).mkdir(parents=True)
    planted = [path for name in hostile.NAMES if (path := hostile.plant(root / "normal", f"{name}.png", picture))]
    hostile.plant(root / "anomalous", "a.png", hostile.pictures(6)["png"])
    torture.counts["hostile names"] = len(planted)
    own = ("--method", "winclip", "--backbone", weights, "--offline")
    out = torture.root / "names-out"
    visible = [path for path in planted if not path.name.startswith(".")]
    ended = torture.command("detect", root / "normal", *own, "--out", out / "detect")
    lines = (out / "detect" / "predictions.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    if len({json.loads(line)["path"] for line in lines}) != len(visible) or ended.code:
        torture.fault(f"{len(lines)} rows of {len(visible)} names: {ended.output[-500:]}")
    for arguments in (
        ("detect", root / "normal", *own, "--out", out / "detect", "--resume"),
        ("evaluate", "--data", f"folders:{root}", "--eval-size", 64, *own, "--out", out / "evaluate"),
        ("report", out / "evaluate"),
    ):
        ended = torture.command(*arguments)
        if ended.code:
            torture.fault(f"{arguments[0]} of hostile names: {ended.output[-500:]}")


def torment(root: Path, seed: int, share: float) -> Torture:
    """Do all of it in a folder of its own; `share` of the usual number of kills and files."""
    torture = Torture(root / "work", seed)
    torture.root.mkdir()
    os.environ["ANOMALENS_CACHE"] = str(torture.root / "cache")
    os.environ["HOME"] = str(root / "home")
    (root / "home").mkdir()
    data, weights = write_dataset(torture.root / "data", 40), write_weights(torture.root / "tiny.safetensors")
    names(torture, weights)
    metadata(torture, max(1, round(35 * share)))
    print("names and metadata are done", flush=True)
    images(torture, weights, max(1, round(1000 * share)))
    print("images are done", flush=True)
    kill_commands(torture, data, weights, share)
    outside = [path for path in root.iterdir() if path.name not in ("work", "home")] + list((root / "home").rglob("*"))
    if outside:
        torture.fault(f"written outside: {outside[:5]}")
    return torture


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the damage")
    parser.add_argument("--share", type=float, default=1.0, help="of the usual number of kills and files")
    asked = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="anomalens-torture-"))
    began = time.monotonic()
    try:
        outcome = torment(place, asked.seed, asked.share)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    counts = outcome.counts
    counts["kills in all"] = sum(number for label, number in counts.items() if label.startswith("kills of"))
    for label, number in sorted(counts.items()):
        print(f"{number:6d}  {label}")
    print(f"{outcome.memory / 1e9:6.2f}  GB of memory at most")
    print(f"{outcome.slowest:6.1f}  seconds of processor time for an image at most")
    print(f"{len(outcome.faults):6d}  faults")
    print(f"{time.monotonic() - began:6.0f}  seconds in all, seed {asked.seed}")
    sys.exit(bool(outcome.faults))
