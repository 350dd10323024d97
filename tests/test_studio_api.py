"""The studio's API over real HTTP, with a real worker and a tiny model: every operation, and a job from end to end."""

import io
import itertools
import json
import re
import shlex
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from sgi2v.cli import main
from sgi2v.images import data_uri
from sgi2v.run import Run
from sgi2v.scene_io import load_scene, scene_from_dict
from sgi2v.video import load_video
from studio_process import PATIENCE, REAL, StudioProcess, until
from studio_scene import file_of, picture, scene
from tiny import tiny_svd

TOKEN = "sixteen or more characters"
SMALL = {
    "seed": 3,
    "num_steps": 4,
    "width": 48,
    "height": 32,
    "num_frames": 3,
    "solver": "euler",
    "padding": "cut",
}
OUTSIDE = {"left": -1, "top": 0, "right": 4, "bottom": 4}
CONTROL = {
    "name": "sg-i2v",
    "guided": {"low": 1, "high": 400, "unit": "sigma"},
    "iterations": 1,
    "layers": ["up_blocks.2.attentions.1:first-frame"],
}


class Recorder:
    """Remembers which operations of the schema have answered with 2xx."""

    def __init__(self, schema: dict[str, Any]) -> None:
        found = ((method.upper(), path) for path, methods in schema["paths"].items() for method in methods)
        self.wanted = {
            (method, path): re.compile(re.sub(r"\{\w+\}", "[^/]+", path).replace(".", r"\.")) for method, path in found
        }
        self.answered: set[tuple[str, str]] = set()

    def __call__(self, response: httpx.Response) -> None:
        if response.is_success:
            self.answered |= {
                (method, path)
                for (method, path), pattern in self.wanted.items()
                if method == response.request.method and pattern.fullmatch(response.request.url.path)
            }


class Stream:
    """A page's stream, read in a thread."""

    def __init__(self, studio: StudioProcess) -> None:
        self.events: list[tuple[str, Any]] = []
        self.opened = threading.Event()
        self._studio = studio
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self.opened.wait(PATIENCE)

    def _read(self) -> None:
        # The studio ends before its pages do.
        with (
            suppress(httpx.TransportError, httpx.StreamError),
            self._studio.http.stream("GET", "/api/events", timeout=PATIENCE) as response,
        ):
            kind = ""
            for line in response.iter_lines():
                name, _, text = line.partition(": ")
                if name == "event":
                    kind = text
                elif name == "data":
                    self.events.append((kind, json.loads(text)))
                    self.opened.set()

    def of(self, kind: str, job_id: str) -> list[Any]:
        return [data for name, data in self.events if name == kind and data.get("id") == job_id]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudioProcess]:
    model = tiny_svd(3, light=True)
    with StudioProcess(tmp_path_factory.mktemp("api"), REAL, "--backbone", str(model), token=TOKEN) as studio:
        yield studio


def red_square() -> Image.Image:
    """On light ground, 64x64, from 20 to 44."""
    pixels = np.full((64, 64, 3), 230, dtype=np.uint8)
    pixels[20:44, 20:44] = (200, 30, 30)
    return Image.fromarray(pixels)


def asked(**changed: Any) -> dict[str, Any]:
    return {"scene": scene(), "controller": CONTROL, "sampling": SMALL, **changed}


def send(studio: StudioProcess, request: dict[str, Any], key: str | None = None) -> httpx.Response:
    return studio.http.post("/api/jobs", json=request, headers={"Idempotency-Key": key} if key else {})


@pytest.fixture(scope="module")
def job(studio: StudioProcess) -> Any:
    """A job that is done, and the stream that told of it."""
    stream = Stream(studio)
    response = send(studio, asked(group="a comparison"), "the first")
    assert response.status_code == 201, response.text
    done = studio.wait_for(response.json()["id"])
    assert done["state"] == "done", done["message"]
    until(lambda: [e for e in stream.of("job", done["id"]) if e["state"] == "done"])
    return done, stream


