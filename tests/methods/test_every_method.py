"""What every registered method must do, on a tiny random dual encoder."""

import re
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip
from anomalens.errors import ConfigError
from anomalens.methods import base
from anomalens.methods.base import Method, ScoreMap

NAMES = [entry.name for entry in base.list_methods()]
SIZE = (80, 80)  # a 5 x 5 grid, so that position tables are resized
KEYS = tuple(range(10, 15))


def pixels() -> torch.Tensor:
    return torch.randn(len(KEYS), 3, *SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def build(name: str, config: ClipConfig) -> Method:
    torch.manual_seed(2)
    return base.create(name, config).eval()


@torch.no_grad()
def run(method: Method, clip: Clip, images: torch.Tensor, keys: tuple[int, ...] = KEYS) -> ScoreMap:
    text = method.text(PromptEncoder(clip), "bottle")
    return method.score(method.encode(clip, images, keys), text, SIZE)


def test_shapes_ranges_and_determinism(name: str, tiny_config: ClipConfig, tiny_clip: Clip) -> None:
    method = build(name, tiny_config)
    first, second = run(method, tiny_clip, pixels()), run(method, tiny_clip, pixels())
    assert first.score.shape == (len(KEYS),)
    assert first.map.shape == (len(KEYS), *SIZE)
    assert first.score.dtype == first.map.dtype == torch.float32
    assert torch.isfinite(first.map).all()
    assert (first.score >= 0).all()
    assert (first.score <= 1).all()
    assert torch.equal(first.score, second.score)
    assert torch.equal(first.map, second.map)
    assert first.map.std() > 0


def test_neither_batch_nor_order_changes_a_score(name: str, tiny_config: ClipConfig, tiny_clip: Clip) -> None:
    method, images = build(name, tiny_config), pixels()
    together = run(method, tiny_clip, images)
    order = [3, 1, 4, 0, 2]
    mixed = run(method, tiny_clip, images[order], tuple(KEYS[i] for i in order))
    for i in range(len(KEYS)):
        alone = run(method, tiny_clip, images[i : i + 1], KEYS[i : i + 1])
        for other, at in ((alone, 0), (mixed, order.index(i))):
            assert torch.allclose(together.score[i], other.score[at], atol=1e-5)
            assert torch.allclose(together.map[i], other.map[at], atol=1e-5)


def test_a_tower_in_bfloat16_gives_the_same_ranking(name: str, tiny_config: ClipConfig, tiny_clip: Clip) -> None:
    """Results are float32 and differ by less than images, or pixels, differ among themselves."""
    state = {k: v.to(torch.bfloat16) for k, v in tiny_clip.canonical_state_dict().items()}
    method = build(name, tiny_config)
    full, half = run(method, tiny_clip, pixels()), run(method, Clip.from_state_dict(tiny_config, state), pixels())
    assert half.map.dtype == half.score.dtype == torch.float32
    assert (full.score - half.score).abs().max() < 0.4 * full.score.std()
    assert (full.map - half.map).abs().max() < 0.4 * full.map.std()


def test_parameters_survive_saving(name: str, tiny_config: ClipConfig, tiny_clip: Clip) -> None:
    method = build(name, tiny_config)
    torch.manual_seed(3)
    other = base.create(name, tiny_config).eval()
    other.load_state_dict(method.state_dict())
    assert torch.equal(run(method, tiny_clip, pixels()).map, run(other, tiny_clip, pixels()).map)


def test_only_learned_methods_have_parameters(name: str, tiny_config: ClipConfig) -> None:
    trained = [n for n, p in build(name, tiny_config).named_parameters() if p.requires_grad]
    assert bool(trained) == base.entry(name).learned


def test_an_unknown_option_names_those_there_are(name: str, tiny_config: ClipConfig) -> None:
    valid = re.escape(", ".join(base.entry(name).options))
    with pytest.raises(ConfigError, match=f"^unknown option 'zzz'; {re.escape(name)} has: {valid}$"):
        base.create(name, tiny_config, zzz=1)


def test_a_value_of_another_type_is_refused_in_plain_words(name: str, tiny_config: ClipConfig) -> None:
    for option in base.entry(name).options:
        wrong: dict[str, Any] = {option: {"a": 1}}
        with pytest.raises(ConfigError, match=f"^{option} must be "):
            base.create(name, tiny_config, **wrong)


def other_value(option: str, name: str) -> Any:
    """Return a value that an option does not have by default."""
    config = base.entry(name).config
    hint, value = get_type_hints(config)[option], getattr(config(), option)
    if get_origin(hint) is Literal:
        return next(choice for choice in get_args(hint) if choice != value)
    return value / 2 if hint is float else 1


def test_score_only_options_leave_the_map_alone(
    name: str, tiny_config: ClipConfig, tiny_clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    default = run(build(name, tiny_config), tiny_clip, pixels())
    method = build(name, tiny_config)
    caplog.clear()
    scores = []
    for option in method.score_only_options:
        torch.manual_seed(2)
        other = base.create(name, tiny_config, **{option: other_value(option, name)}).eval()
        changed = run(other, tiny_clip, pixels())
        assert torch.equal(changed.map, default.map)
        scores.append(changed.score)
        base.warn_score_only(method, [option, "seed"])
        assert f"{option} changes nothing here" in caplog.text
    assert not scores or any(not torch.equal(score, default.score) for score in scores)
    caplog.clear()
    base.warn_score_only(method, ["seed"])
    assert not caplog.text


def test_an_unknown_method_lists_what_there_is(tiny_config: ClipConfig) -> None:
    with pytest.raises(ConfigError, match="anoclip, anoclip\\+"):
        base.create("nonsense", tiny_config)
    with pytest.raises(ConfigError, match="unknown method"):
        base.create("../base", tiny_config)
