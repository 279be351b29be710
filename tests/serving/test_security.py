"""Tests of who may ask: the token, browsers, other sites, other names, and what answers tell a browser."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from anomalens.errors import ConfigError
from anomalens.serving.security import COOKIE, Doorkeeper
from anomalens.serving.settings import ServeSettings, is_loopback, read_token
from anomalens.serving.web_app import create_app
from small_photos import photo

ROUTE = "/api/v1/inspections"
TOKEN = "0123456789abcdef-secret"


@pytest.fixture
def guarded(tmp_path: Path, toy: None) -> Iterator[TestClient]:
    """Return a client of a service with a token."""
    settings = ServeSettings(store=f"sqlite:///{tmp_path / 'h.db'}", token=TOKEN, host="0.0.0.0")
    with TestClient(create_app(settings), base_url="http://inspector.plant") as client:
        yield client


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_another_interface_needs_a_token() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "inspector.plant"):
        with pytest.raises(ConfigError, match="--token-file"):
            ServeSettings(host=host)
        ServeSettings(host=host, token=TOKEN)
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert is_loopback(host)
        ServeSettings(host=host)


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "x", "é" * 24, "\ud800"])
def test_a_wrong_token_opens_nothing(guarded: TestClient, token: str) -> None:
    header = f"Bearer {token}".encode("utf-8", "surrogatepass")
    response = guarded.get(ROUTE, headers={b"Authorization": header})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def test_the_token_opens_everything(guarded: TestClient) -> None:
    assert guarded.get(ROUTE).status_code == 401
    assert guarded.get("/metrics").status_code == 401
    assert guarded.get("/openapi.json").status_code == 401
    assert guarded.get("/healthz").status_code == 200
    assert guarded.get("/readyz").status_code == 200
    assert guarded.get(ROUTE, headers=bearer()).status_code == 200
    assert guarded.post(ROUTE, content=photo(), headers=bearer()).status_code == 200
    assert guarded.get("/metrics", headers=bearer()).status_code == 200


def test_tokens_are_compared_in_constant_time(guarded: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    calls: list[tuple[bytes, bytes]] = []

    def compare(first: bytes, second: bytes) -> bool:
        calls.append((first, second))
        return first == second

    monkeypatch.setattr(hmac, "compare_digest", compare)
    guarded.get(ROUTE, headers=bearer("wrong"))
    assert (b"wrong", TOKEN.encode()) in calls


def test_a_browser_without_cookie_is_sent_to_sign_in(guarded: TestClient) -> None:
    response = guarded.get("/", headers={"Accept": "text/html"}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/login")
    assert guarded.get(ROUTE, headers={"Accept": "text/html"}).status_code == 401


def test_the_cookie_is_not_the_token_and_opens_the_api(guarded: TestClient) -> None:
    from starlette.responses import Response

    door: Doorkeeper = guarded.app.state.door  # type: ignore[attr-defined]
    response = Response()
    assert not door.sign_in(response, "wrong", secure=True)
    assert door.sign_in(response, TOKEN, secure=True)
    cookie = response.headers["set-cookie"]
    assert TOKEN not in cookie
    assert {"HttpOnly", "SameSite=strict", "Secure"} <= {part.strip() for part in cookie.split(";")}
    guarded.cookies.set(COOKIE, cookie.partition("=")[2].partition(";")[0])
    assert guarded.get(ROUTE).status_code == 200
    guarded.cookies.set(COOKIE, "0" * 64)
    assert guarded.get(ROUTE).status_code == 401


@pytest.mark.parametrize(
    "marks",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1"},
        {"Origin": "http://127.0.0.1:81"},
    ],
)
def test_other_sites_change_nothing(client: TestClient, marks: dict[str, str]) -> None:
    token = client.app.state.door.form  # type: ignore[attr-defined]
    response = client.post(ROUTE, content=photo(), headers=marks | {"X-CSRF-Token": token})
    assert response.status_code == 403
    assert client.get(ROUTE).json()["inspections"] == []


def test_a_page_of_this_service_shows_its_token(client: TestClient) -> None:
    marks = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    assert client.post(ROUTE, content=photo(), headers=marks).status_code == 403
    assert client.post(ROUTE, content=photo(), headers=marks | {"X-CSRF-Token": "0" * 64}).status_code == 403
    token = client.app.state.door.form  # type: ignore[attr-defined]
    assert client.post(ROUTE, content=photo(), headers=marks | {"X-CSRF-Token": token}).status_code == 200
    assert client.get(ROUTE, headers={"Sec-Fetch-Site": "none"}).status_code == 200


def test_the_token_of_pages_stays_over_a_restart(settings: ServeSettings, toy: None) -> None:
    tokens = []
    for _ in range(2):
        app = create_app(settings)
        tokens.append(app.state.door.form)
        app.state.service.close()
    assert tokens[0] == tokens[1]
    assert (settings.media_folder / "form.key").stat().st_mode & 0o077 == 0


def test_without_a_token_other_names_of_this_machine_are_refused(client: TestClient) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "", "evil.example:8000"):
        assert client.get(ROUTE, headers={"Host": host}).status_code == 403
    for host in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000"):
        assert client.get(ROUTE, headers={"Host": host}).status_code == 200


def test_every_answer_has_the_headers_of_a_careful_site(client: TestClient) -> None:
    for path in ("/", ROUTE, "/nowhere", "/healthz", "/openapi.json"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["x-request-id"]


def test_only_where_a_browser_trusts_the_connection_is_its_window_kept_apart(guarded: TestClient) -> None:
    # Browsers ignore this header elsewhere, and complain of it in the console at every page.
    name = "cross-origin-opener-policy"
    for address in (
        "https://inspector.plant/login",
        "http://localhost:8000/login",
        "http://127.0.0.1/",
        "http://[::1]/",
    ):
        assert guarded.get(address).headers[name] == "same-origin", address
    for address in ("http://inspector.plant/login", "http://192.168.1.5:8000/login", "http://localhost.plant/"):
        assert name not in guarded.get(address).headers, address


@pytest.mark.parametrize(
    "path", ["/static/", "/static/../web_app.py", "/static/%2e%2e/web_app.py", "/media", "/..%2f..%2fetc/passwd"]
)
def test_no_folder_is_listed_and_no_other_file_read(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (404, 405)


def test_the_log_holds_no_secrets(
    guarded: TestClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A command that ran before may have set it up for itself.
    monkeypatch.setattr(logging.getLogger("anomalens.serving"), "propagate", True)
    with caplog.at_level(logging.DEBUG, "anomalens.serving"):
        guarded.get(f"{ROUTE}?recipe=secret-name&token={TOKEN}", headers=bearer())
        guarded.post("/api/v1/webhooks", json={"url": "https://example.org/secret-path"}, headers=bearer())
    own = [record for record in caplog.records if record.name.startswith("anomalens")]
    text = "\n".join(f"{record.getMessage()} {getattr(record, 'facts', '')}" for record in own)
    assert ROUTE in text
    assert "secret" not in text


def test_request_numbers_are_taken_over_where_they_are_harmless(client: TestClient) -> None:
    assert client.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for number in ("a b", "x" * 65, "<b>"):
        assert client.get("/healthz", headers={"X-Request-Id": number}).headers["x-request-id"] != number
    answer = client.get(f"{ROUTE}/none", headers={"X-Request-Id": "abc-2"}).json()
    assert answer == {"detail": "there is no such inspection", "request": "abc-2"}


def test_token_files(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    file.chmod(0o604)
    with pytest.raises(ConfigError, match="everybody"):
        read_token(file)
    for text in ("short", "", "with spaces in it, and long", "ü" * 20, "x" * 5000):
        file.write_text(text, "utf-8")
        file.chmod(0o600)
        with pytest.raises(ConfigError):
            read_token(file)
    with pytest.raises(ConfigError):
        read_token(tmp_path / "none")


def test_settings_never_show_the_token() -> None:
    assert TOKEN not in repr(ServeSettings(token=TOKEN))
