"""Importing published prompts: the recorded fingerprints of the real files, and every way a file can be wrong."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.registry import find
from anomalens.backbones.tokenizer import encode
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import LoadedWeights, load_weights
from anomalens.errors import ConfigError, WeightsError
from anomalens.images.normalisation import CLIP_PIXELS
from anomalens.learning.published_checkpoints import KNOWN, NORMS, fingerprint, import_published
from anomalens.methods.anomalyclip import AnomalyCLIP
from anomalens.methods.parts.checkpoints import load_method, read_checkpoint, save_checkpoint
from anomalens.methods.parts.learnable import SENTENCES

FILES = [
    ("trained_on_mvtec_crane_epoch_5", "crane", "mvtec", (0.04839, 0.02114, -0.05132)),
    ("trained_on_visa_crane_epoch_5", "crane", "visa", (-0.02285, -0.06004, -0.02537)),
    ("trained_on_mvtec_cranep_epoch_5", "crane+", "mvtec", (0.06096, -0.02043, -0.01625)),
    ("trained_on_visa_cranep_epoch_5", "crane+", "visa", (0.01663, -0.02549, -0.07846)),
]


@pytest.mark.parametrize(("name", "method", "trained_on", "first"), FILES)
def test_published_crane_prompts(
    shared: Path, tmp_path: Path, name: str, method: str, trained_on: str, first: tuple[float, ...]
) -> None:
    save_checkpoint(
        tmp_path / "prompts.safetensors", import_published(shared / "checkpoints" / "crane" / f"{name}.pth", method)
    )
    after = read_checkpoint(tmp_path / "prompts.safetensors")
    info = after.info
    assert (info.method, info.auxiliary_data, info.backbone) == (method, trained_on, "ViT-L-14-336")
    assert info.licence.startswith("MIT")
    recorded = next(entry for entry in KNOWN if entry.name == info.training["published"])
    assert recorded.method == method
    for part, figures in (("normal", recorded.normal), ("abnormal", recorded.abnormal), ("deep", recorded.deep)):
        assert fingerprint(after.learned[f"prompts.{part}"]) == pytest.approx(figures, abs=1e-4)
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
    checkpoint = import_published(shared / "checkpoints" / "crane" / f"{FILES[0][0]}.pth", "crane")
    assert checkpoint.token_rows is not None
    norms = dict(zip(checkpoint.token_ids, checkpoint.token_rows.double().norm(dim=1).tolist(), strict=True))
    assert norms == pytest.approx(dict(NORMS), abs=1e-4)


def published(table: Tensor, unused: bool = True) -> dict[str, Any]:
    """Return a file as AnomalyCLIP writes it, for a token table [vocab, 64]."""
    torch.manual_seed(3)
    width = table.shape[1]
    state: dict[str, Tensor] = {}
    for side, sentence in zip(("pos", "neg"), encode(SENTENCES), strict=True):
        ids = [sentence[0], *[343] * 12, *sentence[1:]]
        ids += [0] * (77 - len(ids))
        state[f"ctx_{side}"] = torch.randn(1, 1, 12, width)
        state[f"token_prefix_{side}"] = table[ids[:1]][None, None]
        state[f"token_suffix_{side}"] = table[ids[13:]][None, None]
        state[f"tokenized_prompts_{side}"] = torch.tensor(ids, dtype=torch.int32)[None, None]
    for i in range(2):
        state[f"compound_prompts_text.{i}"] = torch.randn(4, width)
        if unused:
            state[f"compound_prompt_projections.{i}.weight"] = torch.randn(3, width)
            state[f"compound_prompt_projections.{i}.bias"] = torch.randn(3)
    return {"prompt_learner": state}


@pytest.fixture
def table(tiny_clip: Clip) -> Tensor:
    return tiny_clip.text.token_embedding.weight.detach()


def saved(folder: Path, whole: object) -> Path:
    path = folder / "epoch_15.pth"
    torch.save(whole, path)
    return path


def test_anomalyclip_s_layout(tiny_clip: Clip, tiny_weights: Path, table: Tensor, tmp_path: Path) -> None:
    whole = published(table)
    checkpoint = import_published(saved(tmp_path, whole), "anomalyclip", "visa")
    assert checkpoint.info.auxiliary_data == "visa"
    assert checkpoint.info.config == {"n_ctx": 12, "depth": 3, "length": 4, "half_deep": True}
    assert len(checkpoint.learned) == 3
    method = load_method(checkpoint, load_weights(tiny_weights), "anomalyclip")
    assert isinstance(method, AnomalyCLIP)
    state = whole["prompt_learner"]
    assert torch.equal(method.prompts.normal, state["ctx_pos"][0, 0])
    assert torch.equal(method.prompts.abnormal, state["ctx_neg"][0, 0])
    assert torch.equal(method.prompts.deep[1], state["compound_prompts_text.1"])
    with torch.no_grad():
        assert method.text(PromptEncoder(tiny_clip), "object").norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert import_published(saved(tmp_path, whole), "anomalyclip").info.auxiliary_data == "not known"


def _set(name: str, value: Callable[[Tensor], Tensor | None]) -> Callable[[dict[str, Any]], object]:
    def change(whole: dict[str, Any]) -> object:
        replacement = value(whole["prompt_learner"][name])
        if replacement is None:
            del whole["prompt_learner"][name]
        else:
            whole["prompt_learner"][name] = replacement
        return whole

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda whole: whole["prompt_learner"], 'expected {"prompt_learner"'),
        (lambda whole: [1, 2], 'expected {"prompt_learner"'),
        (lambda whole: {"prompt_learner": {"ctx_pos": 3}}, 'expected {"prompt_learner"'),
        (_set("ctx_neg", lambda t: None), "'ctx_neg' is missing"),
        (_set("compound_prompts_text.0", lambda t: None), "'compound_prompts_text.0' is missing"),
        (_set("ctx_pos", lambda t: t.half()), "ctx_pos: expected torch.float32"),
        (_set("tokenized_prompts_pos", lambda t: t.long()), "expected torch.int32"),
        (_set("tokenized_prompts_neg", lambda t: t + 1), "not the tokens of a prompt ending in 'object.'"),
        (_set("ctx_pos", lambda t: t[0]), r"ctx_pos: expected shape \[1, 1, rows, width\]"),
        (_set("ctx_pos", lambda t: t * float("inf")), "NaN or infinity"),
        (_set("compound_prompts_text.1", lambda t: t[:2]), "differ in width or length"),
        (_set("token_suffix_pos", lambda t: t[:, :, :2]), "does not fit the context vectors"),
    ],
)
def test_a_file_of_another_form(
    table: Tensor, tmp_path: Path, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    path = saved(tmp_path, change(published(table)))
    with pytest.raises(WeightsError, match=reason) as caught:
        import_published(path, "crane")
    assert "epoch_15.pth" in str(caught.value)


def test_what_contradicts_a_recognised_file_is_refused(shared: Path) -> None:
    path = shared / "checkpoints" / "crane" / f"{FILES[0][0]}.pth"
    with pytest.raises(ConfigError, match="trained_on_mvtec_crane/epoch_5 of Crane, not of 'anomalyclip'"):
        import_published(path, "anomalyclip")
    with pytest.raises(ConfigError, match="trained on 'mvtec', not on 'visa'"):
        import_published(path, "crane", "visa")
    assert import_published(path, "crane+", "mvtec").info.method == "crane+"


def test_prompts_of_the_right_width_with_other_words(tmp_path: Path) -> None:
    path = saved(tmp_path, published(torch.full((49408, 768), 0.01), unused=False))
    with pytest.raises(WeightsError, match="made with another backbone"):
        import_published(path, "crane")


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def test_what_is_no_file_of_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.pth").write_text("hello")
    for path in (tmp_path / "text.pth", saved(tmp_path, {"prompt_learner": Harmful()})):
        with pytest.raises(WeightsError, match=r"damaged, cut off|holds more than tensors"):
            import_published(path, "crane")
    assert capsys.readouterr().out == ""
    with pytest.raises(WeightsError, match="no such file"):
        import_published(tmp_path / "none.pth", "crane")
    with pytest.raises(ConfigError, match="anomalyclip, crane, crane\\+, not for 'winclip'"):
        import_published(tmp_path / "text.pth", "winclip")
