"""What people found wrong with the page: names and contrast, sizes, what is cut, what cannot be undone."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser

from studio_page import LAPTOP, PHONE, STUDIO, Visit, chromium, needs_browser
from studio_process import StudioProcess, until
from tiny import small_bundled

pytestmark = needs_browser
FOUND = importlib.util.find_spec("axe_playwright_python")
FINGER = 36  # pixels


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    options = ("--port", "0", "--backbone", str(small_bundled()))
    with StudioProcess(tmp_path_factory.mktemp("studio"), STUDIO, *options) as process:
        yield process


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def visit(browser: Browser, studio: StudioProcess) -> Iterator[Visit]:
    made = Visit(browser.new_context(viewport=LAPTOP), studio.url)
    yield made
    assert made.errors == [] and made.outside == []
    made.page.context.close()


def drawn(visit: Visit) -> None:
    """A photo with a box that moves."""
    visit.photo()
    visit.drag((20, 20), (50, 44))
    visit.drag((35, 32), (85, 32))


def made(visit: Visit) -> str:
    """A result of one step, beside the plan; its id."""
    visit.page.click("#tab-settings")
    visit.page.select_option("#set-controller", "none")
    visit.page.fill("#simple-set-sampling-num_steps", "1")
    visit.page.press("#simple-set-sampling-num_steps", "Tab")
    visit.page.click("#generate")
    visit.wait("s.ui.shown.length === 1 && s.jobs.find((job) => job.id === s.ui.shown[0])?.state === 'done'")
    visit.settle()
    return str(visit.state()["ui"]["shown"][0])


def box(visit: Visit, selector: str) -> dict[str, float]:
    found = visit.page.locator(selector).first.bounding_box()
    assert found is not None, selector
    return {"x": found["x"], "y": found["y"], "width": found["width"], "height": found["height"]}


@pytest.mark.skipif(FOUND is None, reason="axe-playwright-python is not installed: axe is NOT asked")
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_axe_finds_nothing(browser: Browser, studio: StudioProcess, theme: Literal["dark", "light"]) -> None:
    assert FOUND is not None and FOUND.origin is not None
    source = (Path(FOUND.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    context = browser.new_context(viewport=LAPTOP, color_scheme=theme)
    visit = Visit(context, studio.url)
    visit.page.evaluate(source)

    def ask(where: str) -> None:
        visit.settle()
        found = visit.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        told = [(one["id"], [node["target"] for node in one["nodes"]]) for one in found]
        assert told == [], where

    ask("an empty page")
    drawn(visit)
    visit.page.click("#all-settings summary")
    ask("all settings")
    visit.page.hover("#generate")
    ask("a press that may come")
    for panel in ("camera", "results"):
        visit.page.click(f"#tab-{panel}")
        ask(panel)
    for name in ("compare", "help"):
        visit.page.click(f"#{name}")
        ask(name)
        visit.press("Escape")
    made(visit)
    visit.page.click("#tab-results")
    ask("a result")
    visit.open(("x.xyz", b"x"))
    visit.page.wait_for_selector(".toast.error")
    ask("a message")
    visit.page.set_viewport_size(PHONE)
    for panel in ("objects", "settings", "camera", "results"):
        visit.page.click(f"#tab-{panel}")
        ask(f"a phone: {panel}")
    context.close()


def test_a_laptop_shows_what_it_should(visit: Visit) -> None:
    page = visit.page
    drawn(visit)
    for left in (5, 30, 55, 80):
        visit.press("b")
        visit.drag((left, 55), (left + 15, 70))
    rows = page.locator("#object-list .object")
    inside = "one.offsetTop - list.offsetTop + one.offsetHeight <= list.clientHeight + 1"
    seen = f"(list) => [...list.children].filter((one) => {inside}).length"
    assert rows.count() == 5 and page.locator("#object-list").evaluate(seen) == 5
    assert page.locator("#object-detail").evaluate("(one) => one.clientHeight") > 150
    page.click("#zoom-in")
    visit.settle()
    label = page.inner_text("#zoom-fit")
    a, b = visit.at(0, 0), visit.at(100, 0)
    assert label == f"{round(b[0] - a[0])} %"
    page.click("#zoom-fit")
    visit.settle()
    assert page.inner_text("#zoom-fit") != label
    page.click("#compare")
    visit.settle()
    dialog = box(visit, "#dialog")
    for one in page.locator("#dialog .checks .check").all():
        place = one.bounding_box()
        assert place is not None and place["y"] + place["height"] <= dialog["y"] + dialog["height"], one.inner_text()
    assert page.locator("#dialog .checks .check").count() >= 7
    visit.press("Escape")


def test_beside_the_plan_a_result_is_zoomed_with_it_and_named_whole(visit: Visit) -> None:
    page = visit.page
    drawn(visit)
    made(visit)

    def shown() -> list[float]:
        return list(json.loads(page.locator(".tile canvas").get_attribute("data-shown") or ""))

    before, width = shown(), visit.at(120, 0)[0] - visit.at(0, 0)[0]
    page.click("#zoom-in")
    page.click("#zoom-in")
    visit.settle()
    after, wider = shown(), visit.at(120, 0)[0] - visit.at(0, 0)[0]
    assert after[2] / before[2] == pytest.approx(wider / width, rel=0.02) and wider > 1.4 * width

    def middle(left: float, pane: dict[str, float], wide: float) -> float:
        """The share of the picture that is in a pane's middle."""
        return (pane["width"] / 2 - left) / wide

    page.mouse.move(*visit.at(60, 40))
    page.mouse.wheel(0, -200)
    visit.settle()
    plan, tile = box(visit, "#plan"), box(visit, ".tile canvas")
    x, _, wide, _ = shown()
    wider = visit.at(120, 0)[0] - visit.at(0, 0)[0]
    assert middle(x, tile, wide) == pytest.approx(middle(visit.at(0, 0)[0] - plan["x"], plan, wider), abs=0.02)
    page.hover(".tile canvas")
    page.mouse.wheel(0, -200)
    visit.settle()
    assert shown()[2] > wide
    title = page.locator(".tile strong")
    assert title.inner_text() == "none · seed 817"
    for size in (LAPTOP, {"width": 1100, "height": 700}, PHONE):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        visit.settle()
        assert title.evaluate("(one) => one.scrollWidth <= one.clientWidth && one.scrollHeight <= one.clientHeight + 2")


