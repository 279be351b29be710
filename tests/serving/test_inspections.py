"""Tests of inspections over HTTP: accept, answer, list, show, review, delete."""

from fastapi.testclient import TestClient

from small_photos import photo

ROUTE = "/api/v1/inspections"


def test_images_of_a_form_are_judged_in_their_order(client: TestClient) -> None:
    names = ["a.png", "b.png", "c.png"]
    response = client.post(ROUTE, files=[("images", (name, photo(seed))) for seed, name in enumerate(names)])
    assert response.status_code == 200
    answers = response.json()["inspections"]
    assert [answer["name"] for answer in answers] == names
    assert all(answer["label"] in ("normal", "anomalous", "unusable") for answer in answers)
    for answer in answers:
        assert client.get(answer["links"]["self"]).json() == answer
        for picture in ("heatmap", "overlay", "mask"):
            assert client.get(answer["links"][picture]).headers["content-type"] == "image/png"


def test_the_bytes_of_an_image_are_enough(client: TestClient) -> None:
    content = photo()
    answer = client.post(ROUTE, params={"name": "x.png"}, content=content).json()["inspections"][0]
    assert answer["name"] == "x.png"
    original = client.get(answer["links"]["original"])
    assert original.content == content
    assert original.headers["content-type"] == "image/png"
