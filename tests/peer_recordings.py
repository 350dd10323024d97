"""Recordings of trained systems, met by the ordinary classes: a folder with config.json, weights and golden.npz.

Each part of one (conditioning maps, features, one pass, a whole short run) is answered by its largest difference. Which
system a folder is of is said by its config.json; sizes, widths and seeds may be any.
"""

import json
import lzma
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import cv2
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    StableVideoDiffusionPipeline,
    UNet2DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from PIL import Image
from safetensors.torch import load, save_file
from scipy.interpolate import PchipInterpolator
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from sgi2v import Sampling, Scene, Video, generate
from sgi2v.backbones.adapter_kinds import outline_with
from sgi2v.backbones.registry import loaded, outline_of
from sgi2v.backbones.svd.adapters.entity_features import EntityFeatures
from sgi2v.backbones.svd.model import SVD
from sgi2v.controllers.base import Setup
from sgi2v.controllers.drag_anything import (
    DragAnything,
    heat_maps,
    labels_of,
    look_of,
    radius_of,
    table_of,
)
from sgi2v.controllers.drag_nuwa import DragNUWA, displacements, flow_maps
from sgi2v.grid import Grid, Tracks
from sgi2v.points import Paths
from sgi2v.scene import Box, Motion
from sgi2v.signals import Entities, Look
from tiny import tiny_scheduler

Json = dict[str, Any]
Arrays = Mapping[str, np.ndarray]
MAPS: Final = 1e-5  # of the peak
PASS: Final = 1e-4
RUN: Final = 1e-3


@dataclass(frozen=True)
class Part:
    """The largest difference of a part, and the largest that passes."""

    name: str
    difference: float
    tolerance: float

    @property
    def met(self) -> bool:
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        return f"{self.name} {self.difference:.1e}{'' if self.met else f' (MISSED: {self.tolerance:g})'}"


def part(name: str, found: Any, wanted: Any, tolerance: float, *, of_peak: bool = False) -> Part:
    """Two arrays or tensors of the same shape compared."""
    ours, theirs = (np.asarray(one, dtype=np.float64) for one in (found, wanted))
    assert ours.shape == theirs.shape, (name, ours.shape, theirs.shape)
    scale = np.abs(theirs).max() if of_peak else 1.0
    return Part(name, float(np.abs(ours - theirs).max() / scale), tolerance)


def arrays_of(file: Path) -> Arrays:
    with np.load(file) as data:
        return {name: data[name] for name in data.files}


def tensors_in(file: Path) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in load(lzma.open(file).read()).items()}


@contextmanager
def encoding_noise(backbone: SVD, noise: Tensor) -> Iterator[None]:
    """While open the picture is encoded with a given augmentation noise."""

    def encode(image: Image.Image, _text: object, grid: Grid, _generator: object) -> Any:
        return backbone.encode_with(image, noise, grid)

    vars(backbone)["encode"] = encode
    try:
        yield
    finally:
        del vars(backbone)["encode"]


@contextmanager
def watched_steps(backbone: SVD) -> Iterator[list[Tensor]]:
    """Collects what the network is shown at every step."""
    seen: list[Tensor] = []
    denoise = backbone.denoise

    def watching(x: Tensor, level: Any, condition: Any) -> Tensor:
        seen.append(x.clone())
        return denoise(x, level, condition)

    vars(backbone)["denoise"] = watching
    try:
        yield seen
    finally:
        del vars(backbone)["denoise"]


def scene_with(image: np.ndarray, count: int) -> Scene:
    """The picture with so many motions, whose places a recording's own points replace."""
    height, width = image.shape[:2]
    motions = tuple(Motion(box=Box(left=0, top=0, right=width, bottom=height)) for _ in range(count))
    return Scene(image=Image.fromarray(image), motions=motions)


def run_of(backbone: SVD, scene: Scene, controller: Any, golden: Arrays, config: Json, **more: Any) -> Video:
    """The recording's whole run by :func:`sgi2v.generate`."""
    height, width = golden["image_u8"].shape[:2]
    sampling = Sampling(width=width, height=height, num_frames=config["F"], num_steps=config["steps"])
    noise = torch.from_numpy(golden["init_randn" if "init_randn" in golden else "init_noise"]).reshape(
        config["F"], -1, height // 8, width // 8
    )
    return generate(scene, backbone=backbone, controller=controller, sampling=sampling, noise=noise, **more)


