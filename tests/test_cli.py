"""The real command, in-process: what it makes, and the one line it answers each mistake with, writing nothing."""

import contextlib
import errno
import importlib
import json
import re
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from PIL import Image

from sgi2v.backbones.folder import bundled_folder
from sgi2v.cli import COMMANDS, SPOILED, UNREAD, main
from sgi2v.cli.bar import Bar
from sgi2v.cli.common import default_output
from sgi2v.scene_io import load_scene
from sgi2v.video import load_video, read_run
from tiny import save_tiny_svd, tiny_svd

WIDTH, HEIGHT = 96, 64
SMALL = tuple("--width 48 --height 32 --num-frames 3 --num-steps 3 --seed 5 --device cpu --dtype float32".split())
GUIDED = tuple("controller:sg-i2v --controller.guided 1 400 sigma --controller.iterations 2".split())


def scene_json(**changes: Any) -> dict[str, Any]:
    """A good scene of photo.png, with some of its fields changed."""
    path = [{"time": 0.0, "x": 32.0, "y": 32.0}, {"time": 1.0, "x": 64.0, "y": 40.0}]
    motion = {
        "kind": "object",
        "box": {"left": 16.0, "top": 16.0, "right": 48.0, "bottom": 48.0},
        "path": path,
    }
    return {"format": "sgi2v-scene", "version": 1, "image": "photo.png", "motions": [motion]} | changes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a photograph and a good scene; the command runs in it."""
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((WIDTH, HEIGHT)).save(tmp_path / "photo.png")
    (tmp_path / "scene.json").write_text(json.dumps(scene_json()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def model() -> str:
    return str(tiny_svd(3, light=True))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if a model is loaded."""

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(StableVideoDiffusionPipeline, "from_pretrained", loaded)


def everything(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, folder: Path | None = None) -> str:
    """The line that a command ends with, when it is refused and writes nothing."""
    before = everything(folder or Path())
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.startswith("sgi2v: ") and err.count("\n") == 1, err
    assert "Traceback" not in err
    assert everything(folder or Path()) == before
    return err


def generate(model: str, *arguments: str) -> int:
    before, after = (arguments, ()) if "controller:none" not in arguments else (arguments[:-1], arguments[-1:])
    return main(["generate", "scene.json", "--backbone", model, *SMALL, *before, *(after or GUIDED)])


