"""Files of trained systems: read by their headers, strict, pickles as weights alone; what the commands say of them."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import contract
from imprint import nothing_is_left
from sgi2v import SVD, Controller, Run, replay
from sgi2v.backbones.adapter_files import AdapterFiles, Tensorhead, shape_faults, tensors_of
from sgi2v.backbones.adapter_kinds import convert, find_adapter, kind_named, outline_with
from sgi2v.backbones.registry import loaded, outline_of
from sgi2v.backbones.svd.adapters.drag_nuwa_names import BLUR, UNET
from sgi2v.cli import main
from sgi2v.controllers.drag_anything import FEATURES, DragAnything
from sgi2v.controllers.drag_nuwa import DragNUWA
from sgi2v.errors import FieldError
from sgi2v.pipeline import generate, plan
from sgi2v.planning import Sampling
from sgi2v.scene_io import save_scene
from sgi2v.video import read_run
from tiny import tiny_svd
from tiny_adapters import CONTROL, anything, saved_control, saved_diffusion, whole_nuwa

RELEASED = Path(__file__).parents[2] / "shared" / "golden" / "peers"
SYSTEMS = {"drag-nuwa": "dragnuwa", "drag-anything": "draganything"}


@pytest.fixture(scope="module")
def nuwa_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_nuwa(tmp_path_factory.mktemp("nuwa"))


@pytest.fixture(scope="module")
def control_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_control(tmp_path_factory.mktemp("control"), anything().module)


# ---------------------------------------------------------------- released files


@pytest.mark.parametrize("kind", list(SYSTEMS))
def test_the_released_files_hold_exactly_what_is_expected(kind: str) -> None:
    file = RELEASED / SYSTEMS[kind] / "released_keys.json"
    if not file.is_file():
        pytest.skip("the folder shared/ with the released files' keys is not beside this checkout")
    keys = {key: Tensorhead(tuple(shape), dtype) for key, (shape, dtype) in json.loads(file.read_text()).items()}
    beside = file.with_name("released_config.json")
    config = json.loads(beside.read_text()) if beside.is_file() else {}

    def found(tensors: dict[str, Tensorhead]) -> AdapterFiles:
        return AdapterFiles(place=Path("released"), name="", files=(), tensors=tensors, config=config)

    known = kind_named(kind)
    assert known.recognises(found(keys)) and known.faults(found(keys)) == ()
    optional = {BLUR} & keys.keys()
    assert known.faults(found({key: head for key, head in keys.items() if key not in optional})) == ()
    last = sorted(keys.keys() - optional)[-1]
    assert known.faults(found({key: head for key, head in keys.items() if key != last})) == (f"{last} is missing",)
    assert known.faults(found({**keys, "more": Tensorhead((1,), "float32")})) == ("more belongs to nothing",)
    wrong = found({**keys, last: Tensorhead((1, 2, 3), "float32")})
    assert known.faults(wrong) == (f"{last} is [1, 2, 3], not {list(keys[last].shape)}",)


def test_faults_name_every_key() -> None:
    head = Tensorhead((2, 3), "float32")
    found = {"a": head, "b": head, "x": head}
    faults = shape_faults(found, {"a": (2, 3), "b": (3, 2), "c": (1,), "d": (1,)}, frozenset({"d"}))
    assert faults == ("c is missing", "x belongs to nothing", "b is [2, 3], not [3, 2]")


# ---------------------------------------------------------------- reading


class Harm:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("harmed"),)  # type: ignore[return-value]


def test_a_pickle_is_opened_as_weights_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)}
    for name, data, old in (
        ("plain.pth", weights, False),
        ("wrapped.ckpt", {"state_dict": weights, "global_step": 7}, False),
        ("old.pth", weights, True),
    ):
        torch.save(data, name, _use_new_zipfile_serialization=not old)
        found = AdapterFiles.read(Path(name))
        assert found.pickled and found.count == 8
        assert dict(found.tensors) == {"a": Tensorhead((2, 3), "float32"), "b": Tensorhead((2,), "float16")}
        output = convert(found, Path(f"{name}.safetensors"))
        again = load_file(output)
        assert {key: value.dtype for key, value in again.items()} == {"a": torch.float32, "b": torch.float16}
        assert all(torch.equal(again[key], value) for key, value in weights.items())
        assert AdapterFiles.read(output).tensors == found.tensors
    torch.save({"a": Harm()}, "harm.pth")
    with pytest.raises(FieldError, match=r"^adapter: harm\.pth cannot be read"):
        AdapterFiles.read(Path("harm.pth"))
    assert not Path("harmed").exists()


def test_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"nothing")
    for source, said in (
        (tmp_path / "nowhere.pth", "is no file, folder or name"),
        (empty, "holds no weights"),
        (other, "of no known kind .*'a'"),
        (damaged, "cannot be read"),
        ("drag-noova", "is no file, folder or name; give one, a hub id, or one of drag-nuwa"),
    ):
        with pytest.raises(FieldError, match=rf"^adapter: .*{said}"):
            find_adapter(source)
    text = tmp_path / "text.txt"
    text.write_text("no weights")
    with pytest.raises(FieldError, match="is no file of weights"):
        tensors_of(text)
    with pytest.raises(FieldError, match=r"^output: .*is no name of a safetensors file"):
        convert(AdapterFiles.read(other), tmp_path / "x.pth")


# ---------------------------------------------------------------- the commands


def test_check_says_what_a_file_is(
    nuwa_folder: Path, control_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adapter", "check", str(nuwa_folder)]) == 0
    said = capsys.readouterr().out
    assert ": drag-nuwa, " in said and "no other model" in said and said.endswith("it is whole\n")
    assert main(["adapter", "check", str(control_folder)]) == 0
    assert ": drag-anything, " in capsys.readouterr().out
    tensors = load_file(control_folder / "diffusion_pytorch_model.safetensors")
    tensors.pop("controlnet_mid_block.bias")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((control_folder / "config.json").read_text())
    save_file(tensors, broken / "model.safetensors")
    assert main(["adapter", "check", str(broken)]) == 2
    told = capsys.readouterr()
    assert "controlnet_mid_block.bias is missing" in told.out and "is not whole: 1 faults" in told.err
    outline = outline_with(outline_of(str(tiny_svd(3))), [broken])
    with pytest.raises(FieldError, match=r"is no whole drag-anything: controlnet_mid_block\.bias is missing"):
        loaded(outline, device="cpu", dtype="float32")
    assert main(["adapter", "convert", str(broken), str(tmp_path / "again.safetensors")]) == 0
    assert main(["adapter", "chekc", str(broken)]) == 2


def test_a_file_with_a_model_of_its_own_makes_a_video_and_makes_it_again(
    nuwa_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = save_scene(contract.scene(), tmp_path / "scene.json")
    video = tmp_path / "video.gif"
    small = ["--width", "64", "--height", "64", "--num-frames", "3", "--num-steps", "1", "--device", "cpu"]
    asked = ["generate", str(scene), "--adapter", str(nuwa_folder), "--output", str(video), *small]
    assert main(asked) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert "drag-nuwa" in said.err and "memory:" in said.err
    run = read_run(video)
    (recorded,) = run["adapters"]
    assert run["controller"]["name"] == "drag-nuwa" and recorded["sha256"] == run["backbone"]["weights_sha256"]
    assert {name: run["backbone"]["settings"][name] for name in ("fps_id", "motion_bucket_id")} == {
        "fps_id": 4, "motion_bucket_id": 4,
    }  # fmt: skip
    again = tmp_path / "again.gif"
    asked = ["replay", str(video), "--adapter", str(nuwa_folder), "--output", str(again)]
    assert main([*asked, "--device", "cpu"]) == 0, capsys.readouterr().err
    assert again.read_bytes()[-1000:] == video.read_bytes()[-1000:]
    assert main(["generate", str(scene), "--adapter", str(nuwa_folder), "--backbone", str(tiny_svd(3)), *small]) == 2
    assert "brings a model of its own" in capsys.readouterr().err
    assert main(["generate", str(scene), *small, "controller:drag-nuwa"]) == 2
    assert "give them with --adapter" in capsys.readouterr().err


def test_drag_anything_joins_a_model_of_its_widths_under_the_released_settings(control_folder: Path) -> None:
    outline = outline_with(outline_of(str(tiny_svd(3))), [control_folder])
    settings = outline.settings
    assert (settings.motion_bucket_id, settings.clip_normalised, settings.default) == (128, False, "drag-anything")
    assert (settings.width, settings.height, settings.num_steps) == (576, 320, 25)
    with pytest.raises(FieldError, match=r"^backbone: .*of widths \[32, 64, 64, 64\], not bundled"):
        outline_with(outline_of(), [control_folder])
    assert CONTROL.channels == (32, 64, 64, 64)
    small = Sampling(width=64, height=64, num_frames=3)
    with pytest.raises(FieldError, match=f"steers weights of {FEATURES}, and they are not there"):
        plan(contract.scene(), outline, controller=DragAnything(), sampling=small)


def test_drag_anything_makes_a_video_by_the_looks_of_things(control_folder: Path, tmp_path: Path) -> None:
    looks = saved_diffusion(tmp_path / "sd")
    assert find_adapter(looks).kind == FEATURES and kind_named(FEATURES).faults(find_adapter(looks).files) == ()
    outline = outline_with(outline_of(str(tiny_svd(2))), [control_folder, looks])
    backbone = loaded(outline, device="cpu", dtype="float32", memory="balanced")
    assert isinstance(backbone, SVD)
    scene = contract.scene()
    whole = Image.new("L", scene.image.size, 255)
    scene = replace(scene, motions=tuple(replace(motion, mask=whole) for motion in scene.motions))
    small = Sampling(width=64, height=64, num_frames=2, num_steps=1)
    with nothing_is_left(backbone.denoiser):
        videos = [
            generate(scene, backbone=backbone, controller=controller, sampling=small)
            for controller in (DragAnything(), DragAnything(entity="release-scalar"), Controller())
        ]
    for one, other in combinations(videos, 2):
        assert not torch.equal(one.frames, other.frames)
    assert videos[0].run is not None
    run = Run.from_dict(videos[0].run)
    assert [one["sha256"] for one in run.adapters] == [adapter.sha256 for adapter in backbone.adapters]
    assert torch.equal(replay(run, backbone=backbone).frames, videos[0].frames), "its noise is the run's own"


def test_additions_take_part_by_the_files_kind_alone(nuwa_folder: Path) -> None:
    """No run of the same weights under another name is another: the hash says which they are."""
    found = find_adapter(nuwa_folder)
    assert found.kind == "drag-nuwa" and len(found.files.sha256) == 64
    assert all(key.startswith((UNET, "conditioner.", "first_stage_model.")) for key in found.files.tensors)


@pytest.mark.long
def test_a_file_is_kept_as_what_a_folder_beside_it_has_not(
    nuwa_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = loaded(outline_with(outline_of(), [nuwa_folder]), device="cpu", dtype="float32", memory="fast")
    assert isinstance(whole, SVD)
    small = Sampling(width=64, height=64, num_frames=3, num_steps=1)
    wanted = generate(contract.scene(), backbone=whole, controller=DragNUWA(), sampling=small)
    folder = tmp_path / "svd"
    changed = "conv_norm_out.weight"
    for name, kept in (("additions", 0), ("changes", 1)):
        whole._pipeline.save_pretrained(folder)
        if kept:
            file = folder / "unet" / "diffusion_pytorch_model.safetensors"
            tensors = load_file(file)
            tensors[changed] = tensors[changed] + 1
            save_file(tensors, file, metadata={"format": "pt"})
        output = tmp_path / name / "drag_nuwa.safetensors"
        asked = ["adapter", "convert", str(nuwa_folder), str(output), "--beside", str(folder)]
        assert main(asked) == 0, capsys.readouterr().err
        (output.parent / "config.json").write_text((nuwa_folder / "config.json").read_text())
        keys = load_file(output).keys()
        own = [key for key in keys if "flow_" not in key and ".lora_" not in key]
        assert own == [f"{UNET}out.0.weight"] * kept
        assert main(["adapter", "check", str(output.parent)]) == 0
        outline = outline_with(outline_of(str(folder)), [output.parent])
        assert outline.hash_weights() != outline_of(str(folder)).hash_weights()
        beside = loaded(outline, device="cpu", dtype="float32", memory="low" if kept else "fast")
        video = generate(contract.scene(), backbone=beside, controller=DragNUWA(), sampling=small)
        assert torch.allclose(video.frames, wanted.frames, atol=1e-5)
    with pytest.raises(FieldError, match=r"^backbone: .*additions to a Stable Video Diffusion of widths"):
        outline_with(outline_of(), [output.parent])
    with pytest.raises(FieldError, match=r"^beside: .* is another than the file's"):
        convert(AdapterFiles.read(nuwa_folder), tmp_path / "x.safetensors", _with_other_decoder(folder))


def _with_other_decoder(folder: Path) -> Path:
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["decoder.conv_in.bias"] = tensors["decoder.conv_in.bias"] + 1
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("said", [{"num_head_channels": 0}, {"num_head_channels": "x"}, {"clip_head_channels": 7}])
def test_a_config_that_cannot_be_is_a_fault(nuwa_folder: Path, said: dict[str, object]) -> None:
    found = AdapterFiles.read(nuwa_folder)
    faults = kind_named("drag-nuwa").faults(replace(found, config={**found.config, **said}))
    assert len(faults) == 1


def test_a_blur_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = whole_nuwa(tmp_path / "with", blur=True)
    outline = outline_with(outline_of(), [folder])
    backbone = loaded(outline, device="cpu", dtype="float32", memory="fast")
    assert len(getattr(backbone, "adapters", ())) == 1
    tensors = load_file(folder / "drag_nuwa.safetensors")
    tensors[BLUR] = 2 * tensors[BLUR]
    save_file(tensors, folder / "drag_nuwa.safetensors")
    with pytest.raises(FieldError, match=r"the blur in .* is not DragNUWA's"):
        loaded(outline_with(outline_of(), [folder]), device="cpu", dtype="float32", memory="fast")
