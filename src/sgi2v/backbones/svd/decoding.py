"""Decoding latents in little memory: what works on single frames gets few at a time, only the mixing of frames all."""

from collections.abc import Callable, Iterator
from typing import Any

from jaxtyping import Float
from torch import Tensor

Stage = Callable[[Tensor], Tensor]


def decode_in_slices(
    decoder: Any, latents: Float[Tensor, "f c y x"], *, frames_at_a_time: int = 1
) -> Float[Tensor, "f 3 h w"]:
    """The temporal decoder's pictures of one chunk of frames, by the same layers in the same order.

    Smaller chunks would need less memory too, but the decoder mixes the frames of a chunk, so they change the picture.
    Here convolutions, norms and attention within a frame run on a slice of the frames, and no stage's input outlives
    it. Numbers differ from the decoder's own at most as convolutions of other batch sizes round.
    """
    x = latents
    for stage in _stages(decoder, frames_at_a_time):
        x = stage(x)
    return x


def _stages(decoder: Any, size: int) -> Iterator[Stage]:
    def framewise(layer: Stage) -> Stage:
        def run(x: Tensor) -> Tensor:
            first = layer(x[:size])
            out = first.new_empty(len(x), *first.shape[1:])
            out[:size] = first
            del first
            for start in range(size, len(x), size):
                out[start : start + size] = layer(x[start : start + size])
            return out

        return run

    def residual(block: Any) -> Iterator[Stage]:
        yield framewise(lambda x: block.spatial_res_block(x, None))

        def mix(x: Tensor) -> Tensor:
            spatial = x.transpose(0, 1)[None]
            temporal: Tensor = block.temporal_res_block(spatial, None)
            for start in range(0, len(x), size):
                some = slice(start, start + size)
                temporal[:, :, some] = block.time_mixer(
                    x_spatial=spatial[:, :, some], x_temporal=temporal[:, :, some], image_only_indicator=None
                )
            return temporal[0].transpose(0, 1).contiguous()

        yield mix

    def out(x: Tensor) -> Tensor:
        frames: Tensor = decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))
        return frames

    first, *others = decoder.mid_block.resnets
    yield framewise(decoder.conv_in)
    yield from residual(first)
    for attention, block in zip(decoder.mid_block.attentions, others, strict=False):
        yield framewise(attention)
        yield from residual(block)
    for level in decoder.up_blocks:
        for block in level.resnets:
            yield from residual(block)
        for upsampler in level.upsamplers or ():
            yield framewise(upsampler)
    yield framewise(out)
    yield lambda x: decoder.time_conv_out(x.transpose(0, 1)[None])[0].transpose(0, 1).contiguous()
