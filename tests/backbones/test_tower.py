"""The dual encoder: recorded runs of public code, attention written out, and work that nobody reads left undone."""

from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import golden
import synthetic
from anomalens.backbones import tower
from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.streams import Dense, StreamName
from anomalens.backbones.tower import Clip, resize_positions
from anomalens.errors import ConfigError

TAPS = (6, 12, 18, 24)


# ------------------------------------------------------------------------------------------------------ recorded runs
@cache
def recorded(method: str, activation: str) -> Clip:
    cfg = golden.load(method)["clip"]
    return Clip.from_state_dict(synthetic.config(cfg, activation), synthetic.state_dict(cfg))


def recorded_input(method: str, name: str) -> Tensor:
    return torch.from_numpy(synthetic.make(golden.load(method)["inputs"][name]))


def check(method: str, name: str, actual: Tensor | None) -> None:
    agrees, report = synthetic.compare(golden.load(method)["values"][name], actual)
    assert agrees, (method, name, report)


def test_plain_towers() -> None:
    quick, exact = recorded("crane", "quick_gelu"), recorded("aprilgan", "gelu")
    ids = synthetic.pad_ids(golden.load("crane")["inputs"]["text_rows"])
    check("crane", "plain_image_native", quick.visual(recorded_input("crane", "native_images")).cls)
    check("crane", "plain_text_quickgelu", quick.text(ids))
    check("aprilgan", "gelu_plain_image_native", exact.visual(recorded_input("aprilgan", "native_images")).cls)
    check("aprilgan", "gelu_plain_text", exact.text(ids))
    check("anoclip", "plain_text_gelu", recorded("anoclip", "gelu").text(ids))
    raw = quick.visual(recorded_input("anomalyclip", "native_images"), cls="raw").cls
    check("anomalyclip", "plain_image_no_ln_post_native", raw)


@pytest.mark.parametrize(("prefix", "activation"), [("gelu", "gelu"), ("quickgelu", "quick_gelu")])
def test_taps_of_the_residual_stream_on_a_bicubic_grid(prefix: str, activation: str) -> None:
    clip = recorded("aprilgan", activation)
    actual = clip.visual(recorded_input("aprilgan", "images"), [Dense("plain", taps=TAPS, project=False)])
    check("aprilgan", f"{prefix}_plain_image", actual.cls)
    for tap, tokens in zip(TAPS, actual.dense[0], strict=True):
        check("aprilgan", f"{prefix}_tokens_block{tap}", tokens)
    check("aprilgan", "pos_resized", resize_positions(clip.visual.positional_embedding, (9, 9), "bicubic"))


def test_value_value_taps_on_a_bilinear_grid() -> None:
    request = Dense("value-value", 6, TAPS, class_row=True)
    clip = recorded("anomalyclip", "quick_gelu")
    actual = clip.visual(recorded_input("anomalyclip", "images"), [request], cls="raw", positions="bilinear")
    check("anomalyclip", "cls_no_ln_post", actual.cls)
    for tap, tokens in zip(TAPS, actual.dense[0], strict=True):
        check("anomalyclip", f"F_{tap}", tokens)


def test_self_correlation_and_guided_attention() -> None:
    dino = F.normalize(recorded_input("crane", "dino").flatten(2).mT, dim=-1)
    similarity = dino @ dino.mT
    centred = 3 * (similarity - 1.2 * similarity.mean())
    guide = centred.masked_fill(centred < 0, -torch.inf).softmax(dim=-1)
    actual = recorded("crane", "quick_gelu").visual(
        recorded_input("crane", "images"),
        [Dense("self-correlation", 6), Dense("guided")],
        positions="bilinear",
        guide=guide,
    )
    check("crane", "g", actual.cls)
    check("crane", "Z_E", actual.dense[0][0])
    check("crane", "Z_D", actual.dense[1][0])


def test_value_value_from_the_first_block_at_the_native_grid() -> None:
    actual = recorded("anoclip", "gelu").visual(recorded_input("anoclip", "images"), [Dense("value-value")])
    check("anoclip", "cls", actual.cls)
    check("anoclip", "dense", actual.dense[0][0])


# ------------------------------------------------------------------------------------------------------ a small model
LAYERS, PATCHES = 4, 16
SIDE = 32


