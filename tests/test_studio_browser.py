"""The studio's page in a real browser, by mouse, finger and keyboard: its state, its files and what it asks for."""

import base64
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext

from sgi2v.scene_io import load_scene, scene_from_dict
from sgi2v.video import load_video, read_run
from studio_page import CHROMIUM, LAPTOP, PHONE, STUDIO, Visit, chromium, needs_browser, png
from studio_process import StudioProcess
from tiny import small_bundled

LONG = 400  # steps: a job that is still running when the test has done with it


def test_ci_has_a_browser() -> None:
    if os.environ.get("CI") == "true":
        assert CHROMIUM, "CI must test the page: apt-get install chromium"
    elif CHROMIUM is None:
        pytest.skip("no Chromium is installed: the page is NOT tested")


def small() -> tuple[str, str]:
    """Options of a studio whose clips are made in a moment."""
    return "--backbone", str(small_bundled())


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    with StudioProcess(tmp_path_factory.mktemp("studio"), STUDIO, "--port", "0", *small()) as process:
        yield process


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport=LAPTOP, accept_downloads=True)
    made.set_default_timeout(30_000)
    yield made
    made.close()


@pytest.fixture
def visit(context: BrowserContext, studio: StudioProcess) -> Iterator[Visit]:
    """A page that must neither complain nor look outside."""
    made = Visit(context, studio.url)
    yield made
    assert made.errors == []
    assert made.outside == []


def example(visit: Visit, name: str) -> None:
    visit.page.click("#examples")
    visit.page.click(f".example:has-text('{name}')")
    visit.wait("s.doc.image !== null && !document.getElementById('dialog').open")
    visit.settle()


def choose_steps(visit: Visit, steps: int, method: str = "none") -> None:
    visit.page.click("#tab-settings")
    visit.page.select_option("#set-controller", method)
    visit.page.fill("#simple-set-sampling-num_steps", str(steps))
    visit.page.press("#simple-set-sampling-num_steps", "Tab")
    visit.wait(f"s.choices.sampling.num_steps === {steps}")


@needs_browser
def test_draw_drag_undo_and_scrub(visit: Visit) -> None:
    visit.photo()
    assert visit.state()["ui"]["tool"] == "box"  # a fresh photo wants a box
    visit.drag((20, 20), (50, 44))
    (box,) = (motion["box"] for motion in visit.motions())
    assert box == pytest.approx({"left": 20, "top": 20, "right": 50, "bottom": 44}, abs=0.5)
    visit.drag((35, 32), (85, 32))  # the path tool is next: from the box to where it should go
    (motion,) = visit.motions()
    assert [key["time"] for key in motion["path"]] == [0, 1]
    assert motion["path"][-1]["x"] - motion["path"][0]["x"] == pytest.approx(50, abs=1)
    visit.drag((25, 24), (30, 34))  # the whole: box and path
    (moved,) = visit.motions()
    assert moved["box"]["left"] == pytest.approx(box["left"] + 5, abs=0.5)
    assert moved["path"][-1]["y"] == pytest.approx(motion["path"][-1]["y"] + 10, abs=0.5)
    visit.press("Control+z")
    assert visit.motions() == [motion]
    visit.press("Control+Shift+Z")
    assert visit.motions() == [moved]
    visit.scrub(4)  # the ghost box at the fifth of eight frames gets a key of its own
    visit.page.locator("#plan").focus()
    time = 4 / 7
    x, y = (moved["path"][0][axis] * (1 - time) + moved["path"][1][axis] * time for axis in "xy")
    visit.drag((x + 9, y), (x + 9, y + 20))
    (keyed,) = visit.motions()
    assert [key["time"] for key in keyed["path"]] == pytest.approx([0, time, 1])
    assert keyed["path"][1]["y"] == pytest.approx(y + 20, abs=1)
    visit.press("ArrowRight", "ArrowRight", "Shift+ArrowUp")
    (nudged,) = visit.motions()
    assert nudged["path"][1]["x"] == pytest.approx(keyed["path"][1]["x"] + 2)
    assert nudged["path"][1]["y"] == pytest.approx(keyed["path"][1]["y"] - 10)
    visit.press("Control+z")  # a run of arrows is one step
    assert visit.motions() == [keyed]
    visit.press("v", "+", "Delete")
    assert visit.motions() == []
    visit.press(*["Control+z"] * 9)
    assert visit.motions() == [] and visit.state()["doc"]["image"] is None  # all the way back
    visit.press(*["Control+Shift+Z"] * 9)
    assert visit.state()["undo"] > 4 and visit.motions() == []
    visit.press("Control+z")
    assert visit.motions() == [keyed]
    scene_from_dict(
        {
            **visit.state()["scene"],
            "image": "data:image/png;base64," + base64.b64encode(png(120, 80)).decode(),
        }
    )


