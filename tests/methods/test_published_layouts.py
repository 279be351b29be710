"""What authors published becomes checkpoints: every layout to the bit, and every way a file can be wrong."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import published_files
from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.registry import find
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import LoadedWeights, load_weights
from anomalens.errors import ConfigError, WeightsError
from anomalens.images.normalisation import CLIP_PIXELS
from anomalens.methods import base
from anomalens.methods.anomalyclip import AnomalyCLIP
from anomalens.methods.parts.checkpoints import learned_state, load_method, read_checkpoint, save_checkpoint
from anomalens.methods.parts.openai_tokens import NORMS
from anomalens.methods.published.importing import import_published, recognise
from anomalens.methods.published.table import find_published, list_published
from published_files import saved

KEY = "trainable_linearlayer"
METHODS = ("anomalyclip", "crane", "crane+", "aprilgan", "adaclip")
FILES = [
    ("trained_on_mvtec_crane_epoch_5", "crane:mvtec", (0.04839, 0.02114, -0.05132)),
    ("trained_on_visa_crane_epoch_5", "crane:visa", (-0.02285, -0.06004, -0.02537)),
    ("trained_on_mvtec_cranep_epoch_5", "crane+:mvtec", (0.06096, -0.02043, -0.01625)),
    ("trained_on_visa_cranep_epoch_5", "crane+:visa", (0.01663, -0.02549, -0.07846)),
]


def file(shared: Path, name: str) -> Path:
    return shared / "checkpoints" / "crane" / f"{name}.pth"


# ---------------------------------------------------------------------------------------------------- Crane's own files
@pytest.mark.parametrize(("name", "called", "first"), FILES)
def test_published_crane_prompts(
    shared: Path, tmp_path: Path, name: str, called: str, first: tuple[float, ...]
) -> None:
    """The hash says what a file is; its method and its training data need not be told."""
    path = file(shared, name)
    save_checkpoint(tmp_path / "prompts.safetensors", import_published(path))
    after = read_checkpoint(tmp_path / "prompts.safetensors")
    info, row = after.info, find_published(called)
    assert recognise(path) == row
    assert (info.method, info.auxiliary_data, info.backbone) == (row.method, row.auxiliary_data, "ViT-L-14-336")
    assert info.training["published"] == called
    assert info.licence.startswith("MIT")
    state = torch.load(path, map_location="cpu", weights_only=True)["prompt_learner"]
    for key, value in published_files.published_names(row.method, after.learned).items():
        assert torch.equal(value, state[key])
    assert after.learned["prompts.normal"][0, :3].tolist() == pytest.approx(first, abs=1e-5)
    # The backbone's sizes and the rows of its token table; nothing else of 1.7 GB is asked.
    config = find("ViT-L-14-336").config
    table = torch.zeros(config.text.vocab, config.text.width)
    assert after.token_rows is not None
    table[list(after.token_ids)] = after.token_rows
    backbone = LoadedWeights("ViT-L-14-336", config, {"token_embedding.weight": table}, CLIP_PIXELS, "", "f" * 64)
    loaded = load_method(after, backbone)
    assert sum(p.numel() for p in loaded.parameters()) == 43_008
    assert loaded.working_size(336) == 518
    with pytest.raises(WeightsError, match="token table"):
        load_method(after, replace(backbone, state={"token_embedding.weight": table + 0.01}))


def test_the_published_norms_are_those_of_the_files(shared: Path) -> None:
    checkpoint = import_published(file(shared, FILES[0][0]))
    assert checkpoint.token_rows is not None
    norms = dict(zip(checkpoint.token_ids, checkpoint.token_rows.double().norm(dim=1).tolist(), strict=True))
    assert norms == pytest.approx(dict(NORMS), abs=1e-4)


def test_maps_that_were_published_without_words_know_their_backbone_by_its_token_table(
    shared: Path, tmp_path: Path
) -> None:
    rows = import_published(file(shared, FILES[0][0]))
    config = find("ViT-L-14-336").config
    table = torch.zeros(config.text.vocab, config.text.width)
    assert rows.token_rows is not None
    table[list(rows.token_ids)] = rows.token_rows
    loaded = LoadedWeights("a folder", config, {"token_embedding.weight": table}, CLIP_PIXELS, "", "f" * 64)
    checkpoint = import_published(saved(tmp_path / "visa.pth", published_files.aprilgan(config)))
    assert load_method(checkpoint, loaded).working_size(336) == 518
    smaller = replace(config, vision=replace(config.vision, image_size=224))
    for other in (
        replace(loaded, state={"token_embedding.weight": table + 0.01}),
        replace(loaded, config=smaller),
    ):
        with pytest.raises(WeightsError, match="learned with backbone 'ViT-L-14-336'"):
            load_method(checkpoint, other)


def test_what_contradicts_a_recognised_file_is_refused(shared: Path) -> None:
    path = file(shared, FILES[0][0])
    with pytest.raises(ConfigError, match="its content is that of crane or crane\\+, not of 'anomalyclip'"):
        import_published(path, "anomalyclip")
    with pytest.raises(ConfigError, match="it is crane:mvtec, trained on 'mvtec', not on 'visa'"):
        import_published(path, "crane", "visa")
    assert import_published(path, "crane+", "MVTec").info.method == "crane+"


# ------------------------------------------------------------------------------------------------------- every layout
@pytest.mark.parametrize("method", METHODS)
def test_every_layout_survives_to_the_bit(method: str, tiny_clip: Clip, tmp_path: Path) -> None:
    """Published form -> import -> our file -> the method's parameters -> published form again."""
    table = tiny_clip.text.token_embedding.weight.detach()
    # As many text blocks as AdaCLIP has prompts for.
    config = replace(tiny_clip.config, text=replace(tiny_clip.config.text, layers=4))
    content = published_files.of_method(method, config, table)
    checkpoint = import_published(saved(tmp_path / "epoch_15.pth", content), method)
    save_checkpoint(tmp_path / "own.safetensors", checkpoint)
    after = read_checkpoint(tmp_path / "own.safetensors")
    assert after.info.method == method
    assert after.activation == list_published(method)[0].activation
    loaded = LoadedWeights("tiny", config, {"token_embedding.weight": table}, CLIP_PIXELS, "", "")
    built = load_method(after, loaded, strict_backbone=False)
    returned = published_files.published_names(method, learned_state(built))
    original = next(iter(content.values())) if len(content) == 1 else content
    compared = 0
    for name, value in returned.items():
        assert torch.equal(value, original[name]), name
        compared += 1
    unread = ("token", "compound_prompt_projections", "clip_model.text_prompter.static_prompts.0")
    assert compared == sum(not name.startswith(unread) for name in original)


