"""The command doctor: tries out an installation, part by part, and says what to do where one fails."""

import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from sgi2v.cli.common import computing, parse
from sgi2v.cli.options import DoctorOptions
from sgi2v.errors import FieldError

GOOD: Final = "good"
BAD: Final = "BAD"
NOTE: Final = "note"
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_LEAST_FREE: Final = 2**30


@dataclass(frozen=True, kw_only=True)
class Found:
    """One part that was tried."""

    part: str
    said: str
    """The finding."""
    state: str = GOOD
    """good, note (something that only some want is missing) or BAD."""
    remedy: str = ""
    """Advice, where there is something to do."""

    def __str__(self) -> str:
        return f"{self.state:5} {self.part:9} {self.said}" + (f"\n{'':16}-> {self.remedy}" if self.remedy else "")


def doctor(arguments: Sequence[str]) -> None:
    """Try out this installation, and say what to do where something is amiss."""
    options = parse(DoctorOptions, "doctor", arguments)
    checks: list[tuple[str, Callable[[], Iterator[Found]]]] = [
        ("python", versions),
        ("device", devices),
        ("folder", lambda: places(options.output)),
        ("clip", lambda: clip(options.device)),
        ("studio", lambda: studio(options.port)),
    ]
    bad = 0
    for part, check in checks:
        for found in tried(part, check):
            print(found, flush=True)
            bad += found.state == BAD
    if bad:
        raise FieldError("doctor", f"{bad} of these {'is' if bad == 1 else 'are'} BAD", "do as the lines with -> say")
    print("all is well: sgi2v demo makes a first clip, sgi2v studio opens the page")


def tried(part: str, check: Callable[[], Iterator[Found]]) -> Iterator[Found]:
    """A check's findings; an error in it is one too, so that the others still run."""
    try:
        yield from check()
    except Exception as error:  # anything may be broken in an installation that is being looked at
        remedy = error.remedy if isinstance(error, FieldError) else "install anew: docs/install.md"
        problem = error.problem if isinstance(error, FieldError) else f"{type(error).__name__}: {error}"
        yield Found(part=part, said=" ".join(problem.split())[:300], state=BAD, remedy=remedy)


def versions() -> Iterator[Found]:
    """Python's version, and those of the packages that sgi2v needs against what it asks for."""
    said = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    fine = sys.version_info >= (3, 11)
    yield Found(part="python", said=said, state=GOOD if fine else BAD, remedy="" if fine else "use 3.11 or newer")
    known, wrong = [], []
    for line in requires("sgi2v") or ():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            here = version(wanted.name)
        except PackageNotFoundError:
            wrong.append(f"{wanted} is missing")
            continue
        known.append(f"{wanted.name} {here}")
        if not wanted.specifier.contains(here, prereleases=True):
            wrong.append(f"{wanted.name} is {here}, {wanted.specifier} is asked for")
    yield Found(part="packages", said=", ".join(known))
    for one in wrong:
        yield Found(part="packages", said=one, state=BAD, remedy="pip install --upgrade sgi2v")


def devices() -> Iterator[Found]:
    """Devices that torch sees, each with a small product computed on it."""
    from sgi2v.device import choose_device, describe_devices, free_memory
    from sgi2v.lazy import torch

    for line in describe_devices():
        name = line.rpartition(": ")[0] if line.count(":") > 1 else line.partition(":")[0]
        device = choose_device(name)
        right = float((torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)).sum()) == 64**3
        free = free_memory(device)
        said = line + ("" if free is None else f", {free / 2**30:.1f} GiB free")
        yield Found(part="device", said=said, state=GOOD if right else BAD, remedy="" if right else "update its driver")
    if choose_device().type == "cpu" and (shutil.which("nvidia-smi") or sys.platform == "darwin"):
        remedy = "install torch for it first: docs/install.md"
        yield Found(part="device", said="there may be a GPU that this torch cannot use", state=NOTE, remedy=remedy)


def places(output: Path) -> Iterator[Found]:
    """Folders that are written to, each with a megabyte tried and the room that is left."""
    from sgi2v.advice import advice_folder
    from sgi2v.cli.studio import data_folder
    from sgi2v.files import cache_folder
    from sgi2v.writing import check_place

    for what, folder in (
        ("clips", output), ("cache", cache_folder()), ("studio", data_folder()), ("advice", advice_folder()),
    ):  # fmt: skip
        try:
            check_place(folder / "try")
        except FieldError as error:
            yield Found(part="folder", said=error.problem, state=BAD, remedy=f"make {folder} writable")
            continue
        there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
        free = shutil.disk_usage(there).free
        little = free < _LEAST_FREE
        yield Found(
            part="folder", said=f"{what}: {folder}, {free / 2**30:.1f} GiB free", state=NOTE if little else GOOD,
            remedy="make room: a model's folder takes gigabytes" if little else "",
        )  # fmt: skip


def clip(device: str | None) -> Iterator[Found]:
    """A clip of two steps by the bundled model, written as an mp4 and read again."""
    from sgi2v.demo import shipped_scene
    from sgi2v.opening import ModelChoice
    from sgi2v.pipeline import generate
    from sgi2v.planning import Sampling
    from sgi2v.scene_io import load_scene
    from sgi2v.video import load_video

    begun = time.perf_counter()
    sampling = Sampling(num_steps=2, width=160, height=96, num_frames=4)
    model = ModelChoice(device=device)
    outline = model.outline()
    with computing(), tempfile.TemporaryDirectory() as folder:
        from sgi2v.controllers import recommended

        method = recommended("sg-i2v", outline.settings.recommended, guided={"low": 0.0, "high": 1.0, "unit": "share"})
        scene = load_scene(shipped_scene("shapes"))
        video = generate(scene, backbone=model.load(outline), controller=method, sampling=sampling)
        again = load_video(video.save(Path(folder) / "a.mp4"))
    fine = bool(video.frames.isfinite().all()) and again.frames.shape == video.frames.shape and again.run is not None
    seconds = f"{time.perf_counter() - begun:.0f} s"
    number = (video.run or {})["sampling"]["dtype"]
    yield Found(
        part="clip", said=f"two guided steps in {number}, mp4 and back, in {seconds}" if fine else "came out damaged",
        state=GOOD if fine else BAD, remedy="" if fine else "try --device cpu; if that is well, update the driver",
    )  # fmt: skip


def studio(port: int) -> Iterator[Found]:
    """The studio's packages, its port, and a browser for its page's tests."""
    missing = []
    for name in ("fastapi", "uvicorn"):
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        said = f"{' and '.join(missing)} not installed; only the page needs them"
        yield Found(part="studio", said=said, state=NOTE, remedy="pip install 'sgi2v[studio]'")
    try:
        with socket.socket() as tried_one:
            tried_one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried_one.bind(("127.0.0.1", port))
        yield Found(part="port", said=f"127.0.0.1:{port} is free")
    except OSError as error:
        remedy = "a studio may be open already; else sgi2v studio --port 0"
        yield Found(part="port", said=f"127.0.0.1:{port} cannot be had ({error.strerror})", state=NOTE, remedy=remedy)
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser:
        yield Found(part="browser", said=browser)
    else:
        said = "no Chromium; any browser shows the page, only its tests need this one"
        yield Found(part="browser", said=said, state=NOTE, remedy="apt install chromium, to run make test whole")
