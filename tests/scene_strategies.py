"""Hypothesis strategies for scenes: every valid one at small size, and values that no field should take."""

from typing import Any, get_args

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from sgi2v.reference import Reference
from sgi2v.scene import Box, Curve, Easing, Fit, Key, Kind, Motion, Scene

coordinates = st.floats(-2000, 2000)
scales = st.floats(0.01, 50)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
garbage: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**400, max_value=10**401),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["../x.png", "/etc/hostname", "http://a/b.png", "data:image/png;base64,AAAA", "linear", "."]),
    st.binary(max_size=4),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@st.composite
def boxes(draw: st.DrawFn, width: int, height: int) -> Box:
    left, top = draw(st.floats(0, width - 1)), draw(st.floats(0, height - 1))
    right, bottom = draw(st.floats(left + 0.5, width)), draw(st.floats(top + 0.5, height))
    return Box(left=left, top=top, right=right, bottom=bottom)


@st.composite
def paths(draw: st.DrawFn, max_keys: int = 6) -> tuple[Key, ...]:
    moments = st.integers(0, 1000).map(lambda n: n / 1000)
    times = sorted(draw(st.lists(moments, min_size=2, max_size=max_keys, unique=True)))
    return tuple(
        Key(
            time=time,
            x=draw(coordinates),
            y=draw(coordinates),
            scale=draw(scales) if number else 1.0,
            easing=draw(st.sampled_from(get_args(Easing))),
        )
        for number, time in enumerate(times)
    )


@st.composite
def images(draw: st.DrawFn, mode: str, width: int, height: int) -> Image.Image:
    channels = (3,) if mode == "RGB" else ()
    seed = draw(st.integers(0, 99))
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@st.composite
def motions(draw: st.DrawFn, width: int = 40, height: int = 30) -> Motion:
    return Motion(
        box=draw(boxes(width, height)),
        path=draw(st.just(()) | paths()),
        kind=draw(st.sampled_from(get_args(Kind))),
        curve=draw(st.sampled_from(get_args(Curve))),
        name=draw(names),
        mask=draw(st.none() | st.sampled_from(["L", "1"]).flatmap(lambda mode: images(mode, width, height))),
    )


@st.composite
def references(draw: st.DrawFn) -> Reference:
    width, height = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    num_frames = draw(st.integers(1, 3))
    num_masks = draw(st.sampled_from([0, 1, num_frames]))
    return Reference(
        frames=tuple(draw(images("RGB", width, height)) for _ in range(num_frames)),
        masks=tuple(draw(images("L", width, height)) for _ in range(num_masks)),
    )


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    width, height = draw(st.integers(2, 40)), draw(st.integers(2, 40))
    return Scene(
        image=draw(images("RGB", width, height)),
        motions=tuple(draw(st.lists(motions(width, height), max_size=3))),
        fit=draw(st.sampled_from(get_args(Fit))),
        prompt=draw(names),
        negative_prompt=draw(names),
        reference=draw(st.none() | references()),
    )
