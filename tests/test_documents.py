"""What the documents say can be run as it is written."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalens import load_detector
from anomalens.methods import base

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def test_the_method_in_the_contributing_page_is_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = blocks(ROOT / "CONTRIBUTING.md", "python")
    (tmp_path / "edges.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    spec = importlib.util.spec_from_file_location("edges", tmp_path / "edges.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "edges", module)
    spec.loader.exec_module(module)
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, 32:] = 255
    once, twice = (load_detector("edges", size=64, gain=gain).predict(picture).anomaly_map for gain in (1.0, 2.0))
    assert once.argmax() % 64 in (0, 32)
    assert np.allclose(twice, 2 * once)


@pytest.mark.slow
def test_the_examples_of_the_readme_run(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for path in (tmp_path / "photo.jpg", tmp_path / "photos" / "1.jpg"):
        Image.new("RGB", (80, 60), "grey").save(path)
    for code in blocks(ROOT / "README.md", "python"):
        ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "overlay.png").is_file()


def commands() -> list[str]:
    lines = {
        line.strip() for page in PAGES for line in re.findall(r"^ {4}anomalens .*$", page.read_text("utf-8"), re.M)
    }
    return sorted(line.split("  #")[0] for line in lines)


def test_commands_in_the_documents_have_the_flags_they_name() -> None:
    from typer.main import get_command

    from anomalens.cli.app import app

    root = get_command(app)
    assert len(commands()) > 10
    for line in commands():
        words = shlex.split(line)[1:]
        command = root
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        flags = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.split("=")[0] not in flags]
        assert not unknown, f"{line}: {unknown}"
