"""Numbers that no model makes: bounds from one source on page and server, and a page that stays whole."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from sgi2v.backbones.base import Settings
from sgi2v.checks import LARGEST, bounds_of, check_bounds
from sgi2v.controllers import controllers
from sgi2v.errors import FieldError
from sgi2v.pipeline import generate
from sgi2v.planning import Sampling
from sgi2v.studio.engine import LibraryEngine
from sgi2v.studio.fields import describe
from sgi2v.studio.shapes import SamplingAsked
from studio_page import LAPTOP, STUDIO, Visit, chromium, needs_browser
from studio_process import StudioProcess
from studio_quick import quick_settings
from studio_scene import scene
from tiny import small_bundled

ABSURD = [5_000_000_000, 1e9, -1, 0, 2.5]


def test_server_and_forms_say_the_librarys_own_bounds() -> None:
    schema = SamplingAsked.model_json_schema()["properties"]
    for spec in describe(Sampling, {}):
        if spec["type"] != "integer":
            continue
        (shown,) = (one for one in schema[spec["name"]]["anyOf"] if one["type"] == "integer")
        assert (shown["minimum"], shown["maximum"]) == bounds_of(Sampling, spec["name"]) == (spec["low"], spec["high"])
        for wrong in (spec["low"] - 1, spec["high"] + 1):
            with pytest.raises(FieldError, match=spec["name"]):
                Sampling(**{spec["name"]: wrong})


@pytest.mark.parametrize("name", sorted(controllers()))
def test_every_number_of_a_method_has_bounds_that_it_keeps(name: str) -> None:
    kind = controllers()[name]
    for spec in describe(kind, {}):
        if spec["type"] in ("integer", "number"):
            for wrong in (spec["low"] - 1, spec["high"] + 1):
                value = int(wrong) if spec["type"] == "integer" else float(wrong)
                with pytest.raises(FieldError, match=spec["name"]):
                    check_bounds("controller", dataclasses.replace(kind(), **{spec["name"]: value}))


def test_settings_of_somebody_elses_model_are_looked_at_too() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Theirs(Settings):
        strength: float = 1.0
        pair: tuple[float, float] = (0.0, 1.0)

    fine = Theirs(width=64, height=64, num_frames=8, num_steps=4, fps=8.0)
    check_bounds("settings", fine)
    wrong: dict[str, Any] = {"num_frames": 10**9, "fps": 1e9, "strength": 2 * LARGEST, "pair": (0.0, 1e9)}
    for name, value in wrong.items():
        with pytest.raises(FieldError, match=f"settings.{name}"):
            check_bounds("settings", dataclasses.replace(fine, **{name: value}))


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    from sgi2v.controllers import Controller
    from sgi2v.opening import ModelChoice
    from sgi2v.scene_io import scene_from_dict

    sampling = Sampling(num_steps=1, width=64, height=64, num_frames=2)
    choice = ModelChoice(backbone=str(small_bundled()), device="cpu")
    backbone = choice.load(choice.outline())
    video = generate(scene_from_dict(scene()), backbone=backbone, controller=Controller(), sampling=sampling)
    return dict(json.loads(json.dumps(video.run)))


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [
        (("sampling", "num_frames"), 10**9, "run.sampling.num_frames"),
        (("sampling", "width"), 10**9, "run.sampling.width"),
        (("sampling", "num_steps"), 10**9, "run.sampling.num_steps"),
        (("backbone", "settings", "fps"), 10**9, "run.backbone.settings.fps"),
        (("backbone", "settings", "fps"), "fast", "run.backbone.settings.fps"),
    ],
)
def test_a_record_of_absurd_numbers_is_refused_by_its_field(
    record: dict[str, Any], tmp_path: Path, place: tuple[str, ...], value: Any, field: str
) -> None:
    engine = LibraryEngine(quick_settings(tmp_path, backbones=(str(small_bundled()),)))
    assert engine.read_record(record)["sampling"]["num_frames"] == 2
    wrong = json.loads(json.dumps(record))
    inside = wrong
    for part in place[:-1]:
        inside = inside[part]
    inside[place[-1]] = value
    with pytest.raises(FieldError) as error:
        engine.read_record(wrong)
    assert error.value.field == field
    if place[0] == "backbone":  # of another model, what does not fit this one's fields is left out
        wrong["backbone"]["name"] = "elsewhere"
        assert engine.read_record(wrong)["settings"] == {}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@needs_browser
def test_no_number_bricks_the_page(browser: Browser, tmp_path: Path) -> None:
    with StudioProcess(tmp_path, STUDIO, "--port", "0", "--backbone", str(small_bundled())) as studio:
        visit = Visit(browser.new_context(viewport=LAPTOP), studio.url)
        page = visit.page
        visit.photo()
        page.click("#tab-settings")
        page.click("#all-settings summary")
        for name in ("num_frames", "width", "num_steps"):
            for value in ABSURD:
                page.fill(f"#set-sampling-{name}", str(value))
                page.press(f"#set-sampling-{name}", "Tab")
                visit.settle()
                assert name not in visit.state()["choices"]["sampling"]
            assert f"{name}: give a whole number from 1 to" in visit.message()
        page.fill("#set-settings-fps", "1e9")
        page.press("#set-settings-fps", "Tab")
        assert visit.state()["choices"]["settings"] == {}
        assert visit.errors == []

        def keep(change: str) -> None:
            """What an earlier version, or anybody, may have left in the browser."""
            page.wait_for_timeout(400)
            page.evaluate(f"""() => {{
                const [key] = Object.keys(localStorage).filter((one) => one.startsWith("sgi2v-work-"));
                const work = JSON.parse(localStorage.getItem(key));
                {change};
                work.saved = Date.now() + 1e6;
                localStorage.setItem("sgi2v-work-old", JSON.stringify(work));
                sessionStorage.removeItem("sgi2v-page");
            }}""")
            page.goto("about:blank")
            page.goto(studio.url)
            visit.ready()
            visit.settle()

        keep("work.choices.sampling = { num_frames: 5e9, width: 1e9 }; work.choices.settings = { fps: -3 }")
        assert visit.state()["choices"]["sampling"] == {} and visit.state()["doc"]["image"] is not None
        assert "num_frames" in visit.message() and visit.state()["video"]["num_frames"] == 8
        for change in (
            "work.doc.nextId = 2; work.doc.motions = [{ id: 1, path: [], box: { left: 0, top: 0, right: 'x' } }]",
            "work.doc.image.width = 1e12",
            "work.doc = 7; work.ui = 7; work.choices = [7]",
            "work.doc.motions = [{ id: 1, name: { a: 1 }, kind: 'object', curve: 'polyline', color: 3, visible: true,"
            " box: { left: 0, top: 0, right: 4, bottom: 4 }, path: [] }]; work.doc.nextId = 2",
        ):
            keep(change)
            assert page.locator("#tools button").count() > 5 and page.locator("#set-controller").count() == 1
            visit.photo()
            visit.drag((20, 20), (50, 44))
            assert len(visit.motions()) == 1, change
        assert page.evaluate("'sgi2v-aside' in localStorage")
        # One part that cannot be drawn does not stop the others.
        page.evaluate(
            "() => { HTMLCanvasElement.prototype.getBoundingClientRect = () => { throw new Error('planted'); }; }"
        )
        page.click("#tab-results")
        visit.settle()
        assert page.locator("#panel-results").is_visible() and "planted" in visit.message()
        page.context.close()
