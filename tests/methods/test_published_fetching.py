"""Published checkpoints by name: the table, the choice, and what is fetched from where, once."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import published_files
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import load_weights
from anomalens.cli.app import app
from anomalens.datasets.catalog import catalog
from anomalens.detection.loading import load_detector
from anomalens.engines import torch_engine
from anomalens.errors import ConfigError, WeightsError
from anomalens.files import cache_folder
from anomalens.methods import base
from anomalens.methods.parts.checkpoints import (
    Checkpoint,
    CheckpointInfo,
    load_method,
    read_checkpoint,
    save_checkpoint,
)
from anomalens.methods.published import table
from anomalens.methods.published.fetching import checkpoint_file, download_of
from anomalens.methods.published.table import (
    choose_published,
    find_published,
    is_published_name,
    list_published,
    paper_checkpoint,
    with_checkpoint,
)
from anomalens.options import LoadOptions
from anomalens.runs.folder import detect_files
from loopback import Site, serving

Publish = Callable[[str], table.PublishedCheckpoint]


# -------------------------------------------------------------------------------------------------- table and choice
def test_the_table_is_whole() -> None:
    rows = list_published()
    assert len({row.name for row in rows}) == len(rows) == 12
    for row in rows:
        assert base.entry(row.method).learned
        assert row.file.address.startswith(("https://raw.githubusercontent.com/", "https://huggingface.co/"))
        assert len(row.file.sha256) == 64 or len(row.file.git_blob) == 40
        assert {*row.trained_on, *row.paper_data} <= set(catalog())
        assert not set(row.trained_on) & set(row.paper_data)
        assert row.licence.startswith("MIT")
    assert {row.method for row in rows if row.activation == "gelu"} == {"aprilgan", "adaclip"}


def test_names() -> None:
    assert find_published("Crane+:mvtec-medical").file.bytes == 576_693
    with pytest.raises(ConfigError, match=r"checkpoint is called 'crane:x'.*; there are crane:visa, crane:m"):
        find_published("crane:x")
    with pytest.raises(ConfigError, match=r"there are crane:visa, .*adaclip:all"):
        find_published("nothing:x")
    assert is_published_name("adaclip:visa")
    assert not any(map(is_published_name, ("crane", "./crane:visa", "C:\\crane.safetensors", "tokenclip:visa")))


@pytest.mark.parametrize("method", ["crane", "crane+", "anomalyclip", "aprilgan", "adaclip"])
def test_nothing_is_measured_on_what_it_learned(method: str) -> None:
    default = choose_published(method)
    assert default is not None
    assert default.label == "visa"
    for name in catalog():
        for chosen in (choose_published(method, [name]), paper_checkpoint(method, name)):
            assert chosen is not None
            assert name not in chosen.trained_on
    chosen = choose_published(method, ["VisA_20220922"])
    assert chosen is not None
    assert chosen.label == "mvtec"
    with pytest.raises(ConfigError, match=f"every published checkpoint of {method}.*mvtec, visa".replace("+", r"\+")):
        choose_published(method, ["MVTec AD", "visa"])


def test_what_papers_used() -> None:
    used = {data: paper_checkpoint("crane+", data) for data in ("mvtec", "visa", "mpdd", "Brain_MRI", "my own")}
    assert {data: row and row.label for data, row in used.items()} == {
        "mvtec": "visa", "visa": "mvtec", "mpdd": "mvtec", "Brain_MRI": "mvtec-medical", "my own": "mvtec",
    }  # fmt: skip
    assert paper_checkpoint("tokenclip", "mvtec") is None
    assert choose_published("tokenclip") is None


def test_options_get_the_checkpoint_that_applies() -> None:
    options = LoadOptions("crane", backbone="vit-l/14@336px")
    assert with_checkpoint(options).checkpoint == "crane:visa"
    assert with_checkpoint(options, ["visa"]).checkpoint == "crane:mvtec"
    for unchanged in (
        options.replace(checkpoint="own.safetensors"),
        options.replace(backbone="bundled"),
        options.replace(method="anoclip"),
        options.replace(method="tokenclip"),
        options.replace(method="memory"),
    ):
        assert with_checkpoint(unchanged, ["visa"]) == unchanged
    few_shots = LoadOptions("aprilgan+", backbone="ViT-L-14-336")
    assert with_checkpoint(few_shots, ["visa"]).checkpoint == "aprilgan:mvtec"


# ----------------------------------------------------------------------------------------------------------- fetching
@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setenv("ANOMALENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with serving() as site:
        monkeypatch.setenv("ANOMALENS_GITHUB", site.url)
        monkeypatch.setenv("HF_ENDPOINT", site.url)
        yield site


@pytest.fixture
def publish(site: Site, tiny_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Put a small file of a method where the table says that its authors did, and its hash into the table."""
    words = tiny_clip.text.token_embedding.weight.detach()

    def publish(name: str) -> table.PublishedCheckpoint:
        row = find_published(name)
        seed = sum(name.encode())  # files of one method differ
        content = published_files.of_method(row.method, tiny_clip.config, words, seed)
        data = published_files.saved(tmp_path / "published.pth", content).read_bytes()
        site.files[row.file.address.split(".com", 1)[-1].split(".co", 1)[-1]] = data
        known: dict[str, Any] = {"sha256": hashlib.sha256(data).hexdigest()} if row.file.sha256 else {}
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        known |= {"git_blob": blob} if row.file.git_blob else {}
        own = replace(row, file=replace(row.file, bytes=len(data), **known))
        rows = tuple(own if other.name == name else other for other in list_published())
        monkeypatch.setattr(table, "_all", lambda: rows)
        return own

    return publish


