"""The recipe of the bundled backbone, end to end on a tiny model: files, resumption, refusal, calibration."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalens.backbones.tokenizer import tokenize
from anomalens.backbones.weights import load_weights
from anomalens.decision.calibration import Calibration, CalibrationTable, ShippedMethod
from anomalens.errors import ConfigError, InputError
from anomalens_lab import backbone, calibrate, pretraining
from anomalens_lab.backbone import PretrainConfig, TextSide, batches, pretrain, rate_at
from anomalens_lab.calibrate import Seen, balanced_threshold, fit, quality, twins_in_order
from anomalens_lab.scenes import SHARD, Scenes, write_shard

TINY = PretrainConfig(
    width=64, layers=2, text_layers=1, native=48, steps=4, batch=4, sides=(48,), final_steps=1, final_side=64,
    final_batch=2, warmup=2, pairs=2, sentences=6, taught=3, windows=2, bf16=False, checkpoint_every=2,
)  # fmt: skip


@pytest.fixture
def scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scenes"
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (SHARD, 48, 48, 3), dtype=np.uint8)
    kinds = np.zeros((SHARD, 48, 48), np.uint8)
    kinds[::2, 10:30, 10:30] = 1
    words = [{"captions": ["a scratched thing"], "subject": "thing", "family": "f", "kinds": []}] * SHARD
    write_shard(folder / "00000.json", images, kinds, words)

    def text_side(config: PretrainConfig, kept: Path) -> tuple[TextSide, torch.Tensor]:
        bank = [f"sentence {k}" for k in range(config.sentences)]
        made = torch.Generator().manual_seed(0)
        table = 0.1 * torch.randn(49408, config.width, generator=made)
        return TextSide(("word",), bank, tokenize(bank), torch.randn(len(bank), 384, generator=made)), table

    monkeypatch.setattr(backbone, "text_side", text_side)
    monkeypatch.setattr(backbone, "prepare_stem", lambda *_: None)
    return folder


def test_training_writes_weights_that_load(scenes: Path, tmp_path: Path) -> None:
    path = pretrain(TINY, scenes, tmp_path / "out")
    loaded = load_weights(path)
    assert loaded.config == TINY.clip()
    log = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert log[0]["step"] == 0
    assert {"loss", "dense", "dice", "kind", "image", "caption", "teacher", "window"} <= set(log[0])


def test_a_stopped_run_ends_as_an_unbroken_one(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pretrain(TINY, scenes, tmp_path / "whole")
    real = backbone.step_loss

    def stop(*given: Any) -> Any:
        if given[-1] == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(backbone, "step_loss", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain(TINY, scenes, tmp_path / "stopped")
    monkeypatch.setattr(backbone, "step_loss", real)
    resumed = load_weights(pretrain(TINY, scenes, tmp_path / "stopped"))
    assert resumed.hash == load_weights(whole).hash


def test_larger_sides_come_in_smaller_batches_of_whole_twins(scenes: Path) -> None:
    config = replace(
        TINY, steps=40, batch=8, pixels=8 * 48 * 48, sides=(32, 48, 64, 96, 192), final_steps=2, final_batch=4
    )
    seen: dict[int, set[int]] = {}
    for step, batch, _ in batches(config, Scenes(scenes), 0):
        if step < 38:
            seen.setdefault(batch.pixels.shape[-1], set()).add(len(batch.pixels))
        else:
            assert batch.pixels.shape[-1] == config.final_side
            assert len(batch.pixels) == config.final_batch
        assert not batch.abnormal[1::2].any()  # the sound one of twins comes second
    assert seen == {32: {8}, 48: {8}, 64: {4}, 96: {2}, 192: {2}}


def test_another_config_does_not_resume(scenes: Path, tmp_path: Path) -> None:
    pretrain(replace(TINY, steps=3), scenes, tmp_path / "out")
    with pytest.raises(ConfigError, match="other steps"):
        pretrain(TINY, scenes, tmp_path / "out")


def test_other_scenes_do_not_resume(scenes: Path, tmp_path: Path) -> None:
    pretrain(TINY, scenes, tmp_path / "out")
    for path in scenes.glob("00000.*"):
        path.with_name(path.name.replace("00000", "00001")).write_bytes(path.read_bytes())
    with pytest.raises(ConfigError, match="other scenes"):
        pretrain(TINY, scenes, tmp_path / "out")


def test_a_further_stage_starts_from_the_weights_of_another(scenes: Path, tmp_path: Path) -> None:
    pretrain(TINY, scenes, tmp_path / "first")
    further = replace(TINY, rate=1e-9)  # changes next to nothing
    pretrain(further, scenes, tmp_path / "second", initial=tmp_path / "first/checkpoint.pt")
    before, after = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("first", "second"))
    assert all(torch.allclose(after["model"][n].float(), v.float(), atol=1e-6) for n, v in before["model"].items())
    with pytest.raises(ConfigError, match="other initial"):
        pretrain(further, scenes, tmp_path / "second")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(ConfigError, match="no checkpoint"):
        pretrain(TINY, scenes, tmp_path / "third", initial=tmp_path / "junk.pt")
    with pytest.raises(ConfigError, match="no checkpoint"):
        pretrain(replace(TINY, layers=1), scenes, tmp_path / "fourth", initial=tmp_path / "first/checkpoint.pt")


def test_a_run_that_diverges_keeps_its_last_checkpoint(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = backbone.step_loss

    def blown_up(*given: Any) -> Any:
        found = real(*given)
        return found | {"image": found["image"] * torch.nan} if given[-1] == 2 else found

    monkeypatch.setattr(backbone, "step_loss", blown_up)
    with pytest.raises(ConfigError, match="diverged at step 2"):
        pretrain(TINY, scenes, tmp_path / "out")
    assert torch.load(tmp_path / "out/checkpoint.pt", weights_only=True)["step"] == 2
    monkeypatch.setattr(backbone, "step_loss", real)
    assert load_weights(pretrain(TINY, scenes, tmp_path / "out")).hash


def test_the_log_has_every_step_once(scenes: Path, tmp_path: Path) -> None:
    config = replace(TINY, steps=12, checkpoint_every=5)
    pretrain(config, scenes, tmp_path / "out")
    log = tmp_path / "out/log.jsonl"
    saved = torch.load(tmp_path / "out/checkpoint.pt", weights_only=True)
    torch.save(saved | {"step": 5}, tmp_path / "out/checkpoint.pt")
    log.write_text(log.read_text() + '{"step": 10')  # killed while writing
    pretrain(config, scenes, tmp_path / "out")
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [0, 10]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"steps": 50}, "warm-up"),
        ({"final_steps": 1500}, "last 1500"),
        ({"batch": 3}, "even"),
        ({"final_batch": 0}, "even"),
        ({"sides": (100,)}, "multiples of 16"),
        ({"seed": -1}, "seed -1"),
        ({"taught": 9000}, "9000 sentences"),
        ({"checkpoint_every": 0}, "checkpoint_every 0"),
    ],
)
def test_numbers_that_make_no_schedule(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        PretrainConfig(**change)


class Teacher:
    """Sentences to 384 numbers without a network."""

    def __call__(self, sentences: Sequence[str]) -> torch.Tensor:
        rows = [np.random.default_rng(list(s.encode()) or [0]).standard_normal(384) for s in sentences]
        return torch.nn.functional.normalize(torch.from_numpy(np.stack(rows)).float(), dim=1)


def test_the_whole_recipe_makes_a_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs, painting, the ImageNet stem, sentences: all but the sentence teacher, which is a stand-in."""
    rng = np.random.default_rng(0)
    for number in range(3):
        photo = rng.integers(60, 200, (160, 160, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(photo).save(tmp_path / f"photos/{number}.png")
    monkeypatch.setattr(backbone, "SentenceTeacher", Teacher)
    monkeypatch.setattr(pretraining, "require_teachers", lambda: None)
    monkeypatch.setattr(pretraining, "PAINTED", 64)
    path = pretraining.pretrain_backbone(tmp_path / "out", [tmp_path / "photos"], config=TINY, scenes=SHARD, workers=1)
    found = load_weights(path)
    assert found.config == TINY.clip()
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "materials", "scenes", "backbone.safetensors", "checkpoint.pt", "log.jsonl"
    }  # fmt: skip
    (kept,) = (tmp_path / "out/scenes").glob("text-*.pt")
    assert torch.load(kept, weights_only=True)["table"].shape == (49408, TINY.width)
    with pytest.raises(InputError, match="painted otherwise"):
        pretraining.pretrain_backbone(tmp_path / "out", config=TINY, scenes=SHARD)


def test_the_rate_warms_up_and_falls() -> None:
    config = PretrainConfig(steps=100, warmup=10, rate=1.0)
    rates = [rate_at(config, step) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] < 0.03


def test_pooling_is_judged_by_twins() -> None:
    labels = np.array([True, False, True, False, False, False])
    assert twins_in_order(np.array([2.0, 1.0, 1.0, 1.0, 0.0, 9.0]), labels) == 0.75
    assert np.isnan(twins_in_order(np.zeros(2), np.zeros(2, bool)))


def test_the_threshold_splits_best() -> None:
    scores, labels = np.array([0.1, 0.2, 0.3, 0.8]), np.array([False, False, True, True])
    assert 0.2 < balanced_threshold([(scores, labels)]) < 0.3
    # Where groups disagree it stands where their mean is best.
    other = np.array([0.4, 0.5, 0.9, 1.0])
    assert 0.5 < balanced_threshold([(scores, labels), (other, labels)]) < 0.8


def seen(rng: np.random.Generator, scores: str) -> Seen:
    masks = np.zeros((40, 16, 16), bool)
    masks[::2, 4:8, 4:8] = True
    maps = (0.45 + 0.02 * rng.random(masks.shape) + 0.1 * masks).astype(np.float32)
    given = rng.random(40, np.float32) if scores == "chance" else masks.any((1, 2)).astype(np.float32)
    return Seen(given, maps, masks)


def test_calibration_orders_its_numbers() -> None:
    rng = np.random.default_rng(0)
    scenes = seen(rng, "chance")
    found = fit(scenes, None, "a test")
    assert found.pooling.share > 0
    assert 0.47 < found.calibration.pixel_threshold <= 0.57
    low, high = found.calibration.heat_range
    assert low < 0.48 < 0.55 < high
    assert fit(seen(rng, "truth"), seen(rng, "truth"), "a test").pooling.share == 0  # nothing to gain from the map
    nothing = np.zeros_like(scenes.masks)
    with pytest.raises(InputError, match="twins"):
        fit(replace(scenes, masks=nothing), None, "a test")
    with pytest.raises(InputError, match="photographs"):
        fit(scenes, replace(scenes, masks=nothing), "a test")


def test_quality_is_finding_and_ranking() -> None:
    scenes = seen(np.random.default_rng(0), "truth")
    pooling = fit(scenes, None, "a test").pooling
    assert quality(scenes, pooling) == 1.0
    assert quality(replace(scenes, maps=-scenes.maps), pooling) == 0.5  # ranks all, finds nothing


def test_auto_is_the_best_of_all_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = {"anoclip": 0.8, "crane": 0.9, "winclip": 0.95}
    scale = ShippedMethod(Calibration(0.5, 0.5, (0.0, 1.0), "a test"))
    monkeypatch.setattr(calibrate, "Scenes", lambda _: [])
    monkeypatch.setattr(calibrate, "load_detector", lambda name, *_, **__: name)
    monkeypatch.setattr(calibrate, "calibrate_method", lambda name, *_: (scale, reached[name]))
    out = tmp_path / "table.json"
    asked = {"anoclip": {"views": 1}, "crane": {}}
    assert calibrate.calibrate_bundled(tmp_path, methods=asked, out=out) == {"anoclip": 0.8, "crane": 0.9}
    table = CalibrationTable.read(out)
    assert table.best == "crane"
    assert table.methods["anoclip"].options == {"views": 1}
    # A method calibrated on its own is not compared with what was measured before.
    calibrate.calibrate_bundled(tmp_path, methods={"winclip": {}}, out=out)
    table = CalibrationTable.read(out)
    assert (table.best, set(table.methods)) == ("crane", set(reached))