def test_what_is_offered(studio: StudioProcess) -> None:
    info = studio.get("/api/info")
    (backbone,) = info["backbones"]
    assert (backbone["num_frames"], backbone["stride"], backbone["name"]) == (
        3,
        8,
        tiny_svd(3, light=True).name,
    )
    assert info["default_backbone"] == backbone["name"] and info["default_controller"] == "sg-i2v"
    methods = {method["name"]: method for method in backbone["controllers"]}
    assert {"none", "sg-i2v"} <= set(methods)
    for method in methods.values():
        for field in [*method["fields"], *itertools.chain(*(part["fields"] for part in method["parts"]))]:
            assert field["help"] and field["type"], (method["name"], field["name"])
    assert [field["name"] for field in backbone["sampling"] if field["simple"]] == ["seed", "num_steps"]
    assert {field["name"] for field in backbone["settings"]} >= {"fps", "motion_bucket_id"}
    assert studio.http.get("/api/info?recipe=none").status_code == 422
    assert tiny_svd(3, light=True).parent.name not in json.dumps(info), "no folder of this machine is told"


def test_shipped_scenes_can_be_planned_as_they_are(studio: StudioProcess) -> None:
    examples = studio.get("/api/examples")["examples"]
    assert [example["name"] for example in examples] == ["cat", "coffee", "galaxies", "rocket", "shapes"]
    for example in examples:
        image = studio.http.get(example["image"]["url"])
        assert Image.open(io.BytesIO(image.content)).size == (
            example["image"]["width"],
            example["image"]["height"],
        )
        assert image.headers["Content-Type"] == "image/png" and "immutable" in image.headers["Cache-Control"]
        plan = studio.http.post("/api/plan", json={"scene": example["scene"], "controller": {"name": "none"}})
        assert plan.status_code == 200 and len(plan.json()["motions"]) == len(example["scene"]["motions"])


