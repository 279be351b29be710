"""How commands print: tables, pipes, JSON, quiet and verbose; and that every option of loading has a flag."""

import json
import logging
import re
from dataclasses import fields
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from anomalens.cli import console
from anomalens.cli.app import app
from anomalens.options import LoadOptions

ROWS = [{"name": "a-rather-long-name-to-type", "text": "words that may be folded anywhere", "value": 1.25}]


def run(*words: object) -> str:
    ran = CliRunner().invoke(app, [str(word) for word in words])
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(console, "output", Console(force_terminal=True, width=width, color_system=None))


def test_names_to_type_are_never_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for width in (50, 20):
        terminal(monkeypatch, width)
        console.show(ROWS, typed=["name"], as_json=False)
        assert "a-rather-long-name-to-type" in capsys.readouterr().out


def test_two_names_to_type_fit_or_no_table_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"method": "m" * 30, "data set": "d" * 30, "AUROC": 91.25, "AUPRO": 80.0}
    for width in (60, 80, 120):
        terminal(monkeypatch, width)
        console.show([row], typed=["method", "data set"], as_json=False)
        shown = capsys.readouterr().out
        assert all(text in shown for text in ("m" * 30, "d" * 30, "91.2", "80.0")), width


def test_no_word_is_folded_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"name": "short", "download size": "12345 megabytes", "licence": "CC-BY-NC-SA-4.0"}
    for width in (20, 40, 45, 50, 80):
        terminal(monkeypatch, width)
        console.show([row], typed=["name"], as_json=False)
        words = set(capsys.readouterr().out.replace(":", " ").split())
        assert {"short", "download", "size", "12345", "megabytes", "licence", "CC-BY-NC-SA-4.0"} <= words, width


def test_a_number_that_json_cannot_hold_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"a": float("nan"), "b": (1.5, float("inf")), "c": {"d": -float("inf")}}
    console.show_facts(facts, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, None], "c": {"d": None}}
    console.show([facts], as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"a": None, "b": [1.5, None], "c": {"d": None}}]


def test_a_benchmark_of_the_catalogue_is_json_too() -> None:
    content = json.loads(run("data", "list", "mvtec", "--json"))
    assert (content["key"], len(content["classes"]), content["counts"][0]["normal"]) == ("mvtec", 15, 467)


@pytest.mark.parametrize("words", [("-q", "data", "list"), ("data", "list", "-q"), ("data", "list", "--quiet")])
def test_quiet_may_stand_behind_the_command(words: tuple[str, ...]) -> None:
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0
    assert ran.stderr == ""
    assert "anomalens data list NAME" in CliRunner().invoke(app, ["data", "list"]).stderr


def test_every_command_takes_quiet_and_verbose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    names = ["detect", "calibrate", "evaluate", "export", "benchmark", "report", "train", "import-checkpoint"]
    for words in [[name] for name in (*names, "methods", "backbones", "checkpoints", "info")] + [["data", "prepare"]]:
        shown = run(*words, "--help")
        assert "--quiet" in shown, words
        assert "--verbose" in shown, words


def test_only_images_are_rated(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch, 100)
    bar = console.progress_bar()
    cells = bar.add_task("cells", total=4, rated=False, completed=2)
    images = bar.add_task("images", total=4, completed=2)
    tasks = {task.id: task for task in bar.tasks}
    for task in tasks.values():
        task.start_time = bar.get_time() - 1
    rate = console._Rate()
    assert str(rate.render(tasks[cells])) == ""
    assert "images/s" in str(rate.render(tasks[images]))


def test_a_pipe_gets_text_without_boxes() -> None:
    lines = run("methods").splitlines()
    assert lines[0] == "name\ttitle\tpaper\tlearns"
    assert any(line.startswith("anoclip+\t") for line in lines)
    assert not re.search("[│┃━─]", "".join(lines))


@pytest.mark.parametrize("command", [("methods",), ("backbones",), ("checkpoints",), ("info",), ("data", "list")])
def test_json_is_one_document(command: tuple[str, ...]) -> None:
    content = json.loads(run(*command, "--json"))
    assert content
    if command == ("methods",):
        assert {"name", "title", "paper", "learns"} == set(content[0])


def test_detect_and_evaluate_print_json_and_nothing_else_when_quiet(tmp_path: Path, tiny_weights: Path) -> None:
    nuts = Path(__file__).parent.parent.parent / "examples" / "hazelnuts"
    common = ("--method", "anoclip", "--backbone", tiny_weights, "--size", 64, "--set", "views=1", "--json")
    ran = CliRunner().invoke(
        app,
        ["--quiet", "detect", str(nuts / "peeled_hazelnut" / "test" / "good"), "--out", str(tmp_path / "run")]
        + [str(word) for word in common],
    )
    assert ran.exit_code == 0, ran.output
    assert ran.stderr == ""
    summary = json.loads(ran.stdout)
    assert (summary["images"], summary["failed"], summary["method"]) == (10, 0, "anoclip")
    again = json.loads(
        run("detect", nuts / "peeled_hazelnut" / "test" / "good", "--out", tmp_path / "run", "--resume", *common)
    )
    assert again["images_per_second"] is None, "nothing was left to do"
    assert again["highest_score"] == summary["highest_score"]
    rows = json.loads(
        run("evaluate", "--data", f"mvtec:{nuts}", "--out", tmp_path / "eval", "--eval-size", 64, *common)
    )
    assert [row["class"] for row in rows] == ["peeled_hazelnut", "mean"]


def test_the_library_speaks_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("anomalens")
    for quiet, verbose, expected in ((True, False, set()), (False, False, {"w"}), (False, True, {"w", "i"})):
        console.set_verbosity(quiet=quiet, verbose=verbose)
        log.warning("w")
        log.info("i")
        assert {line.split(": ")[1] for line in capsys.readouterr().err.splitlines()} == expected
        # A download takes a while, so it is told without --verbose too.
        logging.getLogger("anomalens.downloads").info("d")
        assert capsys.readouterr().err == ("" if quiet else "info: d\n")
    console.set_verbosity(quiet=False, verbose=False)


def test_help_shows_a_benchmark_file_as_it_is_written() -> None:
    shown = run("benchmark", "--help")
    for line in ("[settings]", "[[method]]", "[[data]]"):
        assert line in shown


def test_help_flows_with_the_terminal_and_sorts_options_by_what_they_are_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = run("fit", "--help")
    panels = ["Arguments", "Options", "Method and weights", "Decisions", "How images are seen", "Speed"]
    assert [shown.index(f" {panel} ─") for panel in panels] == sorted(shown.index(f" {panel} ─") for panel in panels)
    words = shown.partition("Four photos")[2].partition("\n \n")[0].splitlines()
    assert all(len(line.rstrip()) > 60 for line in words[:3]), "lines of the source are not lines of the help"
    assert "   anomalens recipe show part.anomalens" in run("recipe", "show", "--help")


def test_every_option_of_loading_has_a_flag_with_its_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    shown = " ".join(run("detect", "--help").split())
    for option in fields(LoadOptions):
        assert (option.metadata["flag"] or f"--{option.name.replace('_', '-')}") in shown
        assert option.metadata["help"].split(".")[0][:60] in shown


def test_no_command_lists_options_by_hand() -> None:
    folder = Path(console.__file__).parent
    for path in folder.glob("*.py"):
        if path.name != "load_options.py":
            assert not re.search(r"--(backbone|tile|overlap|extra-size|fast-jpeg)\"", path.read_text("utf-8")), (
                path.name
            )