def shown_frames(golden: Arrays, count: int) -> tuple[np.ndarray, list[int]] | None:
    """Frames that were kept, and their numbers, which the array's name says; None where there are none."""
    name = next((one for one in golden if re.match(r"frames?_", one)), None)
    if name is None:
        return None
    words = {"mid": count // 2, "last": count - 1}
    return golden[name], [words[word] if word in words else int(word) for word in name.split("_")[1:]]


# ---------------------------------------------------------------- DragNUWA


def strokes(paths: Any, width: int, height: int, num_frames: int) -> np.ndarray:
    """Places [frames, paths, 2] of clicked points in a frame of 576x320, as the published demo rounds them."""
    found = []
    for path in paths:
        points = [(int(x * width / 576), int(y * height / 320)) for x, y in path]
        if len(points) == 1:
            points.append((points[0][0] + 1, points[0][1] + 1))
        times = np.linspace(0, 1, len(points))
        found.append(PchipInterpolator(times, np.array(points, float))(np.linspace(0, 1, num_frames)))
    return np.stack(found, axis=1)


def drag_nuwa(folder: Path, made: Path) -> Iterator[Part]:
    """Parts of a recording of DragNUWA; ``made`` is an empty folder for its weights."""
    config: Json = json.loads((folder / "config.json").read_text())
    for file in sorted(folder.glob("cond_*.npz")):
        data = arrays_of(file)
        gap, height, width, _ = (int(size) for size in data["shape_lhwc"])
        sparse = displacements(strokes(json.loads(str(data["paths"])), width, height, gap + 1), height, width)
        maps = flow_maps(sparse).numpy()
        for name, wanted in data.items():
            if found := re.fullmatch(r"flow(?:_stride(\d+))?_lchw", name):
                step = int(found[1] or 1)
                yield part(f"{file.stem} maps", maps[:, :, ::step, ::step], wanted, MAPS, of_peak=True)
    golden = arrays_of(folder / "golden.npz")
    t = {name: torch.from_numpy(array) for name, array in golden.items()}
    count, height, width = config["F"], *golden["image_u8"].shape[:2]
    save_file(tensors_in(folder / "weights.safetensors.xz"), made / "drag_nuwa.safetensors")
    said = {"num_head_channels": config["head"], "clip_head_channels": config["clip"]["head_width"]}
    (made / "config.json").write_text(json.dumps(said))
    backbone = loaded(outline_with(outline_of(), [made]), device="cpu", dtype="float32", memory="fast")
    assert isinstance(backbone, SVD)
    sampler = config["sampler"]
    settings = replace(
        backbone.settings, fps_id=config["fps"], motion_bucket_id=config["bucket"],
        noise_aug_strength=config["cond_aug"], min_guidance_scale=sampler["min_scale"],
        max_guidance_scale=sampler["max_scale"],
    )  # fmt: skip
    backbone = backbone.with_settings(settings)
    adapter: Any = backbone.adapters[0]
    grid = backbone.grid(width, height, count)
    places = strokes(config["paths"], width, height, count)
    flow = flow_maps(displacements(places, height, width))
    with torch.no_grad():
        for level, feature in enumerate(adapter.pyramid(flow)):
            if (kept := golden.get(f"flow_feat_{level}")) is not None:
                yield part(f"flow features {level}", feature[: len(kept)], kept, PASS)

    def one_pass(maps: Tensor) -> Tensor:
        x = t["net_x"].unflatten(0, (2, count))
        images = t["c_concat"][:, None].expand(-1, count, -1, -1, -1)
        numbers = torch.tensor([[config["fps"], config["bucket"], config["cond_aug"]]] * 2)
        with torch.no_grad(), backbone.adapted(adapter, maps):
            (output,) = backbone.denoiser(
                torch.cat([x, images], dim=2), t["net_t"][0], encoder_hidden_states=t["c_crossattn"],
                added_time_ids=numbers, return_dict=False,
            )  # fmt: skip
        return torch.as_tensor(output).flatten(0, 1)

    yield part("one pass", one_pass(flow), golden["net_out"], PASS)
    if "zero_flow_net_out" in golden:
        yield part("one pass, no flow", one_pass(torch.zeros_like(flow)), golden["zero_flow_net_out"], PASS)
    image = Image.fromarray(golden["image_u8"])
    condition = backbone.encode_with(image, t["noise_aug_randn"], grid)
    yield part("image's token", condition.embedding, golden["c_crossattn"][1:], PASS)
    yield part("image's latents", condition.image_latents, golden["c_concat"][1], PASS)
    sigmas = [level.noise for level in backbone.levels(25, grid)]
    if "sigmas25" in golden:
        yield part("sigmas", sigmas, golden["sigmas25"], MAPS, of_peak=True)

    class Recorded(DragNUWA):
        def paths(self, tracks: Tracks, grid: Grid) -> Paths:
            return Paths(places=places, names=("",) * places.shape[1])

    with encoding_noise(backbone, t["noise_aug_randn"]):
        video = run_of(backbone, scene_with(golden["image_u8"], places.shape[1]), Recorded(), golden, config)
    assert video.latents is not None
    yield part("whole run", video.latents, golden["samples_z"], RUN)
    if (shown := shown_frames(golden, count)) is not None:
        frames, numbers = shown
        yield part("frames", video.frames[numbers], np.clip(frames / 2 + 0.5, 0, 1), RUN)


# ---------------------------------------------------------------- DragAnything


def saved_svd(folder: Path, source: Path, config: Json) -> Path:
    """A folder in diffusers' layout of the recording's networks."""
    levels = len(config["boc"])
    unet = UNetSpatioTemporalConditionModel(
        block_out_channels=tuple(config["boc"]), num_attention_heads=tuple(config["heads"]),
        cross_attention_dim=config["ctx"], num_frames=config["F"],
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * (levels - 1) + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * (levels - 1),
    )  # fmt: skip
    weights = {name: tensors_in(source / f"{name}.safetensors.xz") for name in ("unet", "vae", "image_encoder")}
    layers = sum(re.fullmatch(r"encoder\.down_blocks\.0\.resnets\.\d+\.norm1\.weight", k) is not None
                 for k in weights["vae"])  # fmt: skip
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=tuple(config["vae"]), layers_per_block=layers,
        down_block_types=("DownEncoderBlock2D",) * len(config["vae"]),
    )  # fmt: skip
    hidden = config["clip"]["hidden"]
    patch = weights["image_encoder"]["vision_model.embeddings.patch_embedding.weight"].shape[-1]
    clip = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=config["clip"]["layers"],
            num_attention_heads=config["clip"]["heads"], image_size=224, patch_size=patch,
            projection_dim=config["ctx"], hidden_act="gelu",
        )
    )  # fmt: skip
    for name, network in (("unet", unet), ("vae", vae), ("image_encoder", clip)):
        missing, unknown = network.load_state_dict(weights[name], strict=False)
        assert not unknown and not [key for key in missing if "position_ids" not in key], (name, missing, unknown)
    pipeline = StableVideoDiffusionPipeline(
        vae=vae, image_encoder=clip, unet=unet, scheduler=tiny_scheduler(), feature_extractor=CLIPImageProcessor()
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@dataclass(frozen=True)
class RecordedLook:
    """Stands for the network for looks with a map that was recorded."""

    seen: Tensor
    name: str = "recorded"
    sha256: str = "0" * 64
    kind: str = "entity-features"
    module: nn.Module = nn.Identity()  # noqa: RUF009  (without weights)

    @contextmanager
    def attach(self, denoiser: nn.Module, signal: object, branches: object) -> Iterator[None]:
        assert isinstance(signal, Look)
        signal.seen = self.seen
        yield


def painted(data: Arrays) -> tuple[Entities, Entities, Tensor, np.ndarray]:
    """Entities of a recording's masks and paths, as vectors and as in the release; the vectors; the radii."""
    height, width = (int(size) for size in data["target_hw"])
    before = data["original_wh"]
    masks = [(mask / 255).astype(np.uint8) for mask in data["masks"]]
    radii = np.array([radius_of(cv2.resize(mask, (width, height)) != 0) for mask in masks])
    places = (data["trajectories"] / before * (width, height)).astype(np.int64).swapaxes(0, 1)
    sides = np.minimum(radii, 50)
    generator = torch.Generator().manual_seed(int(data["dift_seed"]))
    looks = torch.randn(1, 320, height // 8, width // 8, generator=generator)[0]
    grid = Grid(width=width, height=height, num_frames=len(places))
    vectors = torch.stack([look_of(looks, mask != 0, grid) for mask in masks])
    heat = torch.from_numpy(heat_maps(places, sides, height, width))
    labels = torch.from_numpy(labels_of(places, sides, height, width).astype(np.int32))
    both = [
        Entities(heat=heat, labels=labels, table=table_of(vectors, entity), context_order="release")
        for entity in ("vector", "release-scalar")
    ]
    return both[0], both[1], vectors, radii


def drag_anything(folder: Path, made: Path) -> Iterator[Part]:
    """Parts of a recording of DragAnything; ``made`` is an empty folder for its weights."""
    config: Json = json.loads((folder / "config.json").read_text())
    golden = arrays_of(folder / "golden.npz")
    t = {name: torch.from_numpy(array) for name, array in golden.items()}
    count, height, width = config["F"], *golden["image_u8"].shape[:2]
    given: Entities | None = None
    for file in sorted(folder.glob("cond_*.npz")):
        data = arrays_of(file)
        vector, scalar, vectors, radii = painted(data)
        if tuple(data["target_hw"]) == (height, width):
            given = scalar
        yield part(f"{file.stem} radii", radii, data["radius"], 0)
        yield part(f"{file.stem} heat", vector.heat, data["heat_u8"], 0)
        yield part(f"{file.stem} vectors", vectors, data["entity_vectors"], MAPS)
        theirs = data["id_vector_table"][data["id_vector_label"].astype(int)]
        yield part(f"{file.stem} looks", vector.table[vector.labels.long()], theirs, MAPS)
        yield part(
            f"{file.stem} looks as released", scalar.table[scalar.labels.long()][..., 0], data["id_scalar"], MAPS
        )
    assert given is not None, "no conditioning of the run's size"
    control = made / "control"
    control.mkdir()
    save_file(tensors_in(folder / "controlnet.safetensors.xz"), control / "diffusion_pytorch_model.safetensors")
    (control / "config.json").write_text(json.dumps({"num_attention_heads": config["heads"]}))
    outline = outline_with(outline_of(str(saved_svd(made / "svd", folder, config))), [control])
    backbone = loaded(outline, device="cpu", dtype="float32", memory="fast")
    assert isinstance(backbone, SVD)
    settings = replace(
        backbone.settings, fps=config["fps"] + 1, motion_bucket_id=config["bucket"],
        noise_aug_strength=config["aug"], decode_chunk_size=config["decode_chunk"],
    )  # fmt: skip
    backbone = backbone.with_settings(settings)
    adapter: Any = backbone.adapters[0]
    with torch.no_grad():
        embedded = adapter.module.painted(given)
    yield part("painting", embedded[::5], golden["cond_embedding"], PASS)
    image = Image.fromarray(golden["image_u8"])
    condition = backbone.encode_with(image, t["image_noise"], backbone.grid(width, height, count))
    yield part("image's token", condition.embedding, golden["image_embeds"][1:], PASS)
    yield part("image's latents", condition.image_latents, golden["image_latents"][1], PASS)
    inputs = {"encoder_hidden_states": t["image_embeds"], "added_time_ids": t["added_time_ids"]}
    backbone._networks.branches = (False, True)
    with torch.no_grad(), backbone.adapted(adapter, given):
        residuals, middle = adapter.module(t["net_sample"], t["t"], *inputs.values(), embedded)
        (output,) = backbone.denoiser(t["net_sample"], t["t"], **inputs, return_dict=False)
    for name, residual in [*((str(index), one) for index, one in enumerate(residuals)), ("mid", middle)]:
        if (wanted := golden.get(f"res_{name}")) is not None:
            first = 0 if len(wanted) == len(residual) else count  # else of the conditional half the first frames
            yield part(f"residual {name}", residual[first : first + len(wanted)], wanted, PASS)
    yield part("one pass", output, golden["unet_out"], PASS)

    class Recorded(DragAnything):
        def signal(self, setup: Setup) -> Entities:
            assert given is not None
            return given

        def masks(self, tracks: Tracks) -> dict[int, np.ndarray]:
            return {}

    looks = RecordedLook(torch.zeros(320, height // 8, width // 8))
    scene = scene_with(golden["image_u8"], len(config["ents"]))
    with encoding_noise(backbone, t["image_noise"]), watched_steps(backbone) as seen:
        video = run_of(backbone, scene, Recorded(), golden, config, adapters=[looks])
    assert video.latents is not None
    if "latents_per_step" in golden:
        steps = torch.stack([*seen[1:], video.latents])
        yield part("latents behind each step", steps, golden["latents_per_step"].reshape(steps.shape), RUN)
    yield part("whole run", video.latents, golden["latents"].reshape(video.latents.shape), RUN)
    if (shown := shown_frames(golden, count)) is not None:
        frames, numbers = shown
        ours = video.frames[numbers].transpose(0, 1)  # recorded channels first
        yield part("frames", ours, np.clip(frames / 2 + 0.5, 0, 1), RUN)
    yield from looks_of(folder)


def looks_of(folder: Path) -> Iterator[Part]:
    """The recorded features of a tiny Stable Diffusion."""
    if not (folder / "dift.npz").is_file():
        return
    t = {name: torch.from_numpy(array) for name, array in arrays_of(folder / "dift.npz").items()}
    weights = tensors_in(folder / "dift.safetensors.xz")
    features = EntityFeatures.of(*tiny_diffusion(weights), t["prompt_embeds"], name="recorded")
    found = features.features(t["image"][None], t["vae_noise"], t["noise"])
    yield part("looks of a picture", found[None], t["feature"], PASS)


def tiny_diffusion(weights: Mapping[str, Tensor]) -> tuple[Any, Any]:
    """U-Net and autoencoder of Stable Diffusion's kind from recorded tensors, whose prefixes say which is which."""
    parts: dict[str, dict[str, Tensor]] = {"unet": {}, "vae": {}}
    for name, tensor in weights.items():
        network, _, key = name.partition(".")
        parts[network][key] = tensor

    def widths(network: str, pattern: str) -> tuple[int, ...]:
        found, level = [], 0
        while (key := pattern.format(level)) in parts[network]:
            found.append(parts[network][key].shape[0])
            level += 1
        return tuple(found)

    across = parts["unet"]["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    unet = UNet2DConditionModel(
        block_out_channels=widths("unet", "down_blocks.{}.resnets.0.conv1.weight"), cross_attention_dim=across,
        attention_head_dim=8,
    )  # fmt: skip
    channels = widths("vae", "encoder.down_blocks.{}.resnets.0.conv1.weight")
    layers = len(widths("vae", "encoder.down_blocks.0.resnets.{}.conv1.weight"))
    vae = AutoencoderKL(
        block_out_channels=channels, layers_per_block=layers,
        down_block_types=("DownEncoderBlock2D",) * len(channels), up_block_types=("UpDecoderBlock2D",) * len(channels),
    )  # fmt: skip
    unet.load_state_dict(parts["unet"])
    missing, unknown = vae.load_state_dict(parts["vae"], strict=False)
    assert not unknown and all(key.startswith(("decoder.", "post_quant_conv.")) for key in missing)
    return unet, vae


SYSTEMS: Final[Mapping[str, Callable[[Path, Path], Iterator[Part]]]] = MappingProxyType(
    {"network_config": drag_nuwa, "ents": drag_anything}
)
"""A field that only this system's config.json has -> its parts."""


def system_of(folder: Path) -> Callable[[Path, Path], Iterator[Part]] | None:
    """The way to answer a folder; None where it is no recording of a trained system that is known here."""
    file = folder / "config.json"
    if not file.is_file() or not (folder / "golden.npz").is_file():
        return None
    config = json.loads(file.read_text())
    return next((parts for mark, parts in SYSTEMS.items() if mark in config), None)
