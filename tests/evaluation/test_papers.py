"""What the papers' protocols say: complete, buildable, and about names that exist."""

import pytest

from anomalens.backbones.registry import find
from anomalens.datasets import catalog
from anomalens.errors import ConfigError
from anomalens.evaluation.papers import find_papers, papers
from anomalens.evaluation.published_numbers import published
from anomalens.methods.base import entry
from anomalens.options import LoadOptions


@pytest.mark.parametrize("name", papers())
def test_every_protocol_names_what_exists(name: str) -> None:
    paper = papers()[name]
    backbone = find(paper.backbone)
    assert paper.size % backbone.config.vision.patch == 0
    assert 0 < paper.tolerance[0] <= paper.tolerance[1]
    assert set(paper.options_on("mvtec")) <= set(entry(name).options)
    for part in paper.only:
        assert set(part.on) <= set(catalog.catalog())
    for key in catalog.catalog():
        options = {option: value for option, value in paper.options_on(key).items() if option != "guide"}
        entry(name).config(**options)
    assert set((paper.train_on or {}).values()) <= set(catalog.catalog())


@pytest.mark.parametrize("name", [name for name in papers() if name != "tokenclip"])
def test_every_method_but_the_one_without_tables_has_numbers_to_compare_with(name: str) -> None:
    assert published(name, "mvtec", "image_auroc")
    assert published(name, "visa", "image_auroc")


def test_settings_are_the_papers() -> None:
    plain = LoadOptions(device="cpu", batch_size=2)
    crane = papers()["crane+"].load_options("mvtec", plain)
    assert (crane.backbone, crane.size, crane.device, crane.batch_size) == ("ViT-L-14-336", 518, "cpu", 2)
    assert crane.method_options == {"guide": "facebook/dinov2-with-registers-base", "fusion": "hard"}
    # The paper's medical sets have the other fusion, which is the default.
    assert "fusion" not in papers()["crane+"].load_options("isic", plain).method_options
    anovl = papers()["anoclip+"]
    assert anovl.options_on("mvtec") == {}
    assert anovl.options_on("visa") == {"geometry": "wide", "adapter": "linear"}
    assert anovl.evaluation().class_names
    assert len(anovl.remarks_on("visa")) == len(anovl.remarks_on("mvtec")) + 1
    assert papers()["tokenclip"].learned_from("mvtec") == "visa"
    assert papers()["tokenclip"].learned_from("isic") == "mvtec"
    assert papers()["winclip"].load_options("mvtec", LoadOptions(backbone="own.pt")).backbone == "own.pt"


def test_unknown_methods_are_answered_with_the_known() -> None:
    assert len(find_papers("all")) == len(papers())
    with pytest.raises(ConfigError, match=r"no published protocol is known for 'memory'; known: anoclip, .*, all"):
        find_papers("memory")