@pytest.mark.parametrize("method", METHODS)
def test_the_content_says_the_method(method: str, tiny_clip: Clip, tmp_path: Path) -> None:
    table = tiny_clip.text.token_embedding.weight.detach()
    path = saved(tmp_path / "x.pth", published_files.of_method(method, tiny_clip.config, table))
    if method.startswith("crane"):
        with pytest.raises(ConfigError, match=r"crane and crane\+ have one form.*say which it is with --method"):
            import_published(path)
    else:
        assert import_published(path).info.method == method
    family = [name for name in METHODS if name.rstrip("+") == method.rstrip("+")]
    for other in METHODS:
        if other not in family:
            with pytest.raises(ConfigError, match=f"its content is that of .*, not of '{other}'".replace("+", "\\+")):
                import_published(path, other)


def test_half_precision_is_read(tiny_clip: Clip, tmp_path: Path) -> None:
    content = {name: value.half() for name, value in published_files.adaclip(tiny_clip.config).items()}
    learned = import_published(saved(tmp_path / "x.pth", content)).learned
    assert {value.dtype for value in learned.values()} == {torch.float32}


def test_sizes_of_the_papers_backbone(tmp_path: Path) -> None:
    """The tensors of the published files are as large as their descriptions say, and fit the methods."""
    big = find("ViT-L-14-336").config
    for method, count in (("aprilgan", 3_148_800), ("adaclip", None)):
        checkpoint = import_published(
            saved(tmp_path / "x.pth", published_files.of_method(method, big, torch.zeros(0))), method
        )
        with torch.device("meta"):
            built = base.create(method, big, **checkpoint.info.config)
        shapes = {name: tuple(value.shape) for name, value in built.named_parameters()}
        assert {name: tuple(value.shape) for name, value in checkpoint.learned.items()} == shapes
        if count:
            assert sum(value.numel() for value in checkpoint.learned.values()) == count


@pytest.fixture
def table(tiny_clip: Clip) -> Tensor:
    return tiny_clip.text.token_embedding.weight.detach()


def test_anomalyclip_s_layout(tiny_clip: Clip, tiny_weights: Path, table: Tensor, tmp_path: Path) -> None:
    path = saved(tmp_path / "epoch_15.pth", published_files.prompts(table, projections=True))
    checkpoint = import_published(path, "anomalyclip", "visa")
    assert checkpoint.info.auxiliary_data == "visa"
    assert checkpoint.info.config == {"n_ctx": 12, "depth": 3, "length": 4, "half_deep": True}
    method = load_method(checkpoint, load_weights(tiny_weights), "anomalyclip")
    assert isinstance(method, AnomalyCLIP)
    with torch.no_grad():
        assert method.text(PromptEncoder(tiny_clip), "object").norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert import_published(path).info.auxiliary_data == "not known"


# ------------------------------------------------------------------------------------------------------- wrong files
Change = Callable[[dict[str, Any]], object]


