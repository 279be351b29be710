"""Tests of inspections over HTTP: accept, answer, list, show, review, delete."""

import io
import time
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from anomalens.detection.loading import load_detector
from anomalens.serving.history import History
from anomalens.serving.service import Service
from anomalens.serving.settings import ServeSettings
from anomalens.serving.uploads import UploadedImage
from anomalens.serving.web_app import create_app
from small_photos import photo

ROUTE = "/api/v1/inspections"


def sent(client: TestClient, count: int = 1, **fields: Any) -> list[dict[str, Any]]:
    """Send images, every second one anomalous; return the answers."""
    files = [("images", (f"{seed}.png", photo(seed, bright=seed % 2 == 1))) for seed in range(count)]
    response = client.post(ROUTE, files=files, data=fields)
    assert response.status_code in (200, 202), response.text
    answers: list[dict[str, Any]] = response.json()["inspections"]
    return answers


def test_images_of_a_form_are_judged_in_their_order(client: TestClient) -> None:
    answers = sent(client, 6)
    assert [answer["name"] for answer in answers] == [f"{seed}.png" for seed in range(6)]
    assert [answer["label"] for answer in answers] == ["normal", "anomalous"] * 3
    for answer in answers:
        assert client.get(answer["links"]["self"]).json() == answer
        for picture in ("heatmap", "overlay", "mask"):
            response = client.get(answer["links"][picture])
            assert response.headers["content-type"] == "image/png"
            assert Image.open(io.BytesIO(response.content)).size == (96, 80)


def test_the_bytes_of_an_image_are_enough(client: TestClient) -> None:
    content = photo()
    for headers in ({}, {"content-type": "application/x-www-form-urlencoded"}, {"content-type": "image/png"}):
        response = client.post(ROUTE, params={"name": "x.png"}, content=content, headers=headers)
        answer = response.json()["inspections"][0]
        assert answer["name"] == "x.png"
        original = client.get(answer["links"]["original"])
        assert original.content == content
        assert original.headers["content-type"] == "image/png"


def test_answers_and_pictures_are_those_of_the_library(tmp_path: Any) -> None:
    content = photo(3, size=(200, 150))
    prediction = load_detector().predict(content)
    with TestClient(
        create_app(ServeSettings(store=f"sqlite:///{tmp_path}/h.db")), base_url="http://localhost"
    ) as client:
        answer = client.post(ROUTE, content=content).json()["inspections"][0]
        assert answer["score"] == pytest.approx(prediction.score, abs=1e-5)
        plain = prediction.to_dict()
        for name in ("label", "reason", "threshold", "threshold_source", "width", "height", "object", "method"):
            assert answer[name] == plain[name]
        assert [region["box"] for region in answer["regions"]] == [region["box"] for region in plain["regions"]]
        for name, picture in (("heatmap", prediction.heatmap()), ("overlay", prediction.overlay(content))):
            drawn = np.asarray(Image.open(io.BytesIO(client.get(answer["links"][name]).content)), int)
            assert np.abs(drawn - np.asarray(picture, int)).max() <= 2
        mask = np.asarray(Image.open(io.BytesIO(client.get(answer["links"]["mask"]).content)))
        assert (mask > 0).mean() == pytest.approx(prediction.mask.mean(), abs=1e-3)


def test_without_waiting_answers_come_later(client: TestClient) -> None:
    response = client.post(ROUTE, files=[("images", ("a.png", photo()))], data={"wait": "false"})
    assert response.status_code in (200, 202)
    link = response.json()["inspections"][0]["links"]["self"]
    deadline = time.monotonic() + 20
    while client.get(link).json()["state"] == "waiting":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert client.get(link).json()["label"] == "normal"


def test_an_unreadable_image_among_others_is_an_answer_of_its_own(client: TestClient) -> None:
    files = [("images", ("good.png", photo())), ("images", ("notes.txt", b"hello"))]
    response = client.post(ROUTE, files=files)
    assert response.status_code == 200
    good, bad = response.json()["inspections"]
    assert good["state"] == "done"
    assert bad["state"] == "failed"
    assert "'notes.txt'" in bad["error"]
    assert bad["label"] is None
    assert client.get(bad["links"]["original"]).headers["content-type"] == "application/octet-stream"


