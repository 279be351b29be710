"""Names of files as text, whatever bytes they are made of."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalens.names import did_you_mean, is_text, name_path, name_text


@given(st.binary(max_size=30))
def test_every_name_has_one_text_and_comes_back(raw: bytes) -> None:
    name = os.fsdecode(raw)
    text = name_text(name)
    assert json.loads(json.dumps(text, ensure_ascii=False).encode("utf-8")) == text
    assert name_path(text) == name


@given(st.text(alphabet="\\u05cd89e\udce8\ud800a", max_size=12))
def test_names_made_of_escapes_come_back_too(name: str) -> None:
    assert is_text(name_text(name))
    assert name_path(name_text(name)) == name


@pytest.mark.parametrize("name", ["plain.png", "Grüße/日本.png", "a\\b", "a\\user", "\\u", ""])
def test_a_name_that_is_text_is_its_own_text_form(name: str) -> None:
    assert name_text(name) == name == name_path(name)


def test_a_byte_that_is_no_text_is_an_escape() -> None:
    assert name_text(b"pi\xe8ce.jpg") == "pi\\udce8ce.jpg"
    assert name_text("pi\\udce8ce.jpg") == "pi\\u005cudce8ce.jpg"


def test_the_name_that_was_meant_is_suggested() -> None:
    assert did_you_mean("MVTek", ["visa", "mvtec"]) == " (did you mean 'mvtec'?)"
    assert did_you_mean("Crane", ["crane:visa", "Crane"]) == " (did you mean 'Crane'?)"
    assert did_you_mean("bottle", ["visa", "mvtec"]) == ""
