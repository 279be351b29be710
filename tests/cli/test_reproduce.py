"""`anomalens reproduce` from the outside, on a miniature of MVTec AD with a small random tower."""

import csv
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import published_files
from anomalens.backbones import hub, registry
from anomalens.backbones import weights as backbone_weights
from anomalens.backbones.tower import Clip
from anomalens.datasets import catalog
from anomalens.detection.detector import Detector
from anomalens.errors import WeightsError
from anomalens.evaluation.papers import papers
from anomalens.files import file_digest
from anomalens.methods.parts.checkpoints import read_checkpoint
from anomalens.methods.published import table
from anomalens.methods.published.table import find_published
from anomalens.options import LoadOptions
from commands import Command, runner
from loopback import serving

PAPERS_WEIGHTS = "ViT-L-14-336"
MORE = {"covid19", "kvasir", "endo"}
"""Data sets beyond the fourteen that most papers measure."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return runner(capsys, monkeypatch)


def miniature(root: Path, *classes: str, images: int = 3, seed: int = 0) -> Path:
    """Write a data set in MVTec AD's layout: so many normal and anomalous test images of each class, of 40 pixels."""
    noise = np.random.default_rng(seed)
    for name in classes:
        for folder in ("test/good", "test/crack", "ground_truth/crack"):
            (root / name / folder).mkdir(parents=True)
        for number in range(images):
            for kind in ("good", "crack"):
                pixels = noise.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / "test" / kind / f"{number:03d}.png")
            mask = np.zeros((40, 40), np.uint8)
            mask[8:20, 8:20] = 255
            Image.fromarray(mask).save(root / name / "ground_truth" / "crack" / f"{number:03d}_mask.png")
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return miniature(tmp_path / "sets" / "mvtec", "bottle", "carpet").parent


