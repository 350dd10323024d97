"""The studio's page while other things happen: answers that come late, lists drawn anew under the mouse, plans that
play, windows that change, and a history longer than what a page is told of."""

import io
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import APIResponse, Browser, BrowserContext, Error, Page, Route, ViewportSize

from sgi2v.studio.pictures import PREFIX, Pictures
from sgi2v.studio.settings import Limits
from sgi2v.studio.table import JobTable
from studio_page import LAPTOP, STUDIO, Visit, chromium, needs_browser
from studio_process import StudioProcess
from studio_scene import file_of, picture
from tiny import small_bundled

pytestmark = needs_browser
NUM_EARLIER = 203  # jobs from before: more than the 200 that a page is told of
LONG = 400  # steps: a job that is still running when the test has done with it
HIDDEN = """(hidden) => {
    Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def earlier(data: Path) -> None:
    """Jobs that were cancelled before they began, as the studio keeps them."""
    (data / "images").mkdir()
    name, _ = Pictures(data / "images", Limits()).add(file_of(picture()))
    scene = {"format": "sgi2v-scene", "version": 1, "image": PREFIX + name, "motions": []}
    sampling = {"seed": 0, "num_steps": 1, "width": 64, "height": 64, "num_frames": 8}
    plan = {"backbone": "bundled", "controller": {"name": "none"}, "sampling": sampling, "settings": {}}
    table = JobTable(data / "jobs.sqlite")
    row, _ = table.submit(request={"scene": scene}, plan=plan, payload="", max_queued=1, max_history=1)
    table.cancel(row["id"])
    columns = "payload, created, finished, state, summary, pictures"
    with closing(sqlite3.connect(data / "jobs.sqlite")) as connection, connection:
        for number in range(2, NUM_EARLIER + 1):  # at once: two transactions each would take seconds
            connection.execute(
                f"INSERT INTO jobs (id, {columns}) SELECT lower(hex(randomblob(16))), {columns} FROM jobs LIMIT 1"
            )
            connection.execute("INSERT INTO bodies SELECT ?, request, plan FROM bodies LIMIT 1", (number,))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    data = tmp_path_factory.mktemp("studio")
    earlier(data)
    with StudioProcess(data, STUDIO, "--port", "0", "--backbone", str(small_bundled())) as process:
        yield process


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport=LAPTOP)
    made.set_default_timeout(30_000)
    yield made
    made.close()


@pytest.fixture
def visit(context: BrowserContext, studio: StudioProcess) -> Iterator[Visit]:
    """A page that must neither complain nor look outside."""
    made = Visit(context, studio.url)
    yield made
    # A job that is cancelled takes its preview with it, which may just be asked for.
    assert [error for error in made.errors if "/preview.png" not in error] == []
    assert made.outside == []


def held(page: Page, pattern: str, times: int = 1) -> Callable[[], None]:
    """Keep requests from the server until what is given back is called."""
    waiting: list[Route] = []
    page.route(pattern, lambda route: waiting.append(route), times=times)

    def let_go() -> None:
        assert waiting, f"nothing was asked of {pattern}"
        for route in waiting:
            with suppress(Error):  # given up by the page
                route.continue_()

    return let_go


def box(visit: Visit, *corners: tuple[float, float]) -> None:
    visit.press("b")
    visit.drag(*corners)


def with_path(visit: Visit) -> None:
    """A photo with a box and a path of three keys."""
    visit.photo()
    visit.drag((20, 20), (50, 44))
    visit.drag((35, 32), (85, 32))
    visit.scrub(3)
    visit.page.click("#add-key")
    visit.settle()
    assert [key["time"] for key in visit.motions()[0]["path"]] == pytest.approx([0, 3 / 7, 1])


def test_a_key_goes_along_the_time_line_with_the_mouse(visit: Visit) -> None:
    with_path(visit)
    lane = visit.page.locator(".lane-row.chosen .lane").bounding_box()
    assert lane is not None
    y = lane["y"] + lane["height"] / 2
    mouse = visit.page.mouse
    mouse.move(lane["x"] + lane["width"] * 3 / 7, y)
    mouse.down()
    for share in (0.5, 0.6, 0.643, 0.643):
        mouse.move(lane["x"] + lane["width"] * share, y)
        visit.settle()  # the lanes are drawn anew
        assert visit.motions()[0]["path"][1]["time"] == pytest.approx(share, abs=0.02)
    mouse.up()
    visit.press("Control+z")
    assert visit.motions()[0]["path"][1]["time"] == pytest.approx(3 / 7)


def test_the_tab_that_is_shown_is_the_one_that_keys_reach(visit: Visit) -> None:
    def reached() -> list[str]:
        visit.settle()
        return list(
            visit.page.evaluate(
                "[...document.querySelectorAll('#tabs [aria-selected=true]')].filter((one) => one.tabIndex === 0"
                " && one.checkVisibility()).map((one) => one.id)"
            )
        )

    assert visit.state()["ui"]["panel"] == "objects" and reached() == ["tab-settings"]
    visit.page.set_viewport_size(ViewportSize(width=1000, height=700))
    assert reached() == ["tab-objects"]
    visit.page.set_viewport_size(LAPTOP)
    assert reached() == ["tab-settings"]


def test_work_is_kept_while_the_plan_plays_and_when_the_page_goes(visit: Visit) -> None:
    with_path(visit)
    visit.page.wait_for_timeout(400)
    visit.page.click("#play")
    visit.page.fill("#field-name", "while it plays")
    visit.page.wait_for_timeout(800)
    kept = json.dumps(visit.page.evaluate("Object.values(localStorage)"))
    assert "while it plays" in kept and visit.state()["ui"]["playing"]
    visit.page.click("#play")
    visit.page.evaluate("""() => {
        const name = document.getElementById("field-name");
        name.value = "as it goes";
        name.dispatchEvent(new Event("input", { bubbles: true }));
        location.reload();
    }""")
    visit.page.wait_for_selector("body:not([data-ready])", state="attached")
    visit.ready()
    assert visit.motions()[0]["name"] == "as it goes"


def test_strokes_on_two_objects_are_both_kept(visit: Visit) -> None:
    visit.photo()
    box(visit, (10, 10), (40, 40))
    box(visit, (60, 10), (100, 40))
    let_go = held(visit.page, "**/api/images", times=2)
    visit.press("m")
    visit.drag((65, 20), (90, 20))
    visit.page.click(".lane-name >> nth=1")  # the first is the ruler's
    visit.drag((15, 30), (35, 30))
    visit.page.wait_for_timeout(100)
    let_go()
    visit.wait("s.scene.motions.every((one) => one.mask?.startsWith('upload:'))")
    for motion, inside, outside in zip(visit.motions(), ((25, 30), (78, 20)), ((78, 20), (25, 30)), strict=True):
        answer = visit.page.request.get(f"{visit.url}/api/images/{motion['mask'].removeprefix('upload:')}")
        mask = Image.open(io.BytesIO(answer.body())).convert("L")
        assert (mask.getpixel(inside), mask.getpixel(outside)) == (255, 0)


def test_answers_that_come_late_are_not_for_what_is_there_by_then(visit: Visit) -> None:
    ground, thing = Image.new("RGB", (64, 64), (230, 230, 230)), Image.new("RGB", (24, 24), (200, 30, 30))
    ground.paste(thing, (20, 20))

    def another() -> None:
        visit.photo(90 if visit.state()["doc"]["image"]["width"] == 120 else 120)
        box(visit, (10, 10), (40, 40))

    def paint() -> None:
        visit.press("m")
        visit.drag((15, 20), (35, 20))

    visit.open(("thing.png", file_of(ground)))
    visit.wait("s.doc.image?.width === 64")
    box(visit, (16, 16), (48, 48))
    acts: dict[str, Callable[[], None]] = {
        "mask": lambda: visit.page.click("[data-focus='find-outline']"),
        "images": paint,
        "camera": lambda: visit.page.click("[data-preset='zoom-in']"),
    }
    waiting = []
    for name, act in acts.items():
        visit.page.click("#tab-camera")
        waiting.append(held(visit.page, f"**/api/{name}"))
        with visit.page.expect_request(f"**/api/{name}"):
            act()
        another()
    for let_go in waiting:
        with visit.page.expect_response("**/api/*"):
            let_go()
    visit.page.wait_for_timeout(300)
    (motion,) = visit.motions()
    assert "mask" not in motion and motion["kind"] == "object"
    # The chips tell of the camera, whatever the scene: off, and on in this one.
    for _ in range(2):
        visit.page.click("[data-preset='zoom-in']")
    visit.wait("s.scene.motions.some((one) => one.kind === 'camera')")
    let_go = held(visit.page, "**/api/camera")
    with visit.page.expect_request("**/api/camera"):
        visit.page.click("[data-preset='pan-right']")
    visit.page.click("text=Remove the camera")
    let_go()
    visit.page.wait_for_timeout(300)
    assert visit.motions() == [motion]


def test_a_comparison_is_of_the_scene_it_was_asked_for(visit: Visit) -> None:
    visit.photo()
    visit.page.click("#tab-settings")
    visit.page.fill("#simple-set-sampling-num_steps", str(LONG))
    visit.page.press("#simple-set-sampling-num_steps", "Tab")
    first = visit.state()["doc"]["image"]["image"]
    visit.page.click("#compare")
    for one in visit.page.locator("#dialog fieldset input").all():
        one.set_checked(one.get_attribute("value") == "none")
    visit.page.fill("#compare-seeds", "1, 2")
    let_go = held(visit.page, "**/api/jobs")
    visit.page.click("#dialog .primary")
    visit.photo(90)
    let_go()
    visit.wait(f"s.jobs.filter((job) => job.num_steps === {LONG}).length === 2")
    jobs = [job for job in visit.state()["jobs"] if job["num_steps"] == LONG]
    assert [job["image"] for job in jobs] == [first, first]
    assert visit.state()["ui"]["shown"] == []  # they are in the list; the plan is another's
    for job in jobs:
        visit.page.request.post(f"{visit.url}/api/jobs/{job['id']}/cancel")
    visit.wait("s.jobs.every((job) => !['queued', 'running'].includes(job.state))")


@pytest.mark.long
def test_a_row_stays_while_its_job_goes_on_and_ends_but_once(visit: Visit) -> None:
    visit.photo()
    visit.drag((20, 20), (50, 44))  # a method steers by boxes
    visit.page.click("#tab-settings")
    visit.page.fill("#simple-set-sampling-num_steps", str(LONG))
    visit.page.press("#simple-set-sampling-num_steps", "Tab")
    visit.page.click("#generate")
    visit.page.click("#tab-results")
    visit.wait("s.jobs.some((job) => job.progress?.phase === 'sample')")
    visit.settle()
    (job,) = (job for job in visit.state()["jobs"] if job["state"] == "running")
    visit.page.evaluate(
        """() => {
            window.row = document.querySelector(".job.running");
            row.querySelector(".job-actions button").focus();
        }"""
    )
    said = visit.page.locator(".job.running .job-state").inner_text()
    step = job["progress"]["step"]
    visit.page.click("#compare")  # another job comes into the list above it
    visit.page.fill("#compare-seeds", "7")
    for one in visit.page.locator("#dialog fieldset input").all():
        one.set_checked(one.get_attribute("value") == "none")
    visit.page.evaluate("row.querySelector('.job-actions button').focus()")
    visit.page.click("#dialog .primary")
    visit.wait(f"s.jobs.some((job) => job.progress?.step > {step} + 1) && s.jobs.some((job) => job.state === 'queued')")
    visit.page.evaluate("row.querySelector('.job-actions button').focus()")
    visit.wait(f"s.jobs.some((job) => job.progress?.step > {step} + 3)")
    visit.settle()
    assert visit.page.evaluate("row.isConnected && row.contains(document.activeElement)")
    assert visit.page.locator(".job.running .job-state").inner_text() != said
    # The answer to Cancel comes after the event that tells of the end.
    answers: list[tuple[Route, APIResponse]] = []
    visit.page.route("**/cancel", lambda route: answers.append((route, route.fetch())), times=1)
    visit.page.click(".job.running button:has-text('Cancel')")
    visit.wait(f"s.jobs.find((job) => job.id === '{job['id']}').state === 'cancelled'")
    ((route, answer),) = answers
    assert answer.json()["state"] == "running" and answer.json()["cancelling"]
    route.fulfill(response=answer)
    visit.page.wait_for_timeout(300)
    assert next(one["state"] for one in visit.state()["jobs"] if one["id"] == job["id"]) == "cancelled"
    visit.page.locator(".job.running button:has-text('Cancel'), .job.queued button:has-text('Cancel')").click()
    visit.wait("s.jobs.every((job) => !['queued', 'running'].includes(job.state))")


def test_a_recipe_comes_back_with_its_job(visit: Visit) -> None:
    visit.photo()
    visit.drag((20, 20), (50, 44))  # a method steers by boxes
    visit.page.click("#tab-settings")
    visit.page.select_option("#set-recipe", "paper")
    visit.wait("s.choices.recipe === 'paper'")
    visit.page.click("#generate")
    visit.wait("s.ui.shown.length === 1")
    (job_id,) = visit.state()["ui"]["shown"]
    visit.page.request.post(f"{visit.url}/api/jobs/{job_id}/cancel")
    visit.page.click("#panel-settings .panel-head button")  # back to the recommended values
    visit.wait("s.choices.recipe === null")
    visit.page.click("#tab-results")
    visit.page.click(f"[data-focus='reopen-{job_id}']")
    visit.wait("s.choices.recipe === 'paper'")
    visit.page.click("#tab-settings")
    assert visit.state()["choices"]["sampling"] == visit.state()["choices"]["settings"] == {}
    assert visit.page.input_value("#simple-set-sampling-num_steps") == "50"


def test_page_and_server_agree_on_the_video(visit: Visit) -> None:
    visit.photo()
    visit.drag((20, 20), (50, 44))  # a method steers by boxes
    visit.page.click("#tab-settings")
    visit.page.click("#all-settings summary")
    for name, value in (("num_frames", ""), ("height", ""), ("width", "128")):
        visit.page.fill(f"#set-sampling-{name}", value)
        visit.page.press(f"#set-sampling-{name}", "Tab")
        visit.settle()
    visit.wait("s.choices.sampling.width === 128 && s.choices.sampling.num_frames === null")
    video = visit.state()["video"]
    assert (video["width"], video["height"], video["num_frames"]) == (128, 64, 8)
    assert visit.page.inner_text("#time").startswith("1 / 8")
    visit.page.fill("#set-sampling-height", "96")
    visit.page.press("#set-sampling-height", "Tab")
    state = visit.state()
    asked = {"scene": state["scene"], "sampling": state["choices"]["sampling"]}
    plan = visit.page.request.post(f"{visit.url}/api/plan", data=asked).json()
    assert state["video"]["max_speed"] == pytest.approx(plan["max_speed"])


def test_a_hidden_page_holds_no_stream_and_finds_everything_again(
    context: BrowserContext, studio: StudioProcess
) -> None:
    visit = Visit(context, studio.url)
    visit.wait("s.jobs.length >= 200")
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url.removeprefix(visit.url)))
    visit.page.route("**/api/images/*", lambda route: route.abort(), times=1)
    visit.photo()
    visit.drag((20, 20), (50, 44))  # a method steers by boxes
    assert "no longer has this scene's picture" in visit.message()
    visit.page.evaluate(HIDDEN, True)
    visit.page.wait_for_timeout(300)
    scene: Any = visit.state()["scene"]
    made = studio.http.post("/api/jobs", json={"scene": scene, "sampling": {"num_steps": LONG}}).json()
    studio.wait_for(made["id"], "running")
    assert all(job["id"] != made["id"] for job in visit.state()["jobs"])
    del asked[:]
    visit.page.evaluate(HIDDEN, False)
    visit.wait(f"s.jobs.some((job) => job.id === '{made['id']}')")
    visit.settle()
    assert "/api/events" in asked
    assert f"/api/images/{scene['image'].removeprefix('upload:')}" in asked  # it had not come: asked for again
    studio.http.post(f"/api/jobs/{made['id']}/cancel")
    visit.wait(f"s.jobs.find((job) => job.id === '{made['id']}').state === 'cancelled'")
    (failed,) = (error for error in visit.errors if "/preview.png" not in error)
    assert "ERR_FAILED" in failed and visit.outside == []


def test_jobs_older_than_a_page_is_told_of_are_found(visit: Visit, studio: StudioProcess) -> None:
    visit.wait("s.jobs.length >= 200")
    first = studio.get("/api/jobs?before=2")["jobs"][0]
    assert all(job["id"] != first["id"] for job in visit.state()["jobs"])
    # As a page that is opened again shows it.
    visit.page.evaluate(
        """(id) => {
            const [key] = Object.keys(localStorage).filter((one) => one.startsWith("sgi2v-work-"));
            const last = JSON.parse(localStorage.getItem(key) ?? "{}");
            const work = { doc: {}, choices: {}, ...last, saved: Date.now() + 1e6 };
            work.ui = { ...work.ui, shown: [id], active: id, mode: "beside" };
            sessionStorage.removeItem("sgi2v-page");
            localStorage.setItem("sgi2v-work-earlier", JSON.stringify(work));
        }""",
        first["id"],
    )
    visit.page.reload()
    visit.ready()
    visit.wait(f"s.jobs.some((job) => job.id === '{first['id']}')")
    visit.settle()
    assert visit.page.inner_text(".tile strong") == "none · seed 0"
    visit.page.click("#tab-results")
    visit.page.click("#older")
    visit.wait("document.getElementById('older').hidden")
    numbers = [job["number"] for job in visit.state()["jobs"]]
    assert sorted(numbers) == list(range(1, max(numbers) + 1))
    visit.page.click(f"[data-focus='delete-{first['id']}']")
    visit.page.wait_for_selector(".tile strong:text-is('Deleted')")
    visit.page.evaluate(HIDDEN, True)
    studio.http.delete(f"/api/jobs/{studio.get('/api/jobs?before=3')['jobs'][0]['id']}")
    visit.page.evaluate(HIDDEN, False)  # the snapshot does not tell of the older ones
    visit.wait(f"s.jobs.length === {len(numbers) - 2}")


@pytest.mark.parametrize("size", [(360, 560), (667, 375)])
def test_a_low_screen_can_be_scrolled_to_everything(
    browser: Browser, studio: StudioProcess, size: tuple[int, int], tmp_path: Path
) -> None:
    width, height = size
    context = browser.new_context(viewport=ViewportSize(width=width, height=height), has_touch=True)
    visit = Visit(context, studio.url)
    visit.photo()
    visit.drag((20, 20), (50, 44))  # a method steers by boxes
    box(visit, (10, 10), (40, 40))
    for panel in ("settings", "camera", "results", "objects"):
        tab = visit.page.locator(f"#tab-{panel}").bounding_box()
        assert tab is not None and tab["y"] + tab["height"] <= height and tab["y"] > height / 2
        visit.page.tap(f"#tab-{panel}")
        visit.settle()
    last = visit.page.locator("#object-detail button, #object-detail input").last
    last.scroll_into_view_if_needed()
    place = last.bounding_box()
    assert place is not None and place["y"] >= 0 and place["y"] + place["height"] <= height
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    visit.page.evaluate("scrollTo(0, 0)")
    plan = visit.page.locator("#plan").bounding_box()
    assert plan is not None and plan["height"] > 60
    visit.page.screenshot(path=tmp_path / "screen.png")
    assert visit.errors == [] and visit.outside == []
    context.close()
