"""Files that anybody may have written: limits of size, depth and numbers; regular files only; one line a fault."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from anomalens.errors import ConfigError, WeightsError
from anomalens.untrusted import open_regular, read_bytes, read_header, read_json, read_toml


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "ü"]}, [], 3, -(2**63), "x"])
def test_ordinary_json_is_read(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    assert read_json(path, named="x") == read_json(path.read_bytes(), named="x") == value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe{}", "not text in UTF-8"),
        (b'{"a": 1', "Expecting"),
        (b"[" * 200_000, "more than 32 tables"),
        (b'{"a":' * 200_000, "more than 32 tables"),
        (b"[" * 40 + b"]" * 40, "more than 32 tables"),
        (b'{"a": ' + b"9" * 5000 + b"}", "beyond 64 bits"),
        (b"1" + b"0" * 400, "beyond 64 bits"),
        (b"1e999", "no finite number"),
        (b"NaN", "no finite number"),
        (b"-Infinity", "no finite number"),
        (b" " * 1001, "more than 1,000 bytes"),
    ],
)
def test_other_json_is_one_line(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    most = 1000 if content.isspace() else 2**22
    for source in (path, content):
        with pytest.raises(WeightsError, match=reason) as caught:
            read_json(source, named="card", error=WeightsError, most_bytes=most)
        assert str(caught.value).startswith("card")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a = " + "[" * 5000, "more than 32 tables"),
        (".".join("a" * 60_000) + " = 1", "more than 256 dots"),
        ("[" + ".".join("a" * 200) + "]", "more than 32 tables"),
        ("a = " + "9" * 5000, "beyond 64 bits"),
        ("a = " + "9" * 30, "beyond 64 bits"),
        ("a = 1e999", "no finite number"),
        ("a = nan", "no finite number"),
        ("a = ", "Invalid value"),
        ("#" * 2**18, "more than 131,072 bytes"),
    ],
)
def test_other_toml_is_one_line(content: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        read_toml(content.encode(), named="benchmark file")
    assert "\n" not in str(caught.value)
    assert "set_int_max_str_digits" not in str(caught.value)


def test_toml_is_read() -> None:
    assert read_toml(b"[a]\nb = 1.5\nc = [1, 2]", named="x") == {"a": {"b": 1.5, "c": [1, 2]}}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)
        with pytest.raises(ConfigError, match="not a regular file"):
            read_bytes(path, named="calibration")
        with pytest.raises(ConfigError, match="not a regular file"):
            read_header(path, named="weights")


@pytest.mark.parametrize(("name", "reason"), [("absent", "No such file"), (".", "folder|denied"), ("a\0b", "null")])
def test_paths_that_are_no_file(name: str, reason: str, tmp_path: Path) -> None:
    for read in (read_bytes, read_json, read_toml, read_header):
        with pytest.raises(ConfigError, match=reason):
            read(f"{tmp_path}/{name}", named="calibration")


def test_the_texts_of_a_safetensors_header(tmp_path: Path) -> None:
    content = save({"a": torch.zeros(3)}, {"format": "x", "config": "{}"})
    (tmp_path / "a").write_bytes(content)
    assert read_header(tmp_path / "a", named="x") == read_header(content, named="x") == {"format": "x", "config": "{}"}


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b"[]",
        b'{"__metadata__": []}',
        b'{"__metadata__": {"a": 1}}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"{",
    ],
)
def test_headers_that_are_none(header: bytes) -> None:
    with pytest.raises(WeightsError, match="weights") as caught:
        read_header(len(header).to_bytes(8, "little") + header, named="weights", error=WeightsError)
    assert "\n" not in str(caught.value)
    for length in (0, 2**40, 2**64 - 1):
        with pytest.raises(WeightsError, match="weights"):
            read_header(length.to_bytes(8, "little") + b"{", named="weights", error=WeightsError)
