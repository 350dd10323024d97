"""A folder of the toy model with random weights, the same for the same seed."""

import json
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from sgi2v.backbones.folder import SETTINGS_FILE
from toy_motion.network import ToyAutoencoder, ToyFlowTransformer, fresh_basis
from toy_motion.outline import CLASS, WEIGHTS

CHANNELS = 16


def _wake_up(transformer: nn.Module) -> None:
    """Gives fresh attention an opinion: as initialised it is almost uniform, and what steers it shows nothing."""
    for name, parameter in transformer.named_parameters():
        if "norm_" in name:
            parameter.mul_(1.5).add_(0.3 * torch.randn_like(parameter))
        elif ".to_v." in name or ".to_out." in name:
            parameter.mul_(2.0)
        elif name.startswith("out."):
            parameter.mul_(0.3)  # what the blocks say moves the picture, and does not drown it


def save_toy(folder: Path, seed: int = 0, *, width: int = 32, heads: int = 4, num_blocks: int = 3) -> Path:
    """Writes the model to ``folder`` and returns it."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        sizes = {"channels": CHANNELS, "width": width, "heads": heads, "num_blocks": num_blocks}
        transformer, vae = ToyFlowTransformer(**sizes), ToyAutoencoder(channels=CHANNELS)
        _wake_up(transformer)
        vae.basis.copy_(fresh_basis(CHANNELS, torch.Generator().manual_seed(seed)))
    configs = {
        "model_index.json": {"_class_name": "ToyFlowPipeline", "transformer": ["toy_motion", CLASS]},
        "transformer/config.json": {"_class_name": CLASS, **sizes},
        "vae/config.json": {"_class_name": "ToyAutoencoder", "channels": CHANNELS},
        "scheduler/scheduler_config.json": {"shift": 3.0},
        SETTINGS_FILE: {"num_steps": 6},
    }
    for name, values in configs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    for part, network in (("transformer", transformer), ("vae", vae)):
        safetensors.torch.save_file(network.state_dict(), folder / part / WEIGHTS)
    return folder
