"""Training: every method learns on a tiny data set, goes on where it stopped, and agrees between processes."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalens.backbones import prompt_encoder
from anomalens.backbones.checks import fingerprint
from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import LoadedWeights, load_weights
from anomalens.datasets.layouts import Sample, open_dataset, read_truth
from anomalens.errors import ConfigError, InputError, TrainingError
from anomalens.images.decoding import decode
from anomalens.images.normalisation import CLIP_MEAN, CLIP_PIXELS, CLIP_STD
from anomalens.images.preprocessing import Preprocess, preprocess
from anomalens.learning import features, training
from anomalens.learning.features import Cached, build, cache_key, usable
from anomalens.learning.training import TrainingPlan, train
from anomalens.locks import locked
from anomalens.methods import base
from anomalens.methods.anomalyclip import AnomalyCLIP
from anomalens.methods.parts.checkpoints import read_checkpoint
from anomalens.methods.parts.learned import LearnedMethod
from anomalens.methods.parts.losses import Loss

LEARNED = [entry.name for entry in base.list_methods() if entry.learned]


@pytest.fixture(scope="module")
def loaded(tiny_config: ClipConfig, tiny_clip: Clip) -> LoadedWeights:
    state = tiny_clip.canonical_state_dict()
    return LoadedWeights("tiny", tiny_config, state, CLIP_PIXELS, "tests", fingerprint(state, tiny_config))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Make two classes of three normal and two anomalous images: bright squares on noise."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for name in ("bottle", "cable"):
        for kind, count in (("good", 3), ("spot", 2)):
            for number in range(count):
                image = generator.integers(60, 120, (64, 64, 3), np.uint8)
                mask = np.zeros((64, 64), np.uint8)
                if kind == "spot":
                    image[10 + 8 * number : 34 + 8 * number, 16:40] = 250
                    mask[10 + 8 * number : 34 + 8 * number, 16:40] = 255
                    truth = root / name / "ground_truth" / kind
                    truth.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(truth / f"{number:03d}_mask.png")
                folder = root / name / "test" / kind
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / f"{number:03d}.png")
    return list(open_dataset(f"mvtec:{root}").samples("test"))


def options(name: str) -> dict[str, Any]:
    """Leave out Crane's image token: the tiny tower's text is wider than its joint space."""
    return {"train_context": False} if name.startswith("crane") else {}


def run(
    name: str, samples: list[Sample], loaded: LoadedWeights, out: Path, cache: Path, **change: Any
) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []

    def report(line: dict[str, Any]) -> None:
        lines.append(line)
        if line["event"] == "epoch" and line["epoch"] == change.get("stop"):
            raise KeyboardInterrupt

    plan = TrainingPlan(epochs=change.get("epochs", 2), batch=change.get("batch", 4), lr=change.get("lr"))
    train(
        name, samples, loaded, out, auxiliary_data="toy", plan=plan, options=options(name), cache=cache, report=report
    )
    return lines


@pytest.mark.parametrize("name", LEARNED)
def test_every_method_learns_and_leaves_a_checkpoint(
    name: str, samples: list[Sample], loaded: LoadedWeights, tmp_path: Path
) -> None:
    out = tmp_path / "learned.safetensors"
    lines = run(name, samples, loaded, out, tmp_path / "cache", epochs=3)
    epochs = [line for line in lines if line["event"] == "epoch"]
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    checkpoint = read_checkpoint(out)
    assert checkpoint.info.method == name
    assert checkpoint.info.auxiliary_data == "toy"
    assert checkpoint.info.weights == loaded.hash
    assert checkpoint.info.training["size"] == 64
    assert len(checkpoint.images) == len(samples)
    assert set(checkpoint.learned) == set(base.create(name, loaded.config).state_dict())
    with Image.open(out.with_suffix(".png")) as picture:
        assert picture.size == (480, 640)
    written = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert [line["event"] for line in written if line["event"] != "step"] == ["start", "epoch", "epoch", "epoch", "end"]
    assert not out.with_suffix(".resume").exists()


def test_a_stopped_run_goes_on_with_the_result_it_would_have_had(
    samples: list[Sample], loaded: LoadedWeights, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    run("tokenclip", samples, loaded, tmp_path / "whole.safetensors", cache, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        run("tokenclip", samples, loaded, tmp_path / "stopped.safetensors", cache, epochs=3, stop=1)
    assert not (tmp_path / "stopped.safetensors").exists()
    again = run("tokenclip", samples, loaded, tmp_path / "stopped.safetensors", cache, epochs=3)
    assert [line["epoch"] for line in again if line["event"] == "epoch"] == [2, 3]
    whole, stopped = (read_checkpoint(tmp_path / f"{n}.safetensors") for n in ("whole", "stopped"))
    for parameter, value in whole.learned.items():
        assert torch.equal(value, stopped.learned[parameter]), parameter
    assert whole.info.metrics == stopped.info.metrics


def test_sentences_of_more_classes_than_memory_holds_are_encoded_once(
    samples: list[Sample], loaded: LoadedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    encode = PromptEncoder._encode

    def counted(encoder: PromptEncoder, prompts: Sequence[str]) -> torch.Tensor:
        encoded.append(len(prompts))
        return encode(encoder, prompts)

    monkeypatch.setattr(prompt_encoder, "KEPT", 1)
    monkeypatch.setattr(PromptEncoder, "_encode", counted)
    run("aprilgan", samples, loaded, tmp_path / "x.safetensors", tmp_path / "cache")
    assert encoded == [420, 420]


def test_a_batch_that_the_memory_does_not_hold_is_learned_from_in_parts(
    samples: list[Sample], loaded: LoadedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features are computed and gradients added up in parts, to the same result."""
    run("tokenclip", samples, loaded, tmp_path / "whole.safetensors", tmp_path / "cache")
    counts: dict[str, list[int]] = {"features": [], "losses": []}

    def limited(place: Any, name: str, kind: str, count: Callable[..., int]) -> None:
        inner = getattr(place, name)

        def small(*arguments: Any) -> Any:
            counts[kind].append(count(*arguments))
            if counts[kind][-1] > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return inner(*arguments)

        monkeypatch.setattr(place, name, small)

    limited(features, "_encode", "features", lambda method, clip, chosen, recipe: len(chosen))
    limited(training, "batch_loss", "losses", lambda method, encoder, batch: len(batch.labels))
    run("tokenclip", samples, loaded, tmp_path / "parts.safetensors", tmp_path / "own")
    assert {kind: asked[:4] for kind, asked in counts.items()} == {"features": [8, 4, 2, 2], "losses": [4, 2, 2, 2]}
    whole, parts = (read_checkpoint(tmp_path / f"{name}.safetensors") for name in ("whole", "parts"))
    for parameter, value in whole.learned.items():
        torch.testing.assert_close(parts.learned[parameter], value, atol=1e-4, rtol=0, msg=parameter)
    assert parts.info.metrics["loss"] == pytest.approx(whole.info.metrics["loss"], abs=1e-4)


