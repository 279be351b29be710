"""What the documents say can be run as it is written."""

import importlib
import importlib.util
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

import anomalens
from anomalens import load_detector
from anomalens.cli.app import app
from anomalens.errors import ConfigError
from anomalens.evaluation.benchmark_plan import read_plan
from anomalens.methods import base
from anomalens_lab.commands import app as lab_app
from parts import faulty_part, write_parts

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "lab/README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Folders that a path in the documents may start from.
HOMES = (ROOT, ROOT / "src/anomalens", ROOT / "lab/src", ROOT / "docs", ROOT / "lab")


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
    with pytest.raises(ConfigError, match=r"^gain must be "):
        load_detector("edges", size=64, gain="much")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make a folder with the files that the examples read, work in it, and return the variables that they use."""
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "photos/1.jpg", "bottle/train/good/1.png", "bottle/test/good/1.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 60), "grey").save(name)
    write_parts(Path("good"), count=4)
    Image.fromarray(faulty_part(9)).save("photo.jpg")
    part = Path("results/rows/part=00000/0.parquet")
    part.parent.mkdir(parents=True)
    row = {"path": "1.jpg", "object": None, "score": 0.9, "label": "anomalous", "regions": [{"area": 4}], "error": None}
    columns = pyarrow.Table.from_pylist([row, row | {"path": "2.jpg", "label": None, "error": "no such file"}])
    pyarrow.parquet.write_table(columns, part)
    maps, masks = np.random.default_rng(0).random((2, 32, 32), np.float32), np.zeros((2, 32, 32), bool)
    masks[1, 8:20, 8:20] = True
    return {
        "scores": np.array([0.2, 0.7]),
        "labels": np.array([0, 1]),
        "maps": maps,
        "masks": masks,
        "pairs": list(zip(maps, masks, strict=True)),
    }


EXAMPLES = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    if page.name != "CONTRIBUTING.md"
    for number, code in enumerate(blocks(page, "python"))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_in_python_run(code: str, workplace: dict[str, Any]) -> None:
    exec(compile(code, "<example>", "exec"), workplace)
    if "overlay" in code:
        assert Image.open("overlay.png").size == Image.open("photo.jpg").size
    if "manifest" in code:
        assert pyarrow.parquet.read_table("again.parquet").to_pylist() == [{"path": "2.jpg", "object": None}]


@pytest.mark.usefixtures("workplace")
def test_the_first_commands_of_the_readme_teach_a_part_and_find_defects() -> None:
    shutil.rmtree("results")
    part = (ROOT / "README.md").read_text("utf-8").partition("## Sixty seconds")[2]
    for line in re.findall("^    anomalens (.*)", part.partition("\n## ")[0], re.M):
        small = ["--size", "160"] if line.startswith("fit ") else []
        ran = CliRunner().invoke(app, [*shlex.split(line), *small])
        assert ran.exit_code == 0, ran.output
    assert "unusable" in Path("results/predictions.jsonl").read_text("utf-8"), "photos/ shows nothing but grey"


def test_the_benchmark_file_of_the_documents_is_one(workplace: dict[str, Any]) -> None:
    (text,) = blocks(ROOT / "docs/evaluation.md", "toml")
    Path("benchmark.toml").write_text(text, encoding="utf-8")
    plan = read_plan("benchmark.toml")
    assert [method.label for method in plan.methods] == ["anoclip", "one view"]


# How each program is called, and its command.
PROGRAMS = {"anomalens ": get_command(app), "python -m anomalens_lab ": get_command(lab_app)}


def helps(command: Any) -> Iterator[str]:
    """Yield the help text of a command and of all commands below it."""
    yield command.help or ""
    for below in getattr(command, "commands", {}).values():
        yield from helps(below)


def calls(program: str) -> list[str]:
    """Return all calls of `program` in blocks and in the text, from the pages and from the help of the commands."""
    texts = [page.read_text("utf-8") for page in PAGES]
    texts += [text for command in PROGRAMS.values() for text in helps(command)]
    written = rf"^ +({program}.*)$|`({program}[^`\n]*)`"
    found = [match for text in texts for match in re.findall(written, text.replace("\\\n", ""), re.M)]
    lines = {block or inline for block, inline in found}
    return sorted(line.split("  #")[0].strip() for line in lines)


@pytest.mark.parametrize("program", PROGRAMS)
def test_commands_in_the_documents_have_the_flags_they_name(program: str) -> None:
    lines = calls(program)
    assert len(lines) >= 5
    for line in lines:
        words = shlex.split(line.removeprefix(program))
        command: Any = PROGRAMS[program]
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        flags = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        flags.add("--help")
        unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.split("=")[0] not in flags]
        assert not unknown, f"{line}: {unknown}"
        takes = any(parameter.param_type_name == "argument" for parameter in command.params)
        assert takes or hasattr(command, "commands") or not words or words[0].startswith("-"), f"{line}: {words[0]}"
        assert words[:1] == ["--help"] or not hasattr(command, "commands"), f"{line}: no such command"


def test_scripts_in_the_documents_have_the_flags_they_name() -> None:
    lines = calls(r"python (?:lab/)?(?:benchmarks|examples)/")
    assert len(lines) > 5
    for line in lines:
        words = shlex.split(line)
        script = (ROOT / words[1]).read_text("utf-8")
        unknown = [word for word in words[2:] if word.startswith("--") and f'"{word}"' not in script]
        assert not unknown, f"{line}: {unknown}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if not link.startswith("http")]
    missing = [link for link in links if not (page.parent / link).exists()]
    # A new method's file has no name yet, and what a run writes is not there.
    files = re.findall(r"`(?!runs/)([\w.-]+/[\w/-]+\.(?:md|py))`", text.replace("methods/NAME.py", ""))
    missing += [file for file in files if not any((home / file).exists() for home in (page.parent, *HOMES))]
    for name in re.findall(r"`(anomalens(?:_lab)?(?:\.\w+)+)`", text):
        value: Any = importlib.import_module(name.split(".")[0])
        for part in name.split(".")[1:]:
            if not hasattr(value, part):
                importlib.import_module(f"{value.__name__}.{part}")
            value = getattr(value, part)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    missing += [target for target in re.findall(r"(?:^ {4}|`)make ([a-z-]+)", text, re.M) if target not in targets]
    assert not missing


def test_extras_in_the_documents_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    named = {name for page in PAGES for name in re.findall(r"(?:anomalens|'\.)\[(\w+)\]", page.read_text("utf-8"))}
    assert {"torch", "ray"} <= named <= extras.keys()


def test_the_python_reference_has_every_public_name() -> None:
    described = re.findall(r"^::: anomalens\.(\w+)$", (ROOT / "docs/api.md").read_text("utf-8"), re.M)
    assert sorted(described) == sorted(name for name in anomalens.__all__ if name != "__version__")
