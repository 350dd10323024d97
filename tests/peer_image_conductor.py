"""A recording of Image Conductor, met by the ordinary classes: its folder's three networks, maps, passes and runs."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal
from unittest.mock import patch

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from peer_recordings import MAPS, PASS, RUN, Arrays, Json, Part, arrays_of, part, scene_with, tensors_in
from sgi2v import Sampling, generate
from sgi2v.backbones.adapter_kinds import outline_with
from sgi2v.backbones.animatediff.adapters.image_conductor import embedded, shown
from sgi2v.backbones.animatediff.model import AnimateDiff
from sgi2v.backbones.registry import loaded, outline_of
from sgi2v.backbones.text import cache_name, texts_folder
from sgi2v.controllers.drag_nuwa import displacements
from sgi2v.controllers.image_conductor import ImageConductor, flow_maps
from sgi2v.grid import Grid, Tracks
from sgi2v.points import Paths
from sgi2v.signals import Conducted

SMALL_MAPS: Final = 2e-4
"""Of the flow's residuals: a norm divides by what little differs in an empty flow, and makes much of a last bit."""
FILES: Final = ("unet", "image_controlnet", "flow_controlnet")
PROMPT, NEGATIVE = "the recorded prompt", "the recorded negative prompt"


def paths_through(points: Any, num_frames: int) -> np.ndarray:
    """Places [frames, paths, 2] of clicked points, in float64, as the published app makes them."""
    found = []
    for path in points:
        clicked = np.array(path if len(path) > 1 else [path[0], [path[0][0] + 1, path[0][1] + 1]], float)
        times = np.linspace(0, 1, len(clicked))
        found.append(PchipInterpolator(times, clicked)(np.linspace(0, 1, num_frames)))
    return np.stack(found, axis=1)


def save_stable_diffusion(folder: Path, config: Json, weights: dict[str, Tensor]) -> Path:
    """Stable Diffusion's folder as far as it is used beside Image Conductor's own denoiser: no weights of a U-Net."""
    levels = tuple(config["boc"])
    unet = UNet2DConditionModel(
        block_out_channels=levels, cross_attention_dim=config["ctx"],
        attention_head_dim=config["sd15"]["attention_head_dim"],
    )  # fmt: skip
    (folder / "unet").mkdir(parents=True)
    unet.save_config(folder / "unet")
    widths = tuple(config["vae"])
    layers = sum(re.fullmatch(r"encoder\.down_blocks\.0\.resnets\.\d+\.norm1\.weight", key) is not None
                 for key in weights)  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=widths, layers_per_block=layers, down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
    )  # fmt: skip
    vae.load_state_dict(weights)
    vae.save_pretrained(folder / "vae", safe_serialization=True)
    PNDMScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    return folder


@contextmanager
def opened(folder: Path, made: Path, config: Json) -> Iterator[AnimateDiff]:
    """The recording's AnimateDiff with Image Conductor, its texts encoded already."""
    golden = arrays_of(folder / "golden.npz")
    with patch.dict(os.environ, {"XDG_CACHE_HOME": str(made)}):
        diffusion = save_stable_diffusion(
            made / "diffusion", config, tensors_in(folder / "vae.safetensors.xz")
        )  # fmt: skip
        own = made / "conductor"
        own.mkdir()
        for name in FILES:
            save_file(tensors_in(folder / f"{name}.safetensors.xz"), own / f"{name}.safetensors")
        (own / "config.json").write_text(json.dumps({"motion_num_attention_heads": config["heads_mm"]}))
        texts_folder().mkdir(parents=True)
        outline = outline_with(outline_of(str(diffusion)), [own])
        backbone = loaded(outline, device="cpu", dtype="float32", memory="fast")
        assert isinstance(backbone, AnimateDiff)
        for text, rows in zip((NEGATIVE, PROMPT), golden["prompt_embeds"], strict=True):
            name = cache_name(text, backbone.outline.TEXT, "0" * 16, "float32")
            save_file({"rows": torch.from_numpy(rows)}, texts_folder() / f"{name}.safetensors")
        yield backbone


