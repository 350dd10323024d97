"""The JSON that goes in and out of the studio's API, as its OpenAPI schema shows it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sgi2v.camera import Camera
from sgi2v.checks import bounds_of
from sgi2v.planning import Padding, Sampling, SolverName
from sgi2v.records import Json
from sgi2v.scene import Fit
from sgi2v.studio.jobs import Live, progress_json
from sgi2v.studio.pictures import PREFIX
from sgi2v.studio.table import Row, State


class Asked(BaseModel):
    """A request's body: what is not known is refused."""

    model_config = ConfigDict(extra="forbid")


def _within(kind: type, name: str, default: float | None = None) -> Any:
    """A number within the bounds that the library itself says."""
    low, high = bounds_of(kind, name)
    return Field(default=default, ge=low, le=high)


class SamplingAsked(Asked):
    """Settings of sampling; those left out are as the model recommends."""

    seed: int | None = _within(Sampling, "seed")
    num_steps: int | None = _within(Sampling, "num_steps")
    width: int | None = _within(Sampling, "width")
    height: int | None = _within(Sampling, "height")
    num_frames: int | None = _within(Sampling, "num_frames")
    solver: SolverName | None = None
    padding: Padding | None = None


class JobAsked(Asked):
    """A scene and how to make it."""

    scene: Json = Field(description="docs/scene.md; a picture is a data: URI or upload:<id>")
    backbone: str | None = Field(default=None, max_length=500)
    recipe: str | None = Field(default=None, max_length=100)
    controller: Json | None = Field(default=None, description="name and any fields; the rest as the model recommends")
    sampling: SamplingAsked | None = None
    settings: Json | None = Field(default=None, description="of the model")
    group: str | None = Field(default=None, max_length=100, description="keeps jobs of one comparison together")


class CameraAsked(Asked):
    """A motion of the camera over the picture; see sgi2v.camera."""

    dx: float = _within(Camera, "dx", 0.0)
    dy: float = _within(Camera, "dy", 0.0)
    zoom: float = _within(Camera, "zoom", 1.0)
    roll: float = _within(Camera, "roll", 0.0)
    easing: Literal["linear", "ease-in", "ease-out", "ease-in-out"] = "linear"


class MotionsAsked(Asked):
    """A camera over a scene."""

    scene: Json
    camera: CameraAsked = CameraAsked()
    columns: int = Field(default=4, ge=1, le=16)
    rows: int = Field(default=3, ge=1, le=16)
    fraction: float = Field(default=0.15, gt=0, le=1)


class Wrong(BaseModel):
    """A mistake and its field."""

    field: str
    message: str


class Problems(BaseModel):
    """Every answer that says no."""

    error: Wrong


class Picture(BaseModel):
    """A picture that the studio keeps."""

    id: str
    image: str
    url: str
    width: int
    height: int


class SceneGiven(BaseModel):
    """A scene whose pictures the studio keeps."""

    scene: Json
    image: Picture


class Example(SceneGiven):
    """A scene that ships with the project."""

    name: str


class Examples(BaseModel):
    """All scenes that ship with the project."""

    examples: list[Example]


class Imported(SceneGiven):
    """Scene and settings of a video's record."""

    controller: Json
    sampling: Json
    settings: Json
    backbone: Json


class Origin(BaseModel):
    """Answers on where a clip is from (docs/provenance.md)."""

    changed: bool = Field(description="true where something in the file is not what was signed")
    answers: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        description="on credentials, watermark and record: a name and a sentence each"
    )


class KeepAsked(Asked):
    """Pictures that a page's work needs."""

    page: str = Field(min_length=1, max_length=100, description="a name of the page's own choosing")
    pictures: list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = Field(max_length=20_000, description="their ids")


class MaskAsked(Asked):
    """A thing in a picture: what lies in a box, or under a point, or both."""

    image: str = Field(description="upload:<id> or a data: URI")
    box: dict[str, float] | None = None
    at: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="x and y of a point on the thing, in pixels of the picture"
    )


