"""The commands in the documents are run as they are written; where one cannot be, a reason stands here."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clips import write_clip
from commands import runner
from parts import faulty_part, write_parts

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "lab/README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Commands of anomalens that are not run here: what they begin with or name, and why.
NOT_RUN = {
    r"detect .*--engine ray": "a cluster takes half a minute to start; tests/runs/test_ray_run.py starts one",
    r"(?:detect|evaluate|fit|train) .*--backbone": "weights that are fetched, or lie elsewhere",
    r"(?:checkpoints crane\+|import-checkpoint|reproduce)": "published checkpoints; tests/cli/test_reproduce.py",
    r"data (?:prepare|check LAYOUT)": "data sets to be fetched; tests/cli/test_data.py prepares small ones",
    r".*(?:--benchmark mvtec|datasets/|runs/|benchmark\.toml)": "data sets to be fetched, and hours",
    r"serve": "goes on until it is stopped; tests/cli/test_serve.py",
    r"watch": "goes on until it is stopped; tests/cli/test_streams.py",
    r"detect (?:/dev/video0|rtsp://)": "a camera; tests/images/test_video.py reads a stream over the loopback",
    r"(?:calibrate .*--fpr 0.01|detect .*line3)": "99 photos; tests/cli/test_calibrate.py runs it with fewer",
    r"export|detect .*\.onnx": "an export takes a minute; tests/export makes small ones",
    r"fit .*--mixed": "a dozen photos more; tests/cli/test_fit.py",
    r"detect .*--method edges": "a method that the page adds; tests/test_documents.py runs it",
}
# Other programs in blocks of commands, and why they are not run here.
ELSEWHERE = {
    "make": "tests/test_documents.py looks its targets up",
    ".ci/light": "builds an environment; a job of its own",
    ".venv/bin/python": "the tests themselves",
    "python": "tests/test_documents.py looks flags up; benchmarks take minutes, and data",
    "pip": "tests/test_documents.py looks extras up; nothing is installed by tests",
    "ray": "several machines",
    "export": "several machines",
    "curl": "tests/serving sends the same requests",
    "openssl": "no program of ours",
    "podman": "no program of ours",
    "apt-get": "a package index",
}


def blocks(page: Path) -> Iterator[list[str]]:
    """Yield the lines of each indented block of commands of a page, without comments; lines that go on are joined."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8").replace("\\\n", " "), flags=re.M | re.S)
    for block in re.findall(r"(?:^(?: {4}| {8})\S.*\n)+", text, re.M):
        lines = [line.split("  #")[0].strip() for line in block.splitlines()]
        if lines[0].split()[0] in ("anomalens", *ELSEWHERE):
            yield lines


def commands(page: Path) -> list[str]:
    """Return the arguments of the commands of anomalens on a page."""
    return [
        line.removeprefix("anomalens ") for block in blocks(page) for line in block if line.startswith("anomalens ")
    ]


def not_run(line: str) -> bool:
    return any(re.match(pattern, line) for pattern in NOT_RUN)


def test_every_command_is_run_or_has_a_reason() -> None:
    lines = [line for page in PAGES for block in blocks(page) for line in block]
    unknown = {line.split()[0] for line in lines} - {"anomalens", *ELSEWHERE}
    assert not unknown, "name it in ELSEWHERE, with a reason"
    written = [line for page in PAGES for line in commands(page)]
    idle = [pattern for pattern in NOT_RUN if not any(re.match(pattern, line) for line in written)]
    assert not idle, "no page has such a command any more"
    unused = {program for program in ELSEWHERE if not any(line.split()[0] == program for line in lines)}
    assert not unused, "no page has such a command any more"


@pytest.fixture
def material(tmp_path: Path) -> Path:
    """Make a folder with everything that commands of the documents read."""
    write_parts(tmp_path / "good", 4)
    write_parts(tmp_path / "more_good", 2, first=4)
    write_parts(tmp_path / "other_good", 19, first=10)
    for name in ("photos", "shots"):
        write_parts(tmp_path / name, 2, first=40)
        Image.fromarray(faulty_part(50)).save(tmp_path / name / "faulty.png")
    Image.fromarray(faulty_part(51)).save(tmp_path / "photo.jpg")
    bottle = tmp_path / "labelled" / "bottle"
    write_parts(bottle / "train" / "good", 1)
    write_parts(bottle / "test" / "good", 2, first=60)
    for part, pixels in (("test/crack/0.png", faulty_part(70)), ("ground_truth/crack/0_mask.png", mask_of_the_fault())):
        (bottle / part).parent.mkdir(parents=True)
        Image.fromarray(pixels).save(bottle / part)
    write_clip(tmp_path / "clip.mp4", 26)
    return tmp_path


def mask_of_the_fault() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    mask = np.zeros((160, 160), np.uint8)
    mask[96:104, 50:90] = 255
    return mask


def test_commands_run_as_they_are_written(
    material: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(material)
    run = runner(capsys, monkeypatch)
    # What pages take from others: a taught part, and a history.
    for line in ("fit good --out part.anomalens", "detect photos --out kept --store sqlite:///history.db"):
        assert run(*line.split(), "--size", 160).code == 0
    written = {line: page for page in PAGES for line in commands(page) if not not_run(line)}
    for line, page in written.items():
        words = shlex.split(line)
        if words[0] == "detect":
            shutil.rmtree(words[words.index("--out") + 1], ignore_errors=True)
        # Smaller, so that it takes less time, where a taught part does not settle the size.
        settled = "--recipe" in words or "--add" in words
        small = ["--size", "160"] if words[0] in ("fit", "detect", "calibrate") and not settled else []
        ran = run(*words, *small)
        assert ran.code == 0, f"{page.name}: {line}: {ran.err}"
