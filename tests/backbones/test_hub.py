"""The hub path with the real client, against a server on this machine that behaves like the hub."""

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError

import small_clip
from anomalens.backbones import hub as locate
from anomalens.backbones import registry as backbones
from anomalens.backbones import weight_layouts as layouts
from anomalens.backbones import weights
from anomalens.backbones.weights import load_weights
from anomalens.errors import WeightsError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Hold what the server offers and what it was asked."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)  # "org/name/file" -> content
    requests: list[str] = field(default_factory=list)  # "GET org/name/file"
    cut_at: int | None = None  # bytes after which a transfer breaks off
    # Whether a byte arrives now and then.
    slow: bool = False
    gated: bool = False  # whether access is by permission

    def count(self, method: str) -> int:
        return sum(entry.startswith(f"{method} ") for entry in self.requests)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Return a server on 127.0.0.1 with the hub's headers, and the client told to use it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/main/([^?]+)", self.path)
            name = f"{match[1]}/{match[2]}" if match else self.path
            state.requests.append(f"{self.command} {name}")
            content = state.files.get(name)
            if state.gated:
                self.send_response(403)
                self.send_header("X-Error-Code", "GatedRepo")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if content is None:
                known = match and any(entry.startswith(f"{match[1]}/") for entry in state.files)
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if body and state.slow:
                for number in range(20):
                    threading.Event().wait(0.1)
                    self.wfile.write(content[number : number + 1])
                    self.wfile.flush()
            elif body:
                end = len(content) if state.cut_at is None else min(len(content), start + state.cut_at)
                self.wfile.write(content[start:end])
                if end < len(content):
                    self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", state.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its tries
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def repository(hub: Hub, tmp_path: Path) -> Hub:
    """Make org/tiny: a CLIPModel as `save_pretrained` leaves it, with its preprocessing."""
    folder = small_clip.write_hugging_face(tmp_path / "made", small_clip.hugging_face())
    prepared = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    hub.files = {f"org/tiny/{path.name}": path.read_bytes() for path in folder.iterdir()}
    return hub


@pytest.mark.parametrize("spec", ["org/tiny", "hf-hub:org/tiny"])
def test_first_fetched_then_read_without_a_request(repository: Hub, tmp_path: Path, spec: str) -> None:
    first = load_weights(spec, cache_dir=tmp_path / "cache")
    assert first.name == "org/tiny"
    assert first.pixels.mean == (0.1, 0.2, 0.3)
    assert repository.count("GET") == 3  # config, preprocessing, weights
    asked = len(repository.requests)
    again = load_weights(spec, cache_dir=tmp_path / "cache")
    assert again.hash == first.hash == load_weights(tmp_path / "made").hash
    assert load_weights(spec, offline=True, cache_dir=tmp_path / "cache").hash == first.hash
    assert len(repository.requests) == asked


def test_offline_asks_nothing(repository: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"org/tiny is not in the cache .*models--org--tiny.*run once without"):
        load_weights("org/tiny", offline=True, cache_dir=tmp_path / "cache")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="offline nothing is fetched"):
        load_weights("org/tiny", cache_dir=tmp_path / "cache")
    assert repository.requests == []


def test_open_clip_repositories(hub: Hub, tmp_path: Path) -> None:
    state = small_clip.openai_names(small_clip.hugging_face("gelu"))
    folder = small_clip.write_open_clip(tmp_path / "made", state, "gelu")
    hub.files = {f"org/oc/{path.name}": path.read_bytes() for path in folder.iterdir()}
    hub.files["org/oc/model.safetensors"] = b"a bare image tower, which is not asked for"
    assert load_weights("org/oc", cache_dir=tmp_path / "cache").config.activation == "gelu"
    assert "GET org/oc/model.safetensors" not in hub.requests


def test_sharded_repositories(repository: Hub, tmp_path: Path) -> None:
    shard = "model-00001-of-00001.safetensors"
    repository.files[f"org/tiny/{shard}"] = repository.files.pop("org/tiny/model.safetensors")
    index = {"weight_map": {"logit_scale": shard}}
    repository.files["org/tiny/model.safetensors.index.json"] = json.dumps(index).encode()
    cache = tmp_path / "cache"
    assert load_weights("org/tiny", cache_dir=cache).hash == load_weights(tmp_path / "made").hash
    assert load_weights("org/tiny", offline=True, cache_dir=cache).hash == load_weights(tmp_path / "made").hash


def test_repositories_that_do_not_do(repository: Hub, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="hub repository org/other: does not exist, or is private"):
        load_weights("org/other", cache_dir=tmp_path / "cache")
    repository.files["org/text/config.json"] = b"{}"
    with pytest.raises(WeightsError, match=r"org/text holds none of model.safetensors, "):
        load_weights("org/text", cache_dir=tmp_path / "cache")
    with pytest.raises(WeightsError, match="'org/a--b' is no hub id"):
        load_weights("hf-hub:org/a--b", cache_dir=tmp_path / "cache")
    repository.gated = True
    with pytest.raises(WeightsError, match="org/tiny: access is by permission"):
        load_weights("org/tiny", cache_dir=tmp_path / "cache")


def test_a_transfer_that_breaks_off_leaves_nothing_half_done(repository: Hub, tmp_path: Path) -> None:
    repository.cut_at = 5000  # enough for the configs
    with pytest.raises(WeightsError, match=r"org/tiny: fetching model.safetensors failed .*try again"):
        load_weights("org/tiny", cache_dir=tmp_path / "cache")
    with pytest.raises(WeightsError, match="offline nothing is fetched"):
        load_weights("org/tiny", offline=True, cache_dir=tmp_path / "cache")
    repository.cut_at = None
    loaded = load_weights("org/tiny", cache_dir=tmp_path / "cache")
    assert loaded.hash == load_weights(tmp_path / "made").hash