@needs_browser
def test_pins_names_locks_copies_and_masks(visit: Visit) -> None:
    visit.photo()
    visit.press("i")
    visit.page.mouse.click(*visit.at(30, 40))
    visit.page.mouse.click(*visit.at(3, 3))  # a default box is shifted to stay inside
    first, second = visit.motions()
    assert first["box"] == pytest.approx({"left": 26, "top": 36, "right": 34, "bottom": 44}, abs=0.5)
    assert (second["box"]["left"], second["box"]["top"]) == (0, 0)
    assert "path" not in first and "path" not in second
    visit.press("v", "Control+d")
    assert len(visit.motions()) == 3
    visit.page.fill("#field-name", "post")
    visit.page.fill("#field-width", "20")
    visit.page.press("#field-width", "Tab")
    assert visit.motions()[2]["name"] == "post"
    assert visit.motions()[2]["box"]["right"] - visit.motions()[2]["box"]["left"] == 20
    visit.page.click("button[aria-label='Lock post']")
    visit.page.locator("#plan").focus()
    visit.press("Delete", "ArrowLeft")
    assert [motion.get("name", "") for motion in visit.motions()] == ["", "", "post"]
    visit.page.click("button[aria-label='Unlock post']")
    visit.page.locator("#plan").focus()
    visit.press("m")
    visit.drag((10, 10), (40, 10))
    visit.wait("s.scene.motions[2].mask?.startsWith('upload:')")
    brushed = visit.motions()[2]["mask"]
    visit.press("g")
    for point in ((50, 30), (90, 30), (70, 70)):
        visit.page.mouse.click(*visit.at(*point))
    visit.press("Enter")
    visit.wait(f"s.scene.motions[2].mask !== '{brushed}'")
    answer = visit.page.request.get(f"{visit.url}/api/images/{visit.motions()[2]['mask'].removeprefix('upload:')}")
    mask = Image.open(io.BytesIO(answer.body())).convert("L")
    assert mask.size == (120, 80)
    inside, brush, outside = mask.getpixel((70, 45)), mask.getpixel((25, 10)), mask.getpixel((110, 70))
    assert (inside, brush, outside) == (255, 255, 0)
    visit.press("Control+z")
    assert visit.motions()[2]["mask"] == brushed


@needs_browser
def test_what_is_being_typed_is_not_lost_when_the_fields_are_drawn_anew(visit: Visit) -> None:
    visit.photo()
    visit.drag((20, 20), (50, 44))

    def box() -> dict[str, float]:
        (motion,) = visit.motions()
        return dict(motion["box"])

    def told(name: str) -> None:  # the panel has something new to show
        change = "const name = document.getElementById('field-name'); name.value = '%s'; "
        visit.page.evaluate(f"{{ {change % name} name.dispatchEvent(new Event('input', {{ bubbles: true }})); }}")
        visit.settle()

    visit.page.focus("#field-left")
    visit.page.keyboard.press("Control+A")
    visit.page.keyboard.type("30")
    visit.press("Tab")  # the box is another, so all fields are drawn anew under the keyboard
    visit.page.keyboard.type("12")
    visit.press("Tab")
    assert (box()["left"], box()["top"]) == (30, 12)
    visit.page.focus("#field-width")
    told("post")
    visit.page.keyboard.type("2")
    told("mast")
    visit.page.keyboard.type("0")
    visit.press("Tab")
    assert box()["right"] - box()["left"] == 20
    assert visit.page.input_value("#field-width") == "20"
    assert visit.page.input_value("#field-name") == "mast"
    visit.page.focus("#field-left")
    visit.page.keyboard.type("999")
    visit.press("Enter")  # what is entered is told at once, as it was understood
    assert visit.page.input_value("#field-left") == str(box()["right"] - 2).removesuffix(".0")


@needs_browser
def test_camera_presets_become_boxes(visit: Visit) -> None:
    example(visit, "rocket")
    before = visit.motions()
    visit.page.click("#tab-camera")
    visit.page.click("[data-preset='zoom-in']")
    visit.wait("s.scene.motions.some((one) => one.kind === 'camera')")
    camera = [motion for motion in visit.motions() if motion["kind"] == "camera"]
    few = json.dumps(json.dumps(camera, separators=(",", ":")))
    visit.page.click("[data-preset='pan-right']")
    visit.wait(f"JSON.stringify(s.scene.motions.filter((one) => one.kind === 'camera')) !== {few}")
    camera = [motion for motion in visit.motions() if motion["kind"] == "camera"]
    assert camera and all(motion["path"][-1]["scale"] > 1.1 for motion in camera)
    assert [motion for motion in visit.motions() if motion["kind"] == "object"] == before
    visit.page.click("[data-focus='find-outline']")
    visit.wait("s.scene.motions[0].mask?.startsWith('upload:')")
    visit.press(*["Control+z"] * 3)
    assert visit.motions() == before