def conditionings(folder: Path, config: Json) -> dict[tuple[int, int], tuple[str, Arrays, np.ndarray]]:
    """Conditioning files by height and width: name, arrays, and places through the clip."""
    found = {}
    for file in sorted(folder.glob("cond_*.npz")):
        data = arrays_of(file)
        sizes = [int(size) for size in re.findall(r"\d+", file.stem)]
        size = (sizes[0], sizes[1]) if len(sizes) == 2 else (config["H"], config["W"])
        found[size] = file.stem, data, paths_through(json.loads(str(data["points"])), config["F"])
    return found


def maps_of(folder: Path, config: Json) -> Iterator[Part]:
    """Conditioning maps, whole or strided as they were kept."""
    for (height, width), (name, data, places) in conditionings(folder, config).items():
        maps = flow_maps(displacements(places, height, width)).numpy()
        for key, wanted in data.items():
            if found := re.fullmatch(r"flow(?:_stride(\d+))?_lchw", key):
                step = int(found[1] or 1)
                yield part(f"{name} maps", maps[:, :, ::step, ::step], wanted, MAPS, of_peak=True)


def image_conductor(folder: Path, made: Path) -> Iterator[Part]:
    """Parts of a recording of Image Conductor; ``made`` is an empty folder."""
    config: Json = json.loads((folder / "config.json").read_text())
    yield from maps_of(folder, config)
    with opened(folder, made, config) as backbone:
        yield from networks_of(folder, config, backbone)


def _half(res: Tensor, frames: int) -> Tensor:
    """Residuals [2 frames, ...] as [2, channels, frames, ...]."""
    halves: Tensor = res.unflatten(0, (2, frames))
    return halves.transpose(1, 2)


def networks_of(folder: Path, config: Json, backbone: AnimateDiff) -> Iterator[Part]:
    """Schedule, picture, passes and runs."""
    golden: Arrays = arrays_of(folder / "golden.npz")
    t = {name: torch.from_numpy(array) for name, array in golden.items()}
    count, height, width = config["F"], *golden["image_u8"].shape[:2]
    adapter: Any = backbone.adapters[0]
    grid = backbone.grid(width, height, count)
    levels = backbone.levels(25, grid)[:-1]
    yield part("timesteps", [level.timestep for level in levels], golden["timesteps25"], 0)
    kept = golden["alphas_cumprod"][[int(level.timestep or 0) for level in levels]]
    yield part("noise levels", [level.signal**2 for level in levels], kept, MAPS)
    image = Image.fromarray(golden["image_u8"])
    mean = backbone.picture_with(image, t["vae_noise"][0] * 0) / 0.18215
    yield part("picture's mean", mean, golden["vae_mean"][0], PASS)
    picture = backbone.picture_with(image, t["vae_noise"][0])
    yield part("picture's latents", picture, golden["image_latents"][0, :, 0], PASS)
    places = conditionings(folder, config)[height, width][2]
    flow = flow_maps(displacements(places, height, width))
    told = t["net_sample"], t["t"], t["prompt_embeds"].repeat_interleave(count, dim=0)

    def one_pass() -> Tensor:
        with torch.no_grad():
            (output,) = backbone.denoiser(*told[:2], encoder_hidden_states=told[2], return_dict=False)
        return torch.as_tensor(output)

    yield part("one pass, no control", one_pass(), golden["unet_out_no_control"], PASS)
    both: tuple[Literal["object", "camera"], ...] = ("object", "camera")
    kinds = [kind for kind in both if f"{kind}_unet_out" in golden]
    assert kinds, "no pass under control"
    for kind in kinds:
        signal = Conducted(kind=kind, flow=flow, picture=picture)
        latents, mask, squares = shown(signal)
        if kind == kinds[0]:
            yield part("picture's place", latents, golden["image_cond"], PASS)
            yield part("picture's mask", mask, golden["image_mask"], 0)
            with torch.no_grad():
                skips, middle = adapter._image(
                    *told, controlnet_cond=latents, conditioning_mask=mask, return_dict=False
                )  # fmt: skip
            for index, skip in enumerate(skips):
                if f"image_res_{index}" not in golden:
                    continue
                wanted = golden[f"image_res_{index}"]
                yield part(f"image residual {index}", _half(skip, count)[1:, :, : wanted.shape[2]], wanted, PASS)
            yield part("image residual of the middle", _half(middle, count), golden["image_mid"], PASS)
        with adapter.merged(kind), embedded(adapter._flow, squares), torch.no_grad():
            skips, middle = adapter._flow(*told, controlnet_cond=squares, return_dict=False)
        for index, skip in enumerate(skips):
            if f"{kind}_flow_res_{index}" not in golden:
                continue
            wanted = golden[f"{kind}_flow_res_{index}"]
            found = _half(skip, count)[1:, :, : wanted.shape[2]]
            yield part(f"{kind} flow residual {index}", found, wanted, SMALL_MAPS)
        yield part(f"{kind} flow residual of the middle", _half(middle, count), golden[f"{kind}_flow_mid"], SMALL_MAPS)
        with backbone.adapted(adapter, signal):
            yield part(f"{kind}, one pass", one_pass(), golden[f"{kind}_unet_out"], PASS)
        yield from run_of(kind, backbone, golden, config, places)


