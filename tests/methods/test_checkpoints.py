"""Checkpoints: what is written is what is read, and nothing is used where it does not belong."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from anomalens.backbones.weights import LoadedWeights, load_weights
from anomalens.detection.loading import load_detector
from anomalens.errors import ConfigError, WeightsError
from anomalens.methods import base
from anomalens.methods.parts import checkpoints
from anomalens.methods.parts.checkpoints import (
    Checkpoint,
    CheckpointInfo,
    config_of,
    learned_state,
    load_method,
    read_checkpoint,
    save_checkpoint,
    shipped_checkpoint,
)
from toys import grey


@pytest.fixture(scope="module")
def loaded(tiny_weights: Path) -> LoadedWeights:
    return load_weights(tiny_weights)


def made(loaded: LoadedWeights, name: str = "anomalyclip", seed: int = 5, **options: Any) -> Checkpoint:
    """Return a checkpoint of random prompts."""
    torch.manual_seed(seed)
    method = base.create(name, loaded.config, **options)
    info = CheckpointInfo(
        name, config_of(method), loaded.name, loaded.hash, "my scans", "CC0", 7, {"auroc": 90.5}, {"size": 64}
    )
    return Checkpoint(info, learned_state(method), frozenset({3, 5}))


def written(folder: Path, checkpoint: Checkpoint) -> Path:
    path = folder / "prompts.safetensors"
    save_checkpoint(path, checkpoint)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("anomalyclip", {"taps": (2, 4)}),
        ("crane", {"n_ctx": 6, "train_context": False}),
        ("tokenclip", {"share_deep": True, "subspaces": 3}),
        ("aprilgan", {}),
        ("adaclip", {"clusters": 2}),
    ],
)
def test_what_is_saved_is_what_is_loaded(
    loaded: LoadedWeights, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    before = made(loaded, name, **options)
    after = read_checkpoint(written(tmp_path, before))
    assert after.info == before.info
    assert after.images == {3, 5}
    method = load_method(after, loaded, name)
    assert not method.training
    assert config_of(method) == before.info.config
    loaded_state = learned_state(method)
    assert loaded_state.keys() == before.learned.keys()
    assert all(torch.equal(loaded_state[key], before.learned[key]) for key in loaded_state)


def test_a_detector_takes_its_prompts_from_the_file(tiny_weights: Path, loaded: LoadedWeights, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, second = written(tmp_path, made(loaded, seed=1)), written(tmp_path / "other", made(loaded, seed=2))
    detector = load_detector("auto", str(tiny_weights), checkpoint=first)
    other = load_detector("anomalyclip", str(tiny_weights), checkpoint=second)
    assert detector.method_name == "anomalyclip"
    assert (detector.identity.auxiliary_data, detector.identity.trained_images) == ("my scans", frozenset({3, 5}))
    assert detector.preprocess.size == 64
    assert not torch.equal(
        torch.tensor(detector.predict(grey(7)).anomaly_map), torch.tensor(other.predict(grey(7)).anomaly_map)
    )
    again = load_detector("auto", str(tiny_weights), checkpoint=first)
    assert again.predict(grey(7)).score == detector.predict(grey(7)).score
    blurred = load_detector("auto", str(tiny_weights), checkpoint=first, sigma=0.0)
    assert blurred.settings["method_options"]["sigma"] == 0.0


def test_another_backbone_is_refused_by_name(loaded: LoadedWeights) -> None:
    other = replace(loaded, name="another", hash="f" * 64)
    with pytest.raises(WeightsError, match=r"tiny\.safetensors.*'another'.*anomalens train anomalyclip"):
        load_method(made(loaded), other)
    assert load_method(made(loaded), other, strict_backbone=False).config.n_ctx == 12


def test_prompts_known_by_their_token_table(loaded: LoadedWeights, tmp_path: Path) -> None:
    table = loaded.state["token_embedding.weight"]
    ids = (49406, 320, 49407)
    known = made(loaded)
    known = replace(known, info=replace(known.info, weights=""), token_ids=ids, token_rows=table[list(ids)].clone())
    after = read_checkpoint(written(tmp_path, known))
    assert after.token_ids == ids
    load_method(after, loaded)
    assert after.token_rows is not None
    for rows in (after.token_rows + 0.01, after.token_rows[:, :32], None):
        with pytest.raises(WeightsError, match="token table"):
            load_method(replace(after, token_rows=rows), loaded)


def test_a_checkpoint_of_another_method_or_with_foreign_settings(loaded: LoadedWeights) -> None:
    checkpoint = made(loaded)
    with pytest.raises(WeightsError, match="holds 'anomalyclip', not 'crane'"):
        load_method(checkpoint, loaded, "crane")
    newer = replace(checkpoint.info, config=checkpoint.info.config | {"novelty": 1}, version="9.0")
    with pytest.raises(WeightsError, match=r"anomalens 9\.0 with settings unknown here \(novelty\)"):
        load_method(replace(checkpoint, info=newer), loaded)
    with pytest.raises(ConfigError, match="nonsense"):
        load_method(checkpoint, loaded, nonsense=1)


def test_shapes_and_names_that_do_not_fit(loaded: LoadedWeights) -> None:
    checkpoint = made(loaded)
    with pytest.raises(WeightsError, match=r"prompts.normal has shape \[12, 64\].*need \[5, 64\]"):
        load_method(checkpoint, loaded, n_ctx=5)
    short = {k: v for k, v in checkpoint.learned.items() if k != "prompts.deep"}
    with pytest.raises(WeightsError, match=r"prompts.deep is missing"):
        load_method(replace(checkpoint, learned=short), loaded)
    with pytest.raises(WeightsError, match=r"surplus is not of this method"):
        load_method(replace(checkpoint, learned=checkpoint.learned | {"surplus": torch.ones(1)}), loaded)


def test_numbers_that_are_none_are_never_written(loaded: LoadedWeights, tmp_path: Path) -> None:
    checkpoint = made(loaded)
    broken = {k: v * float("nan") for k, v in checkpoint.learned.items()}
    with pytest.raises(WeightsError, match="NaN"):
        save_checkpoint(tmp_path / "x.safetensors", replace(checkpoint, learned=broken))
    assert not list(tmp_path.iterdir())


def _flip(raw: bytes) -> bytes:
    return raw[:-40] + bytes([raw[-40] ^ 1]) + raw[-39:]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_flip, "do not match their header"),
        (lambda raw: raw[:-16], "damaged"),
        (lambda raw: raw[:40], "cannot be read as a checkpoint"),
        (lambda raw: b"", "cannot be read as a checkpoint"),
        (lambda raw: raw.replace(b'"schema":"1"', b'"schema":"2"'), "schema '2'"),
        (lambda raw: raw.replace(b"anomalens-prompts", b"somebody-prompts-"[:17]), "no checkpoint of this project"),
        (lambda raw: raw.replace(b'"licence"', b'"licencX"'), "damaged header"),
        (lambda raw: raw.replace(b'"metrics":"{', b'"metrics":"['), "damaged header"),
    ],
)
def test_a_damaged_file_says_so(
    loaded: LoadedWeights, tmp_path: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    path = written(tmp_path, made(loaded))
    raw = path.read_bytes()
    path.write_bytes(damage(raw))
    assert path.read_bytes() != raw
    with pytest.raises(WeightsError, match=reason) as caught:
        read_checkpoint(path)
    assert "prompts.safetensors" in str(caught.value)


def test_a_file_that_is_missing_or_plain(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file; make one with `anomalens train`"):
        read_checkpoint(tmp_path / "none.safetensors")
    save_file({"ctx_pos": torch.ones(2)}, tmp_path / "plain.safetensors")
    assert load_file(tmp_path / "plain.safetensors")
    with pytest.raises(WeightsError, match="import-checkpoint"):
        read_checkpoint(tmp_path / "plain.safetensors")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_checkpoint(tmp_path)


def test_without_a_checkpoint(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="anomalens train crane --data"):
        load_detector("crane", str(tiny_weights))
    monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path)
    with pytest.raises(WeightsError, match=r"shipped: none.*anomalens train adaclip .*--backbone bundled"):
        shipped_checkpoint("adaclip")
    (tmp_path / "crane+.safetensors").touch()
    assert shipped_checkpoint("crane+").name == "crane+.safetensors"