@needs_browser
def test_a_click_on_a_thing_cuts_it_out(visit: Visit) -> None:
    """A box and a mask of its own; in a chosen box, a mask for that one; on nothing, a word and no box."""
    pixels = np.full((80, 120, 3), 225, dtype=np.uint8)
    pixels[30:60, 40:80] = (30, 60, 190)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    visit.open(("thing.png", file.getvalue()))
    visit.wait("s.doc.image?.width === 120")
    visit.settle()
    visit.press("c")
    visit.page.mouse.click(*visit.at(60, 45))
    visit.wait("s.doc.motions.length === 1")
    (found,) = visit.motions()
    box = found["box"]
    assert abs(box["left"] - 40) < 4 and abs(box["right"] - 80) < 4 and abs(box["top"] - 30) < 4
    assert found["mask"].startswith("upload:") and visit.state()["ui"]["tool"] == "path"
    visit.press("Control+z")
    visit.wait("s.doc.motions.length === 0")  # one step back
    visit.press("b")
    visit.drag((30, 22), (92, 70))
    drawn = visit.motions()[0]["box"]
    visit.press("c")
    visit.page.mouse.click(*visit.at(60, 45))
    visit.wait("s.doc.motions[0].mask !== null")
    (masked,) = visit.motions()
    assert masked["box"] == drawn
    visit.page.mouse.click(*visit.at(8, 8))
    assert "nothing stands out" in visit.message() and len(visit.motions()) == 1
    assert "422" in visit.errors.pop()


@needs_browser
def test_what_is_too_fast_is_said_where_it_is(visit: Visit) -> None:
    example(visit, "rocket")
    assert visit.page.locator(".fast, .warning, #speed-note.warned").count() == 0
    visit.page.fill("[aria-label='y of key 2']", "-400")
    visit.page.press("[aria-label='y of key 2']", "Tab")
    visit.settle()
    request = {"scene": visit.state()["scene"], "sampling": {"seed": 1}}
    plan = visit.page.request.post(f"{visit.url}/api/plan", data=request).json()
    assert [motion["too_fast"] for motion in plan["motions"]] == [True, False, False]
    too_fast = [speed > plan["max_speed"] for speed in plan["motions"][0]["speeds"]]
    assert 0 < sum(too_fast) < len(too_fast)  # it starts slowly
    assert visit.page.locator(".lane-row.chosen .fast").count() == sum(too_fast)
    assert visit.page.locator("#speed-note.warned").count() == visit.page.locator(".object .warning").count() == 1


