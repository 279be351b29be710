"""A reproduction is a benchmark in the paper's protocol: what is run, with what, on what; and what is compared."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anomalens.datasets.catalog import find
from anomalens.errors import ConfigError
from anomalens.evaluation.benchmark_plan import read_plan
from anomalens.evaluation.benchmarking import BenchmarkCell
from anomalens.evaluation.plan_files import plan_text
from anomalens.evaluation.reproducing import Compared, Outcome, Task, chosen_data, compare, locate, plans, tasks
from anomalens.metrics.summary import SUMMARY_KEYS
from anomalens.options import LoadOptions


def chosen(method: str, *keys: str, **settings: Any) -> list[Task]:
    options = settings.pop("options", LoadOptions())
    located = {key: f"/sets/{key}" for key in (*keys, *settings.pop("beside", ()))}
    made, lacking = tasks(method, [find(key) for key in keys], located, options, Path("/out"), **settings)
    assert lacking == []
    return made


def test_groups_of_data_sets() -> None:
    assert [entry.key for entry in chosen_data(["MVTec-AD", "visa", "mvtec"])] == ["mvtec", "visa"]
    assert len(chosen_data(["all"])) == 17
    assert {entry.domain for entry in chosen_data(["medical"])} == {"medical"}
    with pytest.raises(ConfigError, match="'imagenet' is not in the catalogue"):
        chosen_data(["imagenet"])


def test_data_sets_are_found_by_their_usual_names(tmp_path: Path) -> None:
    for name in ("mvtec_anomaly_detection", "VisA_20220922", "something else"):
        (tmp_path / name).mkdir()
    everything = chosen_data(["all"])
    folder = str(tmp_path)
    assert locate([folder], everything) == {
        "mvtec": str(tmp_path / "mvtec_anomaly_detection"),
        "visa": str(tmp_path / "VisA_20220922"),
    }
    # Others that are there may be needed to learn from.
    assert locate([folder], [find("visa")]) == locate([folder], everything)
    assert "btad" not in locate([folder], [find("btad")])
    # A folder that holds no set of a known name is the one that is wanted, in whatever layout.
    assert locate([f"mvtec:{tmp_path / 'something else'}"], [find("mvtec")]) == {
        "mvtec": f"mvtec:{tmp_path / 'something else'}"
    }
    assert locate(["BTAD=folders:/a=b", folder], everything)["btad"] == "folders:/a=b"
    assert locate([str(tmp_path / "something else")], everything) == {}
    with pytest.raises(ConfigError, match="no such file or folder"):
        locate([str(tmp_path / "nowhere")], everything)


def test_checkpoints_are_those_that_the_paper_used() -> None:
    names = {task.benchmark.key: task.runs[0].options.checkpoint for task in chosen("crane+", "mvtec", "visa", "isic")}
    assert names == {"mvtec": "crane+:visa", "visa": "crane+:mvtec", "isic": "crane+:mvtec-medical"}
    (own,) = chosen("crane", "mvtec", options=LoadOptions(checkpoint="mine.safetensors"))
    assert own.runs[0].options.checkpoint == "mine.safetensors"
    (winclip,) = chosen("winclip", "mvtec", seeds=3)
    assert [run.label for run in winclip.runs] == ["winclip"]  # nothing in it is random
    assert winclip.runs[0].options.checkpoint is None


def test_what_is_not_published_is_trained_first_with_several_seeds() -> None:
    (task,) = chosen("tokenclip", "mvtec", beside=["visa"])
    assert [run.label for run in task.runs] == ["tokenclip, seed 0", "tokenclip, seed 1", "tokenclip, seed 2"]
    assert {run.group for run in task.runs} == {"tokenclip"}
    assert [(training.data, training.name, training.seed) for training in task.trainings] == [
        (("/sets/visa",), "visa", seed) for seed in range(3)
    ]
    assert [run.options.checkpoint for run in task.runs] == [str(training.out) for training in task.trainings]
    made, (line,) = tasks("tokenclip", [find("mvtec")], {"mvtec": "/sets/mvtec"}, LoadOptions(), Path("/out"))
    assert made == []
    assert line.endswith("before it is measured on mvtec: say where visa is, --data visa=PATH")
    (again,) = chosen("adaclip", "mvtec", beside=["visa", "clinicdb"], train=True, seeds=1)
    assert [run.label for run in again.runs] == ["adaclip"]
    assert again.trainings[0].data == ("/sets/visa", "/sets/clinicdb")
    assert again.trainings[0].name == "visa+clinicdb"


def test_sets_that_are_measured_alike_share_a_benchmark_which_is_a_file_too(tmp_path: Path) -> None:
    everything = chosen("crane+", "mvtec", "visa", "mpdd", "isic", limit=2)
    made = plans(everything)
    # VisA's checkpoint; MVTec AD's with either fusion; the medical one.
    assert [[data.published for data in plan.data] for plan in made] == [["mvtec"], ["visa", "mpdd"], ["isic"]]
    assert all(data.limit == 2 for plan in made for data in plan.data)
    seeds = chosen("anoclip+", "mvtec", seeds=2)
    for plan in (*made, *plans(seeds)):
        (tmp_path / "plan.toml").write_text(plan_text(plan))
        assert read_plan(tmp_path / "plan.toml") == plan


def metrics(method: str, value: float, **protocol: Any) -> dict[str, Any]:
    numbers = dict.fromkeys(SUMMARY_KEYS, value)
    known = {"auxiliary_data": "visa", "image_size": 518, "evaluation_size": 518, "precision": "float32"}
    return {
        "method": method,
        "backbone": "ViT-L-14-336",
        "protocol": known | protocol,
        "classes": {"bottle": {"n_normal": 20, "n_anomalous": 63} | numbers},
        "mean": numbers,
    }


def outcome(task: Task, *contents: dict[str, Any], incomplete: tuple[str, ...] = ()) -> Outcome:
    cells = [
        BenchmarkCell(
            run.options.method, run.label, task.benchmark.title, task.benchmark.key, Path(), "done", "", content,
            incomplete, run.group,
        )
        for run, content in zip(task.runs, contents, strict=True)
    ]  # fmt: skip
    (result,) = compare([task], cells)
    return result


def number(result: Outcome, metric: str, class_name: str | None = None) -> Compared:
    return next(
        compared
        for compared in result.compared
        if (compared.number.metric, compared.number.class_name) == (metric, class_name)
    )


def test_numbers_stand_beside_the_papers_with_a_tolerance() -> None:
    (task,) = chosen("crane", "mvtec")
    result = outcome(task, metrics("crane", 94.1))
    mean = number(result, "image_auroc")
    assert mean.number.published is not None
    assert (mean.number.published.value, mean.tolerance, mean.within) == (93.8, 0.3, True)
    assert mean.number.mismatches == ()
    assert number(result, "pixel_auroc").within is False
    assert number(result, "pixel_ap").within is None  # Crane's paper has none
    (plus,) = chosen("crane+", "mvtec")
    guided = metrics("crane+", 93.5, prompts={"options": {"guide": "facebook/dinov2-with-registers-base"}})
    assert number(outcome(plus, guided), "image_auroc").number.mismatches == ()
    assert number(outcome(plus, guided), "image_auroc", "bottle").tolerance == 1.0
    without = number(outcome(plus, metrics("crane+", 93.5)), "image_auroc").number.mismatches
    assert without == ("backbone: ViT-L/14@336, OpenAI, with DINOv2 ViT-B/14, ours ViT-L/14@336, OpenAI",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precision": "bfloat16"}, "precision: ours bfloat16"),
        ({"also": [320, 640]}, "further image sizes: 320, 640"),
        ({"tile": 256}, "tiles of 256 pixels"),
    ],
)
def test_images_seen_otherwise_are_another_protocol(change: dict[str, Any], words: str) -> None:
    (task,) = chosen("crane", "mvtec")
    assert number(outcome(task, metrics("crane", 94.1, **change)), "image_auroc").number.mismatches == (words,)


def test_a_part_of_the_set_is_another_protocol() -> None:
    (task,) = chosen("crane", "mvtec", limit=2)
    part = outcome(task, metrics("crane", 94.1), incomplete=("at most 2 images of each label and class",))
    assert number(part, "image_auroc").number.mismatches == ("data: not the whole set",)


def test_several_seeds_are_a_mean_and_a_deviation() -> None:
    (task,) = chosen("tokenclip", "mvtec", beside=["visa"])
    result = outcome(task, *(metrics("tokenclip", value) for value in (90.0, 92.0, 94.0)))
    mean, single = number(result, "image_auroc"), number(result, "image_auroc", "bottle")
    assert (mean.number.value, mean.deviation, single.deviation) == (92.0, 2.0, 2.0)
    assert mean.number.published is None
    assert mean.within is None


def test_a_run_that_is_missing_leaves_no_mean() -> None:
    (task,) = chosen("tokenclip", "mvtec", beside=["visa"])
    done = outcome(task, *(metrics("tokenclip", value) for value in (90.0, 92.0, 94.0))).cell
    runs = [replace(done, label=run.label, group=run.group) for run in task.runs]
    runs[1] = replace(runs[1], state="failed", reason="out of memory", metrics=None)
    (result,) = compare([task], runs)
    assert (result.cell.state, result.cell.reason, result.compared) == ("failed", "out of memory", ())