def test_another_run_does_not_go_on_from_a_foreign_state(
    samples: list[Sample], loaded: LoadedWeights, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run("anomalyclip", samples, loaded, tmp_path / "x.safetensors", tmp_path / "cache", epochs=2, stop=1)
    lines = run("anomalyclip", samples, loaded, tmp_path / "x.safetensors", tmp_path / "cache", epochs=2, lr=1e-4)
    assert [line["epoch"] for line in lines if line["event"] == "epoch"] == [1, 2]


# --------------------------------------------------------------------------------------------------------- features
def prepared(name: str, loaded: LoadedWeights) -> tuple[LearnedMethod, Clip, Any]:
    method = base.create(name, loaded.config, **options(name)).eval()
    assert isinstance(method, LearnedMethod)
    return method, loaded.clip(), Preprocess(64, CLIP_MEAN, CLIP_STD, multiple=16)


@pytest.mark.parametrize("name", ["aprilgan", "adaclip"])
def test_cached_batches_equal_fresh_ones(
    name: str, samples: list[Sample], loaded: LoadedWeights, tmp_path: Path
) -> None:
    method, clip, how = prepared(name, loaded)
    sizes: list[int] = []
    cached = build(tmp_path / "c", method, clip, samples, how, batch=3, announce=sizes.append)
    kept, chosen = cached.batch([4, 0, 9]), [samples[i] for i in (4, 0, 9)]
    assert kept.names == tuple(sample.class_name for sample in chosen)
    assert kept.labels.tolist() == [sample.label for sample in chosen]
    for mask, sample in zip(kept.masks, chosen, strict=True):
        truth = read_truth(sample, (64, 64))
        assert truth is not None
        assert np.array_equal(mask.numpy(), truth)
    pixels = np.stack([preprocess(decode(sample.image).rgb, how) for sample in chosen])
    fresh = method.encode(clip, torch.from_numpy(pixels), [0, 0, 0])
    assert kept.features.cls is not None
    assert fresh.cls is not None
    torch.testing.assert_close(kept.features.cls, fresh.cls, atol=5e-3, rtol=5e-3)
    for a, b in zip(kept.features.dense[0], fresh.dense[0], strict=True):
        torch.testing.assert_close(a, b, atol=5e-3, rtol=5e-3)
    numbers = sum(p.stat().st_size for p in (tmp_path / "c").glob("*.npy"))
    assert sizes[0] == pytest.approx(numbers, rel=0.05)


def test_the_tower_runs_once_and_a_stopped_build_goes_on(
    samples: list[Sample], loaded: LoadedWeights, tmp_path: Path
) -> None:
    method, clip, how = prepared("anomalyclip", loaded)
    passes: list[int] = []
    clip.visual.register_forward_hook(lambda m, args, out: passes.append(len(args[0])))

    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "c", method, clip, samples, how, batch=4, progress=stop)
    assert passes == [4]
    half = build(tmp_path / "c", method, clip, samples, how, batch=4)
    assert passes == [4, 4, 2]
    build(tmp_path / "c", method, clip, samples, how, batch=4)
    assert sum(passes) == len(samples)
    whole = build(tmp_path / "d", method, clip, samples, how, batch=4)
    everything = list(range(len(samples)))
    assert torch.equal(half.batch(everything).features.dense[0][0], whole.batch(everything).features.dense[0][0])