def test_a_quotation_mark_in_a_name_is_shown_as_such(client: TestClient) -> None:
    # Browsers write it as %22 in a form.
    answer = client.post(ROUTE, files=[("images", ('the "left" one.png', photo()))]).json()["inspections"][0]
    assert answer["name"] == 'the "left" one.png'


def test_a_request_without_any_readable_image_stores_nothing(client: TestClient) -> None:
    for files in ([("images", ("notes.txt", b"hello"))], [("images", ("empty.png", b""))]):
        response = client.post(ROUTE, files=files)
        assert response.status_code == 422
        assert files[0][1][0] in response.json()["detail"]
    assert client.post(ROUTE, data={"wait": "true"}).status_code == 422
    assert client.get(ROUTE).json()["inspections"] == []


def test_a_damaged_image_is_a_failed_inspection_that_names_it_as_it_was_sent(client: TestClient) -> None:
    content = photo(form="JPEG", size=(400, 300))
    answer = client.post(ROUTE, files=[("images", ("cut.jpg", content[: len(content) // 2]))]).json()["inspections"][0]
    assert answer["state"] == "failed"
    assert answer["error"].startswith("'cut.jpg'")


def test_the_same_request_under_the_same_key_is_accepted_once(client: TestClient) -> None:
    files = [("images", ("a.png", photo()))]
    first, again = (client.post(ROUTE, files=files, headers={"Idempotency-Key": "k1"}).json() for _ in range(2))
    assert first == again
    assert len(client.get(ROUTE).json()["inspections"]) == 1
    other = client.post(ROUTE, files=[("images", ("b.png", photo(1)))], headers={"Idempotency-Key": "k1"})
    assert other.status_code == 422
    assert "Idempotency-Key" in other.json()["detail"]


def test_pages_show_every_inspection_once(client: TestClient) -> None:
    ids = {answer["id"] for answer in sent(client, 7)}
    for sort in ("newest", "oldest", "worst"):
        seen: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = client.get(ROUTE, params={"limit": 3, "sort": sort} | ({"cursor": cursor} if cursor else {})).json()
            seen += page["inspections"]
            cursor = page["next"]
            if cursor is None:
                break
        assert len(seen) == 7
        assert {row["id"] for row in seen} == ids
        key = "score" if sort == "worst" else "created"
        values = [row[key] for row in seen]
        assert values == sorted(values, reverse=sort != "oldest")
    assert client.get(ROUTE, params={"cursor": "nonsense"}).status_code == 422
    page = client.get(ROUTE, params={"limit": 3, "sort": "worst"}).json()
    assert client.get(ROUTE, params={"cursor": page["next"], "sort": "newest"}).status_code == 422


def test_filters(client: TestClient) -> None:
    answers = sent(client, 4)
    client.post(f"{ROUTE}/{answers[0]['id']}/review", json={"verdict": "right"})

    def count(**filters: Any) -> int:
        return len(client.get(ROUTE, params=filters).json()["inspections"])

    assert count(label="anomalous") == 2
    assert count(label="unusable") == 0
    assert count(review="right") == count(review="any") == 1
    assert count(review="none") == 3
    assert count(score_min=0.5) == count(score_max=0.5) == 2
    assert count(recipe="nut") == 0
    assert count(since=answers[0]["created"]) == 4
    assert count(until=answers[0]["created"]) == 0
    assert client.get(ROUTE, params={"label": "odd"}).status_code == 422


def test_reviews_count_from_the_latest_and_can_be_taken_back(client: TestClient) -> None:
    link = f"{ROUTE}/{sent(client)[0]['id']}/review"
    assert client.post(link, json={"verdict": "right"}).json()["review"]["verdict"] == "right"
    review = client.post(link, json={"verdict": "missed", "comment": "<b>scratch</b>"}).json()["review"]
    assert (review["verdict"], review["comment"], review["mask"]) == ("missed", "<b>scratch</b>", False)
    assert client.delete(link).json()["review"]["verdict"] == "right"
    assert client.delete(link).json()["review"] is None
    assert client.delete(link).status_code == 404
    bodies: list[Any] = [{"verdict": "odd"}, {}, {"verdict": "right", "comment": "x" * 10_001}, []]
    for body in bodies:
        assert client.post(link, json=body).status_code == 422


def test_a_review_may_correct_the_mask(client: TestClient) -> None:
    link = f"{ROUTE}/{sent(client)[0]['id']}/review"
    mask = io.BytesIO()
    Image.new("L", (96, 80), 255).save(mask, "PNG")
    response = client.post(link, data={"verdict": "missed"}, files={"mask": ("m.png", mask.getvalue())})
    assert response.json()["review"]["mask"] is True
    assert Image.open(io.BytesIO(client.get(f"{link}/mask.png").content)).size == (96, 80)
    assert client.post(link, data={"verdict": "missed"}, files={"mask": ("m.png", b"no")}).status_code == 422


def test_deleting_removes_what_nothing_else_needs(client: TestClient, settings: ServeSettings) -> None:
    first, second = sent(client)[0], sent(client)[0]

    def files() -> int:
        return len(list(settings.media_folder.glob("??/*")))

    both = files()
    assert client.delete(f"{ROUTE}/{first['id']}").status_code == 204
    assert files() == both
    assert client.get(second["links"]["overlay"]).status_code == 200
    client.delete(f"{ROUTE}/{second['id']}")
    assert files() == 0
    assert client.get(f"{ROUTE}/{second['id']}").status_code == 404


def test_pictures_can_be_smaller_and_drawn_for_another_threshold(client: TestClient) -> None:
    answer = sent(client, 2)[1]
    small = client.get(answer["links"]["overlay"], params={"side": 48}).content
    assert Image.open(io.BytesIO(small)).size == (48, 40)
    mask = np.asarray(Image.open(io.BytesIO(client.get(answer["links"]["mask"], params={"threshold": 0.99}).content)))
    assert not mask.any()
    assert client.get(answer["links"]["mask"], params={"side": 2}).status_code == 422


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..\\..\\x.png", "a\nb.png", "<script>alert(1)</script>.png", "💾.png"]
)
def test_names_are_kept_for_people_and_open_no_file(client: TestClient, name: str) -> None:
    answer = client.post(ROUTE, params={"name": name}, content=photo()).json()["inspections"][0]
    assert "/" not in answer["name"]
    assert "\n" not in answer["name"]
    response = client.get(answer["links"]["original"])
    assert response.status_code == 200
    assert response.headers["x-content-type-options"] == "nosniff"


def test_objects_and_methods_are_names_alone(client: TestClient) -> None:
    assert sent(client, object="bottle")[0]["object"] == "bottle"
    for fields in ({"method": "../weights.onnx"}, {"method": "musc"}, {"recipe": "none"}, {"object": "x" * 2000}):
        response = client.post(ROUTE, files=[("images", ("a.png", photo()))], data=fields)
        assert response.status_code in (404, 422), fields


def test_what_comes_to_a_stopping_service_is_judged_at_the_next_start(
    settings: ServeSettings, toy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, add = Service(settings), History.add

    def stop_and_add(self: History, *arguments: Any) -> Any:
        service.lanes.close()
        return add(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(History, "add", stop_and_add)
        (id,), (answer,) = service.inspect([UploadedImage("a.png", photo(1))], service.judge(None, None, None))
    answer.result(30)
    assert service.history.get(id).state == "waiting"
    service.close()
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        deadline = time.monotonic() + 30
        while client.get(f"{ROUTE}/{id}").json()["state"] == "waiting":
            assert time.monotonic() < deadline
        assert client.get(f"{ROUTE}/{id}").json()["state"] == "done"
