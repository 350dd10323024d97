"""The page's own sums, run in the browser: geometry against Python's, the reducer, undo and redo, scene JSON; and
what stands between page and server: the login, an answer that is lost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Route, ViewportSize

from sgi2v.backbones.registry import outline_of
from sgi2v.grid import Grid, tracks_of
from sgi2v.planning import Sampling
from sgi2v.scene import Box, Curve, Easing, Fit, Key, Kind, Motion, Scene, frame_times
from sgi2v.scene_io import scene_to_dict
from sgi2v.shape import shaped
from studio_page import LAPTOP, STUDIO, Visit, chromium, needs_browser
from studio_process import StudioProcess

pytestmark = needs_browser
NUM_MOTIONS = 200


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def visit(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    with StudioProcess(tmp_path_factory.mktemp("page"), STUDIO, "--port", "0") as process:
        made = Visit(browser.new_context(viewport=LAPTOP), process.url)
        yield made
        assert made.errors == [] and made.outside == []


def random_motion(random: np.random.Generator) -> Motion:
    left, top = random.uniform(0, 200), random.uniform(0, 100)
    box = Box(left=left, top=top, right=left + random.uniform(1, 90), bottom=top + random.uniform(1, 60))
    num_keys = int(random.choice([0, 2, 3, 5, 9]))
    times = sorted(random.choice(1001, num_keys, replace=False) / 1000)
    path = [
        Key(
            time=float(time),
            # Equal neighbours and turning points are where smooth curves go their own ways.
            x=float(random.choice([random.uniform(-300, 300), 40.0, 60.0])),
            y=float(random.choice([random.uniform(-300, 300), 10.0])),
            scale=float(np.exp(random.normal())) if number else 1.0,
            easing=random.choice(get_args(Easing)),
        )
        for number, time in enumerate(times)
    ]
    kind, curve = random.choice(get_args(Kind)), random.choice(get_args(Curve))
    return Motion(box=box, path=tuple(path), kind=kind, curve=curve, name=str(random.integers(10)) * 2)


def random_scene(random: np.random.Generator, num_motions: int) -> Scene:
    motions = tuple(random_motion(random) for _ in range(num_motions))
    words: dict[str, Any] = {name: "a cat" for name in ("prompt", "negative_prompt") if random.integers(2)}
    return Scene(image=Image.new("RGB", (300, 170)), motions=motions, fit=random.choice(get_args(Fit)), **words)


def test_boxes_are_pythons_boxes(visit: Visit) -> None:
    random = np.random.default_rng(817)
    scene = random_scene(random, NUM_MOTIONS)
    motions = scene_to_dict(scene)["motions"]
    times = [0.0, 1.0, *frame_times(8).tolist(), *random.uniform(0, 1, 20).tolist()]
    for motion in scene.motions:
        times += [key.time for key in motion.path[:1]]
    found = visit.page.evaluate(
        """([motions, times]) => motions.map((one) => sgi2v.geometry.boxesAt(one, times)
            .map((box) => [box.left, box.top, box.right, box.bottom]))""",
        [motions, times],
    )
    for motion, boxes in zip(scene.motions, found, strict=True):
        wanted = [(box.left, box.top, box.right, box.bottom) for box in motion.boxes_at(times)]
        np.testing.assert_allclose(boxes, wanted, rtol=1e-9, atol=1e-9)


def test_a_key_is_met_exactly_and_a_click_makes_pythons_box(visit: Visit) -> None:
    random = np.random.default_rng(4)
    scene = random_scene(random, 40)
    times = [[key.time for key in motion.path] for motion in scene.motions]
    found = visit.page.evaluate(
        """([motions, times]) => motions.map((one, k) => sgi2v.geometry.sample(one, times[k])
            .map(({x, y, scale}) => [x, y, scale]))""",
        [scene_to_dict(scene)["motions"], times],
    )
    for motion, values in zip(scene.motions, found, strict=True):
        assert values == [[key.x, key.y, key.scale] for key in motion.path]
    clicks = [[float(v) for v in random.uniform(0, (300, 170))] for _ in range(50)]
    boxes = visit.page.evaluate("(clicks) => clicks.map(([x, y]) => sgi2v.geometry.defaultBox(300, 170, x, y))", clicks)
    for (x, y), box in zip(clicks, boxes, strict=True):
        left, top = (min(max(at - 8.5, 0), limit - 17) for at, limit in ((x, 300), (y, 170)))
        assert Box(**box) == Box(left=left, top=top, right=left + 17, bottom=top + 17)  # a tenth of the shorter side


def test_speeds_are_those_of_the_tracks(visit: Visit) -> None:
    random = np.random.default_rng(6)
    for fit in get_args(Fit):
        scene = Scene(image=Image.new("RGB", (300, 170)), fit=fit, motions=random_scene(random, 10).motions)
        grid = Grid(width=128, height=64, num_frames=9)
        found = visit.page.evaluate(
            """([motions, fit]) => motions.map((one) => sgi2v.geometry.speeds(one,
                {width: 300, height: 170}, {width: 128, height: 64, num_frames: 9}, fit))""",
            [scene_to_dict(scene)["motions"], fit],
        )
        for track, speeds in zip(tracks_of(scene, grid).tracks, found, strict=True):
            wanted = np.linalg.norm(np.diff(track.centers.astype(float), axis=0), axis=1)
            # The picture's size is rounded to whole pixels there.
            np.testing.assert_allclose(speeds, wanted, rtol=0.02, atol=1e-3)


def test_scene_json_is_pythons(visit: Visit) -> None:
    random = np.random.default_rng(5)
    for number in range(10):
        wanted = scene_to_dict(random_scene(random, number))
        found = visit.page.evaluate(
            "(scene) => sgi2v.states.toScene(sgi2v.states.fromScene(scene, null), scene.image)", wanted
        )
        assert found == wanted
        assert list(found) == list(wanted) and list(map(list, found["motions"])) == list(map(list, wanted["motions"]))


def test_words_are_asked_for_where_a_model_reads_them(browser: Browser, visit: Visit) -> None:
    assert visit.page.locator("#set-prompt, #set-negative_prompt").count() == 0
    context = browser.new_context(viewport=LAPTOP)

    def reads_text(route: Route) -> None:
        answer = route.fetch()
        info = answer.json()
        for model in info["backbones"]:
            model["takes_text"] = True
        route.fulfill(response=answer, json=info)

    context.route("**/api/info*", reads_text)
    other = Visit(context, visit.url)
    other.page.evaluate("document.getElementById('all-settings').open = true")
    for name, words in (("prompt", "a red ball"), ("negative_prompt", "blurred")):
        other.page.fill(f"#set-{name}", words)
        other.page.press(f"#set-{name}", "Tab")
    scene = other.state()["scene"]
    assert (scene["prompt"], scene["negative_prompt"], scene["version"]) == ("a red ball", "blurred", "2.1")
    assert other.errors == []
    context.close()


REDUCER = (Path(__file__).parent / "studio_reducer.js").read_text(encoding="utf-8")


def test_undo_and_redo_pass_through_every_state(visit: Visit) -> None:
    assert visit.page.evaluate(REDUCER, list(range(1, 151))) == []


def test_a_gesture_is_one_step(visit: Visit) -> None:
    steps: Any = visit.page.evaluate("""() => {
        const { states } = sgi2v;
        let history = states.newHistory({ ...states.emptyDoc(), motions: [{ id: 1, name: "" }] });
        const name = (text, gesture) => {
            history = states.advance(history, { type: "flags", id: 1, changes: { name: text }, gesture });
        };
        for (const text of ["a", "ab", "abc"]) name(text, "typing");
        name("abcd", "again");
        name("abcde");
        return [history.past.length, history.past.map((doc) => doc.motions[0].name)];
    }""")
    assert steps == [3, ["", "abc", "abcd"]]


def test_an_answer_that_is_lost_makes_no_second_job(visit: Visit) -> None:
    visit.photo()
    visit.drag((20, 20), (50, 44))  # a method steers by boxes

    def lose(route: Route) -> None:
        route.fetch()  # the studio has the job
        route.abort()

    visit.page.route("**/api/jobs", lose, times=1)
    visit.page.click("#generate")
    assert "does not answer" in visit.message()
    visit.page.click("#generate")
    visit.wait("s.ui.shown.length === 1")
    jobs = visit.page.request.get(f"{visit.url}/api/jobs").json()["jobs"]
    assert [job["id"] for job in jobs] == visit.state()["ui"]["shown"]
    visit.page.request.post(f"{visit.url}/api/jobs/{jobs[0]['id']}/cancel")
    assert len(visit.errors) == 1 and "ERR_FAILED" in visit.errors.pop()


def test_whoever_opens_the_page_gives_the_token_once(browser: Browser, tmp_path: Path) -> None:
    token = "sixteen or more characters"
    with StudioProcess(tmp_path, STUDIO, "--port", "0", token=token) as studio:
        context = browser.new_context(viewport=LAPTOP)
        page = context.new_page()
        page.goto(studio.url)
        page.fill("[name=token]", token[:-1])
        page.click("button")
        page.wait_for_selector("text=That is not the token")
        page.fill("[name=token]", token)
        page.click("button")
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        assert page.url == f"{studio.url}/"
        visit = Visit(context, studio.url)  # another page of the same browser
        assert visit.errors == [] and visit.outside == []


def test_a_4k_screen_and_a_pen(browser: Browser, visit: Visit) -> None:
    size = ViewportSize(width=3840, height=2160)
    context = browser.new_context(viewport=size)
    large = Visit(context, visit.url)
    large.photo()
    pen = context.new_cdp_session(large.page)
    for kind, place, held in (
        ("mousePressed", (20, 20), 1),
        ("mouseMoved", (35, 30), 1),
        ("mouseMoved", (50, 44), 1),
        ("mouseReleased", (50, 44), 0),
    ):
        x, y = large.at(*place)
        how = {"type": kind, "x": x, "y": y, "button": "left", "buttons": held, "clickCount": 1}
        pen.send("Input.dispatchMouseEvent", {**how, "pointerType": "pen"})
    large.settle()
    (motion,) = large.motions()
    assert motion["box"] == pytest.approx({"left": 20, "top": 20, "right": 50, "bottom": 44}, abs=0.5)
    plan = large.page.locator("#plan").bounding_box()
    assert plan is not None and plan["width"] > 0.6 * size["width"] and plan["height"] > 0.6 * size["height"]
    sides = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    assert large.page.evaluate(sides) == list(size.values())
    assert large.errors == [] and large.outside == []
    context.close()


def test_a_video_takes_the_photos_shape_as_the_library_says(visit: Visit) -> None:
    for width, height in ((400, 300), (300, 400), (512, 512), (1000, 200), (641, 384), (333, 777)):
        model = {"width": 320, "height": 192, "multiple": 64, "aspects": [0.6, 320 / 192]}
        found = visit.page.evaluate(
            "([image, model]) => { const size = sgi2v.geometry.nearestSize(image, model);"
            " return [size.width, size.height, sgi2v.geometry.comesTo('aspect', image, size, false)]; }",
            [{"width": width, "height": height}, model],
        )
        scene = Scene(image=Image.new("RGB", (width, height)), fit="aspect")
        planned, sampling = shaped(scene, outline_of("bundled"), Sampling())
        assert found == [sampling.width, sampling.height, planned.fit]