def _set(name: str, value: Callable[[Tensor], Tensor | None]) -> Change:
    def change(whole: dict[str, Any]) -> object:
        state = next(iter(whole.values())) if len(whole) == 1 else whole
        replacement = value(state[name])
        if replacement is None:
            del state[name]
        else:
            state[name] = replacement
        return whole

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda whole: whole["prompt_learner"], 'expected {"prompt_learner"'),
        (lambda whole: [1, 2], 'expected {"prompt_learner"'),
        (lambda whole: {1: 2}, 'expected {"prompt_learner"'),
        (lambda whole: {"prompt_learner": {"ctx_pos": 3}}, 'expected {"prompt_learner"'),
        (lambda whole: {"prompt_learner": {3: torch.ones(2)}}, 'expected {"prompt_learner"'),
        (_set("ctx_neg", lambda t: None), "'ctx_neg' is missing"),
        (_set("compound_prompts_text.0", lambda t: None), "'compound_prompts_text.0' is missing"),
        (_set("ctx_pos", lambda t: t.half()), "ctx_pos: expected torch.float32"),
        (_set("tokenized_prompts_pos", lambda t: t.long()), "expected torch.int32"),
        (_set("tokenized_prompts_pos", lambda t: t[:0]), "not the tokens of a prompt"),
        (_set("tokenized_prompts_neg", lambda t: t + 1), "not the tokens of a prompt ending in 'object.'"),
        (_set("ctx_pos", lambda t: t[0]), r"ctx_pos: expected shape \[1, 1, rows, width\]"),
        (_set("ctx_pos", lambda t: t * float("inf")), "NaN or infinity"),
        (_set("compound_prompts_text.1", lambda t: t[:2]), "differ in width or length"),
        (_set("token_suffix_pos", lambda t: t[:, :, :2]), "does not fit the context vectors"),
    ],
)
def test_prompts_of_another_form(table: Tensor, tmp_path: Path, change: Change, reason: str) -> None:
    content = change(published_files.prompts(table, projections=False))
    with pytest.raises(WeightsError, match=reason) as caught:
        import_published(saved(tmp_path / "epoch_15.pth", content), "crane")
    assert "epoch_15.pth" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda whole: {"trainable_linearlayer": 3}, 'expected {"trainable_linearlayer"'),
        (_set("fc.1.weight", lambda t: None), r"'fc.#.weight' with the numbers 0, 1, … .* found \[0, 2, 3\]"),
        (_set("fc.3.bias", lambda t: None), "4 weights and 3 biases do not belong together"),
        (_set("fc.2.weight", lambda t: t[:3]), r"fc.2.weight: expected shape \[32, 128\], found \[3, 128\]"),
        (_set("fc.2.bias", lambda t: t.long()), "fc.2.bias: expected floating point"),
        (_set("fc.0.weight", lambda t: t * float("nan")), "NaN or infinity"),
        (
            lambda whole: {"trainable_linearlayer": whole["trainable_linearlayer"] | {"x": torch.ones(1)}},
            "'x' is extra",
        ),
    ],
)
def test_april_gan_s_maps_of_another_form(tiny_config: ClipConfig, tmp_path: Path, change: Change, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason):
        import_published(saved(tmp_path / "x.pth", change(published_files.aprilgan(tiny_config))))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_set("clip_model.cls_token_layer.head.0.weight", lambda t: None), "'cls_token_layer.head.#.weight'"),
        (_set("clip_model.cls_token_layer.head.0.weight", lambda t: t[:2]), "cls_token_layer.head.0.bias: expected"),
        (
            _set("clip_model.text_prompter.static_prompts.3", lambda t: None),
            "4 image blocks and of 3 text blocks",
        ),
        (_set("clip_model.text_prompter.static_prompts.1", lambda t: t[:, :2]), "expected shape"),
        (
            _set("clip_model.dynamic_text_prompt_generator.head.4.weight", lambda t: None),
            "4 weights and 5 biases do not belong together",
        ),
        (_set("clip_model.patch_token_layer.head.2.weight", lambda t: t[:, :3]), "expected shape"),
        (lambda whole: whole | {"clip_model.more": torch.ones(1)}, "'more' is extra"),
        (lambda whole: whole | {"epoch": 3}, "expected the tensors of AdaCLIP"),
        (_set("clip_model.visual_prompter.static_prompts.0", lambda t: t / 0), "NaN or infinity"),
    ],
)
def test_adaclip_s_tensors_of_another_form(
    tiny_config: ClipConfig, tmp_path: Path, change: Change, reason: str
) -> None:
    with pytest.raises(WeightsError, match=reason):
        import_published(saved(tmp_path / "x.pth", change(published_files.adaclip(tiny_config))))


def test_prompts_of_the_right_width_with_other_words(tmp_path: Path) -> None:
    content = published_files.prompts(torch.full((49408, 768), 0.01), projections=False)
    with pytest.raises(WeightsError, match="made with another backbone"):
        import_published(saved(tmp_path / "x.pth", content), "crane")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def test_what_is_no_file_of_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.pth").write_text("hello")
    for path in (tmp_path / "text.pth", saved(tmp_path / "x.pth", {"prompt_learner": Harmful()})):
        with pytest.raises(WeightsError, match=r"damaged, cut off|holds more than tensors"):
            import_published(path, "crane")
    assert capsys.readouterr().out == ""
    with pytest.raises(WeightsError, match="no such file"):
        import_published(tmp_path / "none.pth", "crane")
    with pytest.raises(ConfigError, match="crane, crane\\+, anomalyclip, aprilgan, adaclip, not for 'winclip'"):
        import_published(tmp_path / "text.pth", "winclip")