@needs_browser
@pytest.mark.long
def test_generate_watch_and_open_the_video_again(visit: Visit, tmp_path: Path) -> None:
    example(visit, "rocket")
    choose_steps(visit, 3, "sg-i2v")
    look = "document.querySelector('.tile-state')?.textContent, document.querySelector('.job.running img')?.src"
    visit.page.evaluate(f"window.seen = []; setInterval(() => seen.push({look}), 40)")
    visit.page.click("#generate")
    visit.wait("s.jobs[0]?.state === 'done'")
    seen = " | ".join(filter(None, visit.page.evaluate("seen")))
    assert re.search(r"Step \d of 3 · iteration \d of \d", seen) and re.search(r"loss [\d.e-]+", seen)
    assert "/preview.png?v=" in seen  # the middle frame as it was so far
    state = visit.state()
    assert state["ui"]["mode"] == "beside" and state["ui"]["shown"] == [state["jobs"][0]["id"]]
    for mode in ("wipe", "under", "difference", "beside"):
        visit.page.click(f"#modes [data-mode={mode}]")
        visit.scrub(3)
    with visit.page.expect_download() as wanted:
        visit.page.locator(".tile .links a", has_text="mp4").click()
    path = tmp_path / "made.mp4"
    wanted.value.save_as(path)
    assert load_video(path).frames.shape == (8, 3, 64, 64)
    run = read_run(path)
    assert [motion["name"] for motion in run["scene"]["motions"]] == [m["name"] for m in visit.motions()]
    height = 427  # of the photo; a light record is in the pixels of the picture that the model saw
    assert run["scene"]["motions"][0]["path"][-1]["y"] == pytest.approx(144 * 64 / height)
    assert run["sampling"]["num_steps"] == 3
    with visit.page.expect_download() as saved:
        visit.page.click("#save")
    scene_path = tmp_path / "scene.json"
    saved.value.save_as(scene_path)
    assert [motion.name for motion in load_scene(scene_path).motions] == [m["name"] for m in visit.motions()]
    mine = visit.motions()
    visit.photo()
    visit.page.click("#tab-settings")
    visit.page.click("#panel-settings .panel-head button")  # back to the recommended values
    dropped = visit.page.evaluate_handle(
        """(bytes) => {
            const held = new DataTransfer();
            held.items.add(new File([new Uint8Array(bytes)], "made.mp4"));
            return held;
        }""",
        list(path.read_bytes()),
    )
    visit.page.dispatch_event("#stage", "drop", {"dataTransfer": dropped})
    visit.wait("s.doc.motions.length === 3")
    assert [motion["name"] for motion in visit.motions()] == [motion["name"] for motion in mine]
    assert visit.motions()[0]["path"][-1]["y"] == pytest.approx(144 * 64 / height)
    assert visit.state()["choices"]["sampling"] == {"num_steps": 3}
    visit.page.wait_for_selector("#origin:not([hidden])")
    said = visit.page.locator("#origin").inner_text()
    assert "made.mp4" in said and "valid, unchanged" in said and "a run of sgi2v" in said
    visit.photo()
    assert visit.page.locator("#origin").is_hidden()
    visit.open(("mine.json", scene_path.read_bytes()))
    visit.wait("s.doc.motions.length === 3")
    assert visit.motions() == mine


@needs_browser
def test_a_method_says_how_it_fares_with_the_model(visit: Visit) -> None:
    visit.photo()
    visit.page.click("#tab-settings")
    visit.page.wait_for_selector("#verdict:has-text('Draw a box: time-to-move steers by them')")
    visit.drag((20, 20), (50, 44))
    visit.page.select_option("#set-controller", "sg-i2v")
    visit.page.wait_for_selector("#method-note:has-text('photographs come apart')")
    assert "Choose time-to-move" in visit.page.inner_text("#method-note")
    visit.page.select_option("#set-controller", "time-to-move")
    visit.page.wait_for_selector("#method-note:has-text('Follows best')")
    visit.page.wait_for_selector("#verdict:has-text('10 steps.')")  # no guided iterations, and yet it steers
    visit.page.select_option("#set-controller", "none")
    visit.page.wait_for_selector("#method-note", state="detached")
    visit.page.wait_for_selector("#verdict:has-text('nothing steers')")


@needs_browser
@pytest.mark.long
def test_methods_and_seeds_side_by_side(visit: Visit) -> None:
    example(visit, "cat")
    choose_steps(visit, 1)
    visit.page.click("#compare")
    for box in visit.page.locator("#dialog fieldset input").all():
        box.set_checked(box.get_attribute("value") == "none")
    visit.page.fill("#compare-seeds", "1, 2")
    visit.page.click("#dialog .primary")
    visit.wait(
        "s.ui.shown.length === 2 && s.ui.shown.every((id) => s.jobs.find((job) => job.id === id)?.state === 'done')"
    )
    state = visit.state()
    jobs = [job for job in state["jobs"] if job["id"] in state["ui"]["shown"]]
    assert {job["seed"] for job in jobs} == {1, 2} and len({job["group"] for job in jobs}) == 1


@needs_browser
@pytest.mark.long
def test_cancel_then_kill_the_server_and_find_everything(context: BrowserContext, tmp_path: Path) -> None:
    with StudioProcess(tmp_path, STUDIO, "--port", "0", *small()) as first:
        visit = Visit(context, first.url)
        example(visit, "cat")
        choose_steps(visit, LONG)
        visit.page.click("#generate")
        visit.wait("s.jobs[0]?.progress?.phase === 'sample' && s.jobs[0].progress.step > 1")
        visit.page.click(".tile button:has-text('Cancel')")
        visit.wait("s.jobs[0].state === 'cancelled'", 30.0)
        assert visit.errors == []
        visit.page.click("#generate")
        visit.wait("s.jobs.length === 2 && s.jobs.some((job) => job.progress?.phase === 'sample')")
        number = max(job["number"] for job in visit.state()["jobs"])
        work = visit.state()["scene"]
        first.kill()
        visit.wait("s.connected === false", 30.0)
    port = str(urlsplit(first.url).port)
    with StudioProcess(tmp_path, STUDIO, "--port", port, *small()):
        visit.wait(f"s.connected && s.jobs.find((job) => job.number === {number})?.state === 'interrupted'", 30.0)
        visit.page.reload()
        visit.ready()
        visit.wait("s.jobs.length === 2")
        assert visit.state()["scene"] == work
        states = {job["number"]: job["state"] for job in visit.state()["jobs"]}
        assert states == {number - 1: "cancelled", number: "interrupted"}
        visit.page.click("#tab-results")
        visit.page.click(f"[aria-label='Make result {number} again']")
        visit.wait("s.jobs.length === 3 && s.jobs.some((job) => job.retry_of && job.state === 'running')", 60.0)
        visit.page.click(".job.running button:has-text('Cancel')")
        visit.wait("s.jobs.every((job) => !['queued', 'running'].includes(job.state))", 60.0)
    assert visit.outside == []


