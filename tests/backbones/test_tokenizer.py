"""Token ids: those of the reference on ordinary and odd text, cut with a warning, padded with zeros."""

import gzip
import hashlib
import json
import subprocess
import sys
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import golden
from anomalens.backbones import tokenizer
from anomalens.backbones.tokenizer import END, START, VOCAB, clean, encode, tokenize
from anomalens.errors import ConfigError

REFERENCE = json.loads(Path(__file__).with_name("reference_ids.json").read_text(encoding="utf-8"))["rows"]


@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: ascii(row["text"][:24]))
def test_ids_of_the_reference(row: dict[str, Any]) -> None:
    assert encode([row["text"]]) == [[START, *row["ids"], END]]


@pytest.mark.parametrize("method", ["anoclip", "winclip", "aprilgan"])
@pytest.mark.parametrize("name", ["bottle", "carpet"])
def test_ids_of_the_golden_prompts(method: str, name: str) -> None:
    stored = golden.load(method)["prompts"][name]
    first, last = encode([stored["first_normal"], stored["last_abnormal"]])
    assert first == stored["first_ids"]
    assert last == stored["last_ids"]


def test_vocabulary_is_whole() -> None:
    merges = gzip.decompress(files("anomalens.backbones").joinpath("vocabulary/merges.txt.gz").read_bytes())
    assert hashlib.sha256(merges).hexdigest().startswith("d308b7377a8ceaa9")
    vocabulary = tokenizer._library().get_vocab()
    assert sorted(vocabulary.values()) == list(range(VOCAB))
    assert vocabulary["!"] == 0
    assert vocabulary["jekyll</w>"] == START - 1


def test_ids_of_transformers() -> None:
    """The other compiled tokenizer in use, built on our vocabulary; it does less cleaning, so it gets clean text."""
    from transformers import CLIPTokenizer

    spelled = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {spelled.get(word, word): i for word, i in tokenizer._library().get_vocab().items()}
    merges = json.loads(tokenizer._library().to_str())["model"]["merges"]
    other = CLIPTokenizer(vocab=vocabulary, merges=[tuple(pair) for pair in merges])  # type: ignore[misc]
    cleaned = [clean(row["text"]) for row in REFERENCE]
    # It splits on the pattern without the reference's case folding, and entities beside a "<" take two cleanings.
    texts = [t for t in cleaned if clean(t) == t and "\u0345" not in t and "ſ" not in t]
    assert len(texts) > len(cleaned) - 6
    assert encode(texts) == other(texts)["input_ids"]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_gives_valid_ids(text: str) -> None:
    (ids,) = encode([text])
    assert ids[0] == START
    assert ids[-1] == END
    assert all(0 <= i < START for i in ids[1:-1])


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters="&"), max_size=30))
def test_case_and_blanks_do_not_matter(text: str) -> None:
    assert encode([text.upper()]) == encode([f"  {text.lower()}\n "])


def test_halves_of_utf16_pairs() -> None:
    """Names of files that are not UTF-8 reach us with lone surrogates; they must not stop a run."""
    assert encode(["caf\udce9"]) == encode(["caf\ufffd"])
    assert encode(["\ud83d\ude00"]) == encode(["😀"])


def test_spelled_out_control_tokens_are_text() -> None:
    for word in ("<end_of_text>", "<start_of_text>", "<|endoftext|>", "<|startoftext|>"):
        (ids,) = encode([f"a {word} b"])
        assert ids.count(END) == ids.count(START) == 1


def test_padding() -> None:
    ids = tokenize(["bottle", ""])
    assert ids.shape == (2, 77)
    assert ids.dtype == torch.int64
    assert ids[0, :3].tolist() == [START, 5392, END]
    assert ids[1, :2].tolist() == [START, END]
    assert not ids[0, 3:].any()
    assert tokenize([]).shape == (0, 77)


def test_cut_keeps_the_end_token_and_warns() -> None:
    text = "screw " * 100
    with pytest.warns(UserWarning, match=r"102 tokens cut to 77.*'screw screw"):
        ids = tokenize(["bottle", text])
    assert ids[1, -1] == END
    assert (ids[1, 1:-1] == ids[1, 1]).all()
    assert ids[0, 2] == END


def test_a_text_that_just_fits_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenize(["screw " * 75])[0, -1] == END
        assert tokenize(["screw"], context=3).tolist() == [[START, encode(["screw"])[0][1], END]]


def test_bad_arguments() -> None:
    with pytest.raises(ConfigError, match="put it in a list"):
        tokenize("bottle")
    with pytest.raises(ConfigError, match="give 2 or more"):
        tokenize(["bottle"], context=1)


def test_import_builds_nothing() -> None:
    """The vocabulary is unpacked by the first text, not by the import."""
    script = (
        "import sys; import anomalens.backbones.tokenizer as t; "
        "assert 'tokenizers' not in sys.modules; t.encode(['x']);"
        "assert t._library.cache_info().misses == 1; t.encode(['y']); assert t._library.cache_info().misses == 1"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