def test_a_hub_that_never_ends_is_given_up(repository: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps the client waiting for ever."""
    repository.slow = True
    monkeypatch.setenv("ANOMALENS_FETCH_SECONDS", "0.3")
    with pytest.raises(WeightsError, match=r"org/tiny: \S+ did not arrive in 0 seconds; try again, or set ANOMALENS_F"):
        load_weights("org/tiny", cache_dir=tmp_path / "cache")
    repository.files.clear()
    for unfit in ("x", "-1", "nan", "inf", "1e999"):
        monkeypatch.setenv("ANOMALENS_FETCH_SECONDS", unfit)
        with pytest.raises(WeightsError, match="must be a number of seconds above 0"):
            load_weights("org/tiny", cache_dir=tmp_path / "cache")


def test_a_damaged_file_of_the_cache_is_named_with_what_to_delete(repository: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    repository.files["org/tiny/model.safetensors"] = repository.files["org/tiny/model.safetensors"][:-500]
    folder = cache / "models--org--tiny"
    with pytest.raises(WeightsError, match=rf"damaged or cut off .*; to fetch it anew, delete the folder {folder}"):
        load_weights("org/tiny", cache_dir=cache)


def test_no_network(repository: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(WeightsError, match=r"org/tiny: .* is not in the cache and the hub cannot be reached"):
        load_weights("org/tiny", cache_dir=tmp_path / "cache")


def test_no_network_asks_the_hub_s_client_for_nothing(
    repository: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client would try again five times, with a warning for each."""

    def refuse(*_: object, local_files_only: bool, **__: object) -> str:
        assert local_files_only
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"cannot be reached at http://127.0.0.1:9/ \(.*put model.safetensors"):
        load_weights("tinyclip", cache_dir=tmp_path / "cache")


# ------------------------------------------------------------------------------------------------ names of the table
@pytest.fixture
def named(repository: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Let the entry TinyCLIP-ViT-8M-16 stand for org/tiny, hash known."""
    content = repository.files["org/tiny/model.safetensors"]
    entry = replace(
        backbones.find("tinyclip"),
        config=layouts.config_from_hugging_face(json.loads(repository.files["org/tiny/config.json"])),
        hub="org/tiny",
        files=(backbones.WeightsFile("model.safetensors", len(content), hashlib.sha256(content).hexdigest()),),
    )
    for module in (backbones, weights):
        monkeypatch.setattr(module, "BACKBONES", {**backbones.BACKBONES, entry.name: entry})
    return repository


def test_a_name_is_fetched_once(named: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert not locate.is_available("tinyclip", cache)
    first = load_weights("tinyclip", cache_dir=cache)
    assert first.name == "TinyCLIP-ViT-8M-16"
    assert locate.is_available("tinyclip", cache)
    asked = len(named.requests)
    assert load_weights("TinyCLIP", cache_dir=cache).hash == first.hash
    assert len(named.requests) == asked


def test_what_the_hub_sends_must_have_the_known_hash(named: Hub, tmp_path: Path) -> None:
    named.files["org/tiny/model.safetensors"] += b" "
    with pytest.raises(WeightsError, match=r"sha256 .* expected .* get it again"):
        load_weights("tinyclip", cache_dir=tmp_path / "cache")


def test_a_name_that_cannot_be_fetched_says_where_to_put_the_file(named: Hub, tmp_path: Path) -> None:
    del named.files["org/tiny/model.safetensors"]
    folder = re.escape(str(tmp_path / "cache" / "TinyCLIP-ViT-8M-16"))
    with pytest.raises(WeightsError, match=rf"has no model.safetensors any more; put model.safetensors .* {folder}"):
        load_weights("tinyclip", cache_dir=tmp_path / "cache")
    named.files.clear()
    with pytest.raises(WeightsError, match=rf"does not exist, or is private .* put model.safetensors .* {folder}"):
        load_weights("tinyclip", cache_dir=tmp_path / "cache")


def test_the_users_folder_comes_before_the_hub(named: Hub, tmp_path: Path) -> None:
    folder = locate.weights_folder(backbones.find("tinyclip"), tmp_path / "cache")
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(named.files["org/tiny/model.safetensors"])
    loaded = load_weights("tinyclip", cache_dir=tmp_path / "cache")
    assert named.requests == []
    assert torch.equal(loaded.state["logit_scale"], load_weights(tmp_path / "made").state["logit_scale"])


def test_a_variant_has_the_same_files_and_its_own_activation(
    named: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files say quick_gelu, and so does their name; the variant says gelu, and is another network."""
    base = backbones.find("tinyclip")
    other = "ViT-L-14-336-gelu"
    config = replace(base.config, activation="gelu")
    variant = replace(base, name=other, config=config, same_files_as=base.name, aliases=())
    for module in (backbones, weights):
        monkeypatch.setattr(module, "BACKBONES", {**backbones.BACKBONES, other: variant})
    plain = load_weights("tinyclip", cache_dir=tmp_path / "cache")
    asked = len(named.requests)
    loaded = load_weights("vit-l/14@336px-gelu", cache_dir=tmp_path / "cache", offline=True)
    assert len(named.requests) == asked
    assert locate.weights_folder(variant) == locate.weights_folder(base)
    assert (plain.config.activation, loaded.config.activation) == ("quick_gelu", "gelu")
    assert (loaded.name, loaded.hash != plain.hash) == (other, True)
    assert plain.with_activation("gelu").hash == loaded.hash
    assert loaded.with_activation("quick_gelu").hash == plain.hash
    assert plain.with_activation("quick_gelu") is plain


def test_it_was_the_real_client() -> None:
    assert huggingface_hub.hf_hub_download.__module__ == "huggingface_hub.file_download"
