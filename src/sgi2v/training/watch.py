"""Evaluates a training on its way: features that find things, held-out losses, and clips by the averaged weights."""

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from sgi2v.backbones import Backbone, load_backbone
from sgi2v.controllers import Controller, recommended
from sgi2v.draw import draw_tracks
from sgi2v.errors import FieldError
from sgi2v.evaluation.held_out import HeldOutWorld
from sgi2v.evaluation.measuring import measure
from sgi2v.evaluation.tracker import TemplateTracker
from sgi2v.grid import Track
from sgi2v.pipeline import generate, plan
from sgi2v.planning import Sampling
from sgi2v.training.export import SIGMA_MAX, export
from sgi2v.training.networks import averaged, load_autoencoder, place_encoder
from sgi2v.training.optimiser import MasterAdam
from sgi2v.training.probe import probe
from sgi2v.training.stages import DenoiserTraining
from sgi2v.training.validation import validation_loss
from sgi2v.video import to_uint8
from sgi2v.writing import writing

_PROBED: Final = 4  # clips
_SHOWN: Final = 5  # frames of a clip on a sheet
_VALIDATION: Final = 1  # the set of scenes: 0 is the test split


def model_settings(training: DenoiserTraining) -> dict[str, object]:
    """Content of the model's sgi2v.json; FieldError naming a file that is unusable.

    Of the training's `settings`, or else of `initial`; without either the size, and SG-I2V from a tenth of the highest
    noise level up.
    """
    last = training.stages[-1]
    size: dict[str, object] = {
        "width": last.width,
        "height": last.height,
        "num_frames": training.num_frames,
        "fps": training.fps,
    }
    file = training.settings
    if file is None and training.initial is not None:
        file = training.initial / "sgi2v.json"
        if not file.is_file():
            return size  # the published defaults hold
    if file is None:
        highest = SIGMA_MAX if training.sigma_max is None else training.sigma_max
        guided = {"low": highest / 10, "high": highest, "unit": "sigma"}
        return {**size, "recommended": {"sg-i2v": {"guided": guided}}}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FieldError("settings", f"{file} cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise FieldError("settings", f"{file} holds no JSON object")
    return {**found, **size}


def export_average(training: DenoiserTraining, models: nn.ModuleDict, folder: Path) -> Path:
    """Write the averaged networks as a model that `--backbone` takes."""
    return export(
        folder,
        models,
        load_autoencoder(training.autoencoder_folder),
        model_settings(training),
        sigma_max=training.sigma_max,
        shard_size=training.shard_size,
        like=training.initial,
    )


class PeriodicEvaluation:
    """Measures the averaged weights every `probe_every`, `validate_every` and `watch_every` steps; changes none."""

    def __init__(self, training: DenoiserTraining) -> None:
        """FieldError for settings that cannot be used."""
        self._training = training
        model_settings(training)
        last = training.stages[-1]
        self._scenes = HeldOutWorld(
            scene_set=_VALIDATION,
            limit=max(1, training.watch_scenes),
            width=last.width,
            height=last.height,
            num_frames=training.num_frames,
        )

    def __call__(self, optimiser: MasterAdam, step: int) -> dict[str, float]:
        """Figures found at this step; none at most of them."""
        training = self._training
        probing, validating, watching = (
            every > 0 and step % every == 0
            for every in (training.probe_every, training.validate_every, training.watch_every)
        )
        if not (probing or validating or watching):
            return {}
        models = averaged(training, optimiser)
        figures: dict[str, float] = {}
        if probing:
            figures |= self._probe(models)
        if validating:
            figures |= self._validated(models, step, optimiser.parameters[0].dtype)
        if watching:
            # The model is looked at as a person would use it.
            folder = export_average(training, models, training.output / "model")
            place = training.output / "samples" / f"step-{step:06d}.png"
            figures |= look(load_backbone(folder, device=training.device), self._scenes, place)
        return figures

    def _probe(self, models: nn.ModuleDict) -> dict[str, float]:
        world = replace(self._scenes.world(), num_things=1)
        clips = [world.render(1, 9_000_000 + number)[0] for number in range(_PROBED)]
        device, dtype = self._training.device, next(models.parameters()).dtype
        autoencoder = load_autoencoder(self._training.autoencoder_folder).to(device=device, dtype=dtype)
        found = probe(models.to(device), autoencoder, clips, fps=self._training.fps)
        models.cpu()
        return {f"probe {name}": value for name, value in found.items()}

    def _validated(self, models: nn.ModuleDict, step: int, dtype: torch.dtype) -> dict[str, float]:
        training, (stage, _) = self._training, self._training.stage_of(step - 1)
        # In the type that the training computes in, on a copy: what is exported must not be rounded by it.
        autoencoder = place_encoder(load_autoencoder(training.autoencoder_folder), training.device, dtype)
        copied = deepcopy(models).to(device=training.device, dtype=dtype)
        found = validation_loss(copied, autoencoder, training, stage)
        return {f"held-out {name}": value for name, value in found.items()}


def look(backbone: Backbone, scenes: HeldOutWorld, place: Path, *, seed: int = 817) -> dict[str, float]:
    """Make the scenes' clips without control and with SG-I2V as recommended; write a sheet of them; mean distances.

    The sheet has three rows a scene: what really happened, no control, SG-I2V; the wanted boxes are drawn. Distances
    ("objmc none", "objmc sg-i2v") are between wanted and found paths in pixels (ObjMC), by the built-in tracker.
    """
    methods = {"none": Controller(), "sg-i2v": recommended("sg-i2v", backbone.settings.recommended)}
    sampling, tracker = Sampling(seed=seed, padding="keep"), TemplateTracker()
    distances: dict[str, list[float]] = {name: [] for name in methods}
    rows = []
    for number in range(len(scenes)):
        case = scenes[number]
        tracks = plan(case.scene, backbone.outline, sampling=sampling, controller=methods["none"]).tracks
        assert case.truth is not None
        masks = None if case.masks is None else case.masks[:, 0]
        rows.append(_row(case.truth, tracks.tracks))
        for name, controller in methods.items():
            frames = generate(case.scene, backbone=backbone, controller=controller, sampling=sampling).frames
            distances[name].append(measure(frames, tracks, tracker, masks=masks)["objmc"])
            rows.append(_row(frames, tracks.tracks))
    with writing(place) as temporary:
        Image.fromarray(to_uint8(torch.cat(rows, -2)[None])[0]).save(temporary)
    return {f"objmc {name}": sum(found) / len(found) for name, found in distances.items()}


def _row(frames: Tensor, tracks: Sequence[Track]) -> Tensor:
    """A few frames of a clip side by side, twice as large where they are small, the wanted boxes drawn."""
    scale = 2 if frames.shape[-1] < 160 else 1
    large = functional.interpolate(frames.float(), scale_factor=float(scale), mode="nearest")
    drawn = draw_tracks(large, [replace(track, boxes=track.boxes * scale) for track in tracks])
    picked = [round(k * (len(frames) - 1) / (_SHOWN - 1)) for k in range(_SHOWN)]
    return torch.cat(list(drawn[picked]), dim=-1)
