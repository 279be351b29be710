"""Walk through the pages in a real browser: drop, teach, review, export; themes, widths, keyboard, accessibility."""

import csv
import io
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from pages import GOOD, PAINTED, SOUND, looking, serving

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
expect.set_options(timeout=30_000)

pytestmark = pytest.mark.browser

PAGES = ("/", "/teach", "/history", "/history?view=grid&sort=worst", "/watch")
HOSTILE = "<img src=x onerror=alert(1)>'\"&.jpg"


def upload(address: str, photos: list[Path], **fields: str) -> list[dict[str, Any]]:
    """Inspect photos; return the answers."""
    files = [("images", (photo.name, photo.read_bytes())) for photo in photos]
    answer = httpx.post(f"{address}/api/v1/inspections", files=files, data={"wait": "true", **fields}, timeout=120)
    answer.raise_for_status()
    inspections: list[dict[str, Any]] = answer.json()["inspections"]
    return inspections


def teach(address: str, name: str) -> None:
    """Teach a part from the good photos and wait until it is in use."""
    files = [("images", (photo.name, photo.read_bytes())) for photo in GOOD]
    job = httpx.post(f"{address}/api/v1/recipes", files=files, data={"name": name}, timeout=60).json()["job"]
    while job["state"] in ("waiting", "running"):
        time.sleep(0.1)
        job = httpx.get(f"{address}/api/v1/jobs/{job['id']}").json()
    assert job["state"] == "done", job["error"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a service that knows a part and has inspected a few photos."""
    with serving(tmp_path_factory.mktemp("service")) as address:
        teach(address, "hazelnut")
        upload(address, [*PAINTED[:2], *SOUND[:3]], recipe="hazelnut")
        yield address


def inspect(page: Any, photos: list[Path]) -> None:
    """Choose photos on the page Inspect and wait for all answers."""
    page.goto("/")
    page.set_input_files("#files", photos)
    expect(page.locator("#shots li")).to_have_count(len(photos))
    expect(page.locator("#shots .label.waiting")).to_have_count(0, timeout=60_000)


def test_teach_a_part_by_photos_and_region_then_improve_it(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path) as address, looking(browser, address, viewport={"width": 1280, "height": 800}) as tab:
        page = tab.page
        page.goto("/teach")
        page.set_input_files("#files", GOOD)
        frame = page.locator(".roi img")
        frame.scroll_into_view_if_needed()
        box = frame.bounding_box()
        assert box is not None
        for (x, y), act in (((0.1, 0.2), page.mouse.down), ((0.9, 0.7), page.mouse.up)):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            act()
        expect(page.locator("[data-edge=width]")).to_have_value("80")
        page.fill("#name", "nut")
        page.click("#learn")
        expect(page.locator("#promise")).to_contain_text("at most 1 in 5")
        assert page.locator(".strip .dot").count() == len(GOOD)
        expect(page.locator("#photos .score")).to_have_count(len(GOOD))
        assert httpx.get(f"{address}/api/v1/recipes").json()["recipes"][0]["active"] is None
        page.click("#save")
        expect(page.get_by_text("nut is saved and in use.")).to_be_visible()
        version = httpx.get(f"{address}/api/v1/recipes").json()["recipes"][0]["versions"][0]
        assert version["active"]
        assert version["roi"] == pytest.approx(0.8 * 0.5, abs=0.02)

        page.goto("/teach")
        expect(page.get_by_role("button", name="Improve it from reviewed images")).to_be_disabled()
        for inspection in upload(address, SOUND[:2], recipe="nut"):
            path = f"{address}/api/v1/inspections/{inspection['id']}/review"
            httpx.post(path, json={"verdict": "right"}).raise_for_status()
        page.goto("/teach")
        expect(page.get_by_text("2 reviewed images are good")).to_be_visible()
        page.get_by_role("button", name="Improve it from reviewed images").click()
        expect(page.get_by_text("false alarms: 0 before, 0 after")).to_be_visible()
        expect(page.locator("[data-comparison] tbody tr")).to_have_count(2)
        expect(page.locator("[data-comparison] img").first).to_have_js_property("naturalWidth", 320)
        page.get_by_role("button", name="Use version 2", exact=True).click()
        expect(page.locator("tr", has_text="in use")).to_contain_text("6")
        page.get_by_role("button", name="Use version 1 of nut").click()
        expect(page.locator("tr", has_text="in use")).to_contain_text("4")


def test_inspect_photos_and_move_the_threshold(browser: Any, address: str) -> None:
    with looking(browser, address, viewport={"width": 1280, "height": 800}) as tab:
        page = tab.page
        inspect(page, [*PAINTED[:3], *SOUND[:2]])
        assert page.locator("#shots .shot.anomalous").count() == 3
        assert page.locator("#shots .shot.normal").count() == 2
        expect(page.locator("#why")).to_contain_text("stand")
        expect(page.locator(".regions button").first).to_contain_text("px")
        page.locator(".regions button").first.click()
        expect(page.locator(".frame .box").first).to_be_visible()
        for layer in (".photo", ".heat", ".outline"):
            expect(page.locator(layer)).to_have_js_property("complete", True)
            assert page.locator(layer).evaluate("image => image.naturalWidth") > 0

        page.locator("[data-mix]").fill("0")
        assert page.locator(".heat").evaluate("image => getComputedStyle(image).opacity") == "0"
        page.locator("[data-outline]").uncheck()
        expect(page.locator(".outline")).to_be_hidden()

        page.locator("[data-threshold-number]").fill("1000")
        page.keyboard.press("Tab")
        expect(page.locator("#shots .shot.normal")).to_have_count(5)
        expect(page.locator("#moved")).to_contain_text("With the threshold of the service it is called anomalous")
        assert page.locator(".histogram .over").count() == 0
        page.locator("[data-reset]").click()
        expect(page.locator("#shots .shot.anomalous")).to_have_count(3)


def test_a_file_that_is_no_image_is_named_with_the_reason(browser: Any, address: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image at all")
    with looking(browser, address, refused=422) as tab:
        page = tab.page
        page.goto("/")
        page.set_input_files("#files", [SOUND[0], broken])
        expect(page.locator("#shots .shot.failed")).to_have_count(1)
        expect(page.locator("#shots .shot.normal")).to_have_count(1)
        page.locator("#shots .shot.failed").click()
        expect(page.locator("#why")).to_contain_text("broken.jpg")


def test_photos_wait_while_the_service_cannot_be_reached(browser: Any, address: str) -> None:
    with looking(browser, address, refused="ERR_FAILED") as tab:
        page = tab.page
        page.goto("/")
        page.route("**/api/v1/inspections", lambda route: route.abort())
        page.set_input_files("#files", SOUND[:2])
        expect(page.locator("#away")).to_contain_text("The service cannot be reached.")
        assert page.locator("#shots .label.waiting").count() == 2
        page.unroute("**/api/v1/inspections")
        expect(page.locator("#shots .shot.normal")).to_have_count(2)
        expect(page.locator("#away")).to_be_hidden()


def test_a_file_that_is_too_large_is_not_sent(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path, max_bytes=20_000) as address, looking(browser, address) as tab:
        page = tab.page
        page.goto("/")
        page.on("request", lambda request: request.method == "GET" or pytest.fail("it was sent"))
        page.set_input_files("#files", PAINTED[:1])
        expect(page.locator("#why")).to_contain_text("above the limit of 0.02 MB an image")


def test_what_was_inspected_is_there_again_after_the_back_button_and_a_reload(browser: Any, address: str) -> None:
    with looking(browser, address) as tab:
        page = tab.page
        inspect(page, [PAINTED[0], SOUND[0], PAINTED[1]])
        page.click("#detail")
        expect(page.locator("h1")).to_have_text(PAINTED[0].name)
        page.go_back()
        expect(page.locator("#shots .shot.anomalous")).to_have_count(2)
        page.reload()
        expect(page.locator("#shots .shot.anomalous")).to_have_count(2)
        page.select_option("#order", "worst")
        expect(page.locator("#shots .shot").last).to_contain_text(SOUND[0].name)
        page.get_by_role("button", name="Start anew").click()
        expect(page.get_by_text("Inspected last")).to_be_visible()
        assert page.locator("#shots li").count() == 0


def test_a_picture_is_enlarged_and_moved(browser: Any, address: str) -> None:
    with looking(browser, address, viewport={"width": 1280, "height": 800}) as tab:
        page = tab.page
        inspect(page, [PAINTED[0]])
        frame, stage = page.locator(".frame"), page.locator(".stage")
        before = frame.bounding_box()["width"]
        for _ in range(2):
            page.get_by_role("button", name="larger").click()
        assert frame.bounding_box()["width"] == pytest.approx(4 * before, abs=4)
        stage.focus()
        at = stage.evaluate("stage => stage.scrollLeft")
        page.keyboard.press("ArrowRight")
        page.wait_for_function("at => document.querySelector('.stage').scrollLeft > at", arg=at)
        box = stage.bounding_box()
        page.mouse.move(box["x"] + 200, box["y"] + 200)
        page.mouse.down()
        page.mouse.move(box["x"] + 300, box["y"] + 200)
        page.mouse.up()
        assert stage.evaluate("stage => stage.scrollLeft") < at
        assert tab.serious_findings() == []
        page.locator(".stage").dblclick()
        assert frame.bounding_box()["width"] == pytest.approx(before, abs=1)


def test_a_photo_that_is_unlike_the_others_is_named(browser: Any, tmp_path: Path) -> None:
    stripes = tmp_path / "stripes.png"
    Image.fromarray(np.indices((300, 300, 3)).sum(0).astype(np.uint8) // 32 % 2 * 255).save(stripes)
    with serving(tmp_path) as address, looking(browser, address) as tab:
        page = tab.page
        page.goto("/teach")
        page.set_input_files("#files", [*GOOD, stripes])
        page.fill("#name", "nut")
        page.click("#learn")
        expect(page.locator("#odd")).to_contain_text("Unlike the other photos: stripes.png.")
        expect(page.locator("#photos li").first).to_contain_text("unlike the others")
        expect(page.locator(".strip .dot.odd")).to_have_count(1)
        page.locator("#photos input").first.uncheck()
        page.click("#learn")
        expect(page.locator("#odd")).to_be_hidden()
        expect(page.locator("#promise")).to_contain_text("4 good photos")
        # Only what was learned last is kept.
        (recipe,) = httpx.get(f"{address}/api/v1/recipes").json()["recipes"]
        assert [len(version["photos"]) for version in recipe["versions"]] == [4]


def test_photos_that_cannot_be_learned_from_are_named_before(browser: Any, address: str, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"no image at all")
    with looking(browser, address) as tab:
        page = tab.page
        page.goto("/teach")
        page.set_input_files("#files", [*GOOD, film])
        expect(page.locator("#count")).to_contain_text(f"{len(GOOD)} of {len(GOOD) + 1} photos are used")
        expect(page.locator("#photos li", has_text="film.mp4")).to_contain_text("not an image")
        page.set_input_files("#files", [GOOD[0]])
        expect(page.locator("#said")).to_have_text("1 of these photos was here already.")
        expect(page.locator("#photos li")).to_have_count(len(GOOD) + 1)
        page.locator(".drop").evaluate("drop => (drop.dataset.mostBytes = 1000)")
        page.fill("#name", "too much")
        page.click("#learn")
        expect(page.locator("#said")).to_contain_text("a lesson takes 0.00 MB")


def test_many_photos_are_dropped_at_once(browser: Any, address: str) -> None:
    with looking(browser, address) as tab:
        page = tab.page
        page.goto("/")
        page.evaluate(
            """async () => {
              const carried = new DataTransfer();
              const pen = Object.assign(document.createElement("canvas"), { width: 64, height: 64 }).getContext("2d");
              for (let number = 0; number < 30; number += 1) {
                for (let line = 0; line < 64; line += 1) {
                  pen.fillStyle = `hsl(${(number * 17 + line * 31) % 360} 50% 50%)`;
                  pen.fillRect(0, line, 64, 1);
                }
                const content = await new Promise((resolve) => pen.canvas.toBlob(resolve));
                carried.items.add(new File([content], `${number}.png`));
              }
              document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true }));
            }"""
        )
        expect(page.locator("#shots li")).to_have_count(30)
        expect(page.locator("#shots .label.waiting")).to_have_count(0, timeout=60_000)
        expect(page.locator("#said")).to_have_text("30 of 30 images answered")
        expect(page.locator("#shots .shot.failed")).to_have_count(0)


def test_times_are_those_of_the_browser_and_filters_agree_with_them(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path) as address:
        upload(address, SOUND[:2])
        store = sqlite3.connect(tmp_path / "history.db")
        # Half an hour before midnight in UTC, and half an hour after the midnight in Tokyo, nine hours earlier.
        for time, place in (("2026-03-10 23:30:00", 0), ("2026-03-10 15:30:00", 1)):
            store.execute("UPDATE inspections SET created = ? WHERE name = ?", (time, SOUND[place].name))
        store.commit()
        store.close()
        zones = {
            "Asia/Tokyo": ("2026-03-11 08:30", "2026-03-11 00:30"),
            "America/New_York": ("2026-03-10 19:30", "2026-03-10 11:30"),
        }
        for zone, times in zones.items():
            with looking(browser, address, timezone_id=zone) as tab:
                page = tab.page
                page.goto("/history")
                expect(page.locator("td.when")).to_have_text(times)
                expect(page.locator("time").first).to_have_attribute("title", "2026-03-10 23:30 UTC")
                day = times[0][:10]
                before = f"2026-03-{int(day[-2:]) - 1:02}"
                page.get_by_text("Time and score").click()
                for first, last, count in ((before, before, 0), (day, day, 2)):
                    page.get_by_label("from", exact=True).fill(first)
                    page.get_by_label("until", exact=True).fill(last)
                    page.get_by_role("button", name="Show").click()
                    expect(page.locator("td.when")).to_have_count(count)
                    # The days stay as they were asked for, and go into the downloads.
                    expect(page.locator("input[name=since]")).to_have_value(first)
                    expect(page.locator("input[name=until]")).to_have_value(last)
                with page.expect_download() as download:
                    page.get_by_role("link", name="CSV").click()
                rows = csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8-sig")))
                assert [row["created"] for row in rows] == ["2026-03-10T15:30:00+00:00", "2026-03-10T23:30:00+00:00"]


def test_charts_show_times_of_the_browser(browser: Any, address: str) -> None:
    with looking(browser, address, timezone_id="Asia/Kolkata") as tab:
        page = tab.page
        page.goto("/watch")
        shown = page.locator(".chart [data-time], .chart time").evaluate_all(
            "all => all.map((place) => [place.dataset.time ?? place.dateTime, place.textContent])"
        )
        assert len(shown) >= 4
        for begin, words in shown:
            local = datetime.fromisoformat(begin).astimezone(timezone(timedelta(hours=5, minutes=30)))
            assert words == f"{local:%Y-%m-%d %H:%M}"


def test_without_scripts_times_are_utc(browser: Any, address: str) -> None:
    with looking(browser, address, java_script_enabled=False, timezone_id="Asia/Tokyo") as tab:
        page = tab.page
        page.goto("/history?since=2026-01-01")
        expect(page.locator("td.when").first).to_contain_text("UTC")
        expect(page.get_by_label("from, UTC")).to_have_value("2026-01-01")


def test_watch_renews_itself(browser: Any, address: str) -> None:
    with looking(browser, address) as tab:
        tab.page.clock.install()
        tab.page.goto("/watch")
        images = tab.page.locator(".tiles dd").first
        count = int(images.inner_text())
        upload(address, SOUND[5:6])
        # Who walks by keys stays where they are.
        link = tab.page.get_by_role("link", name="its images").first
        link.focus()
        tab.page.clock.fast_forward(31_000)
        expect(images).to_have_text(str(count + 1))
        expect(link).to_be_focused()


def test_watch_is_used_by_keys_alone(browser: Any, address: str) -> None:
    with looking(browser, address, viewport={"width": 1280, "height": 800}) as tab:
        page = tab.page
        page.goto("/watch")
        for name, arrives in (("a day", "/watch?span=day"), ("its images", "/history?recipe=hazelnut")):
            for _ in range(30):
                page.keyboard.press("Tab")
                if page.locator(":focus").inner_text() == name:
                    break
            page.keyboard.press("Enter")
            expect(page).to_have_url(address + arrives)


def test_review_by_keys_undo_filter_and_export(browser: Any, address: str) -> None:
    with looking(browser, address, viewport={"width": 1280, "height": 800}) as tab:
        page = tab.page
        page.goto("/history?sort=worst&recipe=hazelnut")
        scores = [float(text) for text in page.locator("tbody tr td:nth-child(4)").all_inner_texts()]
        assert scores == sorted(scores, reverse=True)
        page.keyboard.press("j")
        page.keyboard.press("r")
        expect(page.locator("tbody tr").nth(0)).to_contain_text("right")
        page.keyboard.press("f")
        expect(page.locator("tbody tr").nth(1)).to_contain_text("false alarm")
        page.keyboard.press("u")
        expect(page.locator("tbody tr").nth(1)).to_contain_text("not reviewed")

        page.keyboard.press("k")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="right")).to_have_attribute("aria-pressed", "true")
        page.fill("#comment", HOSTILE)
        page.get_by_role("button", name="missed").click()
        expect(page.get_by_role("button", name="missed")).to_have_attribute("aria-pressed", "true")
        page.reload()
        expect(page.locator("#comment")).to_have_value(HOSTILE)
        page.get_by_role("button", name="undo").click()
        expect(page.get_by_role("button", name="right")).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("j")
        expect(page.locator("#previous")).to_be_visible()

        page.goto("/history?review=right")
        expect(page.locator("tbody tr")).to_have_count(1)
        with page.expect_download() as download:
            page.get_by_role("link", name="CSV").click()
        rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8-sig"))))
        assert [row["verdict"] for row in rows] == ["right"]


def test_names_and_comments_stay_text(browser: Any, address: str) -> None:
    files = [("images", (HOSTILE, SOUND[3].read_bytes()))]
    answer = httpx.post(f"{address}/api/v1/inspections", files=files, data={"wait": "true"}, timeout=60).json()
    inspection = answer["inspections"][0]
    review = {"verdict": "right", "comment": f"</textarea>{HOSTILE}"}
    httpx.post(f"{address}/api/v1/inspections/{inspection['id']}/review", json=review).raise_for_status()
    with looking(browser, address) as tab:
        page = tab.page
        page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
        for path in (*PAGES, f"/history/{inspection['id']}"):
            page.goto(path)
            assert page.locator("img[onerror]").count() == 0
        expect(page.locator("h1")).to_have_text(inspection["name"])
        expect(page.locator("#comment")).to_have_value(review["comment"])


def test_a_request_without_the_token_of_the_page_is_refused(browser: Any, address: str) -> None:
    with looking(browser, address, refused=403) as tab:
        page = tab.page
        page.goto("/history")
        first = page.locator("[data-inspection]").first.get_attribute("data-inspection")
        send = f"fetch('/api/v1/inspections/{first}', {{method: 'DELETE', headers: HEADERS}}).then((a) => a.status)"
        assert page.evaluate(send.replace("HEADERS", "{}")) == 403
        assert page.evaluate(send.replace("HEADERS", "{'X-CSRF-Token': 'guess'}")) == 403
    assert httpx.get(f"{address}/api/v1/inspections/{first}").status_code == 200


def test_all_by_keyboard(browser: Any, address: str) -> None:
    with looking(browser, address, viewport={"width": 1280, "height": 800}) as tab:
        page = tab.page
        # The browser is told early to hand over what asks for files: it may be slower than the keys.
        page.on("filechooser", lambda _: None)
        page.goto("/")
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("to the content")
        page.keyboard.press("Enter")
        for _ in range(2):
            page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("Choose photos")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files([PAINTED[0], SOUND[0]])
        expect(page.locator("#shots .label.waiting")).to_have_count(0, timeout=60_000)
        page.locator("#shots .shot").first.focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#name")).to_have_text(SOUND[0].name)
        page.locator("[data-threshold]").focus()
        page.keyboard.press("Home")
        expect(page.locator("#shots .shot.anomalous")).to_have_count(2)

        page.goto("/teach")
        page.set_input_files("#files", GOOD[:1])
        for edge, value in (("left", "10"), ("top", "20"), ("width", "50"), ("height", "60")):
            page.locator(f"[data-edge={edge}]").focus()
            page.keyboard.type(value)
        page.keyboard.press("Tab")
        expect(page.locator(".roi .area")).to_have_attribute("style", "left: 10%; top: 20%; width: 50%; height: 60%;")


CONTROLS = """() => {
  const kinds = "a[href], button:enabled, input:enabled:not([type=hidden]), select, textarea, summary, [tabindex='0']";
  window.controls = [...document.querySelectorAll(kinds)].filter((control) => control.checkVisibility());
  return controls.map((control) => control.outerHTML.slice(0, 120));
}"""
# Number of the control that has the keys, -1 for another place, and whether a frame around it can be seen.
FOCUSED = """() => {
  const place = document.activeElement, style = getComputedStyle(place), box = place.getBoundingClientRect();
  const framed = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  const within = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  return [controls.indexOf(place), framed && within];
}"""


def walk_by_tab(page: Any) -> None:
    """Press Tab until the first control has the keys again; fails for one that is not reached or shows no frame."""
    controls = page.evaluate(CONTROLS)
    reached: list[int] = []
    # A field for a day has several places where the keys stop.
    for _ in range(3 * len(controls) + 20):
        page.keyboard.press("Tab")
        number, seen = page.evaluate(FOCUSED)
        if number == 0 and reached:
            break
        if number >= 0:
            assert seen, f"no frame around {controls[number]}"
            reached.append(number)
    else:
        pytest.fail(f"the keys do not come back to the beginning of {page.url}")
    missed = [control for number, control in enumerate(controls) if number not in reached]
    assert not missed, f"{page.url}: the keys do not reach {missed}"
    assert reached == sorted(reached), "the order of the keys is that of the page"


@pytest.mark.parametrize("path", [*PAGES, "/history?since=2026-01-01", "detail"])
def test_every_control_is_reached_by_keys_and_shows_that_it_has_them(browser: Any, address: str, path: str) -> None:
    if path == "detail":
        path = f"/history/{httpx.get(f'{address}/api/v1/inspections?limit=1').json()['inspections'][0]['id']}"
    with looking(browser, address, viewport={"width": 1280, "height": 800}) as tab:
        tab.page.goto(path)
        if path == "/teach":
            tab.page.set_input_files("#files", GOOD[:2])
            expect(tab.page.locator("#photos li")).to_have_count(2)
        if path == "/":
            inspect(tab.page, [PAINTED[0], SOUND[0]])
            tab.page.evaluate("scrollTo(0, 0)")
        walk_by_tab(tab.page)


@pytest.mark.parametrize(("width", "scheme"), [(375, "dark"), (1280, "light"), (3840, "dark")])
def test_every_page_fits_and_can_be_used_by_everybody(browser: Any, address: str, width: int, scheme: str) -> None:
    first = httpx.get(f"{address}/api/v1/inspections?sort=worst&limit=1").json()["inspections"][0]["id"]
    window = {"width": width, "height": width * 5 // 8}
    with looking(browser, address, color_scheme=scheme, viewport=window) as tab:
        for path in (*PAGES, f"/history/{first}"):
            tab.page.goto(path)
            assert not tab.sticks_out(), f"{path} sticks out sideways"
            # The rules speak of what is in a page, so that one wide window stands for all.
            if width < 2000:
                assert tab.serious_findings() == [], path
        ground = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(246, 247, 249)", "dark": "rgb(18, 22, 28)"}[scheme]


def test_on_a_phone_the_camera_can_be_used(browser: Any, address: str) -> None:
    phone: dict[str, Any] = {"viewport": {"width": 375, "height": 812}, "has_touch": True, "is_mobile": True}
    with looking(browser, address, **phone) as tab:
        page = tab.page
        inspect(page, [PAINTED[0]])
        expect(page.get_by_role("button", name="Take a photo")).to_be_visible()
        assert page.locator("#files-camera").get_attribute("capture") == "environment"
        answer, picture = page.locator(".answer").bounding_box(), page.locator(".viewer").bounding_box()
        assert answer is not None
        assert picture is not None
        assert answer["y"] > picture["y"]
        assert tab.serious_findings() == []


def test_on_a_phone_decisions_come_before_numbers_and_downloads(browser: Any, address: str) -> None:
    worst = f"{address}/api/v1/inspections?sort=worst&label=anomalous&limit=1"
    first = httpx.get(worst).json()["inspections"][0]["id"]
    phone: dict[str, Any] = {"viewport": {"width": 375, "height": 812}, "has_touch": True, "is_mobile": True}
    with looking(browser, address, **phone) as tab:
        page = tab.page
        page.goto(f"/history/{first}")
        parts = [".viewer", ".answer", ".verdicts", ".regions", ".facts", "[download]", "[data-delete]"]
        tops = [page.locator(part).first.bounding_box()["y"] for part in parts]
        assert tops == sorted(tops)
        # Readers of the screen hear of them in the same order.
        follows = "([a, b]) => document.querySelector(a).compareDocumentPosition(document.querySelector(b)) & 4"
        for pair in pairwise(parts):
            assert page.evaluate(follows, list(pair)), pair
        expect(page.locator("kbd").first).to_be_hidden()
        page.goto("/history")
        name = page.locator("tbody tr").first.locator("a").bounding_box()
        assert 0 < name["x"] < name["x"] + name["width"] <= 375


def test_an_image_that_was_not_read_has_a_page_without_tools(browser: Any, address: str, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(SOUND[0].read_bytes()[:9000])
    inspection = upload(address, [cut])[0]
    with looking(browser, address) as tab:
        page = tab.page
        page.goto(f"/history/{inspection['id']}")
        expect(page.locator(".why")).to_contain_text("cut.jpg")
        expect(page.locator(".tools")).to_be_hidden()
        page.keyboard.press("r")
        assert page.locator("[data-verdict]").count() == 0
        assert tab.serious_findings() == []
    assert httpx.get(f"{address}{inspection['links']['self']}").json()["review"] is None


def test_sign_in_with_the_token(browser: Any, tmp_path: Path) -> None:
    token = "a token of more than sixteen characters".replace(" ", "-")
    with serving(tmp_path, token=token) as address, looking(browser, address) as tab:
        page = tab.page
        page.goto("/history")
        expect(page).to_have_url(f"{address}/login")
        assert tab.serious_findings() == []
        page.fill("input[name=token]", token)
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{address}/")
        page.goto("/history")
        expect(page.get_by_text("Nothing was inspected yet")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page).to_have_url(f"{address}/login")
        page.goto("/watch")
        expect(page).to_have_url(f"{address}/login")
