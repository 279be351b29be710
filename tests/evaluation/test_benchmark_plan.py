"""Benchmark files and flags become plans; what is wrong with a file is named."""

import re
from pathlib import Path

import pytest

from anomalens.errors import ConfigError
from anomalens.evaluation.benchmark_plan import BenchmarkData, BenchmarkMethod, flags_plan, read_plan
from anomalens.evaluation.evaluator import EvaluationConfig
from anomalens.options import LoadOptions


def test_a_file_says_everything(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"")
    (tmp_path / "own.safetensors").write_bytes(b"")
    (tmp_path / "anoclip").mkdir()  # a folder that happens to be called as the method is
    (tmp_path / "b.toml").write_text(
        """
        [settings]
        backbone = "weights.safetensors"
        size = 224
        batch_size = 4
        [evaluation]
        size = 256
        class_names = true
        [[method]]
        method = "anoclip"
        [[method]]
        method = "anoclip"
        label = "one view"
        size = 448
        checkpoint = "own.safetensors"
        object_name = "part"
        extra_sizes = [320, 384]
        strict_backbone = false
        fast_jpeg = true
        method_options = { views = 1 }
        [[data]]
        path = "mvtec:sets/mine"
        name = "Mine"
        published = "mvtec"
        [[data]]
        path = "/absolute"
        """
    )
    plan = read_plan(tmp_path / "b.toml")
    shared = LoadOptions(method="anoclip", backbone=str(tmp_path / "weights.safetensors"), size=224, batch_size=4)
    own = shared.replace(
        size=448,
        checkpoint=str(tmp_path / "own.safetensors"),
        object_name="part",
        extra_sizes=(320, 384),
        strict_backbone=False,
        fast_jpeg=True,
        method_options={"views": 1},
    )
    assert plan.methods == (BenchmarkMethod("anoclip", shared), BenchmarkMethod("one view", own))
    assert plan.data == (BenchmarkData(f"mvtec:{tmp_path / 'sets/mine'}", "Mine", "mvtec"), BenchmarkData("/absolute"))
    assert plan.evaluation == EvaluationConfig(size=256, class_names=True)