def test_a_phone_has_keys_for_a_finger_and_free_buttons(browser: Browser, studio: StudioProcess) -> None:
    context = browser.new_context(viewport=PHONE, has_touch=True)
    visit = Visit(context, studio.url)
    drawn(visit)
    for key in visit.page.locator("#rows .key").all():
        place = key.bounding_box()
        assert place is not None and min(place["width"], place["height"]) >= FINGER
    for size in (PHONE, {"width": 360, "height": 640}, {"width": 1024, "height": 700}):
        visit.page.set_viewport_size(size)  # type: ignore[arg-type]
        visit.open(("x.xyz", b"x"))
        visit.page.wait_for_selector(".toast.error")
        visit.page.wait_for_timeout(300)
        toast = box(visit, ".toast.error")
        for button in visit.page.locator("#modes button, .bar .button").all():
            place = button.bounding_box()
            if place is not None:
                apart = place["y"] + place["height"] <= toast["y"] or toast["y"] + toast["height"] <= place["y"]
                assert apart, button.get_attribute("aria-label")
        visit.page.click(".toast.error button")
    assert visit.errors == []
    context.close()


def test_deleting_a_result_can_be_undone(visit: Visit, studio: StudioProcess) -> None:
    page = visit.page
    drawn(visit)
    job_id = made(visit)
    page.click("#tab-results")

    def delete() -> None:
        page.click(f"[data-focus='delete-{job_id}']")
        page.wait_for_selector(".tile strong:text-is('Deleted')")
        assert page.locator(f"[data-job='{job_id}']").count() == 0

    delete()
    assert studio.http.get(f"/api/jobs/{job_id}").status_code == 200
    page.click(".toast button:has-text('Undo')")
    page.wait_for_selector(f"[data-job='{job_id}']")
    assert page.inner_text(".tile strong") == "none · seed 817"
    page.wait_for_timeout(200)
    delete()
    page.reload()  # as the page goes
    visit.ready()
    until(lambda: studio.http.get(f"/api/jobs/{job_id}").status_code == 404)
    visit.errors[:] = [error for error in visit.errors if "404" not in error]  # the page asks for what it showed


def test_a_camera_that_leaves_the_frame_is_warned_of(visit: Visit) -> None:
    page = visit.page
    visit.photo()
    page.click("#tab-camera")
    page.click("[data-preset='pan-right']")
    visit.wait("s.scene.motions.some((one) => one.kind === 'camera')")
    strength = page.locator("#camera-strength")

    def set_to(value: str) -> Any:
        before = visit.motions()
        strength.fill(value)
        visit.wait(f"JSON.stringify(s.scene.motions) !== {json.dumps(json.dumps(before, separators=(',', ':')))}")
        visit.settle()
        request = {"scene": visit.state()["scene"], "controller": {"name": "none"}}
        return page.request.post(f"{visit.url}/api/plan", data=request).json()

    plan = set_to("0.08")
    assert not any(motion["leaves_frame"] for motion in plan["motions"])
    assert "leave" not in page.inner_text("#camera-note")
    plan = set_to("1")
    out = sum(motion["leaves_frame"] for motion in plan["motions"])
    assert out > 0 and f"{out} of them leave the frame" in page.inner_text("#camera-note")
    assert any("leave the frame" in warning for warning in plan["warnings"])
    page.wait_for_selector("#verdict:has-text('leave the frame')", state="attached")