def run_of(kind: Any, backbone: AnimateDiff, golden: Arrays, config: Json, places: np.ndarray) -> Iterator[Part]:
    """A whole run by :func:`sgi2v.generate`, with the recorded places, noises and texts."""
    count = config["F"]

    class Recorded(ImageConductor):
        def paths(self, tracks: Tracks, grid: Grid) -> Paths:
            return Paths(places=places, names=("",) * places.shape[1])

    height, width = golden["image_u8"].shape[:2]
    plain = scene_with(golden["image_u8"], 1)
    scene = replace(
        plain, motions=(replace(plain.motions[0], kind=kind),), prompt=PROMPT, negative_prompt=NEGATIVE
    )  # fmt: skip
    noise = torch.from_numpy(golden["init_latents"])[0].transpose(0, 1).contiguous()
    drawn = torch.from_numpy(golden["vae_noise"])[0]
    seen: list[Tensor] = []
    denoise = backbone.denoise

    def watching(x: Tensor, level: Any, condition: Any) -> Tensor:
        seen.append(x.clone())
        return denoise(x, level, condition)

    own = {"sample_picture": lambda image, _: backbone.picture_with(image, drawn), "denoise": watching}
    guided = backbone.with_settings(replace(backbone.settings, guidance_scale=config["guidance"]))
    with patch.dict(vars(guided), own):
        video = generate(
            scene, backbone=guided, controller=Recorded(), noise=noise,
            sampling=Sampling(width=width, height=height, num_frames=count, num_steps=config["steps"]),
        )  # fmt: skip
    assert video.latents is not None
    steps = torch.stack([*seen[1:], video.latents]).transpose(1, 2)[:, None]
    wanted = golden[f"{kind}_latents_per_step"]
    yield part(f"{kind}, latents behind each step", steps[-len(wanted) :], wanted, RUN)
    if f"{kind}_frame_mid" in golden:
        yield part(f"{kind}, frame", video.frames[count // 2], golden[f"{kind}_frame_mid"], RUN)


def system_of(folder: Path) -> Callable[[Path, Path], Iterator[Part]] | None:
    """The way to answer a folder that is a recording of Image Conductor; None for another."""
    file = folder / "config.json"
    if not file.is_file() or not (folder / "golden.npz").is_file():
        return None
    return image_conductor if "image_condition" in json.loads(file.read_text()) else None
