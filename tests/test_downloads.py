"""Fetching with the real client from a server on this machine: whole, broken, slow, moved, false, by two at once."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from anomalens import downloads
from anomalens.downloads import RemoteFile, fetch, mirrored, refuse_unreachable
from anomalens.errors import InputError, WeightsError
from loopback import Site, serving

CONTENT = bytes(range(256)) * 1000
NOBODY = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        site.files["/file.pth"] = CONTENT
        yield site


def remote(site: Site, content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile(f"{site.url}/file.pth", len(content), hashlib.sha256(content).hexdigest())


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def test_a_file_is_fetched_once(site: Site, tmp_path: Path) -> None:
    arrived: list[tuple[int, int]] = []
    place = tmp_path / "new" / "file.pth"
    assert fetch(remote(site), place, label="it", progress=lambda *args: arrived.append(args)) == place
    assert place.read_bytes() == CONTENT
    assert arrived[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in place.parent.iterdir()] == ["file.pth"]
    fetch(remote(site), place, label="it")
    assert len(site.requests) == 1


def test_what_takes_a_while_is_told(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_TELL", -1.0)
    with caplog.at_level("INFO", "anomalens.downloads"):
        fetch(remote(site), tmp_path / "file.pth", label="it")
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == f"fetching it (0.3 MB) from {site.url}/file.pth"
    assert lines[-1] == "fetching it: 0.3 of 0.3 MB"


def test_a_file_known_by_its_git_blob_and_about_its_size(site: Site, tmp_path: Path) -> None:
    file = RemoteFile(f"{site.url}/file.pth", 250_000, git_blob=git_blob(CONTENT), exact=False)
    assert file.size == "about 0.2 MB"
    assert fetch(file, tmp_path / "file.pth", label="it").read_bytes() == CONTENT


def test_git_names_a_content_as_git_does() -> None:
    """The name of "hello" and a line feed in every git repository."""
    assert git_blob(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (CONTENT[:-1], "has 255,999 bytes, expected 256,000"),
        (CONTENT + b"x", "has 256,001 bytes, expected 256,000"),
        (CONTENT * 3, r"has \d+,\d+ bytes, expected 256,000"),
        (b"x" + CONTENT[1:], r"has sha256 \w{16}…, expected \w{16}…"),
    ],
)
@pytest.mark.parametrize("states_length", [True, False])
def test_another_file_is_deleted_unread(
    site: Site, tmp_path: Path, sent: bytes, reason: str, states_length: bool
) -> None:
    site.files["/file.pth"], site.states_length = sent, states_length
    with pytest.raises(WeightsError, match=rf"it: what {site.url}/file.pth sent {reason}"):
        fetch(remote(site), tmp_path / "file.pth", label="it")
    assert list(tmp_path.iterdir()) == []


def test_another_git_blob(site: Site, tmp_path: Path) -> None:
    file = RemoteFile(f"{site.url}/file.pth", len(CONTENT), git_blob=git_blob(b"other"))
    with pytest.raises(WeightsError, match="has git blob id"):
        fetch(file, tmp_path / "file.pth", label="it")


def test_a_transfer_that_breaks_off_goes_on_where_it_ended(site: Site, tmp_path: Path) -> None:
    site.cut_at = 100_000
    assert fetch(remote(site), tmp_path / "file.pth", label="it").read_bytes() == CONTENT
    assert [request.rpartition("=")[2] for request in site.requests] == ["GET /file.pth", "100000-", "200000-"]


def test_a_transfer_that_broke_off_too_often_goes_on_next_time(site: Site, tmp_path: Path) -> None:
    site.cut_at = 50_000
    with pytest.raises(WeightsError, match="the transfer broke off 3 times; the next try goes on from there"):
        fetch(remote(site), tmp_path / "file.pth", label="it")
    assert not (tmp_path / "file.pth").exists()
    site.cut_at = None
    assert fetch(remote(site), tmp_path / "file.pth", label="it").read_bytes() == CONTENT
    assert site.requests[-1] == "GET /file.pth bytes=150000-"


def test_a_server_that_sends_no_parts_sends_all_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.pth.part").write_bytes(b"something else")
    site.ignores_ranges = True
    assert fetch(remote(site), tmp_path / "file.pth", label="it").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [CONTENT, CONTENT + b"more"])
def test_what_was_left_may_be_all_or_too_much(site: Site, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "file.pth.part").write_bytes(left)
    assert fetch(remote(site), tmp_path / "file.pth", label="it").read_bytes() == CONTENT


def test_left_bytes_of_another_file_are_deleted_and_the_next_try_succeeds(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.pth.part").write_bytes(b"something else")
    with pytest.raises(WeightsError, match="has sha256"):
        fetch(remote(site), tmp_path / "file.pth", label="it")
    assert fetch(remote(site), tmp_path / "file.pth", label="it").read_bytes() == CONTENT


def test_a_file_that_moved(site: Site, tmp_path: Path) -> None:
    site.redirects["/old.pth"] = "/older.pth"
    site.redirects["/older.pth"] = f"{site.url}/file.pth"
    site.cut_at = 200_000
    file = replace(remote(site), address=f"{site.url}/old.pth")
    assert fetch(file, tmp_path / "file.pth", label="it").read_bytes() == CONTENT
    assert site.requests[-1] == "GET /file.pth bytes=200000-"


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/file.pth", "/old.pth"])
def test_redirects_that_are_not_followed(site: Site, tmp_path: Path, target: str) -> None:
    site.redirects["/old.pth"] = target
    with pytest.raises(WeightsError, match="cannot be fetched"):
        fetch(replace(remote(site), address=f"{site.url}/old.pth"), tmp_path / "file.pth", label="it")
    assert not (tmp_path / "file.pth").exists()


@pytest.mark.parametrize(
    ("status", "reason"),
    [(None, "there is no such file any more"), (403, "access is by permission"), (503, "the server answers 503")],
)
def test_answers_that_are_errors(site: Site, tmp_path: Path, status: int | None, reason: str) -> None:
    site.files.clear()
    site.status = status
    with pytest.raises(WeightsError, match=rf"it: cannot be fetched from {site.url}/file.pth \({reason}\)") as caught:
        fetch(remote(site), tmp_path / "file.pth", label="it")
    assert "\n" not in str(caught.value)
    assert len(site.requests) == 1


def test_no_network_is_one_line_at_once(tmp_path: Path, site: Site) -> None:
    file = replace(remote(site), address=f"{NOBODY}/file.pth")
    with pytest.raises(InputError, match=rf"it: cannot be fetched from {NOBODY}/file.pth \(no connection: .*refused"):
        fetch(file, tmp_path / "file.pth", label="it", error=InputError)
    with pytest.raises(WeightsError, match=rf"out of reach at {NOBODY} \(.*refused"):
        refuse_unreachable(NOBODY, "out of reach")
    for answer in (None, 403, 500):
        site.status = answer
        refuse_unreachable(site.url, "out of reach")
    site.status = 503
    with pytest.raises(WeightsError, match=rf"out of reach at {site.url} \(it answers 503\)"):
        refuse_unreachable(site.url, "out of reach")


def test_a_server_that_never_ends_is_given_up(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.slow = True
    monkeypatch.setenv("ANOMALENS_FETCH_SECONDS", "0.3")
    with pytest.raises(WeightsError, match=r"not all of it arrived in 0 seconds; try again, or set ANOMALENS_FETCH_S"):
        fetch(remote(site), tmp_path / "file.pth", label="it")
    assert 0 < (tmp_path / "file.pth.part").stat().st_size < 30
    monkeypatch.setenv("ANOMALENS_FETCH_SECONDS", "soon")
    with pytest.raises(WeightsError, match="must be a number of seconds above 0, not 'soon'"):
        fetch(remote(site), tmp_path / "file.pth", label="it")


def test_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ["https://huggingface.co/a/b", "https://raw.githubusercontent.com/a", "https://example.org/a"]
    assert [mirrored(address) for address in addresses] == addresses
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.local/")
    monkeypatch.setenv("ANOMALENS_GITHUB", "http://git.local/raw")
    expected = ["http://hub.local/a/b", "http://git.local/raw/a", "https://example.org/a"]
    assert [mirrored(address) for address in addresses] == expected
    assert mirrored("https://huggingface.co.evil.org/a") == "https://huggingface.co.evil.org/a"


@pytest.mark.slow
def test_two_processes_fetch_once(site: Site, tmp_path: Path) -> None:
    site.slow = True
    code = (
        "import sys, pathlib; from anomalens.downloads import RemoteFile, fetch; "
        "print(fetch(RemoteFile(sys.argv[1], int(sys.argv[2]), sys.argv[3]), pathlib.Path(sys.argv[4]), label='it'))"
    )
    file = remote(site)
    arguments = [sys.executable, "-c", code, file.address, str(file.bytes), file.sha256, str(tmp_path / "file.pth")]
    running = [subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert out.decode().strip() == str(tmp_path / "file.pth")
    assert (tmp_path / "file.pth").read_bytes() == CONTENT
    assert sum(request == "GET /file.pth" for request in site.requests) == 1