@pytest.mark.parametrize("option", LoadOptions.names())
def test_every_option_of_loading_is_one_of_settings_and_method(tmp_path: Path, option: str) -> None:
    for table in ("[[method]]\n[settings]", "[[method]]"):
        (tmp_path / "b.toml").write_text(f"{table}\n{option} = [[1]]\n")
        with pytest.raises(ConfigError, match=rf"b\.toml: {option} must be"):
            read_plan(tmp_path / "b.toml")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("object", "object_name"),
        ("also", "extra_sizes"),
        ("draft", "fast_jpeg"),
        ("any_backbone", "strict_backbone"),
        ("options", "method_options"),
        ("name", "method"),
    ],
)
def test_old_names_are_answered_with_the_new_ones(tmp_path: Path, old: str, new: str) -> None:
    for table in ("[settings]", "[[method]]"):
        (tmp_path / "b.toml").write_text(f"[[method]]\n{table}\n{old} = 1\n")
        with pytest.raises(ConfigError, match=re.escape(f"b.toml: {table}: '{old}' is now called {new}")):
            read_plan(tmp_path / "b.toml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "no TOML"),
        ("colour = 1", "unknown option 'colour'; .*the file has: settings, evaluation, method, data"),
        ("[settings]\nsiez = 1\n[[method]]", r"unknown option 'siez' \(did you mean 'size'\?\)"),
        ("[[method]]\nsize = 'x'", "size must be a whole number, not 'x'"),
        ("[[method]]\nmethod_options = 3", "method_options must be a table"),
        ("[[method]]\n[[data]]\nname = 'y'", "needs a path"),
        ("[[method]]\n[[data]]\npath = 'imagenet:y'", "is not a layout"),
        ("[[method]]\n[[data]]\npath = 'y'\nlayout = 'z'", "unknown option 'layout'"),
        ("[method]\nmethod = 'x'", r"as \[\[method\]\]"),
        ("settings = 3", r"write \[settings\] as a table"),
        ("[[method]]\n[[data]]\npath = 'y'\n[evaluation]\nsize = 'x'", "size must be a whole number"),
        ("[[method]]\n[[data]]\npath = 'y'\n[evaluation]\nsiez = 1", r"'siez' .*\[evaluation\] has: size, limit"),
        ("", "at least one method"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "b.toml").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        read_plan(tmp_path / "b.toml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"c\.toml: No such file"):
        read_plan(tmp_path / "c.toml")


def test_flags_are_a_plan_too() -> None:
    plan = flags_plan(
        ["anoclip", "winclip", "anoclip"], [BenchmarkData("a")], LoadOptions(size=64), EvaluationConfig(size=32)
    )
    assert plan.methods == (
        BenchmarkMethod("anoclip", LoadOptions(method="anoclip", size=64)),
        BenchmarkMethod("winclip", LoadOptions(method="winclip", size=64)),
    )
    assert (plan.data, plan.evaluation) == ((BenchmarkData("a"),), EvaluationConfig(size=32))


def test_a_data_set_has_names_of_its_own_and_the_limit_of_the_methods(tmp_path: Path) -> None:
    settings = "[[method]]\nmethod = 'anoclip'\nmax_pixels = 47\n[[method]]\nmethod = 'winclip'\nmax_pixels = 1\n"
    data = "[[data]]\npath = 'mvtec:.'\nexclude = ['*_copy.png']\nnormal_names = ['Gut']\n"
    (tmp_path / "plan.toml").write_text(settings + data)
    plan = read_plan(tmp_path / "plan.toml")
    assert plan.max_pixels == 47
    (part,) = plan.data
    assert (part.exclude, part.normal_names) == (("*_copy.png",), ("Gut",))


def test_shots_belong_to_a_method_and_recipes_lie_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "nut.anomalens").write_bytes(b"")
    file = tmp_path / "plan.toml"
    file.write_text(
        """
[evaluation]
draws = 3
[[method]]
method = "anoclip"
[[method]]
method = "anoclip"
label = "taught"
shots = 4
[[method]]
recipe = "nut.anomalens"
shots = 0
[[data]]
path = "set"
"""
    )
    words, taught, recipe = (plan := read_plan(file)).methods
    assert recipe.label == "nut"
    assert recipe.options.recipe == str(tmp_path / "nut.anomalens")
    settings = [method.evaluation(plan.evaluation) for method in (words, taught, recipe)]
    assert [(each.shots, each.draws) for each in settings] == [(0, 3), (4, 3), (0, 3)]
    for line in ("shots = -1", "shots = 'four'", "draws = 0"):
        file.write_text(f"[[method]]\nmethod = 'anoclip'\n{line}\n[[data]]\npath = 'set'\n")
        with pytest.raises(ConfigError, match=line.split()[0]):
            read_plan(file)


def test_seeds_and_checkpoints_are_runs_of_one_method(tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(
        """
[[method]]
method = "anoclip+"
seeds = 2
[[method]]
method = "tokenclip"
label = "ours"
checkpoints = ["a.safetensors", "b.safetensors"]
[[method]]
method = "winclip"
[[data]]
path = "set"
"""
    )
    runs = read_plan(file).methods
    assert [(run.label, run.group) for run in runs] == [
        ("anoclip+, seed 0", "anoclip+"),
        ("anoclip+, seed 1", "anoclip+"),
        ("ours, checkpoint 0", "ours"),
        ("ours, checkpoint 1", "ours"),
        ("winclip", None),
    ]
    assert [run.options.seed for run in runs] == [0, 1, 0, 0, 0]
    assert [run.options.checkpoint for run in runs[2:4]] == ["a.safetensors", "b.safetensors"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("seeds = 0", "seeds 0 must be at least 1"),
        ("seeds = 'two'", "seeds must be a whole number"),
        ("seeds = 2\ncheckpoints = ['a']", "either seeds or checkpoints"),
        ("seeds = 2\nseed = 5", "has both seed and seeds"),
        ("checkpoints = 5", "checkpoints must be a list"),
    ],
)
def test_runs_that_make_no_sense_are_refused(tmp_path: Path, lines: str, reason: str) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(f"[[method]]\nmethod = 'anoclip+'\n{lines}\n[[data]]\npath = 'set'\n")
    with pytest.raises(ConfigError, match=reason):
        read_plan(file)