def _zero_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _zero_half(folder / "cls.npy"),
        lambda folder: _zero_half(folder / "masks.npy"),
        lambda folder: (folder / "cls.npy").write_bytes((folder / "cls.npy").read_bytes()[:200]),
        lambda folder: (folder / "cls.npy").unlink(),
        lambda folder: (folder / "progress.json").write_text("[" * 10_000),
        lambda folder: (folder / "progress.json").write_text('{"done": 10}'),
        lambda folder: (folder / "progress.json").write_text('{"done": "10", "grid": [], "side": 1e999}'),
    ],
)
def test_a_damaged_cache_is_filled_anew(
    damage: Callable[[Path], Any], samples: list[Sample], loaded: LoadedWeights, tmp_path: Path
) -> None:
    method, clip, how = prepared("anomalyclip", loaded)
    everything = list(range(len(samples)))
    whole = build(tmp_path / "c", method, clip, samples, how, batch=4).batch(everything)
    damage(tmp_path / "c")
    again = build(tmp_path / "c", method, clip, samples, how, batch=4).batch(everything)
    assert torch.equal(again.features.dense[0][0], whole.features.dense[0][0])
    assert torch.equal(again.masks, whole.masks)


def test_a_second_training_of_one_checkpoint_is_refused(
    samples: list[Sample], loaded: LoadedWeights, tmp_path: Path
) -> None:
    out = tmp_path / "learned.safetensors"
    with locked(out, "train"), pytest.raises(ConfigError, match="another run"):
        run("tokenclip", samples, loaded, out, tmp_path / "cache")
    assert not out.with_suffix(".jsonl").exists()


def test_a_torn_line_of_the_log_is_cut_off(samples: list[Sample], loaded: LoadedWeights, tmp_path: Path) -> None:
    out = tmp_path / "learned.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run("tokenclip", samples, loaded, out, tmp_path / "cache", epochs=2, stop=1)
    with out.with_suffix(".jsonl").open("a") as log:
        log.write('{"event": "st')
    run("tokenclip", samples, loaded, out, tmp_path / "cache", epochs=2)
    assert [json.loads(line)["event"] for line in out.with_suffix(".jsonl").read_text().splitlines()][-1] == "end"


def test_keys_tell_apart_what_differs(samples: list[Sample], loaded: LoadedWeights) -> None:
    method, _, how = prepared("anomalyclip", loaded)
    other, *_ = prepared("crane", loaded)
    keys = {
        cache_key(method, "w", samples, how),
        cache_key(other, "w", samples, how),
        cache_key(method, "v", samples, how),
        cache_key(method, "w", samples[:-1], how),
        cache_key(method, "w", samples, replace(how, size=80)),
    }
    assert len(keys) == 5
    assert cache_key(method, "w", samples, how) in keys
    mask = next(s.mask for s in samples if s.mask)
    corrected = np.asarray(Image.open(mask)).copy()
    corrected[:8] = 255 - corrected[:8]
    Image.fromarray(corrected).save(mask)
    assert cache_key(method, "w", samples, how) not in keys