def test_a_table_is_printed_and_written(
    run: Command, data: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = ("reproduce", "winclip", "--on", "mvtec", "--data", data, "--backbone", tiny_weights, "--limit", 2)
    ran = run(*command, "--out", out)
    assert ran.code == 0, ran.err
    assert "winclip\tMVTec AD\timage AUROC\t91.8" in ran.out
    rows = list(csv.DictReader((out / "reproduction.csv").open()))
    bottle = next(row for row in rows if (row["class"], row["metric"]) == ("bottle", "image_auroc"))
    assert (bottle["paper"], bottle["tolerance"], bottle["protocol_equal"]) == ("99.2", "8.0", "False")
    assert "data: not the whole set" in bottle["protocol_differences"]
    text = (out / "reproduction.md").read_text()
    assert "## winclip on MVTec AD" in text
    assert "| bottle | image AUROC | 99.2 |" in text
    assert "- The paper gives neither temperature nor evaluation size." in text
    assert "- Not the whole set: classes missing: cable, capsule" in text
    assert "winclip on MVTec AD" in (out / "reproduction.html").read_text()
    (metrics,) = out.glob("cells/*/metrics.json")
    protocol = json.loads(metrics.read_text())["protocol"]
    assert (protocol["image_size"], protocol["evaluation_size"]) == (240, 240)
    assert protocol["prompts"]["object"] == "class name"

    monkeypatch.setattr(Detector, "predict_iter", lambda *arguments: pytest.fail("an image is looked at again"))
    again = run(*command, "--out", out)
    assert (again.code, again.out) == (0, ran.out)


def test_the_settings_are_files_for_benchmark(run: Command, tiny_weights: Path, tmp_path: Path) -> None:
    data = miniature(tmp_path / "mvtec", "bottle", images=1)
    flags = ("--on", "mvtec", "--data", data, "--backbone", tiny_weights, "--limit", 1)
    assert run("reproduce", "anoclip+", *flags, "--seeds", 2, "--out", tmp_path / "out").code == 0
    (file,) = (tmp_path / "out" / "benchmarks").iterdir()
    assert file.name == "anoclip+-mvtec.toml"
    ran = run("benchmark", "--config", file, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "anoclip+, mean of 2 seeds" in ran.out
    assert "anoclip+, mean of 2 seeds" in (tmp_path / "out" / "results.md").read_text()
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 2  # those that the reproduction made


def test_a_plan_runs_nothing(run: Command, data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    ran = run(
        "reproduce", "winclip", "--on", "mvtec", "--data", data, "--backbone", tiny_weights, "--plan", "--limit", 2,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "winclip\tMVTec AD\t\t8\t8\t" in ran.out
    assert "classes missing: cable" in ran.out
    assert not (tmp_path / "out").exists()


def test_a_plan_fetches_nothing_for_weights_of_a_users_own(
    run: Command, data: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is not on this machine, yet the time is known: random numbers take as long."""
    monkeypatch.setenv("ANOMALENS_CACHE", str(tmp_path / "cache"))
    with serving() as site:
        monkeypatch.setenv("ANOMALENS_GITHUB", site.url)
        for weights in (tiny_weights, "hf-hub:nobody/nothing"):
            ran = run(
                "reproduce", "crane", "--on", "mvtec", "--data", data, "--backbone", weights, "--plan", "--json",
                "--limit", 1,
            )  # fmt: skip
            assert ran.code == 0, ran.err
            plan = json.loads(ran.out)
            assert (plan["seconds"] is None) == (weights != tiny_weights)
        assert site.requests == []
    assert not (tmp_path / "cache" / "checkpoints").exists()


def test_a_plan_needs_no_weights(run: Command, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[str] = []

    def seconds(options: LoadOptions, images: Sequence[Path]) -> float:
        timed.append(options.backbone)
        return 2.0

    monkeypatch.setattr("anomalens.cli.reproduction_plan._seconds", seconds)
    ran = run("reproduce", "crane+", "--on", "mvtec", "--data", data, "--plan", "--json", "--limit", 1)
    assert ran.code == 0, ran.err
    plan = json.loads(ran.out)
    assert [file["file"] for file in plan["files"]] == [
        "weights ViT-L-14-336",
        "guide dinov2-with-registers-base",
        "checkpoint crane+:visa",
    ]
    assert plan["files"][2]["from"].startswith("https://raw.githubusercontent.com/AlirezaSalehy/Crane/")
    assert not any(file["here"] for file in plan["files"])
    assert plan["seconds"] == 8.0
    assert timed == ["ViT-L-14-336"]


def test_every_method_has_a_plan_for_every_data_set(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint never learned from what it is measured on, and is the paper's; numbers are there as printed."""
    monkeypatch.setattr("anomalens.cli.reproduction_plan._seconds", lambda options, images: 1.0)
    sets = [entry for entry in catalog.catalog().values() if entry.of_papers]
    for entry in sets:
        miniature(tmp_path / "sets" / entry.key, entry.classes[0] if entry.classes else "part", images=1)
    ran = run("reproduce", "all", "--on", "all", "--data", tmp_path / "sets", "--plan", "--json")
    assert ran.code == 0, ran.err
    plan = json.loads(ran.out)
    keys = {entry.title: entry.key for entry in sets}
    rows = {(row["method"], keys[row["data set"]]): row for row in plan["runs"]}
    assert set(rows) == set(itertools.product(papers(), keys.values()))
    assert len(keys) == 17
    fetched = {file["file"] for file in plan["files"]}
    for (method, key), row in rows.items():
        runs = 3 if method == "tokenclip" else 1
        assert row["images"] == 2 * runs
        assert row["trained first"] == ("seed 0, seed 1, seed 2" if runs == 3 else "")
        name = row["checkpoint"]
        assert bool(name) == (method in {"aprilgan", "anomalyclip", "crane", "crane+", "adaclip"})
        if name:
            assert find_published(name).method == method
            assert key not in find_published(name).trained_on
            assert f"checkpoint {name}" in fetched
    learned = {key: rows["crane+", key]["checkpoint"].partition(":")[2] for key in keys.values()}
    assert [key for key, label in learned.items() if label == "visa"] == ["mvtec"]
    assert {key for key, label in learned.items() if label == "mvtec-medical"} == {
        "headct", "brainmri", "br35h", "isic", "colondb", "clinicdb", "tn3k",
    }  # fmt: skip
    assert rows["adaclip", "colondb"]["checkpoint"] == "adaclip:visa"
    without = {method: {key for key in learned if not rows[method, key]["paper's numbers"]} for method in papers()}
    assert without.pop("anoclip") == set(learned) - {"mvtec", "visa"}
    assert without.pop("tokenclip") == set(learned)
    # The tables of the others name at least the fourteen sets.
    assert all(keys == set() for method, keys in without.items() if method in ("winclip", "aprilgan", "anomalyclip"))
    assert all(without[method] == MORE for method in ("anoclip+", "crane", "crane+", "adaclip"))


def test_what_is_not_published_is_trained_first(
    run: Command, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mvtec = miniature(tmp_path / "mvtec", "bottle", images=1)
    monkeypatch.setenv("ANOMALENS_CACHE", str(tmp_path / "cache"))
    visa = miniature(tmp_path / "visa", "candle", images=1, seed=1)
    out = tmp_path / "out"
    ran = run(
        "reproduce", "tokenclip", "--on", "mvtec", "--data", f"mvtec={mvtec}", "--data", f"VisA={visa}",
        "--backbone", tiny_weights, "--seeds", 2, "--limit", 1, "--out", out,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    infos = [read_checkpoint(out / "checkpoints" / f"tokenclip-visa-{seed}.safetensors").info for seed in (0, 1)]
    assert [(info.auxiliary_data, info.seed) for info in infos] == [("visa", 0), ("visa", 1)]
    assert "±" in (out / "reproduction.md").read_text()


def test_data_sets_that_are_not_here_are_named(run: Command, data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    flags = ("--data", data, "--backbone", tiny_weights, "--limit", 1, "--out", tmp_path / "out")
    some = run("reproduce", "winclip", "--on", "mvtec", "--on", "visa", *flags)
    assert some.code == 1
    assert "left out: VisA (visa) is not here: get it from https://amazon-visual" in some.err
    assert "winclip\tMVTec AD" in some.out
    none = run("reproduce", "winclip", "--on", "btad", "--on", "visa", *flags)
    assert none.code == 2
    assert "BTAD (btad) is not here: get it from http://avires" in none.err
    untrained = run("reproduce", "all", "--on", "mvtec", *flags, "--plan")
    assert untrained.code == 1
    assert "left out: tokenclip is trained on visa before it is measured on mvtec" in untrained.err
    assert "winclip\tMVTec AD" in untrained.out
    whole = ("--on", "mvtec", "--data", data)
    for wrong, told in (
        (("winclip",), "say what to measure on"),
        (("winclip", *whole[:2]), "where it is"),
        (("nothing", *whole), "no published protocol is known for 'nothing'; known: anoclip"),
        (("crain", *whole), "did you mean 'crane'?"),
        (("crane", "--on", "mvtek", *whole[2:]), "'mvtek' is not in the catalogue (did you mean 'mvtec'?)"),
        (("crane", "--on", "industral", *whole[2:]), "did you mean 'industrial'?"),
        (("crane", *whole, "--checkpoint", "crane:viza"), "did you mean 'crane:visa'?"),
        (("crane", *whole, "--checkpoint", "crane:../../x"), "no published checkpoint is called 'crane:../../x'"),
        (("crane", *whole, "--backbone", "bundled"), "no paper used the bundled weights"),
    ):
        ran = run("reproduce", *wrong)
        assert ran.code == 2
        assert told in ran.err
        assert ran.err.count("\n") == 1


def test_a_cache_that_cannot_be_used_stops_what_needs_it_alone(
    run: Command, data: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No disk takes such a name: to look below it fails, as in a folder that may not be entered.
    monkeypatch.setenv("ANOMALENS_CACHE", str(tmp_path / ("x" * 300)))
    listed = run("checkpoints", "crane")
    assert (listed.code, listed.out.count("\tno\n")) == (0, 2)
    flags = ("--on", "mvtec", "--data", data, "--backbone", tiny_weights, "--limit", 1)
    assert run("reproduce", "winclip", *flags, "--out", tmp_path / "words").code == 0
    ran = run("reproduce", "crane", *flags, "--out", tmp_path / "learned")
    assert ran.code == 1
    assert "File name too long; name another folder for the cache, with ANOMALENS_CACHE" in ran.err
    plain = tmp_path / "plain"
    plain.touch()
    ran = run("reproduce", "winclip", *flags, "--out", plain)
    assert (ran.code, "error: cannot write to" in ran.err) == (2, True)


def test_a_hub_cache_that_may_not_be_entered_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*arguments: object, **settings: object) -> str:
        raise PermissionError(13, "Permission denied", "token")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", closed)
    assert not hub.is_available(PAPERS_WEIGHTS)
    with pytest.raises(WeightsError, match=r"the client's folder is closed .*; name another, with HF_HOME"):
        hub._get("openai/nothing", "config.json", None)


def test_data_are_compared_with_the_catalogue_before_anything_runs(
    run: Command, data: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    flags = ("--backbone", tiny_weights, "--limit", 1, "--out", tmp_path / "out")
    ran = run("reproduce", "winclip", "--on", "visa", "--data", data / "mvtec", *flags)
    assert ran.code == 2
    assert "mvtec is not VisA: it holds bottle, carpet, and none of candle, capsules" in ran.err
    assert not (tmp_path / "out").exists()
    ran = run("reproduce", "winclip", "--on", "mvtec", "--data", data / "mvtec", *flags)
    assert ran.code == 0
    assert ran.err.startswith("MVTec AD: classes missing: cable, capsule")
    ran = run("reproduce", "winclip", "--on", "mvtec", "--data", f"mvtek={data / 'mvtec'}", *flags)
    assert (ran.code, "no such file or folder (did you mean 'mvtec'?)" in ran.err) == (2, True)


def test_a_run_that_fails_is_said(run: Command, data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    ran = run(
        "reproduce", "crane", "--on", "mvtec", "--data", data, "--backbone", tiny_weights, "--limit", 1,
        "--checkpoint", tmp_path / "none.safetensors", "--out", tmp_path / "out",
    )  # fmt: skip
    assert ran.code == 1
    # Said once, on one line, however long it is.
    (line,) = [line for line in ran.err.splitlines() if "crane on MVTec AD:" in line]
    assert "none.safetensors" in line
    assert "Failed: " in (tmp_path / "out" / "reproduction.md").read_text()


def test_a_part_of_the_real_set_runs_as_a_trial(run: Command, tiny_weights: Path, tmp_path: Path, shared: Path) -> None:
    mvtec = shared / "data" / "mvtec"
    flags = ("--on", "mvtec", "--data", mvtec, "--backbone", tiny_weights, "--limit", 1, "--out", tmp_path / "out")
    ran = run("reproduce", "winclip", *flags)
    assert ran.code == 0, ran.err
    text = (tmp_path / "out" / "reproduction.md").read_text()
    assert all(f"| {name} | image AUROC |" in text for name in ("bottle", "leather", "transistor"))
    assert "data: not the whole set" in text


def test_from_nothing_to_the_table_in_one_command(
    run: Command, tiny_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights known by name lie in the cache, the checkpoint comes from a server; the second run asks nobody."""
    monkeypatch.setenv("ANOMALENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    row = find_published("crane:visa")
    words = tiny_clip.text.token_embedding.weight.detach()
    file = published_files.saved(tmp_path / "epoch_5.pth", published_files.prompts(words, projections=False))
    published = replace(row, file=replace(row.file, bytes=file.stat().st_size, sha256=file_digest(file)))
    monkeypatch.setattr(table, "_all", lambda: (published,))
    weights = tmp_path / "cache" / "weights" / PAPERS_WEIGHTS / "pytorch_model.bin"
    weights.parent.mkdir(parents=True)
    torch.save(tiny_clip.canonical_state_dict(), weights)
    entry = replace(
        registry.find(PAPERS_WEIGHTS),
        config=tiny_clip.config,
        files=(registry.WeightsFile(weights.name, weights.stat().st_size),),
        archive=None,
    )
    known = dict(registry.BACKBONES) | {PAPERS_WEIGHTS: entry}
    for module in (registry, backbone_weights):
        monkeypatch.setattr(module, "BACKBONES", known)
    data = miniature(tmp_path / "mvtec_anomaly_detection", "bottle", images=1)
    command = ("reproduce", "crane", "--on", "mvtec", "--data", data, "--limit", 2, "--out", tmp_path / "out")
    with serving() as site:
        monkeypatch.setenv("ANOMALENS_GITHUB", site.url)
        site.files[row.file.address.split(".com", 1)[-1]] = file.read_bytes()
        ran = run(*command)
        assert ran.code == 0, ran.err
        assert "crane\tMVTec AD\timage AUROC\t93.8" in ran.out
        rows = list(csv.DictReader((tmp_path / "out" / "reproduction.csv").open()))
        mean = next(line for line in rows if line["metric"] == "image_auroc")
        # Nothing sets it apart from the paper but the tiny tower's patches and the part of the data.
        assert mean["protocol_differences"] == "image size: 518, ours 512; data: not the whole set"
        assert len(site.requests) == 1
        again = run(*command)
        assert (again.code, again.out) == (0, ran.out)
        assert len(site.requests) == 1
