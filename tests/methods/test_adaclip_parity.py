"""AdaCLIP, from a file as its authors write it, against an implementation written out from the description."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import adaclip_written_out as written_out
import golden
import synthetic
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tokenizer import encode
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import LoadedWeights
from anomalens.images.normalisation import CLIP_PIXELS
from anomalens.methods.adaclip import AdaCLIP, k_means
from anomalens.methods.parts import ensembles
from anomalens.methods.parts.checkpoints import load_method
from anomalens.methods.published.importing import import_published

CASES = [(image, name) for image in range(2) for name in ("bottle", "carpet")]


def figures() -> dict[str, Any]:
    return golden.load("adaclip")


def own_clusters(points: Tensor) -> Tensor:
    """Cluster as the product does, the most anomalous point being the first seed."""
    return k_means(points[None], 20, 50)[0].argmax(dim=1)


@cache
def pixels() -> Tensor:
    return torch.from_numpy(synthetic.make(figures()["inputs"]["images"]))


@cache
def expected(image: int, name: str) -> written_out.Answer:
    rule, cfg = figures()["inputs"]["learned"], figures()["clip"]
    sentences = ensembles.adaclip(name)
    with torch.no_grad():
        return written_out.detect(
            synthetic.state_dict(cfg),
            written_out.learned_tensors(**rule),
            pixels()[image],
            (encode(sentences.normal), encode(sentences.abnormal)),
            own_clusters,
            patch=cfg["patch"],
            heads=(cfg["vision_heads"], cfg["text_heads"]),
        )


@pytest.fixture(scope="module")
def method(tmp_path_factory: pytest.TempPathFactory) -> tuple[AdaCLIP, Clip]:
    path = tmp_path_factory.mktemp("published") / "pretrained.pth"
    torch.save(written_out.learned_tensors(**figures()["inputs"]["learned"]), path)
    checkpoint = import_published(path)
    assert checkpoint.info.method == "adaclip"
    assert checkpoint.activation == "gelu"
    cfg = figures()["clip"]
    config = synthetic.config(cfg)
    loaded = LoadedWeights("synthetic", config, synthetic.state_dict(cfg), CLIP_PIXELS, "", "").with_activation("gelu")
    built = load_method(checkpoint, loaded, strict_backbone=False)
    assert isinstance(built, AdaCLIP)
    return built, loaded.clip()


@pytest.mark.parametrize(("image", "name"), CASES)
def test_maps_and_scores_equal_the_written_out_form(method: tuple[AdaCLIP, Clip], image: int, name: str) -> None:
    built, clip = method
    with torch.no_grad():
        features = built.encode(clip, pixels()[image : image + 1])
        text = built.text(PromptEncoder(clip), name)
        pairs = built.pairs(features, text)[0]
        answer = built.score(features, text, (pixels().shape[-2], pixels().shape[-1]))
    want = expected(image, name)
    torch.testing.assert_close(pairs, want.text, atol=1e-5, rtol=0)
    torch.testing.assert_close(answer.map[0], want.map, atol=1e-5, rtol=0)
    assert float(answer.score) == pytest.approx(want.score, abs=1e-5)
    # Nothing is compared that is the same everywhere.
    assert float(want.map.std()) > 1e-3


@pytest.mark.parametrize(("image", "name"), CASES)
def test_the_written_out_form_gives_the_recorded_figures(image: int, name: str) -> None:
    want, values = expected(image, name), figures()["values"]
    for part, array in (("map", want.map), ("tokens", want.tokens), ("text", want.text)):
        ok, report = synthetic.compare(values[f"{part}_{image}_{name}"], array)
        assert ok, (part, report)
    assert want.score == pytest.approx(values[f"score_{image}_{name}"], abs=1e-5)


@pytest.mark.parametrize(
    ("change", "least"),
    [({"activation": "quick_gelu"}, 1e-4), ({"half_prompts": False}, 1e-8), ({"positions": "bicubic"}, 1e-4)],
)
def test_each_of_the_settings_matters(
    method: tuple[AdaCLIP, Clip], change: dict[str, Any], least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    built, clip = method
    if "activation" in change:
        clip = Clip.from_state_dict(synthetic.config(figures()["clip"]), synthetic.state_dict(figures()["clip"]))
    elif "half_prompts" in change:
        monkeypatch.setattr(built, "config", replace(built.config, half_prompts=False))
    else:
        monkeypatch.setattr(AdaCLIP, "positions", "bicubic")
    with torch.no_grad():
        features = built.encode(clip, pixels()[:1])
        answer = built.score(features, built.text(PromptEncoder(clip), "bottle"), (154, 154))
    assert float((answer.map[0] - expected(0, "bottle").map).abs().max()) > least


def record(path: Path) -> None:
    """Write the golden file anew: figures of the written-out form, never of the product."""
    import json

    import numpy as np

    content = json.loads(path.read_text(encoding="utf-8"))
    values: dict[str, Any] = {}
    for image, name in CASES:
        want = expected(image, name)
        for part, array in (("map", want.map), ("tokens", want.tokens), ("text", want.text)):
            flat = array.double().numpy().reshape(-1)
            index = np.random.RandomState(7).permutation(flat.size)[:60]
            statistics = {"mean": flat.mean(), "std": flat.std(), "min": flat.min(), "max": flat.max()}
            statistics["l2"] = float(np.sqrt((flat * flat).sum()))
            values[f"{part}_{image}_{name}"] = {
                "shape": list(array.shape),
                "atol": 1e-5,
                **{key: float(f"{value:.9g}") for key, value in statistics.items()},
                "index": sorted(int(i) for i in index),
                "value": [float(f"{flat[i]:.8g}") for i in sorted(index)],
            }
        values[f"score_{image}_{name}"] = float(f"{want.score:.9g}")
    content["values"] = values
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(golden.FOLDER / "adaclip.json")