@needs_browser
@pytest.mark.long
def test_reload_and_two_pages_at_once(visit: Visit, context: BrowserContext, studio: StudioProcess) -> None:
    visit.photo()
    visit.drag((20, 20), (50, 44))
    mine = visit.state()["scene"]
    visit.page.wait_for_timeout(400)  # it is kept a moment after the last change
    visit.page.reload()
    visit.ready()
    assert visit.state()["scene"] == mine
    other = Visit(context, studio.url)
    assert other.state()["scene"] == mine  # a new page goes on with the newest work
    example(other, "coffee")
    theirs = other.state()["scene"]
    visit.press("b")
    visit.drag((60, 20), (80, 44))
    mine = visit.state()["scene"]
    assert len(mine["motions"]) == 2
    visit.page.wait_for_timeout(400)
    for page, scene in ((visit, mine), (other, theirs)):
        page.page.reload()
        page.ready()
        assert page.state()["scene"] == scene
    choose_steps(other, 1)
    other.page.click("#generate")
    visit.wait("s.jobs.some((job) => job.num_steps === 1 && job.state === 'done')")  # both see every job
    assert other.errors == []


@needs_browser
def test_what_cannot_be_opened_is_refused_in_words(context: BrowserContext, studio: StudioProcess) -> None:
    visit = Visit(context, studio.url)
    visit.photo()
    before = visit.state()["scene"]
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    visit.open(("huge.png", file.getvalue()))
    assert "10000x10000" in visit.message() and "64 megapixels" in visit.message()
    whole = png(300, 200)
    visit.open(("half.png", whole[: len(whole) // 2]))
    visit.wait("document.querySelectorAll('.toast.error').length === 2")
    assert "cannot be" in visit.message()
    visit.open(("scene.json", b'{"format": "sgi2v-scene", "version": 1, "image": "elsewhere.png", "motions": []}'))
    visit.wait("document.querySelectorAll('.toast.error').length === 3")
    assert "open elsewhere.png together with scene.json" in visit.message()
    assert visit.state()["scene"] == before
    assert all("422" in error for error in visit.errors)  # the browser's own note of a refused upload


@needs_browser
def test_a_phone_and_a_finger(browser: Browser, studio: StudioProcess) -> None:
    context = browser.new_context(viewport=PHONE, has_touch=True, device_scale_factor=2)
    visit = Visit(context, studio.url)
    visit.photo()
    visit.page.touchscreen.tap(*visit.at(60, 40))
    (motion,) = visit.motions()
    assert motion["box"] == pytest.approx({"left": 56, "top": 36, "right": 64, "bottom": 44}, abs=1)
    for panel in ("settings", "camera", "results", "objects"):
        visit.page.tap(f"#tab-{panel}")
        visit.page.wait_for_selector(f"#panel-{panel}", state="visible")
        sides = visit.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
        assert sides == list(PHONE.values())
    assert visit.page.locator("#generate").is_visible()
    assert visit.errors == [] and visit.outside == []
    context.close()


@needs_browser
def test_everything_has_a_name_and_can_be_reached(visit: Visit) -> None:
    example(visit, "cat")
    for panel in ("camera", "results", "settings"):
        visit.page.click(f"#tab-{panel}")
        visit.settle()
        if panel == "settings":
            visit.page.click("#all-settings summary")
        nameless = visit.page.evaluate("""[...document.querySelectorAll('button, a, input, select, textarea, canvas')]
            .filter((one) => one.checkVisibility() && !(one.ariaLabel || one.innerText?.trim() || one.labels?.length))
            .map((one) => one.outerHTML)""")
        assert nameless == []
    outlined = 0
    for _ in range(12):
        visit.page.keyboard.press("Tab")
        outlined += visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert outlined == 12
