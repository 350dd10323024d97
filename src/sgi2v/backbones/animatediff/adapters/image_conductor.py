"""Image Conductor's two ControlNets: one shows AnimateDiff the picture, one the motion, of the object or the camera."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Literal

import torch
from diffusers import SparseControlNetModel, UNetMotionModel
from jaxtyping import Float
from torch import Tensor, nn

from sgi2v.backbones.adapters import Branches
from sgi2v.backbones.animatediff.networks import load_strictly
from sgi2v.backbones.animatediff.released import (
    ADAPTERS,
    Heads,
    addition,
    in_diffusers_names,
    low_rank_pairs,
    network_config,
)
from sgi2v.backbones.swapping import swapped
from sgi2v.errors import FieldError
from sgi2v.signals import Conducted


class _Pairs(nn.Module):
    """Low-rank pairs A, B of some layers."""

    def __init__(self, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.layers = tuple(pairs)
        self.downs, self.ups = (
            nn.ParameterList([nn.Parameter(pair[k], requires_grad=False) for pair in pairs.values()]) for k in (0, 1)
        )


class ImageConductor:
    """Image Conductor (Li et al. 2024, arXiv 2406.15339) beside AnimateDiff.

    Both networks run in every pass, told its timestep and words and never the noisy latents; what they put out is
    summed and added once to the denoiser's skips and middle. The flow's network never runs without low-rank weights:
    ``omcm`` for an object's motion, ``cmcm`` for the camera's, merged into its layers while it is attached.
    """

    kind: ClassVar[str] = "image-conductor"

    def __init__(
        self,
        image: Mapping[str, Tensor],
        flow: Mapping[str, Tensor],
        *,
        name: str,
        sha256: str,
        heads: Heads = Heads(),  # noqa: B008  (frozen: one for all does no harm)
    ) -> None:
        """From the weights of both networks under their released keys; FieldError naming a key that does not fit."""
        self.name, self.sha256 = name, sha256
        self._image = _controlnet(image, heads, "the image ControlNet")
        self._flow = _controlnet(flow, heads, "the flow ControlNet")
        self._pairs = nn.ModuleDict({kind: _Pairs(low_rank_pairs(flow, one)) for kind, one in ADAPTERS.items()})
        self.module: nn.Module = nn.ModuleDict({"image": self._image, "flow": self._flow, "pairs": self._pairs})
        self.module.eval().requires_grad_(False)

    @contextmanager
    def attach(self, denoiser: nn.Module, signal: object, branches: Branches) -> Iterator[None]:
        """See :class:`sgi2v.backbones.adapters.Adapter`; both branches of guidance are adapted alike."""
        if not isinstance(signal, Conducted):
            raise FieldError(
                "adapter", f"{self.name} is given no picture and no flow", "choose controller:image-conductor"
            )
        self._check_fits(denoiser)
        picture, mask, squares = (one.to(next(denoiser.parameters()).dtype) for one in shown(signal))

        def adapt(
            _module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            told = *given, named["encoder_hidden_states"]
            with torch.no_grad():
                seen = self._image(*told, controlnet_cond=picture, conditioning_mask=mask, return_dict=False)
                moved = self._flow(*told, controlnet_cond=squares, return_dict=False)
            skips = tuple(one + other for one, other in zip(seen[0], moved[0], strict=True))
            added = {"down_block_additional_residuals": skips, "mid_block_additional_residual": seen[1] + moved[1]}
            return given, {**named, **added}

        with ExitStack() as hooks:
            hooks.enter_context(self.merged(signal.kind))
            hooks.enter_context(embedded(self._image, torch.cat([picture, mask], dim=1)))
            hooks.enter_context(embedded(self._flow, squares))
            hooks.callback(denoiser.register_forward_pre_hook(adapt, with_kwargs=True).remove)
            yield

    @contextmanager
    def merged(self, kind: Literal["object", "camera"]) -> Iterator[None]:
        """While open, the flow's network has the low-rank weights of that kind in its layers."""
        pairs: Any = self._pairs[kind]
        swaps = []
        for layer, down, up in zip(pairs.layers, pairs.downs, pairs.ups, strict=True):
            module: Any = self._flow.get_submodule(layer)
            whole = (module.weight.float() + addition((down, up))).to(module.weight.dtype)
            swaps.append((module, "weight", nn.Parameter(whole, requires_grad=False)))
        with swapped(swaps):
            yield

    def _check_fits(self, denoiser: nn.Module) -> None:
        if not isinstance(denoiser, UNetMotionModel):
            raise FieldError("adapter", f"{self.name} is made for AnimateDiff, not for a {type(denoiser).__name__}")
        for name in ("block_out_channels", "layers_per_block", "cross_attention_dim"):
            own, others = self._image.config[name], denoiser.config[name]
            if own != (tuple(others) if isinstance(others, list) else others):
                raise FieldError("adapter", f"{self.name} is made for a denoiser whose {name} is {own}, not {others}")


def shown(
    signal: Conducted,
) -> tuple[Float[Tensor, "1 c f y x"], Float[Tensor, "1 1 f y x"], Float[Tensor, "1 d f y x"]]:
    """The picture's latents in the first of all frames, ones there, and the flow's squares of pixels as channels."""
    flow, picture = signal.flow, signal.picture
    squares = nn.functional.pixel_unshuffle(flow, flow.shape[-1] // picture.shape[-1])
    clip = picture.new_zeros(1, len(picture), len(flow), *picture.shape[1:])
    clip[0, :, 0] = picture
    mask = torch.zeros_like(clip[:, :1])
    mask[:, :, 0] = 1
    return clip, mask, squares.transpose(0, 1)[None]


class _Known(nn.Module):
    """In a layer's place: puts out what is known already."""

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self._known = known

    def forward(self, _: Tensor) -> Tensor:
        """The known tensor, whatever is given."""
        return self._known


@contextmanager
def embedded(controlnet: Any, condition: Float[Tensor, "1 c f y x"]) -> Iterator[None]:
    """While open, the network's embedding of its condition, the same in every pass, is computed no more.

    TRAP: most of a flow is zero, and the norm behind divides by what little differs there. Some convolution kernels
    round equal surroundings differently from place to place, which that norm makes much of; so this one is a product
    of matrices, in float32, in which they stay equal.
    """
    layer = controlnet.controlnet_cond_embedding
    with torch.no_grad():
        around = nn.functional.unfold(condition[0].transpose(0, 1).float(), 3, padding=1)
        found = layer.weight.float().flatten(1) @ around + layer.bias.float()[:, None]
    known = found.unflatten(2, condition.shape[-2:]).to(layer.weight.dtype)
    with swapped([(controlnet, "controlnet_cond_embedding", _Known(known).eval())]):
        yield


def _controlnet(weights: Mapping[str, Tensor], heads: Heads, name: str) -> Any:
    shapes = {key: weight.shape for key, weight in weights.items()}
    config = network_config(shapes, heads)
    own = {key: weight.float() for key, weight in in_diffusers_names(weights).items()}
    return load_strictly(lambda: SparseControlNetModel(**config), own, name)