class Outline(Picture):
    """A thing's mask and the box to draw around it."""

    box: dict[str, float]


class Clip(BaseModel):
    """Pictures of a clip in their order, for a scene's reference."""

    pictures: list[str]
    width: int
    height: int


class Motions(BaseModel):
    """Motions as a scene has them."""

    motions: list[Json]


class MotionPlanned(BaseModel):
    """A motion's box in every frame, in pixels of the picture, and its speed in pixels of the video."""

    name: str
    kind: str
    boxes: list[list[float]]
    speeds: list[float]
    max_speed: float
    too_fast: bool
    leaves_frame: bool


class CommandGiven(BaseModel):
    """A scene as a command."""

    command: str
    left_out: list[str]
    """Parts of the scene that it cannot say."""


class Planned(BaseModel):
    """Plan of a job."""

    backbone: str
    recipe: str | None
    controller: Json
    sampling: Json
    fit: Fit = "stretch"
    """As the picture meets the video's shape: of a scene's aspect, what it comes to."""
    settings: Json
    guided_iterations: int
    max_speed: float
    warnings: list[str]
    """Remarks, such as what of the scene this run leaves unused."""
    motions: list[MotionPlanned]
    scene: Json


class Progressed(BaseModel):
    """Progress of the running job."""

    id: str
    phase: Literal["load", "encode", "sample", "decode", "write"]
    step: int
    num_steps: int
    iteration: int
    num_iterations: int
    loss: float | None
    fraction: float
    seconds_left: float | None
    preview: str | None


class Result(BaseModel):
    """Results of a job, and their addresses."""

    num_frames: int
    width: int
    height: int
    fps: float
    seconds: float
    loss: float | None
    frames: str
    mp4: str
    gif: str
    zip: str
    scene: str
    run: str


class Summary(BaseModel):
    """A job in a list."""

    id: str
    number: int
    state: State
    cancelling: bool
    position: int | None
    created: float
    started: float | None
    finished: float | None
    message: str | None
    retry_of: str | None
    group: str | None
    backbone: str
    controller: str
    seed: int
    num_steps: int
    width: int
    height: int
    num_frames: int
    image: str
    progress: Progressed | None
    result: Result | None


class JobGiven(Summary):
    """A job with what was asked for and what was planned."""

    request: Json
    plan: Json


class JobList(BaseModel):
    """Jobs, newest first."""

    jobs: list[Summary]
    more: bool


class Info(BaseModel):
    """Models, methods and limits of a studio."""

    version: str
    backbones: list[Json]
    default_backbone: str
    default_controller: str
    limits: dict[str, int]
    camera: list[Json]
    easings: list[str]
    curves: list[str]
    kinds: list[str]
    fits: list[str]
    notice: str
    """A sentence about this start of the studio, such as that a damaged list of jobs was set aside; mostly empty."""


class Health(BaseModel):
    """A sign that the studio answers."""

    ok: bool
    message: str | None = None


def summary_json(row: Row, live: Live | None) -> Json:
    """A job as lists and events show it."""
    job_id = row["id"]
    base = f"/api/jobs/{job_id}/"
    files = {
        "frames": f"{base}frames/",
        "mp4": f"{base}video.mp4",
        "gif": f"{base}video.gif",
        "zip": f"{base}frames.zip",
        "scene": f"{base}scene.json",
        "run": f"{base}run.json",
    }
    own = (
        "id",
        "number",
        "state",
        "cancelling",
        "position",
        "created",
        "started",
        "finished",
        "message",
        "retry_of",
    )
    return {
        **{name: row[name] for name in own},
        **row["summary"],
        "image": row["summary"]["image"] or PREFIX,
        "progress": progress_json(live) if live is not None and row["state"] == "running" else None,
        "result": {**row["result"], **files} if row["result"] is not None else None,
    }


def job_json(row: Row, live: Live | None) -> Json:
    """A job with its request and plan."""
    plan = {name: value for name, value in row["plan"].items() if name != "motions"}
    return {**summary_json(row, live), "request": row["request"], "plan": plan}
