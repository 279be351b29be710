"""Text features are computed once for each (weights, prompts)."""

import pickle
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tokenizer import tokenize
from anomalens.backbones.tower import Clip
from anomalens.files import digest

PROMPTS = ["a photo of a flawless bottle", "a photo of a damaged bottle", "ä 漢字 metal_nut"]


def test_equals_the_tower_and_runs_once(tiny_clip: Clip) -> None:
    encoder = PromptEncoder(tiny_clip)
    first = encoder(PROMPTS)
    assert torch.equal(first, tiny_clip.text(tokenize(PROMPTS)))
    assert encoder(list(PROMPTS)) is first
    assert encoder.encoded == len(PROMPTS)


def test_many_prompts_in_several_passes(tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomalens.backbones.prompt_encoder._BATCH", 2)
    assert torch.allclose(PromptEncoder(tiny_clip)(PROMPTS), tiny_clip.text(tokenize(PROMPTS)), atol=1e-6)


def test_threads_that_ask_at_once_get_one_result(tiny_clip: Clip) -> None:
    """Eight threads ask for the same lists in different orders; every list is encoded once and never mixed up."""
    encoder, start = PromptEncoder(tiny_clip), Barrier(8)
    lists = [[f"a photo of object {number}", "a photo"] for number in range(5)]

    def ask(thread: int) -> list[Tensor]:
        start.wait()
        answers = {number: encoder(lists[number]) for number in random.Random(thread).sample(range(5), 5)}
        return [answers[number] for number in range(5)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(ask, range(8)))
    assert encoder.encoded == 2 * len(lists)
    for number, prompts in enumerate(lists):
        assert torch.equal(results[0][number], tiny_clip.text(tokenize(prompts)))
        assert all(result[number] is results[0][number] for result in results)


def test_memory_is_bounded_and_keeps_what_is_used(tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomalens.backbones.prompt_encoder.KEPT", 2)
    encoder = PromptEncoder(tiny_clip)
    for prompts in (["a"], ["b"], ["a"], ["c"], ["a"]):
        encoder(prompts)
    assert encoder.encoded == 3, "a was used between b and c, so b was dropped"
    encoder(["b"])
    assert encoder.encoded == 4


def test_a_pickled_encoder_begins_with_an_empty_memory(tiny_clip: Clip) -> None:
    encoder = PromptEncoder(tiny_clip, "hash")
    features = encoder(PROMPTS)
    again = pickle.loads(pickle.dumps(encoder))
    assert (again.weights_hash, again.encoded) == ("hash", 0)
    assert torch.equal(again(PROMPTS), features)


def test_kept_on_disk_under_weights_and_prompts(tiny_clip: Clip, tmp_path: Path) -> None:
    first = PromptEncoder(tiny_clip, "hash-a", tmp_path)
    want = first(PROMPTS)
    again = PromptEncoder(tiny_clip, "hash-a", tmp_path)
    assert torch.equal(again(PROMPTS), want)
    assert again.encoded == 0
    for other, prompts in (("hash-b", PROMPTS), ("hash-a", PROMPTS[::-1])):
        fresh = PromptEncoder(tiny_clip, other, tmp_path)
        fresh(prompts)
        assert fresh.encoded == len(prompts)


def test_weights_without_a_hash_are_never_kept_on_disk(tiny_clip: Clip, tmp_path: Path) -> None:
    PromptEncoder(tiny_clip, "", tmp_path)(PROMPTS)
    assert not list(tmp_path.rglob("*.safetensors"))


def _zeroed(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:40],
        lambda content: b"",
        _zeroed,
        lambda content: content + bytes(10),
        lambda content: content + bytes(100_000),
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: save({"features": torch.zeros(3, 32)}),
        lambda content: save({"features": torch.zeros(2, 32)}, {"sha256": digest(bytes(4 * 64))}),
        lambda content: save({"features": torch.zeros(96)}, {"sha256": digest(bytes(4 * 96))}),
        lambda content: save({"features": torch.zeros(3, 32, dtype=torch.int32)}, {"sha256": digest(bytes(4 * 96))}),
        lambda content: save({"other": torch.zeros(3, 32)}, {"sha256": digest(bytes(4 * 96))}),
        lambda content: save(
            {"features": torch.full((3, 32), torch.nan)},
            {"sha256": digest(torch.full((3, 32), torch.nan).numpy().tobytes())},
        ),
    ],
)
def test_a_damaged_entry_is_computed_anew_and_replaced(
    damage: Callable[[bytes], bytes], tiny_clip: Clip, tmp_path: Path
) -> None:
    want = PromptEncoder(tiny_clip, "h", tmp_path)(PROMPTS)
    (entry,) = tmp_path.rglob("*.safetensors")
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    again = PromptEncoder(tiny_clip, "h", tmp_path)
    assert torch.equal(again(PROMPTS), want)
    assert again.encoded == len(PROMPTS)
    assert entry.read_bytes() == whole
    assert list(entry.parent.iterdir()) == [entry]


def test_encoders_that_ask_at_once_compute_an_entry_once(tiny_clip: Clip, tmp_path: Path) -> None:
    encoders = [PromptEncoder(tiny_clip, "h", tmp_path) for _ in range(4)]
    start = Barrier(len(encoders))

    def ask(encoder: PromptEncoder) -> Tensor:
        start.wait()
        return encoder(PROMPTS)

    with ThreadPoolExecutor(len(encoders)) as pool:
        results = list(pool.map(ask, encoders))
    assert sum(encoder.encoded for encoder in encoders) == len(PROMPTS)
    assert all(torch.equal(result, results[0]) for result in results)


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tiny_clip: Clip, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert PromptEncoder(tiny_clip, "h", blocked)(PROMPTS).shape == (3, 32)