def test_a_plan_says_where_boxes_are_and_how_fast(studio: StudioProcess) -> None:
    plan = studio.http.post("/api/plan", json=asked()).json()
    (motion,) = plan["motions"]
    assert motion["boxes"] == [[8, 8, 24, 24], [12, 8, 28, 24], [16, 8, 32, 24]]
    assert motion["speeds"] == [4, 4] and motion["max_speed"] == 4 and plan["max_speed"] == pytest.approx(3.2)
    assert motion["too_fast"]
    assert plan["sampling"] == SMALL and plan["guided_iterations"] == 2
    assert plan["controller"]["lr"] == 0.21 and plan["controller"]["guided"] == CONTROL["guided"]
    assert plan["warnings"] == []
    unused = studio.http.post("/api/plan", json=asked(scene={**scene(), "prompt": "a cat"})).json()
    name = tiny_svd(3, light=True).name
    assert unused["warnings"] == [f"not used by sg-i2v on {name}: prompt (Stable Video Diffusion takes no text)"]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"sampling": {"width": 50}}, "width"),
        ({"sampling": {"num_steps": 0}}, "sampling.num_steps"),
        ({"sampling": {"speed": 1}}, "sampling.speed"),
        ({"controller": {"name": "nothing"}}, "controller"),
        ({"controller": {"name": "sg-i2v", "lr": "much"}}, "controller.lr"),
        ({"controller": {"name": "sg-i2v", "guided": [1e6, 2e6]}}, "controller.guided.high"),
        ({"controller": {"name": "sg-i2v", "guided": {"low": 1, "high": 2, "unit": "mile"}}}, "controller.guided.unit"),
        ({"controller": {"name": "sg-i2v", "guided": {"low": 2, "high": 1}}}, "controller.guided"),
        ({"controller": {**CONTROL, "layers": ["no_such_block:output"]}}, "controller.layers"),
        ({"controller": {"name": ["sg-i2v"]}}, "controller.name"),
        ({"settings": {"fps": 0}}, "settings.fps"),
        ({"settings": {"width": 64}}, "settings.width"),
        ({"settings": {"nothing": 1}}, "settings"),
        ({"recipe": "none"}, "recipe"),
        ({"backbone": "/etc"}, "backbone"),
        ({"group": 3}, "group"),
        ({"nothing": 3}, "nothing"),
        ({"scene": {**scene(), "version": 9}}, "version"),
        ({"scene": {**scene(), "motions": [{"box": OUTSIDE}]}}, "motions[0].box.left"),
        ({"scene": {**scene(), "motions": []}}, "motions"),
        ({"sampling": {"width": 4096, "height": 4096, "num_frames": 256}}, "sampling.num_frames"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_by_its_field_before_anything_is_queued(
    studio: StudioProcess, changed: dict[str, Any], field: str
) -> None:
    before = len(studio.get("/api/jobs")["jobs"])
    for path in ("/api/plan", "/api/jobs"):
        response = studio.http.post(path, json=asked(**changed))
        assert response.status_code == 422, response.text
        assert response.json()["error"]["field"] == field, response.text
    assert len(studio.get("/api/jobs")["jobs"]) == before


def test_a_job_is_told_of_from_end_to_end(studio: StudioProcess, job: Any) -> None:
    done, stream = job
    assert stream.events[0][0] == "snapshot"
    states = [event["state"] for event in stream.of("job", done["id"])]
    assert states == ["queued", "running", "done"]
    progress = stream.of("progress", done["id"])
    phases = [phase for phase, _ in itertools.groupby(event["phase"] for event in progress)]
    assert phases == ["load", "encode", "sample", "decode", "write"]
    steps = [(event["step"], event["iteration"]) for event in progress if event["phase"] == "sample"]
    assert steps == sorted(steps) and steps[-1][0] == 4 and {event["num_steps"] for event in progress} <= {0, 4}
    assert progress[-1]["loss"] is None or progress[-1]["loss"] > 0
    assert any(event["loss"] for event in progress) and any(event["seconds_left"] for event in progress)
    assert progress[-1]["preview"].startswith(f"/api/jobs/{done['id']}/preview.png?v=")
    assert done["result"]["seconds"] > 0 and done["group"] == "a comparison"
    assert done["started"] < done["finished"] and done["plan"]["sampling"] == SMALL


def test_a_jobs_files_are_the_video_and_make_it_again(studio: StudioProcess, job: Any, tmp_path: Path) -> None:
    done, _ = job
    result = done["result"]
    frames = []
    for index in range(3):
        response = studio.http.get(f"{result['frames']}{index}.png")
        frames.append(np.asarray(Image.open(io.BytesIO(response.content))))
    assert studio.http.get(f"{result['frames']}3.png").status_code == 404
    (tmp_path / "v.mp4").write_bytes(studio.http.get(result["mp4"]).content)
    (tmp_path / "v.gif").write_bytes(studio.http.get(result["gif"]).content)
    for path in (tmp_path / "v.mp4", tmp_path / "v.gif"):
        pixels = (load_video(path).frames.permute(0, 2, 3, 1) * 255).round().numpy()
        assert np.abs(pixels - np.stack(frames)).mean() < 12, path.suffix
    bundle = zipfile.ZipFile(io.BytesIO(studio.http.get(result["zip"]).content))
    assert bundle.namelist() == ["frame_0000.png", "frame_0001.png", "frame_0002.png", "run.json"]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(bundle.read("frame_0001.png")))), frames[1])
    kept = scene_from_dict(studio.get(result["scene"]))
    run = Run.from_dict(studio.get(result["run"])["run"])
    assert kept == scene_from_dict(scene()) == scene_from_dict(dict(run.scene))
    assert run.sampling["seed"] == 3 and run.controller["iterations"] == 1
    for path, ending in ((result["mp4"], ".mp4"), (result["zip"], "-frames.zip")):
        disposition = studio.http.get(path, params={"download": True}).headers["Content-Disposition"]
        assert disposition == f'attachment; filename="sgi2v-{done["number"]}{ending}"'


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_a_video_gives_its_scene_and_settings_back(studio: StudioProcess, job: Any, kind: str) -> None:
    done, _ = job
    video = studio.http.get(done["result"][kind]).content
    response = studio.http.post("/api/import/video", content=video)
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["scene"]["image"] == done["request"]["scene"]["image"] == found["image"]["image"]
    assert found["sampling"] == SMALL and found["backbone"]["here"] is True
    again = {"scene": found["scene"], "controller": found["controller"], "sampling": found["sampling"]}
    plan = studio.http.post("/api/plan", json={**again, "settings": found["settings"]}).json()
    assert plan["controller"] == done["plan"]["controller"]
    for damaged in (video[: len(video) // 2], video[:40], b"GIF89a", b"0000ftypisom", b"RIFF"):
        refused = studio.http.post("/api/import/video", content=damaged)
        assert refused.status_code == 422 and str(studio.data) not in refused.text, refused.text


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_a_video_says_where_it_is_from(studio: StudioProcess, job: Any, kind: str) -> None:
    video = studio.http.get(job[0]["result"][kind]).content
    found = studio.http.post("/api/verify", content=video).json()
    assert found["changed"] is False and [name for name, _ in found["answers"]] == [
        "credentials",
        "watermark",
        "record",
    ]
    assert "valid, unchanged" in found["answers"][0][1] and "a run of sgi2v" in found["answers"][2][1]
    swapped = video.replace(b"AI-generated", b"Camera-taken")
    assert swapped != video and studio.http.post("/api/verify", content=swapped).json()["changed"] is True
    for damaged in (video[: len(video) // 2], video[:40], b"GIF89a", b"0000ftypisom", b"RIFF"):
        answer = studio.http.post("/api/verify", content=damaged)
        assert answer.status_code in (200, 422) and str(studio.data) not in answer.text, answer.text


def test_scenes_come_in_and_go_out(studio: StudioProcess) -> None:
    taken = studio.http.post("/api/import/scene", json=scene()).json()
    assert taken["scene"]["image"] == taken["image"]["image"]
    given = studio.http.post("/api/export/scene", json=taken["scene"])
    assert scene_from_dict(given.json()) == scene_from_dict(scene())
    tracks = np.array([[[8, 8], [24, 24], [16, 16], [20, 16], [24, 16]]], dtype=np.float64)
    file = io.BytesIO()
    np.save(file, tracks)
    image = studio.http.post("/api/images", content=file_of(picture())).json()
    response = studio.http.post("/api/import/traj", content=file.getvalue(), params={"image": image["id"]})
    (motion,) = response.json()["scene"]["motions"]
    assert motion["box"] == {"left": 8, "top": 8, "right": 24, "bottom": 24} and len(motion["path"]) == 3
    for damaged in (file.getvalue()[:-8], b"\x80\x04N.", b"x"):
        response = studio.http.post("/api/import/traj", content=damaged, params={"image": image["id"]})
        assert response.status_code == 422 and str(studio.data) not in response.text, response.text


def test_a_scene_is_copied_as_the_command_that_makes_it(
    studio: StudioProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scene as the page makes it of a photo, with a camera preset, against what the command line makes."""
    monkeypatch.chdir(tmp_path)
    picture().save("a photo.png")
    kept = studio.http.post("/api/images", content=file_of(picture())).json()["image"]
    path = [{"time": 0, "x": 20, "y": 16, "easing": "ease-in"}, {"time": 1, "x": 30, "y": 20.5, "scale": 1.25}]
    motions = [
        {"name": "it's", "kind": "object", "box": {"left": 12, "top": 8, "right": 28, "bottom": 24}, "path": path},
        {"kind": "object", "box": {"left": 0, "top": 0, "right": 6.5, "bottom": 7}},
    ]
    drawn = {"format": "sgi2v-scene", "version": "2.2", "image": kept, "fit": "aspect", "motions": motions}
    camera = studio.http.post("/api/camera", json={"scene": drawn, "camera": {"zoom": 1.1, "dx": -0.05}}).json()
    drawn["motions"] += camera["motions"]
    said = studio.http.post("/api/export/command", params={"photo": "a photo.png"}, json=drawn).json()
    assert said["left_out"] == [] and said["command"].count("--drag") == 1
    name, generate, photo, *rest = shlex.split(said["command"])
    assert (name, generate, photo) == ("sgi2v", "generate", "a photo.png")
    assert main(["convert", photo, "made.json", *rest]) == 0
    assert load_scene("made.json") == scene_from_dict(studio.http.post("/api/export/scene", json=drawn).json())


def test_a_clip_of_ones_own_and_a_mask_from_a_box(studio: StudioProcess, job: Any) -> None:
    done, _ = job
    clip = studio.http.post("/api/import/clip", content=studio.http.get(done["result"]["gif"]).content)
    assert clip.status_code == 200, clip.text
    assert (clip.json()["width"], clip.json()["height"], len(clip.json()["pictures"])) == (48, 32, 3)
    still = studio.http.post("/api/import/clip?masks=true", content=file_of(picture())).json()
    reference = {"frames": clip.json()["pictures"], "masks": still["pictures"]}
    both = {**scene(), "version": 2, "reference": reference}
    asking = {"scene": both, "controller": {"name": "none"}}
    assert studio.http.post("/api/plan", json=asking).status_code == 200
    assert scene_from_dict(studio.http.post("/api/export/scene", json=both).json()).reference is not None
    image = studio.http.post("/api/images", content=file_of(red_square())).json()
    box = {"left": 14, "top": 14, "right": 50, "bottom": 50}
    found = studio.http.post("/api/mask", json={"image": image["image"], "box": box})
    assert found.status_code == 200, found.text
    mask = np.asarray(Image.open(io.BytesIO(studio.http.get(found.json()["url"]).content))) > 127
    assert mask.shape == (64, 64) and mask[24:40, 24:40].all() and not mask[:16].any()
    outside = studio.http.post("/api/mask", json={"image": image["image"], "box": {**box, "right": 70}})
    assert outside.status_code == 422 and outside.json()["error"]["field"] == "motions[0].box.right"
    clicked = studio.http.post("/api/mask", json={"image": image["image"], "at": [30, 33]})
    assert clicked.status_code == 200, clicked.text
    around = clicked.json()["box"]
    assert 17 <= around["left"] <= 20 and 44 <= around["right"] <= 47 and 17 <= around["top"] <= 20
    mask = np.asarray(Image.open(io.BytesIO(studio.http.get(clicked.json()["url"]).content))) > 127
    assert mask[24:40, 24:40].all() and not mask[:16].any()
    inside = studio.http.post("/api/mask", json={"image": image["image"], "at": [30, 33], "box": box}).json()
    assert inside["box"] == box
    for asked_of in ({}, {"at": [30, 64]}, {"at": [-1, 3]}):
        refused = studio.http.post("/api/mask", json={"image": image["image"], **asked_of})
        assert refused.status_code == 422 and refused.json()["error"]["field"] == "at", refused.text


def test_a_camera_becomes_boxes_that_meet_no_object(studio: StudioProcess) -> None:
    asking = {"scene": scene(), "camera": {"zoom": 1.2}, "columns": 3, "rows": 3}
    motions = studio.http.post("/api/camera", json=asking).json()["motions"]
    assert 0 < len(motions) < 9 and {motion["kind"] for motion in motions} == {"camera"}
    both = {**scene(), "motions": scene()["motions"] + motions}
    assert studio.http.post("/api/plan", json={"scene": both, "controller": {"name": "none"}}).status_code == 200


def test_the_same_key_is_the_same_job(studio: StudioProcess, job: Any) -> None:
    done, _ = job
    again = send(studio, asked(group="a comparison"), "the first")
    assert again.status_code == 200 and again.json()["id"] == done["id"]
    assert send(studio, asked(group="another"), "the first").status_code == 409
    assert (
        studio.http.post(f"/api/jobs/{done['id']}/retry", headers={"Idempotency-Key": "the first"}).status_code == 409
    )
    with ThreadPoolExecutor(4) as pool:
        short = asked(sampling={**SMALL, "num_steps": 1}, controller={"name": "none"})
        sent = list(pool.map(lambda _: send(studio, short, "at once"), range(6)))
    assert len({response.json()["id"] for response in sent}) == 1
    assert sorted(response.status_code for response in sent) == [200] * 5 + [201]
    assert studio.wait_for(sent[0].json()["id"])["state"] == "done"


def test_cancel_ends_within_a_step_and_the_job_can_be_sent_again(studio: StudioProcess, job: Any) -> None:
    long = asked(sampling={**SMALL, "num_steps": 1000}, controller={"name": "none"})
    streams = [Stream(studio), Stream(studio)]  # two pages at once
    first, second = (send(studio, long).json()["id"] for _ in range(2))
    until(lambda: any(event["step"] > 2 for event in streams[0].of("progress", first)))
    preview = studio.http.get(f"/api/jobs/{first}/preview.png")
    assert Image.open(io.BytesIO(preview.content)).size == (48, 32)
    waiting = studio.http.post(f"/api/jobs/{second}/cancel").json()
    assert waiting["state"] == "cancelled" and waiting["started"] is None
    before = streams[0].of("progress", first)[-1]["step"]
    asked_at = time.monotonic()
    studio.http.post(f"/api/jobs/{first}/cancel").raise_for_status()
    assert studio.wait_for(first)["state"] == "cancelled"
    took = time.monotonic() - asked_at
    until(lambda: streams[1].of("job", first)[-1]["state"] == "cancelled")
    last = max(event["step"] for event in streams[0].of("progress", first))
    assert last - before < 100 and took < 30, (before, last, took)
    assert not (studio.data / "jobs" / first / "result").exists()
    for stream in streams:
        assert {event["state"] for event in stream.of("job", second)} == {"queued", "cancelled"}
    assert studio.http.post(f"/api/jobs/{first}/cancel").status_code == 409
    assert studio.http.get(f"/api/jobs/{first}/video.mp4").status_code == 409
    retry = studio.http.post(f"/api/jobs/{first}/retry").json()
    assert retry["retry_of"] == first and retry["request"] == studio.get(f"/api/jobs/{first}")["request"]
    assert studio.http.delete(f"/api/jobs/{retry['id']}").status_code == 409
    studio.http.post(f"/api/jobs/{retry['id']}/cancel").raise_for_status()
    studio.wait_for(retry["id"])
    assert studio.http.delete(f"/api/jobs/{retry['id']}").status_code == 204
    assert studio.http.get(f"/api/jobs/{retry['id']}").status_code == 404
    until(lambda: streams[0].of("deleted", retry["id"]))
    assert not (studio.data / "jobs" / retry["id"]).exists()


def test_what_the_model_finds_wrong_fails_the_job_and_nothing_else(studio: StudioProcess, job: Any) -> None:
    (motion,) = scene()["motions"]
    nothing = data_uri(Image.new("L", (48, 32)))
    wrong = asked(
        scene={**scene(), "motions": [{**motion, "mask": nothing}]}, controller={**CONTROL, "weighting": "mask"}
    )
    failed = studio.wait_for(send(studio, wrong).json()["id"])
    assert failed["state"] == "failed"
    assert failed["message"].startswith("motions[0].mask: nothing of it lies in the motion's box; draw it there")
    fine = studio.wait_for(
        send(studio, asked(sampling={**SMALL, "num_steps": 1, "seed": 4}, controller={"name": "none"})).json()["id"]
    )
    assert fine["state"] == "done"


def test_every_operation_answers(studio: StudioProcess, job: Any) -> None:
    done, _ = job
    recorder = Recorder(studio.get("/openapi.json"))
    http = studio.http
    http.event_hooks["response"].append(recorder)
    result, image = done["result"], done["request"]["scene"]["image"].removeprefix("upload:")
    plain = (
        "/health",
        "/api/info",
        "/api/examples",
        "/api/jobs",
        f"/api/images/{image}",
        f"/api/jobs/{done['id']}",
    )
    for path in (
        *plain,
        f"{result['frames']}0.png",
        *(result[k] for k in ("mp4", "gif", "zip", "scene", "run")),
    ):
        http.get(path)
    file = io.BytesIO()
    np.save(file, np.array([[[8, 8], [24, 24], [16, 16], [20, 16], [24, 16]]], dtype=np.float64))
    square = http.post("/api/images", content=file_of(red_square())).json()["image"]
    http.post("/api/plan", json=asked())
    http.post("/api/camera", json={"scene": scene(), "camera": {"dx": 0.1}})
    http.post("/api/mask", json={"image": square, "box": {"left": 14, "top": 14, "right": 50, "bottom": 50}})
    http.post("/api/import/clip", content=file_of(picture()))
    http.post("/api/import/scene", json=scene())
    http.post("/api/import/traj", content=file.getvalue(), params={"image": image})
    http.post("/api/import/video", content=http.get(result["mp4"]).content)
    http.post("/api/verify", content=http.get(result["mp4"]).content)
    http.post("/api/export/scene", json=scene())
    http.post("/api/export/command", params={"photo": "a.jpg"}, json=scene())
    http.post("/api/keep", json={"page": "a page", "pictures": [image]})
    long = send(studio, asked(sampling={**SMALL, "num_steps": 1000}, controller={"name": "none"})).json()["id"]
    until(lambda: http.get(f"/api/jobs/{long}/preview.png").is_success)
    http.post(f"/api/jobs/{long}/cancel")
    studio.wait_for(long)
    again = http.post(f"/api/jobs/{long}/retry").json()["id"]
    http.post(f"/api/jobs/{again}/cancel")
    studio.wait_for(again)
    http.delete(f"/api/jobs/{again}")
    with http.stream("GET", "/api/events"):
        http.event_hooks["response"].remove(recorder)
    assert recorder.answered == set(recorder.wanted)


@pytest.mark.long
def test_a_kill_in_the_middle_of_a_real_job_loses_nothing(tmp_path: Path) -> None:
    options = (REAL, "--backbone", str(tiny_svd(3, light=True)))
    short = asked(sampling={**SMALL, "num_steps": 1}, controller={"name": "none"})
    with StudioProcess(tmp_path, *options) as studio:
        done = studio.wait_for(send(studio, short).json()["id"])
        long = asked(sampling={**SMALL, "num_steps": 1000}, controller={"name": "none"})
        job_id = send(studio, long).json()["id"]
        until(lambda: (studio.get(f"/api/jobs/{job_id}")["progress"] or {"step": 0})["step"] > 1)
        studio.kill()
    with StudioProcess(tmp_path, *options) as again:
        found = {row["id"]: row for row in again.get("/api/jobs?limit=500")["jobs"]}
        assert found[job_id]["state"] == "interrupted" and found[done["id"]]["state"] == "done"
        assert again.http.get(f"/api/jobs/{done['id']}/frames/0.png").status_code == 200
        assert again.http.get(f"/api/jobs/{job_id}/video.mp4").status_code == 409
