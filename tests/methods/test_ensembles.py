"""Hand-written ensembles: the published strings in the published order, and their averages."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import golden
import synthetic
from anomalens.backbones.tokenizer import tokenize
from anomalens.errors import ConfigError
from anomalens.methods.parts import ensembles
from anomalens.methods.parts.ensembles import Ensemble

RECORDED = [("anoclip", ensembles.anoclip), ("winclip", ensembles.winclip), ("aprilgan", ensembles.aprilgan)]
COUNTS = [
    (ensembles.anoclip, 462, 462),
    (ensembles.winclip, 154, 88),
    (ensembles.aprilgan, 245, 175),
    (ensembles.adaclip, 28, 20),
]


@pytest.mark.parametrize("name", ["bottle", "carpet"])
@pytest.mark.parametrize(("method", "build"), RECORDED)
def test_strings_order_and_ids_are_the_published_ones(method: str, build: Callable[[str], Ensemble], name: str) -> None:
    recorded = golden.load(method)["prompts"][name]
    ensemble = build(name)
    assert len(ensemble.normal) == recorded["normal_count"]
    assert len(ensemble.abnormal) == recorded["abnormal_count"]
    assert synthetic.digest(list(ensemble.normal)) == recorded["normal_sha256"]
    assert synthetic.digest(list(ensemble.abnormal)) == recorded["abnormal_sha256"]
    ids = tokenize(ensemble.prompts)
    assert synthetic.digest(ids.numpy()) == recorded["ids_sha256"]
    assert int(ids.argmax(dim=1).max()) + 1 == recorded["longest"]


@pytest.mark.parametrize(("build", "normal", "abnormal"), COUNTS)
def test_counts_and_no_sentence_twice(build: Callable[[str], Ensemble], normal: int, abnormal: int) -> None:
    ensemble = build("pipe_fryum")
    assert (len(ensemble.normal), len(ensemble.abnormal)) == (normal, abnormal)
    assert ensemble.prompts == [*ensemble.normal, *ensemble.abnormal]
    assert len(set(ensemble.prompts)) == normal + abnormal
    assert all("pipe_fryum" in prompt for prompt in ensemble.prompts), "underscores are kept"


def test_anoclip_speaks_of_textures_and_objects_differently() -> None:
    assert "a blurry surface picture of the carpet with defect" in ensembles.anoclip("carpet").abnormal
    assert "an industrial image of a small flawless bottle" in ensembles.anoclip("bottle").normal
    assert "a manufacturing image of the large normal bottle" in ensembles.anoclip("bottle").normal
    assert not any("surface" in prompt or "textural" in prompt for prompt in ensembles.anoclip("bottle").prompts)


def test_a_new_texture_can_be_marked() -> None:
    assert ensembles.anoclip("granite") != ensembles.anoclip("granite", texture=True)
    assert ensembles.anoclip("carpet", texture=True) == ensembles.anoclip("carpet")
    assert "a textural photo of a granite with flaw" in ensembles.anoclip("granite", texture=True).abnormal
    assert "a manufacturing image of a carpet with flaw" in ensembles.anoclip("carpet", texture=False).abnormal


def test_only_anoclip_renames_the_numbered_macaroni() -> None:
    assert ensembles.anoclip("macaroni2") == ensembles.anoclip("macaroni1") == ensembles.anoclip("macaroni")
    assert "a photo of a macaroni2" in ensembles.winclip("macaroni2").normal


def test_adaclip_reads_hyphens_as_spaces() -> None:
    assert ensembles.adaclip("metal-nut") == ensembles.adaclip("metal nut")
    assert ensembles.adaclip("nut").normal[:4] == (
        "a bad photo of a nut.",
        "a low resolution photo of the nut.",
        "a bad photo of the nut.",
        "a cropped photo of the nut.",
    )


@pytest.mark.parametrize("build", [b for b, *_ in COUNTS])
def test_odd_names(build: Callable[[str], Ensemble]) -> None:
    assert all("{a} 100% 東京" in prompt for prompt in build("{a} 100% 東京").prompts)
    with pytest.raises(ConfigError, match="object name is empty"):
        build("  ")


def test_directions_weigh_sentences_by_length_unless_told_otherwise() -> None:
    ensemble = ensembles.Ensemble(("n1", "n2"), ("a1",))
    raw = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, -5.0]])
    expected = F.normalize(torch.tensor([[1.5, 0.5], [0.0, -1.0]]), dim=-1)
    torch.testing.assert_close(ensemble.directions(raw), expected)
    expected = F.normalize(torch.tensor([[0.5, 0.5], [0.0, -1.0]]), dim=-1)
    torch.testing.assert_close(ensemble.directions(raw, unit_first=True), expected)