def test_generate_and_replay(folder: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(model, "--output", "new/frames") == 0
    out, err = capsys.readouterr()
    assert out == "new/frames\n"
    assert re.search(r"3 frames of 48x32 in \d+ s: 3 steps, 2 guided iterations, float32\n", err), err
    video = load_video("new/frames")
    assert video.frames.shape == (3, 3, 32, 48)
    assert video.run is not None
    assert video.run["controller"]["iterations"] == 2 and video.run["sampling"]["seed"] == 5

    assert main(["replay", "new/frames", "--backbone", model, "--device", "cpu", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("new/frames-replay\n", "")
    again = load_video("new/frames-replay")
    assert torch.equal(again.frames, video.frames)
    assert again.run is not None and again.run["scene"] == video.run["scene"]

    # An mp4 carries the same record, and the controller matters.
    assert generate(model, "--output", "plain.mp4", "--quiet", "controller:none") == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("plain.mp4\n", "")
    assert read_run("plain.mp4")["controller"] == {"name": "none"}
    assert float((load_video("plain.mp4").frames - video.frames).abs().max()) > 0.1
    assert sorted(p.name for p in folder.iterdir()) == ["new", "photo.png", "plain.mp4", "scene.json"]


def test_what_was_said_reaches_the_run(folder: Path, model: str) -> None:
    options = [
        "--settings.fps",
        "9",
        "--settings.motion-bucket-id",
        "30",
        "--settings.max-guidance-scale",
        "1.5",
    ]
    controller = "--controller.lr 0.5 --controller.cutoff 0.25 --controller.heatmap-std 0.3"
    controller += " --controller.weighting uniform"
    layers = ["--controller.layers", "up_blocks.1.attentions.0:self", "up_blocks.2.attentions.2:first-frame"]
    last = [*["controller:sg-i2v", "--controller.guided", "0.5", "1", "noise-level"]]
    arguments = [
        "generate",
        "scene.json",
        "--backbone",
        model,
        *SMALL,
        *options,
        "--output=a.mp4",
        "--quiet",
        *last,
    ]
    assert main([*arguments, *controller.split(), *layers]) == 0
    run = read_run("a.mp4")
    settings = run["backbone"]["settings"]
    assert (settings["fps"], settings["motion_bucket_id"], settings["max_guidance_scale"]) == (9, 30, 1.5)
    assert load_video("a.mp4").fps == 9
    said = {"lr": 0.5, "cutoff": 0.25, "heatmap_std": 0.3, "weighting": "uniform", "guided_as": "noise-level"}
    assert said.items() <= run["controller"].items()
    assert run["controller"]["layers"] == layers[1:] and run["controller"]["guided"] == [0.5, 1]


def test_a_models_own_recommendations_are_the_defaults(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copytree(model, folder / "own")
    recommended = {"sg-i2v": {"lr": 0.7, "guided": [1.0, 400.0], "iterations": 1}}
    small = {"width": 48, "height": 32, "num_frames": 2, "num_steps": 3, "fps": 5}
    (own / "sgi2v.json").write_text(json.dumps({**small, "recommended": recommended}))
    with pytest.raises(SystemExit) as stopped:
        main(["generate", "--help", "--backbone", "own"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Width of the video in pixels; the model says of what number it must be a multiple. (default: 48)" in shown
    assert "(default: 5)" in shown and "--settings.width" not in shown
    assert (
        main(
            [
                "generate",
                "scene.json",
                "--backbone",
                "own",
                "--device",
                "cpu",
                "--quiet",
                "controller:sg-i2v",
                "--controller.lr",
                "0.3",
            ]
        )
        == 0
    )
    assert capsys.readouterr().out == f"out/{folder.name}.mp4\n"  # named after the folder of a scene.json
    run = read_run(f"out/{folder.name}.mp4")
    assert (run["controller"]["lr"], run["controller"]["iterations"]) == (0.3, 1)
    assert (run["sampling"]["width"], run["sampling"]["num_frames"]) == (48, 2)


def test_a_recipe_changes_steps_and_every_controllers_defaults(folder: Path, model: str) -> None:
    own = shutil.copytree(model, folder / "own")
    small = {"width": 48, "height": 32, "num_frames": 2, "num_steps": 3}
    advice = {"recommended": {"sg-i2v": {"lr": 0.7, "guided": [1.0, 800.0], "iterations": 4}}}
    recipes = {"fast": {"num_steps": 2, "recommended": {"sg-i2v": {"iterations": 1}}}}
    (own / "sgi2v.json").write_text(json.dumps({**small, **advice, "recipes": recipes}))
    arguments = ["generate", "scene.json", "--backbone", "own", "--device", "cpu", "--quiet", "--recipe=fast"]
    for last in ([], ["controller:sg-i2v", "--controller.cutoff", "0.4"]):
        assert main([*arguments, *last]) == 0
        run = read_run(f"out/{folder.name}.mp4")
        assert run["sampling"]["num_steps"] == 2
        assert (run["controller"]["lr"], run["controller"]["iterations"]) == (0.7, 1)
    assert main(["generate", "scene.json", "--backbone", "own", "--recipe", "slow"]) == SPOILED


def test_ctrl_c_leaves_no_half_file(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(folder)
    monkeypatch.setattr(Bar, "__call__", lambda *_: signal.raise_signal(signal.SIGINT))
    # A shell ignores the signal for what it starts in the background, and the test run may be that.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert generate(model, "--output", "new/a.mp4", "--quiet") == 130
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert capsys.readouterr().err == "sgi2v: interrupted; nothing was written\n"
    assert everything(folder) == before


def test_out_of_memory_says_what_would_help(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    before = everything(folder)
    monkeypatch.setattr("sgi2v.backbones.svd.model.SVD.decode", too_large)
    assert generate(model, "--output", "a.mp4", "--quiet") == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "3 frames of 48x32 in float32" in err and "--num-frames" in err and "--dtype" in err
    assert everything(folder) == before


def test_two_folders_with_a_dot_in_their_names_do_not_share_an_output(tmp_path: Path) -> None:
    for name in ("shot.01", "shot.02"):
        (tmp_path / name).mkdir()
        assert default_output(tmp_path / name, ".mp4") == Path("out") / f"{name}.mp4"
        assert default_output(tmp_path / name / "scene.json", ".mp4") == Path("out") / f"{name}.mp4"
    (tmp_path / "cup.json").write_text("{}")
    assert default_output(tmp_path / "cup.json", ".mp4") == Path("out/cup.mp4")


def test_what_the_system_refuses_gets_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "rows.jsonl")

    monkeypatch.setattr("sgi2v.cli.COMMANDS", {"info": refused})
    assert main(["info"]) == 2
    assert capsys.readouterr().err == "sgi2v: rows.jsonl: Permission denied\n"

    def too_large(_: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")

    monkeypatch.setattr("sgi2v.cli.COMMANDS", {"info": too_large})
    assert main(["info"]) == 3
    assert "too little memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--width", "100"), "multiples of 8"), (("--device", "cuda:9"), "device: 'cuda:9'")],
)
def test_a_measurement_that_cannot_be_is_refused(
    options: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "measure", str(bundled_folder()), *options]) == 2
    assert said in capsys.readouterr().err


def test_preview_draws_without_a_model(folder: Path, no_model: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", "scene.json", "--output", "new/p.png"]) == 0
    assert capsys.readouterr().out == "new/p.png\n"
    with Image.open("new/p.png") as drawn, Image.open("photo.png") as photo:
        assert drawn.size == photo.size
        assert np.any(np.asarray(drawn) != np.asarray(photo.convert("RGB")))


def test_convert_both_ways(folder: Path, no_model: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "scene.json", "traj", "--num-frames", "5"]) == 0
    assert main(["convert", "traj", "back.json", "--embed"]) == 0
    assert capsys.readouterr().out == "traj\nback.json\n"
    assert np.load("traj/traj.npy").shape == (1, 7, 2)
    scene, back = load_scene("scene.json"), load_scene("back.json")
    assert np.allclose(back.motions[0].centers(5), scene.motions[0].centers(5))
    assert back.motions[0].box == scene.motions[0].box
    assert np.array_equal(np.asarray(back.image), np.asarray(scene.image))


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for word in (
        "versions   python",
        "device     cpu",
        "memory     ",
        "backbone   bundled",
        "backbone   svd-xt",
    ):
        assert word in out


@pytest.mark.parametrize("command", [*COMMANDS, "train autoencoder", "train denoiser", "train clip-features"])
def test_help_explains_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        assert main([*command.split(), "--help"]) == 0
    out, err = capsys.readouterr()
    assert "usage: sgi2v" in out and err == ""


def test_help_names_every_command_and_costs_nothing() -> None:
    program = (
        "import sys; from sgi2v.cli import main; assert main([]) == main(['--help']) == main(['--version']) == 0;"
        "assert not {'torch', 'diffusers', 'numpy'} & set(sys.modules), 'slow'"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in COMMANDS) and "sgi2v 0." in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_line_in_the_list_is_what_it_says_of_itself(name: str) -> None:
    command = COMMANDS[name]
    said = getattr(importlib.import_module(f"sgi2v.cli.{command.room}"), name).__doc__
    assert said.splitlines()[0] == command.summary


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fly", "command: unknown 'fly'; known are generate, say, preview"),
        ("generate", "SCENE|PATH"),
        ("generate scene.json --sed 1", "Unrecognized options: --sed"),
        ("generate scene.json --seed soon", "--seed: invalid literal for int"),
        ("generate scene.json --seed -1", "seed: must lie in 0.."),
        ("generate scene.json --num-steps 0", "num_steps: must lie in 1..1000, got 0"),
        ("generate scene.json --settings.fps 0", "sgi2v: settings.fps: must lie in 1..240, got 0"),
        ("generate scene.json controller:magic", "sgi2v: controller: unknown 'magic'; known are none, "),
        ("generate scene.json controller:sg-i2v --controller.lr -1", "sgi2v: controller.lr: must be .*got -1"),
        ("generate scene.json controller:sg-i2v --controller.lr nan", "controller.lr: must be .*got nan"),
        ("generate scene.json --dtype int8", "--dtype"),
        ("generate scene.json --device abacus controller:none", "device: 'abacus' cannot be used here .*try cpu"),
        ("generate scene.json --backbone nowhere", "backbone: 'nowhere' is no folder and no name; use bundled"),
        ("generate scene.json --backbone some/model", "backbone: 'some/model' could not be fetched .*give its folder"),
        ("generate scene.json --backbone svd", "img2vid' could not be fetched .*give its folder"),
        ("generate scene.json --width 50", "width: must be a multiple of 8, got 50; nearest are 48 and 56"),
        ("generate scene.json --height 30", "height: must be a multiple of 8, got 30; nearest are 24 and 32"),
        ("generate scene.json --num-frames 1", "num_frames: must lie in 2..256, got 1"),
        ("generate scene.json controller:sg-i2v --controller.guided 5000 6000 sigma", "guided: no step of 3 falls"),
        ("generate scene.json controller:sg-i2v --controller.guided 9 1 sigma", "controller.guided: the lowest value"),
        ("generate missing.json", "scene: missing.json"),
        ("generate scene.json --output a.avi", "output: 'a.avi' .*end its name in .mp4 or .gif"),
        ("generate scene.json --output photo.png/a.mp4", "output: .*photo.png, which is a file"),
        ("generate scene.json --output .", "output: "),
        ("preview scene.json --output a.mp4", "output: 'a.mp4' .*end its name in .png or .jpg"),
        ("preview scene.json --output photo.png/a.png", "output: .*photo.png, which is a file"),
        ("preview scene.json --num-frames 1", "num_frames: 1 must lie in"),
        ("preview missing", "scene: missing"),
        ("convert scene.json a.txt", "output: 'a.txt' is neither"),
        ("convert scene.json traj --num-frames 1", "num_frames: 1 must lie in 2..1000"),
        ("convert scene.json photo.png/a.json", "output: cannot write photo.png"),
        ("replay photo.png", "video: cannot read photo.png: it holds one picture"),
        ("replay missing.mp4", "video: cannot read missing.mp4: No such file"),
        ("demo --scene moon", "scene: no scene 'moon' ships with sgi2v; known are cat"),
        ("demo --output photo.png", "output: .*photo.png, which is a file"),
        ("train parrot", "train: unknown part 'parrot'"),
        ("train autoencoder --output photo.png --num-steps 1", "output: .*photo.png, which is a file"),
        ("train clip-features --output photo.png --num-steps 1", "output: .*photo.png, which is a file"),
        ("train clip-features --output new --batch-size 0", "num_steps, batch_size, pool_size: at least 1"),
    ],
)  # fmt: skip
def test_a_mistake_on_the_command_line_gets_one_line(
    arguments: str, message: str, folder: Path, model: str, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments.split()
    if words[:2] == ["generate", "scene.json"] and "--backbone" not in words:
        words[2:2] = ["--backbone", model, *SMALL[:8]]
    line = refused(capsys, *words)
    assert any(re.search(m, line) for m in message.split("|")), line


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds nothing."""
    data = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + data + struct.pack(">I", zlib.crc32(data))
    return start + struct.pack(">I", 1000) + b"IDAT"


def key(time: float, x: float = 32.0, y: float = 32.0, **more: float) -> dict[str, float]:
    return {"time": time, "x": x, "y": y} | more


def with_box(**sides: float) -> dict[str, Any]:
    box = {"left": 16.0, "top": 16.0, "right": 48.0, "bottom": 48.0} | sides
    return scene_json(motions=[{"kind": "object", "box": box}])


def with_path(*keys: dict[str, float]) -> dict[str, Any]:
    return scene_json(motions=[scene_json()["motions"][0] | {"path": list(keys)}])


BAD_SCENES = {
    "no image": (scene_json(image="nowhere.png"), "image: .*nowhere.png"),
    "no picture": (scene_json(image="text.png"), "image: .*text.png"),
    "cut picture": (scene_json(image="cut.png"), "image: .*cut.png"),
    "huge picture": (scene_json(image="huge.png"), "image: .*(megapixel|64)"),
    "image elsewhere": (scene_json(image="../../etc/passwd"), "image: "),
    "box left of the image": (with_box(left=-1.0), r"motions\[0\].*left.*-1"),
    "box below the image": (with_box(bottom=65.0), r"motions\[0\].*bottom.*65"),
    "box without area": (with_box(right=16.0), r"motions\[0\].*right.*16"),
    "NaN": (with_box(left=float("nan")), r"motions\[0\].box.left: .*nan"),
    "infinite": (with_path(key(0.0), key(1.0, x=float("inf"))), r"motions\[0\].path\[1\].x: .*inf"),
    "one key": (with_path(key(0.0)), r"motions\[0\].path: .*1 key"),
    "keys out of order": (with_path(key(0.0), key(0.7), key(0.3)), r"motions\[0\].path\[2\].time: 0.3"),
    "key after the end": (with_path(key(0.0), key(1.5)), r"motions\[0\].path\[1\].time: 1.5"),
    "key before the start": (with_path(key(-0.5), key(1.0)), r"motions\[0\].path\[0\].time: -0.5"),
    "unknown field": (scene_json(colour="red"), "colour"),
    "newer version": (scene_json(version=3), "version: .*3"),
    "no version": ({"image": "photo.png", "motions": []}, "version|format"),
    "another format": (scene_json(format="recipe"), "format: .*recipe"),
    "not an object": ([1, 2], "scene: "),
}


@pytest.mark.parametrize("mistake", BAD_SCENES)
@pytest.mark.parametrize("command", ["generate", "preview"])
def test_a_bad_scene_gets_one_line(
    command: str, mistake: str, folder: Path, model: str, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    data, message = BAD_SCENES[mistake]
    (folder / "text.png").write_text("no picture at all")
    (folder / "cut.png").write_bytes((folder / "photo.png").read_bytes()[:200])
    (folder / "huge.png").write_bytes(png_header(20_000, 20_000))
    (folder / "bad.json").write_text(json.dumps(data))
    more = ["--backbone", model, *SMALL] if command == "generate" else []
    line = refused(capsys, command, "bad.json", *more)
    assert re.search(message, line), line


def traj_of(make: Callable[[np.ndarray], object]) -> Callable[[Path], None]:
    good = np.array([[[16, 16], [48, 48], *[[32 + j, 32] for j in range(14)]]], dtype=np.float64)

    def write(file: Path) -> None:
        np.save(file, make(good), allow_pickle=True)  # type: ignore[arg-type]

    return write


BAD_TRAJ: dict[str, Callable[[Path], object]] = {
    "shape": traj_of(lambda good: good[0]),
    "too few rows": traj_of(lambda good: good[:, :2]),
    "dtype": traj_of(lambda good: good.astype(np.complex64)),
    "pickled": traj_of(lambda good: np.array([{"a": 1}], dtype=object)),
    "NaN": traj_of(lambda good: good * np.nan),
    "first box outside": traj_of(lambda good: good - 20),
    "no numpy file": lambda file: file.write_text("hello"),
    "cut off": lambda file: file.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'"),
}


@pytest.mark.parametrize("mistake", BAD_TRAJ)
def test_a_bad_traj_gets_one_line(
    mistake: str, folder: Path, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad").mkdir()
    shutil.copy("photo.png", "bad/img.png")
    BAD_TRAJ[mistake](folder / "bad" / "traj.npy")
    line = refused(capsys, "convert", "bad", "out.json")
    assert re.search(r"traj\.npy|motions\[0\]\.box\.left: -4", line), line


def damaged(how: str, folder: Path) -> None:
    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    match how:
        case "no index":
            (folder / "model_index.json").unlink()
        case "no network":
            shutil.rmtree(folder / "unet")
        case "no weights":
            unet.unlink()
        case "pickle only":
            unet.unlink()
            torch.save({}, folder / "unet" / "diffusion_pytorch_model.bin")
        case "corrupt weights":
            unet.write_bytes(unet.read_bytes()[:1000])
        case "corrupt settings":
            (folder / "sgi2v.json").write_text("{")
        case "unknown settings":
            (folder / "sgi2v.json").write_text('{"colour": 1}')
        case "another kind of setting":
            (folder / "sgi2v.json").write_text('{"fps": "seven"}')
        case "no recommendation":
            (folder / "sgi2v.json").write_text('{"recommended": {"sg-i2v": 3}}')
        case "corrupt config":
            (folder / "vae" / "config.json").write_text("[]")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no index", "model_index.json is missing"),
        ("no network", "unet/config.json is missing"),
        ("no weights", "unet holds no .*safetensors"),
        ("pickle only", "unet holds pickle weights only"),
        ("corrupt weights", "safetensors is corrupt"),
        ("corrupt settings", "sgi2v.json cannot be read"),
        ("unknown settings", "sgi2v.json: unknown setting 'colour'"),
        ("another kind of setting", "sgi2v.json.fps: 'seven' is not a whole number"),
        ("no recommendation", "sgi2v.json.recommended.sg-i2v: 3 is no object"),
        ("corrupt config", "vae/config.json cannot be read"),
    ],
)
def test_a_bad_model_folder_gets_one_line(
    how: str, message: str, folder: Path, model: str, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged(how, shutil.copytree(model, folder / "bad"))
    line = refused(capsys, "generate", "scene.json", "--backbone", "bad", *SMALL, "controller:none")
    assert re.search(message, line), line


def test_replay_refuses_other_weights(folder: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(model, "--output", "a.mp4", "--quiet") == 0
    capsys.readouterr()
    assert "give that model's folder with --backbone" in refused(capsys, "replay", "a.mp4")
    other = save_tiny_svd(folder / "other", num_frames=3, seed=1, light=True)
    capsys.readouterr()
    line = refused(capsys, "replay", "a.mp4", "--backbone", str(other), "--quiet", "--device", "cpu")
    assert "are not those the video was made with" in line


def test_what_the_model_says_of_a_method_is_said_before_the_run(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model, folder / "noted")
    notes = {"sg-i2v": "Does it.\nTwice\x1b[2J."}
    (folder / "noted" / "sgi2v.json").write_text(json.dumps({"notes": notes}))
    assert generate("noted", "--output", "a") == 0
    assert "note: Does it. Twice [2J.\n" in capsys.readouterr().err
    assert generate("noted", "--output", "b", "--quiet") == 0
    assert generate("noted", "--output", "c", "controller:none") == 0
    assert "note:" not in capsys.readouterr().err
    run = load_video("b").run
    assert run is not None and "notes" not in run["backbone"]["settings"]


def test_what_of_a_scene_goes_unused_is_one_warning(
    folder: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr and in the record, which is then of version 2; without it version 1 says all there is."""
    Image.new("L", (WIDTH, HEIGHT), 255).save(folder / "mask.png")
    plain = scene_json()
    motion = {**plain["motions"][0], "mask": "mask.png"}
    reference = {"frames": ["photo.png"]}
    (folder / "full.json").write_text(
        json.dumps(scene_json(version=2, motions=[motion], prompt="a cat", reference=reference))
    )
    name = Path(model).name
    said = {
        ("scene.json", "controller:sg-i2v"): "",
        ("scene.json", "controller:none"): "",
        ("full.json", "controller:sg-i2v"): f"not used by sg-i2v on {name}: prompt (Stable Video Diffusion takes "
        "no text), reference clip, masks",
        ("full.json", "controller:time-to-move"): f"not used by time-to-move on {name}: prompt (Stable Video "
        "Diffusion takes no text)",
    }
    for (scene, method), warning in said.items():
        own = {"controller:sg-i2v": GUIDED[1:], "controller:time-to-move": ("--controller.t-strong", "10")}
        arguments = ["generate", scene, "--backbone", model, *SMALL, "--record", "full"]
        assert main([*arguments, "--output", "a.mp4", method, *own.get(method, ())]) == 0
        # It is fast, and its box cuts the mask, too.
        lines = [line for line in capsys.readouterr().err.splitlines() if "not used" in line]
        assert lines == ([f"warning: {warning}"] if warning else [])
        run = read_run("a.mp4")
        assert (run["version"], run.get("warnings")) == ((2, [warning]) if warning else (1, None))
        assert main([*arguments, "--output", "b.mp4", "--quiet", method, *own.get(method, ())]) == 0
        assert capsys.readouterr().err == "" and read_run("b.mp4") == run
    run = read_run("a.mp4")
    assert str(Path(model).parent) not in json.dumps({**run, "scene": None})
    assert main(["replay", "a.mp4", "--backbone", model, "--device", "cpu", "--quiet", "--record", "full"]) == 0
    assert read_run("a-replay.mp4") == run


@pytest.mark.parametrize("command", ["generate --help", "info"])
def test_a_reader_that_leaves_ends_the_command_quietly(command: str) -> None:
    words = [sys.executable, "-m", "sgi2v.cli", *command.split()]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert (running.stderr.read(), running.wait()) == ("", UNREAD)


def test_a_studio_without_its_packages_says_how_to_get_them() -> None:
    code = "import sys; sys.modules['fastapi'] = None; from sgi2v.cli import main; sys.exit(main(['studio']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == SPOILED
    assert "fastapi is not installed; pip install 'sgi2v[studio]'" in done.stderr
