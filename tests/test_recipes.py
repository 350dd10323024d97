"""The bundled model's recipes: what they add up to, before anybody spends a GPU on them."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sgi2v.backbones.base import settings_with
from sgi2v.backbones.folder import bundled_folder
from sgi2v.backbones.svd.outline import SVDSettings
from sgi2v.controllers import recommended
from sgi2v.step import Level
from sgi2v.training import autoencoder
from sgi2v.training.export import SIGMA_MAX, scheduler
from sgi2v.training.networks import build


@pytest.fixture
def recipes(experiment: Callable[[str], ModuleType]) -> ModuleType:
    """experiments/bundled_model/recipes.py."""
    return experiment("bundled_model.recipes")


def test_the_wide_model_fits_into_forty_megabytes(recipes: ModuleType, tmp_path: Path) -> None:
    recipe = recipes.wide(tmp_path, 1.0)
    with torch.device("meta"):
        vae = autoencoder.build(recipe.autoencoder)
        vae.save_config(tmp_path / "autoencoder" / "model")
        models = build(recipe.denoiser)
    num = sum(parameter.numel() for network in (vae, *models.values()) for parameter in network.parameters())
    assert 38.5e6 < 2 * num < 39.5e6  # bytes in float16; the README says 39.1 MB


def test_every_recipe_is_of_its_models_size_and_scales(recipes: ModuleType, tmp_path: Path) -> None:
    for make in recipes.RECIPES.values():
        recipe, half = make(tmp_path, 1.0), make(tmp_path, 0.5)
        last = recipe.denoiser.stages[-1]
        assert recipe.denoiser.settings is not None
        said = json.loads(recipe.denoiser.settings.read_text())
        assert (said["width"], said["height"], said["num_frames"]) == (
            last.width,
            last.height,
            last.num_frames,
        )
        assert half.denoiser.num_steps == recipe.denoiser.num_steps / 2
        settings = settings_with(SVDSettings(), said, "settings")
        own = scheduler(recipe.denoiser.sigma_max or SIGMA_MAX)
        own.set_timesteps(said["num_steps"])
        levels = [Level(signal=1.0, noise=float(sigma)) for sigma in own.sigmas]
        assert any(recommended("sg-i2v", settings.recommended).schedule(levels).acts)


def test_a_recipe_of_the_autoencoder_alone_leaves_the_denoiser_as_it_is(
    experiment: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    run = experiment("bundled_model.run")
    (tmp_path / "taught").symlink_to(bundled_folder())
    asked: dict[str, Any] = {"recipe": "sharper", "output": tmp_path, "scale": 0.5 / 1600}
    run.main(run.Options(**asked, parts=("export",)))
    assert not (tmp_path / "model").exists()  # the autoencoder has learned nothing yet
    run.main(run.Options(**asked))
    weights = {"before": bundled_folder(), "after": tmp_path / "model"}
    parts = {
        name: {file.relative_to(folder): file.read_bytes() for file in folder.glob("[iuv]*/*.safetensors")}
        for name, folder in weights.items()
    }
    changed = {str(path) for path, content in parts["after"].items() if parts["before"][path] != content}
    assert parts["before"].keys() == parts["after"].keys()
    assert changed == {"vae/diffusion_pytorch_model.safetensors"}
