"""Parts of the studio by themselves: kept pictures, the pages' stream, forms made from dataclasses."""

import asyncio
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image, ImageCms

from sgi2v.controllers import controllers, recommended
from sgi2v.errors import FieldError
from sgi2v.fitting import fitted
from sgi2v.images import data_uri, load_image
from sgi2v.planning import Sampling
from sgi2v.scene_io import scene_from_dict
from sgi2v.studio.events import Hub
from sgi2v.studio.fields import describe, explanations
from sgi2v.studio.pictures import Pictures, named_pictures
from sgi2v.studio.problems import Problem
from sgi2v.studio.process import Worker
from sgi2v.studio.settings import Limits
from studio_quick import quick_settings
from studio_scene import file_of, picture, scene


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    return Pictures(tmp_path, Limits())


def test_a_picture_is_kept_as_it_came_where_a_browser_shows_it(pictures: Pictures, tmp_path: Path) -> None:
    image = picture()
    for kind, suffix in {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}.items():
        sent = file_of(image, kind)
        file = tmp_path / "sent"
        file.write_bytes(sent)
        names = {pictures.add(sent)[0], pictures.add(file)[0]}
        path = pictures.path(*names)
        assert names == {hashlib.sha256(sent).hexdigest()} and path is not None
        assert path.read_bytes() == sent and path.suffix == suffix
    (name,) = {pictures.add(file_of(image, kind))[0] for kind in ("BMP", "TIFF")}
    path = pictures.path(name)
    assert path is not None and path.suffix == ".png" and Image.open(path).tobytes() == image.tobytes()
    assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_a_browser_would_show_otherwise_is_kept_as_it_is_read(pictures: Pictures) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = picture().convert("RGBA")
    clear.putalpha(100)
    for image, kind, more in (
        (clear, "PNG", {}),
        (picture().convert("CMYK"), "JPEG", {}),
        (Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG", {}),
        (picture(), "PNG", {"exif": turned}),
        (picture(), "JPEG", {"icc_profile": b"Display P3"}),
        (picture(), "WEBP", {"save_all": True, "append_images": [picture(seed=1)], "lossless": True}),
    ):
        file = io.BytesIO()
        image.save(file, kind, **more)
        name, read = pictures.add(file.getvalue())
        path = pictures.path(name)
        assert path is not None and path.suffix == ".png" and load_image(path).tobytes() == read.tobytes()
    upright = io.BytesIO()
    picture().save(
        upright, "JPEG", exif=turned, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    )
    name, read = pictures.add(upright.getvalue())
    path = pictures.path(name)
    assert path is not None and path.suffix == ".jpg" and read.size == (32, 48)


def test_an_embedded_scene_is_the_same_with_its_pictures_taken_in(pictures: Pictures) -> None:
    whole = scene()
    mask = Image.new("L", (48, 32), 0)
    mask.paste(255, (8, 8, 24, 24))
    whole["motions"][0]["mask"] = data_uri(mask)
    inside, found = pictures.checked(whole)
    assert found == scene_from_dict(whole)
    assert len(set(named_pictures(inside))) == 2 and "data:" not in json.dumps(inside)
    assert pictures.scene_of(inside) == found and pictures.take_in(inside) == inside
    assert whole["image"].startswith("data:"), "what was given is left as it was"


def test_a_picture_that_no_record_could_hold_is_refused_at_once(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgi2v.studio.pictures.MAX_URI", 5000)
    with pytest.raises(ValueError, match="shrink"):
        pictures.add(file_of(picture(64, 64)))
    pictures.add(file_of(picture(16, 16)))


def test_unused_pictures_go_when_they_are_old(pictures: Pictures) -> None:
    used, old, again, new = (pictures.add(file_of(picture(seed=seed)))[0] for seed in range(4))
    for name in (used, old, again):
        os.utime(pictures.folder / f"{name}.png", (0, 0))
    assert pictures.path(again)  # looked at, sent or planned with: a page has it now
    pictures.remove_unused([used], age=3600.0)
    assert {path.stem for path in pictures.folder.iterdir()} == {used, again, new}


@pytest.mark.parametrize("value", [None, 3, [], "x", {"image": {"image": {"image": 3}}}, {"motions": [[[]]]}])
def test_what_is_no_scene_is_told_as_the_library_tells_it(pictures: Pictures, value: Any) -> None:
    with pytest.raises(FieldError) as error:
        pictures.checked(value)
    assert error.value.field
    deep: Any = {}
    for _ in range(100):
        deep = {"motions": [deep]}
    with pytest.raises(ValueError, match="nested"):
        pictures.checked(deep)


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_a_worker_is_told_device_number_format_memory_and_provenance(tmp_path: Path) -> None:
    settings = quick_settings(tmp_path, device="cpu", memory="balanced", provenance="off")
    with (tmp_path / "lock").open("w") as lock:
        worker = Worker(settings, "bundled", lock.fileno(), tmp_path / "worker.log")
    try:
        assert isinstance(worker.process.args, list)
        assert worker.process.args[-8:] == [
            "--backbone", "bundled", "--device", "cpu", "--memory", "balanced", "--provenance", "off",
        ]  # fmt: skip
        assert worker.alive
    finally:
        worker.end()


def test_a_page_hears_the_state_first_and_then_the_newest_of_everything() -> None:
    async def listen() -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
        hub = Hub(2)
        hub.start()
        stream = hub.listen(lambda: {"jobs": []})
        first = events(await anext(stream))
        for step in range(5):  # while the page is busy
            hub.tell("progress", "a", {"step": step})
        hub.tell("job", "a", {"state": "done"})
        hub.tell("progress", "b", {"step": 7})
        await asyncio.sleep(0)
        then = events(await anext(stream))
        hub.close()
        assert [event async for event in stream] == []
        return first, then

    first, then = asyncio.run(listen())
    assert first == [("snapshot", {"jobs": []})]
    assert then == [("progress", {"step": 4}), ("job", {"state": "done"}), ("progress", {"step": 7})]


def test_a_quiet_stream_shows_that_it_lives_and_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sgi2v.studio.events.HEARTBEAT", 0.01)

    async def listen() -> None:
        hub = Hub(1)
        hub.start()
        stream = hub.listen(lambda: {})
        assert (await anext(stream)).startswith("retry: ")
        assert (await anext(stream)).startswith(":")
        with pytest.raises(Problem) as problem:
            hub.listen(lambda: {})
        assert problem.value.status_code == 429
        await stream.aclose()
        await anext(hub.listen(lambda: {}))

    asyncio.run(listen())


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A parent."""

    lr: float = 0.5
    """A step
    size."""


@dataclass(frozen=True, kw_only=True)
class Child(Parent):
    """A child."""

    count: int | None = None
    """How many."""
    mode: Literal["a", "b"] = "a"
    pair: tuple[float, float] = (1.0, 2.0)
    names: tuple[str, ...] = ("x",)
    on: bool = False
    named: Mapping[str, float] = dataclasses.field(default_factory=dict)
    hidden: dict[str, int] = dataclasses.field(default_factory=dict)


def test_a_form_is_made_from_a_dataclass() -> None:
    fields = {field["name"]: field for field in describe(Child, {"lr": 0.1, "pair": (3.0, 4.0)})}
    assert list(fields) == ["lr", "count", "mode", "pair", "names", "on"]  # no form can hold a dictionary
    assert fields["lr"] == {
        "name": "lr", "type": "number", "optional": False, "default": 0.1, "published": 0.5, "help": "A step size.",
        "simple": True, "low": -1e6, "high": 1e6,
    }  # fmt: skip
    assert fields["count"]["type"] == "integer" and fields["count"]["optional"] and not fields["count"]["simple"]
    assert fields["mode"]["choices"] == ["a", "b"] and fields["on"]["type"] == "boolean"
    assert fields["pair"]["length"] == 2 and fields["pair"]["default"] == [3.0, 4.0]
    assert fields["names"]["type"] == "strings" and "length" not in fields["names"]


def test_json_is_fitted_to_a_dataclass() -> None:
    made = fitted(
        Child,
        {"lr": 1, "count": 2.0, "pair": [1, 2], "names": ["y"], "mode": "b", "unknown": 3},
        "controller",
    )
    assert made == {"lr": 1.0, "count": 2, "pair": (1.0, 2.0), "names": ("y",), "mode": "b", "unknown": 3}
    assert isinstance(made["lr"], float) and isinstance(made["count"], int)
    assert fitted(Child, {"count": None}, "") == {"count": None}
    assert fitted(Child, {"named": {"a": 1}}, "") == {"named": {"a": 1.0}}


@pytest.mark.parametrize(
    "values",
    [{"lr": "1"}, {"lr": True}, {"lr": None}, {"lr": 10**400}, {"lr": float("nan")}, {"count": 1.5}, {"count": "1"},
     {"mode": "c"}, {"mode": ["a"]}, {"pair": [1.0]}, {"pair": 1.0}, {"pair": [1.0, "x"]}, {"names": "xy"},
     {"names": [1]}, {"on": 1}, {"named": 1}, {"named": {"a": "x"}}],
)  # fmt: skip
def test_a_value_of_another_kind_is_refused_by_its_field(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(ValueError, match=rf"^controller\.{name}"):
        fitted(Child, values, "controller")


@pytest.mark.parametrize("name", sorted(controllers()))
def test_every_field_of_every_method_is_explained(name: str) -> None:
    kind = controllers()[name]
    helps = explanations(kind)
    for field in dataclasses.fields(kind):
        assert helps.get(field.name), f"{kind.__name__}.{field.name} has no explanation"
    shown = describe(kind, {})
    assert {field["name"] for field in shown} == {field.name for field in dataclasses.fields(kind)}
    again = kind(**fitted(kind, json.loads(json.dumps({f["name"]: f["default"] for f in shown})), ""))
    assert again == recommended(name, {})
    assert explanations(Sampling)["seed"].startswith("Seed of the one random generator")