def test_a_full_disk_is_said_before_anything_is_written(
    samples: list[Sample], loaded: LoadedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, clip, how = prepared("anomalyclip", loaded)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(InputError, match="free"):
        build(tmp_path / "c", method, clip, samples, how)
    assert not list((tmp_path / "c").glob("*.npy"))


def test_samples_without_a_mask_are_left_out(samples: list[Sample]) -> None:
    bare = [replace(s, mask=None) if s.class_name == "cable" else s for s in samples]
    assert len(usable(bare)) == len(samples) - 2
    with pytest.raises(InputError, match="needs both"):
        usable([s for s in samples if s.label == 0])


# ------------------------------------------------------------------------------------------------------------ errors
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epochs": 0}, "epochs 0 must be at least 1"),
        ({"batch": 0}, "batch 0 must be at least 1"),
        ({"size": -1}, "size -1 must be at least 1"),
        ({"lr": 0.0}, "lr 0.0 must be above 0"),
        ({"lr": float("nan")}, "lr nan must be above 0"),
        ({"hold_out": 2}, "hold_out 2 must lie in"),
        ({"hold_out": -0.1}, "hold_out -0.1 must lie in"),
    ],
)
def test_a_plan_that_cannot_work_is_refused_when_it_is_made(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        TrainingPlan(**change)


def test_what_cannot_be_trained_is_refused_before_the_tower_runs(
    samples: list[Sample], loaded: LoadedWeights, tmp_path: Path
) -> None:
    out, cache = tmp_path / "x.safetensors", tmp_path / "cache"
    with pytest.raises(ConfigError, match="learns nothing"):
        run("anoclip", samples, loaded, out, cache)
    with pytest.raises(ConfigError, match="unknown option 'colour'"):
        train("anomalyclip", samples, loaded, out, auxiliary_data="toy", options={"colour": 1}, cache=cache)
    plan = TrainingPlan(hold_out=0.99)
    with pytest.raises(ConfigError, match="leaves no normal"):
        train("anomalyclip", samples, loaded, out, auxiliary_data="toy", plan=plan, cache=cache)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_no_number_ends_the_training(
    samples: list[Sample], loaded: LoadedWeights, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="smaller lr"):
        run("anomalyclip", samples, loaded, tmp_path / "x.safetensors", tmp_path, lr=1e30)


def test_a_damaged_state_of_a_stopped_run_says_what_to_do(
    samples: list[Sample], loaded: LoadedWeights, tmp_path: Path
) -> None:
    out = tmp_path / "x.safetensors"
    out.with_suffix(".resume").write_bytes(b"no tensors")
    with pytest.raises(TrainingError, match=r"x\.resume: damaged; delete it"):
        run("anomalyclip", samples, loaded, out, tmp_path / "cache")


def test_a_loss_may_have_any_number_of_parts(
    samples: list[Sample], loaded: LoadedWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def many(self: AnomalyCLIP, *inputs: Any) -> Loss:
        total = published(self, *inputs).total
        return Loss(total, {f"part {number}": total * number for number in range(12)})

    published = AnomalyCLIP.loss
    monkeypatch.setattr(AnomalyCLIP, "loss", many)
    lines = run("anomalyclip", samples, loaded, tmp_path / "x.safetensors", tmp_path / "cache", epochs=1)
    step = next(line for line in lines if line["event"] == "step")
    assert [name for name in step if name.startswith("part")] == [f"part {number}" for number in range(12)]
    assert step["part 11"] == pytest.approx(11 * step["loss"])


# --------------------------------------------------------------------------------------------------------- processes
SCRIPT = """
import sys
from pathlib import Path
from anomalens.backbones.weights import load_weights
from anomalens.datasets.layouts import open_dataset
from anomalens.learning.training import TrainingPlan, train
_, weights, data, out, cache = sys.argv
train("tokenclip", list(open_dataset("mvtec:" + data).samples("test")), load_weights(weights), Path(out),
      auxiliary_data="toy", plan=TrainingPlan(epochs=2, batch=5), cache=Path(cache))
"""


def test_two_processes_give_the_result_of_one(samples: list[Sample], tiny_weights: Path, tmp_path: Path) -> None:
    """The environment is the one `torchrun --nproc-per-node 2` makes, without its slow rendezvous."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out, data, cache = tmp_path / "two.safetensors", samples[0].image.parents[3], tmp_path / "cache"
    command = [sys.executable, "-c", SCRIPT, str(tiny_weights), str(data), str(out), str(cache)]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | place | {"RANK": rank})
        for rank in ("0", "1")
    ]
    alone = tmp_path / "one.safetensors"
    backbone, plan = load_weights(tiny_weights), TrainingPlan(epochs=2, batch=5)
    train("tokenclip", samples, backbone, alone, auxiliary_data="toy", plan=plan, cache=tmp_path / "own")
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-2000:]
    single, pair = read_checkpoint(alone), read_checkpoint(out)
    for parameter, value in single.learned.items():
        torch.testing.assert_close(pair.learned[parameter], value, atol=1e-4, rtol=0, msg=parameter)
    assert pair.info.metrics["loss"] == pytest.approx(single.info.metrics["loss"], abs=1e-4)


def test_cached_opens_what_build_left(samples: list[Sample], loaded: LoadedWeights, tmp_path: Path) -> None:
    method, clip, how = prepared("crane", loaded)
    build(tmp_path / "c", method, clip, samples, how)
    assert len(Cached(tmp_path / "c", method, clip, samples)) == len(samples)