@pytest.mark.parametrize("name", ["crane:visa", "crane+:mvtec", "anomalyclip:visa", "aprilgan:mvtec", "adaclip:visa"])
def test_fetched_and_imported_once(site: Site, publish: Publish, name: str) -> None:
    row = publish(name)
    assert not download_of(row).present
    path = checkpoint_file(name, offline=False)
    info = read_checkpoint(path).info
    assert (info.method, info.auxiliary_data) == (row.method, row.auxiliary_data)
    assert info.training == {"published": name, "activation": row.activation}
    assert download_of(row).present
    assert checkpoint_file(name, offline=True) == path
    assert len(site.requests) == 1


def test_a_damaged_copy_in_the_cache_is_made_anew(site: Site, publish: Publish) -> None:
    publish("crane:visa")
    path = checkpoint_file("crane:visa", offline=False)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert checkpoint_file("crane:visa", offline=True) == path
    assert len(path.read_bytes()) == len(whole)
    assert read_checkpoint(path).info.training["published"] == "crane:visa"


def test_another_file_is_never_parsed(site: Site, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    row = publish("crane:visa")
    ((path, content),) = site.files.items()
    site.files[path] = content[:-1] + b"x"

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(WeightsError, match=r"has sha256 .*deleted without being read; or put the file \(0.\d MB"):
        checkpoint_file("crane:visa", offline=False)
    assert not download_of(row).present


def test_offline_says_from_where_and_where_to(site: Site, publish: Publish) -> None:
    row = publish("anomalyclip:mvtec")
    download = download_of(row)
    expected = "the checkpoint 'anomalyclip:mvtec' is not on this machine, and offline nothing is fetched: put the file"
    with pytest.raises(WeightsError) as caught:
        checkpoint_file(row.name, offline=True)
    message = str(caught.value)
    assert message.startswith(expected)
    assert row.file.address in message
    assert str(download.place) in message
    assert site.requests == []
    # A file that was put there by hand is taken, a false one is not.
    ((_, content),) = site.files.items()
    download.place.parent.mkdir(parents=True)
    download.place.write_bytes(b"x" + content[1:])
    with pytest.raises(WeightsError, match=r"epoch_15.pth has git blob id .* offline nothing is fetched"):
        checkpoint_file(row.name, offline=True)
    download.place.write_bytes(content)
    assert download_of(row).present
    assert checkpoint_file(row.name, offline=True).is_file()


def test_no_network_is_one_line(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    row = publish("adaclip:visa")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"cannot be fetched from http://127.0.0.1:9/\S+ \(no connection: .*put"):
        checkpoint_file(row.name, offline=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="offline nothing is fetched"):
        checkpoint_file(row.name, offline=False)


def test_cache_holds_the_published_file_and_ours(site: Site, publish: Publish) -> None:
    publish("crane+:mvtec")
    folder = checkpoint_file("crane+:mvtec", offline=False).parent
    assert sorted(path.name for path in folder.iterdir()) == ["crane+-mvtec.safetensors", "epoch_5.pth"]
    assert folder.parent.parent == cache_folder()


def test_the_command_lists_what_there_is(site: Site, publish: Publish, tmp_path: Path) -> None:
    row = publish("crane+:mvtec-medical")
    checkpoint_file(row.name, offline=False)
    rows = json.loads(CliRunner().invoke(app, ["checkpoints", "crane+", "--json"]).stdout)
    assert {row["name"]: row["here"] for row in rows} == {
        "crane+:visa": False,
        "crane+:mvtec": False,
        "crane+:mvtec-medical": True,
    }
    assert rows[0]["address"].startswith("https://raw.githubusercontent.com/")
    assert Path(rows[0]["place"]).is_relative_to(tmp_path)
    refused = CliRunner().invoke(app, ["checkpoints", "tokenclip"]).exception
    assert "nothing is published for 'tokenclip'; for crane, crane+" in str(refused)


# ---------------------------------------------------------------------------------------------------------- detectors
@pytest.fixture
def papers_weights(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the tiny weights pass for those that papers used."""
    monkeypatch.setattr(torch_engine, "is_published_backbone", lambda loaded: True)
    return tiny_weights


@pytest.mark.parametrize("checkpoint", [None, "crane:visa"])
def test_a_detector_takes_what_its_authors_published(
    publish: Publish,
    papers_weights: Path,
    checkpoint: str | None,
    site: Site,
    tmp_path: Path,
) -> None:
    publish("crane:visa")
    options: dict[str, Any] = {"method": "crane", "backbone": str(papers_weights), "checkpoint": checkpoint}
    identity = load_detector(**options).identity
    assert (identity.auxiliary_data, identity.published) == ("visa", "crane:visa")
    asked = len(site.requests)
    again = load_detector(**options, offline=True)
    assert again.identity == identity
    assert len(site.requests) == asked
    image = tmp_path / "image.png"
    Image.new("RGB", (64, 64)).save(image)
    detect_files([image], tmp_path / "run", again, again.settings)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["checkpoint"] == "crane:visa"


def test_the_checkpoint_brings_its_method_and_its_activation(publish: Publish, tiny_weights: Path) -> None:
    """The tiny weights say gelu; what was made with another activation is another network."""
    publish("aprilgan:mvtec")
    plain = load_detector("anoclip", str(tiny_weights), views=1)
    own = load_detector(backbone=str(tiny_weights), checkpoint="aprilgan:mvtec", strict_backbone=False)
    assert own.method_name == "aprilgan"
    assert own.identity.weights == plain.identity.weights
    row = find_published("aprilgan:mvtec")
    path = checkpoint_file(row.name, offline=True)
    learned = read_checkpoint(path)
    training = learned.info.training | {"activation": "quick_gelu"}
    copy = path.with_name("copy.safetensors")
    save_checkpoint(copy, replace(learned, info=replace(learned.info, training=training)))
    other = load_detector(backbone=str(tiny_weights), checkpoint=str(copy), strict_backbone=False)
    assert other.identity.weights != plain.identity.weights
    training["activation"] = "relu"
    save_checkpoint(copy, replace(learned, info=replace(learned.info, training=training)))
    with pytest.raises(WeightsError, match="unknown activation 'relu'"):
        load_detector(backbone=str(tiny_weights), checkpoint=str(copy))


def test_other_weights_name_the_published_one_and_the_backbone_it_goes_with(tiny_weights: Path) -> None:
    with pytest.raises(ConfigError, match=r"published \(crane:visa\) goes with --backbone ViT-L-14-336"):
        load_detector("crane", str(tiny_weights))
    with pytest.raises(WeightsError, match="which is not"):
        load_method(
            Checkpoint(CheckpointInfo("aprilgan", {}, "ViT-L-14-336", "", "visa", "MIT"), {}),
            load_weights(tiny_weights),
        )


def test_evaluate_takes_for_each_data_set_what_did_not_learn_from_it(
    publish: Publish,
    papers_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both data sets in one command: the protocol of each names its own checkpoint."""
    publish("crane:visa")
    publish("crane:mvtec")
    monkeypatch.setattr(table, "_BACKBONES", (None,))  # a path has no name in the table
    for name in ("mvtec", "visa"):
        for label in ("normal", "anomalous"):
            folder = tmp_path / name / label
            folder.mkdir(parents=True)
            noise = np.random.default_rng(len(label)).integers(0, 255, (64, 64, 3), np.uint8)
            Image.fromarray(noise).save(folder / "0.png")
    data = [word for name in ("mvtec", "visa") for word in ("--data", f"folders:{tmp_path / name}")]
    how = ["--method", "crane", "--backbone", str(papers_weights), "--eval-size", "64", "--size", "64"]
    ran = CliRunner().invoke(app, ["evaluate", *data, *how, "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    protocols = [json.loads(path.read_text())["protocol"] for path in sorted(tmp_path.glob("out/*/metrics.json"))]
    assert [(one["checkpoint"], one["auxiliary_data"]) for one in protocols] == [
        ("crane:visa", "visa"),
        ("crane:mvtec", "mvtec"),
    ]
