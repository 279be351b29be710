"""Ask for the pages without a browser: what they hold, what they escape, and what a wrong address gives."""

import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from anomalens.serving.page.list_view import ListView
from anomalens.serving.schema import Inspection
from anomalens.serving.settings import ServeSettings
from anomalens.serving.web_app import create_app
from pages import SMALL
from parts import faulty_part

HOSTILE = "<img src=x onerror=alert(1)>'&.png"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Return a client of a service."""
    store = tmp_path_factory.mktemp("service") / "history.db"
    app = create_app(ServeSettings(store=f"sqlite:///{store}", options=SMALL))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture(scope="module")
def inspection(client: TestClient) -> dict[str, Any]:
    """Inspect an image with a hostile name."""
    file = BytesIO()
    Image.fromarray(faulty_part(0)).save(file, "PNG")
    files = [("images", (HOSTILE, file.getvalue()))]
    answer: dict[str, Any] = client.post("/api/v1/inspections", files=files, data={"wait": "true"}).json()
    return dict(answer["inspections"][0])


@pytest.mark.parametrize("path", ["/", "/teach", "/history", "/history?view=grid", "/watch", "/watch?span=quarter"])
def test_pages_escape_and_load_nothing_but_their_own(client: TestClient, inspection: dict[str, Any], path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "<img src=x" not in answer.text
    assert "style=" not in answer.text
    assert "onclick" not in answer.text
    assert "http://" not in answer.text
    assert "https://" not in answer.text


def test_the_page_of_an_inspection_tells_all_about_it(client: TestClient, inspection: dict[str, Any]) -> None:
    text = client.get(f"/history/{inspection['id']}").text
    assert "&lt;img src=x onerror=alert(1)&gt;&#39;&amp;.png" in text
    assert inspection["reason"] in text
    for address in inspection["links"].values():
        assert address in text or address == inspection["links"]["self"]


def test_pictures_are_small_and_layers_are_transparent(client: TestClient, inspection: dict[str, Any]) -> None:
    for kind in ("photo", "overlay", "heat", "outline"):
        answer = client.get(f"/pictures/{inspection['id']}/{kind}.webp?side=64")
        assert answer.headers["content-type"] == "image/webp"
        picture = Image.open(BytesIO(answer.content))
        assert picture.size == (64, 64)
        if kind in ("heat", "outline"):
            assert np.asarray(picture.convert("RGBA"))[..., 3].min() < 255


def test_a_small_picture_is_the_overlay(client: TestClient, inspection: dict[str, Any]) -> None:
    small = Image.open(BytesIO(client.get(f"/pictures/{inspection['id']}/overlay.webp?side=160").content))
    exact = Image.open(BytesIO(client.get(f"{inspection['links']['overlay']}?side=160").content)).convert("RGB")
    assert np.abs(np.asarray(small).astype(int) - np.asarray(exact)).mean() < 3


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/history/nothing", 404),
        ("/pictures/nothing/photo.webp", 404),
        ("/history?sort=sideways", 422),
        ("/history?score_min=nan", 422),
        ("/history?since=yesterday", 422),
        ("/history?until=9999-12-31", 422),
        ("/history?cursor=guess", 422),
        ("/static/", 404),
        ("/static/../router.py", 404),
        ("/static/%2e%2e/router.py", 404),
    ],
)
def test_wrong_addresses(client: TestClient, path: str, status: int) -> None:
    assert client.get(path).status_code == status


def test_without_scripts_a_sentence_says_what_is_missing(client: TestClient) -> None:
    for path in ("/", "/teach", "/history", "/watch"):
        assert '<noscript><p class="notice warn">This page needs JavaScript' in client.get(path).text


def test_people_read_of_errors_on_a_page_and_programs_in_json(client: TestClient) -> None:
    for path in ("/history/nothing", "/nowhere", "/static/nothing.css"):
        assert client.get(path).json()["detail"]
        page = client.get(path, headers={"accept": "text/html"})
        assert page.status_code == 404
        assert "<h1>Not here</h1>" in page.text
    assert client.get("/api/v1/nothing", headers={"accept": "text/html"}).json()["detail"] == "Not Found"


def test_watch_warns_of_drift_and_shows_the_last_alarms(client: TestClient) -> None:
    moments = [datetime.now(UTC) - timedelta(minutes=number) for number in range(40)]
    rows = [judged(moment, "normal", p_value=0.05) for moment in moments]
    alarm = judged(moments[0], "anomalous", p_value=0.01)
    client.app.state.service.history.add([*rows, alarm])  # type: ignore[attr-defined]
    text = client.get("/watch").text
    warnings = re.findall(r'<p class="notice warn">(.*?)</p>', text)
    assert "The images have changed" in warnings[-1]
    assert f"/history/{alarm.id}" in text.split("Last alarms")[1]
    assert text.count("<svg viewBox") >= 2
    assert f"/history/{rows[0].id}" not in text


def judged(moment: datetime, label: str, p_value: float) -> Inspection:
    """Return a row of an image that a recipe has judged."""
    return Inspection(
        id=uuid.uuid4().hex, created=moment, station="s", place=0, name="part.png", original="0" * 64, bytes=1,
        recipe="part", version=1, method="auto", object="object", regions=[], reviews=[], state="done", answered=moment,
        label=label, score=1.0, p_value=p_value, facts={}, map="0" * 64,
    )  # fmt: skip


def test_the_look_is_that_of_the_reports(client: TestClient) -> None:
    assert "--anomalous" in client.get("/static/report.css").text


def test_only_tables_that_can_be_written_are_offered(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name, _ in ListView().exports] == ["CSV", "Excel", "Parquet"]
    assert all(client.get(address).status_code == 200 for _, address in ListView().exports)
    monkeypatch.setattr("anomalens.serving.page.list_view.find_spec", lambda package: None)
    assert [name for name, _ in ListView().exports] == ["CSV"]


def test_empty_fields_of_the_form_filter_nothing() -> None:
    view = ListView.model_validate(dict.fromkeys(ListView.model_fields, "") | {"sort": "worst", "view": "grid"})
    assert not view.filtered
    assert view.address() == "/history?sort=worst&view=grid"


def test_the_last_day_counts_and_the_filters_go_into_the_downloads() -> None:
    view = ListView.model_validate(
        {"since": "2026-01-01", "until": "2026-01-01", "review": "false alarm", "cursor": "x"}
    )
    assert view.filters.until is not None
    assert view.filters.since is not None
    assert (view.filters.until - view.filters.since).days == 1
    assert view.filtered
    assert view.bounded
    (_, address), *_ = view.exports
    assert address.startswith(
        "/api/v1/export.csv?review=false+alarm&since=2026-01-01T00%3A00%3A00%2B00%3A00&until=2026-01-02"
    )
    assert "cursor" not in view.address(view="grid")


def test_moments_bound_the_list_as_they_are() -> None:
    # The page sends them for days of its browser, here of New York.
    view = ListView.model_validate({"since": "2026-01-01T05:00:00.000Z", "until": "2026-01-02T00:00:00-05:00"})
    assert (view.filters.since, view.filters.until) == (
        datetime(2026, 1, 1, 5, tzinfo=UTC),
        datetime(2026, 1, 2, 5, tzinfo=UTC),
    )
    assert (view.bound("since"), view.bound("until")) == ("2026-01-01T05:00:00+00:00", "2026-01-02T05:00:00+00:00")
    assert (view.day("since"), view.day("until")) == ("2026-01-01", "2026-01-02")
    assert "since=2026-01-01T05%3A00%3A00Z" in view.address(view="grid")
    # A moment at midnight is no day.
    assert ListView.model_validate({"until": "2026-01-02T00:00:00Z"}).day("until") == "2026-01-01"
    assert ListView.model_validate({"until": "2026-01-02"}).day("until") == "2026-01-02"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00%2B12:00", "9999-12-31T23:59:59-12:00", "0001-01-01", "-1"])
def test_times_at_the_ends_of_the_calendar_are_refused_or_taken(client: TestClient, time: str) -> None:
    for name in ("since", "until"):
        assert client.get(f"/history?{name}={time}").status_code in (200, 422)
        for route in ("inspections", "statistics", "export.csv"):
            assert client.get(f"/api/v1/{route}?{name}={time}").status_code == 200


def test_times_say_that_they_are_utc(client: TestClient, inspection: dict[str, Any]) -> None:
    created = inspection["created"]
    words = datetime.fromisoformat(created).strftime("%Y-%m-%d %H:%M UTC")
    for path in ("/", "/history", f"/history/{inspection['id']}"):
        assert f'<time datetime="{created}">{words}</time>' in client.get(path).text, path
    assert "from, UTC" in client.get("/history").text
