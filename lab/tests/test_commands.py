"""The laboratory's command line: it hands its options on, and explains itself."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from anomalens_lab.commands import app
from anomalens_lab.pretraining import SCENES
from anomalens_lab.recipe import STAGES


def test_scenes_are_drawn_and_resumed(tmp_path: Path) -> None:
    command = ["scenes", "--out", str(tmp_path), "--count", "3", "--size", "64"]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    assert "3 new images" in first.output
    assert "0 new images" in CliRunner().invoke(app, command).output


def test_pretrain_hands_its_options_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def recipe(out: Path, materials: Any, **options: Any) -> Path:
        seen.update(out=out, materials=[str(path) for path in materials], **options)
        return out / "backbone.safetensors"

    monkeypatch.setattr("anomalens_lab.pretraining.pretrain_backbone", recipe)
    command = ["pretrain", "--out", str(tmp_path), "--steps", "300", "--seed", "7"]
    ran = CliRunner().invoke(app, [*command, "--materials", "a", "--materials", "b"])
    assert ran.exit_code == 0, ran.output
    configs = [stage.config for stage in seen["stages"]]
    assert [c.steps for c in configs] == [300] * len(STAGES)
    assert [c.seed for c in configs] == [7 + stage.config.seed for stage in STAGES]
    assert seen["materials"] == ["a", "b"]
    assert "backbone.safetensors" in ran.output


def test_help_states_the_real_defaults_and_loads_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['anomalens_lab', 'pretrain', '--help']\n"
        "from anomalens_lab.commands import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert f"default: {SCENES:,}" in ran.stdout
    assert f"default: {', '.join(f'{stage.config.steps:,}' for stage in STAGES)}" in " ".join(
        ran.stdout.replace("│", " ").split()
    )


def test_wrong_usage_is_one_line_and_status_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "anomalens_lab", "calibrate", str(tmp_path), "--method", "nonsense"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "nonsense does not ship" in ran.stderr
    assert "Traceback" not in ran.stderr