def small(dtype: torch.dtype = torch.float32) -> Clip:
    torch.manual_seed(0)
    vision = VisionConfig(image_size=SIDE, patch=8, width=32, layers=LAYERS, heads=2)
    model = Clip(ClipConfig(vision, TextConfig(width=16, layers=2, heads=2), joint=24))
    return model.eval().requires_grad_(False).to(dtype)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return small()


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(actual: Tensor | None, expected: Tensor | None, atol: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v


def blocks_written_out(clip: Clip, rows: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """Yield (rows before, q, k, v, rows after) of every block, attention as its formula."""
    for block in clip.visual.transformer.blocks:
        before = rows
        packed = F.linear(block.ln_1(rows), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (part.view(*part.shape[:2], 2, 16).transpose(1, 2) for part in packed)
        rows = rows + block.attn.out_proj(attention(q, k, v).transpose(1, 2).flatten(2))
        rows = rows + block.mlp(block.ln_2(rows))
        yield before, q, k, v, rows


def projected(clip: Clip, rows: Tensor) -> Tensor:
    normed: Tensor = clip.visual.ln_post(rows)
    return normed @ clip.visual.proj


@pytest.mark.parametrize("start", [1, 3, 4])
@pytest.mark.parametrize("stream", ["value-value", "self-correlation"])
def test_streams_are_the_sum_of_their_attentions(clip: Clip, stream: StreamName, start: int) -> None:
    pixels = noise(2, 3, SIDE, SIDE)
    steps = list(blocks_written_out(clip, clip.visual.embed(clip.visual.patches(pixels).patches)[0]))
    actual = clip.visual(pixels, [Dense(stream, start, tuple(range(start, LAYERS + 1)), class_row=True)])
    close(actual.cls, projected(clip, steps[-1][-1][:, 0]))
    gathered = steps[start - 1][0]
    for number, (_, q, k, v, _) in enumerate(steps[start - 1 :]):
        mixed = attention(v, v, v)
        if stream == "self-correlation":
            mixed = mixed + attention(q, q, v) + attention(k, k, v)
        block = clip.visual.transformer.blocks[start - 1 + number]
        gathered = gathered + block.attn.out_proj(mixed.transpose(1, 2).flatten(2))
        close(actual.dense[0][number], projected(clip, gathered))


def test_plain_taps_and_guided_values(clip: Clip) -> None:
    pixels = noise(2, 3, SIDE, SIDE)
    steps = list(blocks_written_out(clip, clip.visual.embed(clip.visual.patches(pixels).patches)[0]))
    guide = noise(2, PATCHES, PATCHES).softmax(dim=-1)
    actual = clip.visual(pixels, [Dense("plain", taps=(2, -1), project=False), Dense("guided")], guide=guide)
    close(actual.dense[0][0], steps[1][-1][:, 1:])
    close(actual.dense[0][1], steps[-1][-1][:, 1:])
    before, q, k, v, _ = steps[-1]
    last = clip.visual.transformer.blocks[-1]
    middle = before + last.attn.out_proj(attention(q, k, v).transpose(1, 2).flatten(2))
    values = F.linear(last.ln_1(middle[:, 1:]), last.attn.in_proj_weight[64:], last.attn.in_proj_bias[64:])
    close(actual.dense[1][0], projected(clip, last.attn.out_proj(guide @ values)))


# ------------------------------------------------------------------------------------------------------------ skipping
REQUESTS = [
    Dense("value-value"),
    Dense("value-value", 3, (3, 4), project=False, class_row=True),
    Dense("self-correlation", 2),
    Dense("plain", taps=(1, 3)),
    Dense("plain", class_row=True),
    Dense("guided"),
]


@pytest.mark.parametrize("cls", ["normed", "raw", None])
@pytest.mark.parametrize("number", range(len(REQUESTS)))
def test_asking_for_less_changes_nothing_of_the_rest(
    clip: Clip, number: int, cls: Literal["normed", "raw"] | None
) -> None:
    pixels, guide = noise(2, 3, SIDE, SIDE), noise(2, PATCHES, PATCHES).softmax(dim=-1)
    everything = clip.visual(pixels, REQUESTS, cls=cls or "normed", guide=guide)
    request = REQUESTS[number]
    alone = clip.visual(pixels, [request], cls=cls, guide=guide if request.stream == "guided" else None)
    for actual, expected in zip(alone.dense[0], everything.dense[number], strict=True):
        close(actual, expected, 1e-6)
    if cls is None:
        assert alone.cls is None
    else:
        close(alone.cls, everything.cls, 1e-6)
        close(clip.visual(pixels, cls=cls).cls, everything.cls, 1e-6)


ROWS = 1 + PATCHES


@pytest.mark.parametrize(
    ("request_", "cls", "queries", "mlp"),
    [
        (None, "normed", [ROWS, ROWS, ROWS, 1], [ROWS, ROWS, ROWS, 1]),
        (Dense("value-value"), "normed", [PATCHES, ROWS] * 3 + [PATCHES, 1], [ROWS, ROWS, ROWS, 1]),
        (Dense("value-value", 4), "normed", [ROWS, ROWS, ROWS, PATCHES, 1], [ROWS, ROWS, ROWS, 1]),
        (Dense("value-value"), None, [PATCHES, ROWS] * 3 + [PATCHES], [ROWS] * 3),
        (Dense("value-value", 1, (2,)), None, [PATCHES, ROWS, PATCHES], [ROWS]),
        (Dense("self-correlation", 3), "normed", [ROWS] * 2 + [PATCHES] * 3 + [ROWS] + [PATCHES] * 3 + [1],
         [ROWS, ROWS, ROWS, 1]),
        (Dense("plain", taps=(2,)), None, [ROWS, ROWS], [ROWS, ROWS]),
        (Dense("plain", taps=(2,)), "normed", [ROWS, ROWS, ROWS, 1], [ROWS, ROWS, ROWS, 1]),
        (Dense("plain"), "normed", [ROWS] * 4, [ROWS] * 4),
        (Dense("guided"), "normed", [ROWS] * 4, [ROWS, ROWS, ROWS, 1]),
    ],
)  # fmt: skip
def test_work_of_one_pass(
    monkeypatch: pytest.MonkeyPatch,
    request_: Dense | None,
    cls: Literal["normed", "raw"] | None,
    queries: list[int],
    mlp: list[int],
) -> None:
    clip = small()
    asked: list[int] = []
    fed: list[int] = []
    fused = F.scaled_dot_product_attention

    def counting(q: Tensor, *rest: Any, **options: Any) -> Tensor:
        asked.append(q.shape[2])
        return fused(q, *rest, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counting)
    for block in clip.visual.transformer.blocks:
        block.mlp.register_forward_hook(lambda _, args, __: fed.append(args[0].shape[1]))
    guided = request_ is not None and request_.stream == "guided"
    guide = torch.full((2, PATCHES, PATCHES), 1 / PATCHES) if guided else None
    clip.visual(noise(2, 3, SIDE, SIDE), [request_] if request_ else (), cls=cls, guide=guide)
    assert asked == queries, "query rows of every fused attention call"
    assert fed == mlp, "rows of every feed-forward"


def test_a_batch_is_its_images_one_by_one(clip: Clip) -> None:
    pixels = noise(3, 3, SIDE, SIDE)
    together = clip.visual(pixels, REQUESTS[:5])
    for i in range(3):
        alone = clip.visual(pixels[i : i + 1], REQUESTS[:5])
        close(alone.cls[0], together.cls[i], 1e-6)
        for actual, expected in zip(alone.dense, together.dense, strict=True):
            for single, batched in zip(actual, expected, strict=True):
                close(single[0], batched[i], 1e-6)


# ------------------------------------------------------------------------------------------------- text, windows, sizes
def test_cutting_the_context_is_exact(clip: Clip) -> None:
    ids = synthetic.pad_ids([[49406, 320, 1125, 49407], [49406, *range(300, 330), 49407], [49406, 49407]])
    full = clip.text.encode(clip.text.token_embedding(ids), ids.argmax(dim=-1))
    close(clip.text(ids), full, 1e-6)
    close(clip.text(ids[:1]), full[:1], 1e-6)
    widths: list[int] = []
    hook = clip.text.transformer.blocks[0].register_forward_hook(lambda _, args, __: widths.append(args[0].shape[1]))
    clip.text(ids)
    clip.text(ids[2:])
    hook.remove()
    assert widths == [32, 2]


def test_deep_prompts_overwrite_rows_behind_the_start(clip: Clip) -> None:
    ids = synthetic.pad_ids([[49406, 320, 1125, 539, 49407]])
    embedded, end = clip.text.token_embedding(ids), ids.argmax(dim=-1)
    deep = noise(1, 2, 16)
    actual = clip.text.encode(embedded, end, deep)
    assert (actual - clip.text.encode(embedded, end)).abs().max() > 1e-3
    x = embedded + clip.text.positional_embedding
    first, second = clip.text.transformer.blocks
    x = first(x, causal=True)
    x = second(torch.cat([x[:, :1], deep, x[:, 3:]], dim=1), causal=True)
    close(actual, clip.text.ln_final(x[:, 4]) @ clip.text.text_projection, 1e-6)


def test_windows_drop_all_other_patches(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(2, 3, SIDE, SIDE)
    index = torch.tensor([[0, 1, 4, 5], [10, 11, 14, 15], [3, 3, 3, 3]])
    rows = clip.visual.embed(clip.visual.patches(pixels).patches)[0]
    tokens = []
    for window in index:
        *_, (*_, last) = blocks_written_out(clip, torch.cat([rows[:, :1], rows[:, 1 + window]], dim=1))
        tokens.append(projected(clip, last[:, 0]))
    expected = torch.stack(tokens, dim=1)
    close(clip.visual.windows(pixels, index), expected)
    monkeypatch.setattr(tower, "_WINDOW_ROWS", 10)  # one window a pass
    close(clip.visual.windows(pixels, index), expected)


def test_positions_reach_any_grid_in_any_order(clip: Clip) -> None:
    table = clip.visual.positional_embedding
    kept = table.clone()
    square = table[1:].T.reshape(1, 32, 4, 4)
    for grid in ((4, 4), (6, 3), (4, 4), (9, 9)):
        for mode in ("bicubic", "bilinear"):
            actual = resize_positions(table, grid, mode)
            assert torch.equal(actual[0], table[0])
            if grid == (4, 4):
                assert torch.equal(actual, table)
            else:
                resized = F.interpolate(square, grid, mode=mode, antialias=mode == "bicubic", align_corners=False)
                close(actual[1:], resized[0].flatten(1).T, 1e-6)
    assert torch.equal(table, kept)
    features = clip.visual(noise(1, 3, 48, 24), [Dense("value-value")])
    assert features.grid == (6, 3)
    assert features.dense[0][0].shape == (1, 18, 24)


def test_prompt_tokens_join_the_rows_and_are_replaced_layer_by_layer(clip: Clip) -> None:
    pixels, prompts = noise(2, 3, SIDE, SIDE), noise(1, 2, 3, 32)
    rows = torch.cat(
        [clip.visual.embed(clip.visual.patches(pixels).patches)[0], prompts[:, 0].expand(2, -1, -1)], dim=1
    )
    taps = []
    for number, block in enumerate(clip.visual.transformer.blocks):
        if number == 1:
            rows = torch.cat([rows[:, :ROWS], prompts[:, 1].expand(2, -1, -1)], dim=1)
        rows = block(rows)
        taps.append(rows)
    actual = clip.visual(pixels, [Dense("plain", taps=(1, 2, 3, 4), project=False)], prompts=prompts)
    close(actual.cls, projected(clip, rows[:, 0]))
    for tokens, expected in zip(actual.dense[0], taps, strict=True):
        close(tokens, expected[:, 1:ROWS])


def test_bfloat16_gives_float32_features_close_to_exact(clip: Clip) -> None:
    pixels, rough = noise(2, 3, SIDE, SIDE), small(torch.bfloat16)
    exact, actual = (model.visual(pixels, REQUESTS[:3]) for model in (clip, rough))
    assert actual.cls.dtype == torch.float32
    assert (actual.cls - exact.cls).norm() < 0.03 * exact.cls.norm()
    for single, batched in zip(actual.dense, exact.dense, strict=True):
        assert single[0].dtype == torch.float32
        assert (single[0] - batched[0]).norm() < 0.03 * batched[0].norm()
    index = torch.arange(8).view(2, 4)
    assert rough.visual.windows(pixels, index).dtype == torch.float32
    ids = synthetic.pad_ids([[49406, 320, 49407]])
    assert (rough.text(ids) - clip.text(ids)).norm() < 0.03 * clip.text(ids).norm()


def test_weights_go_in_and_out_under_openais_names(clip: Clip) -> None:
    state = clip.canonical_state_dict()
    assert {"visual.conv1.weight", "token_embedding.weight", "logit_scale"} <= set(state)
    again = Clip.from_state_dict(clip.config, state)
    pixels = noise(1, 3, SIDE, SIDE)
    assert torch.equal(again.visual(pixels).cls, clip.visual(pixels).cls)
    assert not any(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Dense(taps=(5,)), "do not fit a tower of 4 blocks"),
        (Dense(taps=()), "do not fit a tower of 4 blocks"),
        (Dense("value-value", 5), "stream start 5"),
        (Dense("value-value", 3, (2, 4)), "tap 2 lies before"),
        (Dense("guided", taps=(2,)), "read after the last block"),
        (Dense("guided"), "must be given together"),
    ],
)
def test_requests_that_do_not_fit(clip: Clip, request_: Dense, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        clip.visual(noise(1, 3, SIDE, SIDE), [request_])


def test_images_and_guides_that_do_not_fit(clip: Clip) -> None:
    with pytest.raises(ConfigError, match="multiples of the patch side 8"):
        clip.visual(noise(1, 3, 32, 30))
    with pytest.raises(ConfigError, match="does not fit 16 patches"):
        clip.visual(noise(1, 3, SIDE, SIDE), [Dense("guided")], guide=noise(1, 9, 9))
    with pytest.raises(ConfigError, match="must be given together"):
        clip.visual(noise(1, 3, SIDE, SIDE), guide=noise(1, PATCHES, PATCHES))
