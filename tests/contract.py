"""The contract of a backbone as tests that anybody's model can be pointed at; docs/backbones.md says how."""

import builtins
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from imprint import nothing_is_left
from sgi2v import (
    SGI2V,
    Box,
    Cancelled,
    Controller,
    Key,
    Motion,
    Progress,
    Run,
    Sampling,
    Scene,
    Video,
    generate,
    load_backbone,
    replay,
)  # fmt: skip
from sgi2v.backbones.adapters import LowRank
from sgi2v.backbones.base import MATCHES, Backbone, Outline, Text
from sgi2v.backbones.registry import outline_of
from sgi2v.cut_and_drag import dragged_clip
from sgi2v.errors import FieldError
from sgi2v.grid import tracks_of
from sgi2v.pipeline import plan
from sgi2v.planning import Range
from sgi2v.step import Level


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to be tested, and how small a video of it may be."""

    folder: Callable[[], Path | str]
    """Makes or finds the model's folder; asked once."""
    sampling: Sampling
    """Size, frames and steps, all said; as small as the model bears."""
    controllers: Mapping[str, Controller]
    """The ways of steering it is tested with, by any name; "none" among them."""
    guided: SGI2V
    """SG-I2V with layers that this model has and a range that holds a step: what the refusals are tested with."""
    impossible: Mapping[str, int]
    """Fields of the sampling, each with a value that the model cannot make, such as a width that is no multiple."""
    adapted: str = ""
    """A linear layer that every pass of the denoiser runs, by name; none for a model that takes no adapters."""
    half: tuple[str, ...] = ()
    """Names of controllers that are run in bfloat16 too; none for a model that does not bear it."""
    causal: bool = True
    """False where the autoencoder shows latent frames in the pictures before them, so that a kept one looks changed."""


def picture(seed: int = 0, size: tuple[int, int] = (96, 72)) -> PIL.Image.Image:
    """A picture with large and small parts, so that moving things in it shows."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return PIL.Image.fromarray(coarse).resize(size, PIL.Image.Resampling.BICUBIC)


def scene(prompt: str = "") -> Scene:
    """Two boxes that move, one of which leaves the picture a little."""
    paths = (
        (Box(left=8, top=8, right=44, bottom=44), (26.0, 26.0), (58.0, 34.0)),
        (Box(left=56, top=30, right=90, bottom=66), (73.0, 48.0), (60.0, 20.0)),
    )
    motions = tuple(
        Motion(box=box, path=(Key(time=0.0, x=a[0], y=a[1]), Key(time=1.0, x=b[0], y=b[1]))) for box, a, b in paths
    )
    return Scene(image=picture(), motions=motions, prompt=prompt)


class Broken(Exception):
    """Thrown by the tests."""


class WeightsOpened(AssertionError):
    """A weight file was opened where the configuration should have been enough."""


@contextmanager
def no_weights_opened() -> Iterator[None]:
    """Fails as soon as a safetensors file is opened, whoever opens it."""

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, *args: Any, **kwargs: Any) -> Any:
            if str(file).endswith(".safetensors"):
                raise WeightsOpened(str(file))
            return function(file, *args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (builtins, "open"), (io, "open"), (safetensors, "safe_open"), (safetensors.torch, "safe_open"),
            (safetensors.torch, "load_file"),
        ):  # fmt: skip
            patch.setattr(module, name, watched(getattr(module, name)))
        yield


@dataclass(frozen=True)
class Pass:
    """One time that the model was asked."""

    x: Tensor
    level: Level
    x0: Tensor


@contextmanager
def passes_of(backbone: Backbone) -> Iterator[list[Pass]]:
    """Collects what the model is asked at every step, and what it answers."""
    seen: list[Pass] = []
    denoise = backbone.denoise

    def watched(x: Tensor, level: Level, condition: Any) -> Tensor:
        x0 = denoise(x, level, condition)
        seen.append(Pass(x.clone(), level, x0.clone()))
        return x0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "denoise", watched)
        yield seen


def plainly(backbone: Backbone, of: Scene, sampling: Sampling) -> Tensor:
    """Plain sampling, written out: what a run without control must give to the last bit."""
    assert sampling.width and sampling.height and sampling.num_frames and sampling.num_steps
    grid = backbone.grid(sampling.width, sampling.height, sampling.num_frames)
    generator = torch.Generator().manual_seed(sampling.seed)
    condition = backbone.encode(
        tracks_of(of, grid).image, Text(prompt=of.prompt, negative=of.negative_prompt), grid, generator
    )
    levels = backbone.levels(sampling.num_steps, grid)
    x = backbone.noise(grid, generator) * math.hypot(levels[0].signal, levels[0].noise)
    for here, there in pairwise(levels):
        x0 = backbone.denoise(x, here, condition)
        x = there.signal * x0 + (there.noise / here.noise) * (x - here.signal * x0)
    return backbone.decode(x).cpu()


@dataclass
class Bench:
    """A subject with what has been made of it, once for all tests of a class."""

    subject: Subject
    runs: dict[str, tuple[Video, list[Pass]]] = field(default_factory=dict)

    @cached_property
    def folder(self) -> str:
        """The model's."""
        return str(self.subject.folder())

    @cached_property
    def backbone(self) -> Backbone:
        """The model, loaded."""
        return load_backbone(self.folder, device="cpu", dtype="float32")

    @cached_property
    def outline(self) -> Outline:
        """The model, not loaded."""
        return outline_of(self.folder)

    @cached_property
    def scene(self) -> Scene:
        """A scene, with words for a model that takes some."""
        return scene("a red ball" if self.outline.takes_text else "")

    @property
    def grid(self) -> Any:
        """The grid of the subject's size."""
        s = self.subject.sampling
        assert s.width and s.height and s.num_frames
        return self.outline.grid(s.width, s.height, s.num_frames)

    def generate(self, name: str, **others: Any) -> Video:
        """A run under the named controller."""
        return generate(
            self.scene,
            **{
                "backbone": self.backbone,
                "controller": self.subject.controllers[name],
                "sampling": self.subject.sampling,
                **others,
            },
        )

    def adapter(self, scale: float) -> LowRank:
        """A random addition to the subject's linear layer."""
        layer = self.backbone.denoiser.get_submodule(self.subject.adapted)
        assert isinstance(layer, torch.nn.Linear)
        (rows, columns), draws = layer.weight.shape, torch.Generator().manual_seed(0)
        pair = torch.randn(2, columns, generator=draws), torch.randn(rows, 2, generator=draws)
        return LowRank({self.subject.adapted: pair}, name="a", sha256="0" * 64, scale=scale)

    def ran(self, name: str) -> tuple[Video, list[Pass]]:
        """The same, made once."""
        if name not in self.runs:
            with passes_of(self.backbone) as passes:
                self.runs[name] = self.generate(name), passes
        return self.runs[name]


class BackboneContract:
    """Inherit, name the subject, and every test below is run on it: ``class TestMine(BackboneContract): ...``."""

    subject: ClassVar[Subject]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Every test that asks for a controller's name is run once for each."""
        subject: Subject = self.subject
        if "name" in metafunc.fixturenames:
            metafunc.parametrize("name", list(subject.controllers))
        if "in_half" in metafunc.fixturenames:
            metafunc.parametrize("in_half", list(subject.half))
        if "impossible" in metafunc.fixturenames:
            metafunc.parametrize("impossible", list(subject.impossible))

    @pytest.fixture
    def bench(self, request: pytest.FixtureRequest) -> Bench:
        """The subject, set up: once for the class, gone with it."""
        own = vars(request.cls)
        if "_bench" not in own:
            request.cls._bench = Bench(self.subject)
        bench: Bench = own["_bench"]
        return bench

    @classmethod
    def teardown_class(cls) -> None:
        """Lets go of the model and what was made of it."""
        if "_bench" in vars(cls):
            del cls._bench  # type: ignore[attr-defined]

    # ------------------------------------------------------------ the parts by themselves

    def test_outline_and_backbone_say_the_same(self, bench: Bench) -> None:
        outline, backbone, grid = bench.outline, bench.backbone, bench.grid
        assert isinstance(outline, Outline) and isinstance(backbone, Backbone)
        assert outline.settings == backbone.settings == backbone.outline.settings
        assert backbone.grid(grid.width, grid.height, grid.num_frames) == grid
        for num_steps in (1, 7):
            levels = outline.levels(num_steps, grid)
            assert list(backbone.levels(num_steps, grid)) == list(levels)
            assert len(levels) == num_steps + 1 and levels[-1].noise == 0
            assert all(here.noise_level > there.noise_level for here, there in pairwise(levels))
        assert len(outline.hash_weights()) == 64 and outline.hash_weights() == backbone.weights_sha256

    def test_noise_is_the_generators_alone(self, bench: Bench) -> None:
        def draw(seed: int) -> Tensor:
            return bench.backbone.noise(bench.grid, torch.Generator().manual_seed(seed))

        torch.manual_seed(5)
        noise = draw(1)
        torch.manual_seed(6)
        assert torch.equal(noise, draw(1)) and not torch.equal(noise, draw(2))
        assert noise.shape == bench.grid.latent_shape and noise.dtype == torch.float32
        assert abs(float(noise.std()) - 1) < 0.2

    def test_settings_are_a_value(self, bench: Bench) -> None:
        before = bench.backbone.settings
        other = bench.backbone.with_settings(replace(before, fps=before.fps + 1))
        assert other.denoiser is bench.backbone.denoiser
        assert bench.backbone.settings is before and other.settings.fps == other.outline.settings.fps == before.fps + 1

    def test_features_have_gradients_where_latents_are_free(self, bench: Bench) -> None:
        backbone, grid = bench.backbone, bench.grid
        condition = backbone.encode(tracks_of(bench.scene, grid).image, Text(), grid, torch.Generator().manual_seed(0))
        first = bench.outline.levels(4, grid)[1]
        # Off the model's own line: a method may ask between two steps, and then no timestep is known.
        level = Level(signal=first.signal, noise=first.noise * 0.99)
        x = (backbone.noise(grid, torch.Generator().manual_seed(0)) * level.init_noise_sigma).requires_grad_(True)
        layers = (*bench.subject.guided.layers, "x0")
        with nothing_is_left(backbone.denoiser):
            found = backbone.features(x, level, condition, layers)
        assert list(found) == list(layers)
        assert found["x0"].shape == x.shape
        free = backbone.free(grid)
        assert free.shape == (grid.latent_frames,) and free.dtype == torch.bool and free.any()
        for maps in found.values():
            assert len(maps) == grid.latent_frames
            (gradient,) = torch.autograd.grad(maps.float().square().sum(), x, retain_graph=True)
            per_frame = gradient.abs().amax(dim=(1, 2, 3))
            assert bool((per_frame[free] > 0).all()) and bool((per_frame[~free] == 0).all())

    def test_every_layer_that_is_listed_can_be_read(self, bench: Bench) -> None:
        backbone, grid, listed = bench.backbone, bench.grid, bench.outline.layers()
        names = [f"{block}:{source}" for block, sources in listed.items() for source in sources]
        assert names and set(bench.subject.guided.layers) <= set(names)
        condition = backbone.encode(tracks_of(bench.scene, grid).image, Text(), grid, torch.Generator().manual_seed(0))
        x = backbone.noise(grid, torch.Generator().manual_seed(0))
        with nothing_is_left(backbone.denoiser), torch.no_grad():
            found = backbone.features(x, bench.outline.levels(4, grid)[1], condition, names)
        for name in names:
            assert len(found[name]) == grid.latent_frames and bool(found[name].isfinite().all()), name
            if name.partition(":")[2] in MATCHES:
                x_at, y_at = found[name].unbind(1)
                rows, columns = x_at.shape[1:]
                assert found[name].dtype == torch.float32 and len(found[name][0]) == 2
                assert float(x_at.min()) >= 0 and float(x_at.max()) <= columns - 1
                assert float(y_at.min()) >= 0 and float(y_at.max()) <= rows - 1

    def test_places_steer_and_layers_that_do_not_fit_the_loss_are_refused(self, bench: Bench) -> None:
        matching = [f"{k}:{s}" for k, sources in bench.outline.layers().items() for s in sources if s in MATCHES]
        if not matching:
            pytest.skip("this model finds no places")
        fitting = replace(bench.subject.guided, loss="matching", layers=tuple(matching[:1]))
        with nothing_is_left(bench.backbone.denoiser):
            video = bench.generate("sg-i2v", controller=fitting)
        assert bool(video.frames.isfinite().all()) and not torch.equal(video.frames, bench.ran("none")[0].frames)
        with pytest.raises(FieldError, match=r"controller\.layers: matching reads places"):
            replace(bench.subject.guided, loss="matching")
        with pytest.raises(FieldError, match=r"controller\.loss: alignment compares looks"):
            replace(bench.subject.guided, layers=tuple(matching[:1]))

    def test_a_clip_goes_in_and_pictures_come_out(self, bench: Bench) -> None:
        backbone, grid = bench.backbone, bench.grid
        clip = torch.rand(grid.num_frames, 3, grid.height, grid.width, generator=torch.Generator().manual_seed(0))
        latents = backbone.encode_frames(clip, grid)
        assert latents.shape == grid.latent_shape and latents.dtype == torch.float32
        assert not latents.requires_grad
        pictures = backbone.decode(latents)
        assert pictures.shape == clip.shape and pictures.dtype == torch.float32
        assert float(pictures.min()) >= 0 and float(pictures.max()) <= 1
        one = backbone.decode(latents, frames=[grid.latent_frames - 1])
        assert one.shape == (1, 3, grid.height, grid.width)

    def test_an_adapter_takes_part_while_it_is_open(self, bench: Bench) -> None:
        if not bench.subject.adapted:
            pytest.skip("this model takes no adapters")
        backbone = bench.backbone
        grid, draws = bench.grid, torch.Generator().manual_seed(0)
        condition = backbone.encode(tracks_of(bench.scene, grid).image, Text(), grid, draws)
        level = backbone.levels(4, grid)[1]
        x = backbone.noise(grid, draws) * level.init_noise_sigma
        plain = backbone.denoise(x, level, condition)
        with nothing_is_left(backbone.denoiser):
            for scale in (0.0, 0.3):
                with backbone.adapted(bench.adapter(scale)):
                    changed = not torch.equal(backbone.denoise(x, level, condition), plain)
                assert changed == (scale > 0)
            with pytest.raises(Broken), backbone.adapted(bench.adapter(0.3)):
                raise Broken
        assert torch.equal(backbone.denoise(x, level, condition), plain)

    def test_a_record_names_its_adapters(self, bench: Bench) -> None:
        if not bench.subject.adapted:
            pytest.skip("this model takes no adapters")
        backbone, adapter = bench.backbone, bench.adapter(0.3)
        with nothing_is_left(backbone.denoiser):
            video = generate(
                bench.scene, backbone=backbone, controller=Controller(), sampling=bench.subject.sampling,
                adapters=[adapter],
            )  # fmt: skip
        assert video.run is not None and not torch.equal(video.frames, bench.ran("none")[0].frames)
        run = Run.from_dict(video.run)
        assert [one["sha256"] for one in run.adapters] == [adapter.sha256]
        with pytest.raises(FieldError, match="adapters"):
            replay(run, backbone=backbone)

    # ------------------------------------------------------------ runs

    def test_none_is_plain_sampling_to_the_last_bit(self, bench: Bench) -> None:
        video, _ = bench.ran("none")
        assert torch.equal(video.frames, plainly(bench.backbone, bench.scene, bench.subject.sampling))

    def test_a_run_leaves_nothing_and_its_record_makes_it_again(self, bench: Bench, name: str) -> None:
        with nothing_is_left(bench.backbone.denoiser):
            video, _ = bench.ran(name)
        assert len(video.frames) == bench.subject.sampling.num_frames and bool(video.frames.isfinite().all())
        assert video.run is not None
        run = Run.from_dict(json.loads(json.dumps(video.run)))
        with nothing_is_left(bench.backbone.denoiser):
            again = replay(run, backbone=bench.backbone)
        assert torch.equal(again.frames, video.frames) and again.run == video.run

    def test_a_method_does_something(self, bench: Bench, name: str) -> None:
        changed = not torch.equal(bench.ran("none")[0].frames, bench.ran(name)[0].frames)
        assert changed == (name != "none")

    def test_frames_the_model_keeps_are_left_alone(self, bench: Bench, name: str) -> None:
        kept = ~bench.backbone.free(bench.grid)
        if not kept.any():
            pytest.skip("every latent frame of this model is free")
        video, passes = bench.ran(name)
        for here, there in pairwise(passes):
            a, b = there.level.signal, there.level.noise / here.level.noise
            stepped = a * here.x0 + b * (here.x - here.level.signal * here.x0)
            assert torch.equal(there.x[kept], stepped[kept])
        assert torch.equal(passes[-1].x0[kept], bench.ran("none")[1][-1].x0[kept])
        pictures = [p for k in range(len(kept)) if kept[k] and bench.subject.causal for p in _group(bench, k)]
        assert torch.equal(video.frames[pictures], bench.ran("none")[0].frames[pictures])

    def test_an_error_in_the_middle_leaves_nothing(self, bench: Bench, name: str) -> None:
        middle = len(bench.ran(name)[1]) // 2
        begun = 0

        def progress(now: Progress) -> None:
            nonlocal begun
            begun += now.phase == "sample" and now.iteration == 0
            if begun > middle and (now.iteration > 0 or begun > middle + 1):
                raise Broken

        with nothing_is_left(bench.backbone.denoiser), pytest.raises(Broken):
            bench.generate(name, progress=progress)

    def test_cancelling_leaves_nothing(self, bench: Bench, name: str) -> None:
        asked = 0

        def cancelled() -> bool:
            nonlocal asked
            asked += 1
            return asked > 2

        with nothing_is_left(bench.backbone.denoiser), pytest.raises(Cancelled):
            bench.generate(name, cancelled=cancelled)

    def test_half_precision_runs(self, bench: Bench, in_half: str) -> None:
        backbone = load_backbone(bench.folder, device="cpu", dtype="bfloat16")
        assert backbone.dtype == torch.bfloat16
        with nothing_is_left(backbone.denoiser):
            video = generate(
                bench.scene, backbone=backbone, controller=bench.subject.controllers[in_half],
                sampling=bench.subject.sampling,
            )  # fmt: skip
        assert video.frames.dtype == torch.float32 and bool(video.frames.isfinite().all())
        assert float((video.frames - bench.ran(in_half)[0].frames).abs().mean()) < 0.2

    # ------------------------------------------------------------ words, solvers, latents

    def test_words_change_the_video_or_go_unused(self, bench: Bench) -> None:
        negative = replace(bench.scene, negative_prompt="a green field")
        sampling, none = bench.subject.sampling, Controller()
        unused = plan(negative, bench.outline, controller=none, sampling=sampling).unused
        assert any("prompt" in one for one in unused) == (not bench.outline.takes_text)
        video = generate(negative, backbone=bench.backbone, controller=none, sampling=sampling)
        assert torch.equal(video.frames, bench.ran("none")[0].frames) == (not bench.outline.takes_text)
        assert video.run is not None and video.run["version"] == "2.1"
        again = replay(Run.from_dict(json.loads(json.dumps(video.run))), backbone=bench.backbone)
        assert torch.equal(again.frames, video.frames) and again.run == video.run

    def test_a_second_order_run_differs_and_its_record_makes_it_again(self, bench: Bench) -> None:
        video = bench.generate("none", sampling=replace(bench.subject.sampling, solver="dpm2m"))
        euler = bench.ran("none")[0]
        assert bool(video.frames.isfinite().all()) and not torch.equal(video.frames, euler.frames)
        assert video.run is not None and euler.run is not None and "solver" not in euler.run["sampling"]
        assert video.run["version"] == "2.1" and video.run["required"] == ["sampling.solver"]
        again = replay(Run.from_dict(json.loads(json.dumps(video.run))), backbone=bench.backbone)
        assert torch.equal(again.frames, video.frames) and again.run == video.run

    def test_latents_come_out_and_noise_goes_in(self, bench: Bench, name: str) -> None:
        video, passes = bench.ran(name)
        assert video.noise is not None and video.latents is not None
        assert video.noise.shape == video.latents.shape == bench.grid.latent_shape
        assert torch.equal(bench.backbone.decode(video.latents).cpu(), video.frames)
        if name == "none":
            first = passes[0]
            assert torch.equal(first.x.cpu(), video.noise * first.level.init_noise_sigma)
        # The generator makes the model's draw all the same: a method's own draws are what they were.
        again = bench.generate(name, noise=video.noise)
        assert torch.equal(again.frames, video.frames)
        assert again.run is not None and video.run is not None
        run, other = Run.from_dict(json.loads(json.dumps(again.run))), Run.from_dict(video.run)
        assert list(run.inputs) == ["noise"] and "inputs" in again.run["required"] and run.key != other.key
        with pytest.raises(FieldError, match="noise: the video was made from latents of sha256"):
            replay(run, backbone=bench.backbone)
        with pytest.raises(FieldError, match="noise: the video was made without"):
            replay(other, backbone=bench.backbone, noise=video.noise)
        with pytest.raises(FieldError, match="noise"):
            replay(run, backbone=bench.backbone, noise=-video.noise)
        assert torch.equal(replay(run, backbone=bench.backbone, noise=video.noise).frames, video.frames)

    def test_a_reference_clips_latents_stand_for_the_clip(self, bench: Bench, name: str) -> None:
        clip = dragged_clip(tracks_of(bench.scene, bench.grid), bench.grid.num_frames)
        latents = bench.backbone.encode_frames(clip.frames.to(bench.backbone.device), bench.grid)
        if not bench.subject.controllers[name].uses().reference:
            with pytest.raises(FieldError, match=r"reference_latents: .* uses no reference clip"):
                bench.generate(name, reference_latents=latents)
            return
        video = bench.generate(name, reference_latents=latents)
        assert torch.equal(video.frames, bench.ran(name)[0].frames)
        assert not torch.equal(bench.generate(name, reference_latents=-latents).frames, video.frames)
        assert video.run is not None and list(video.run["inputs"]) == ["reference_latents"]

    @pytest.mark.parametrize("spoilt", ["shape", "dtype", "finite"])
    def test_latents_that_are_none_of_its_own_are_refused(self, bench: Bench, spoilt: str) -> None:
        noise = torch.zeros(bench.grid.latent_shape)
        noise = {"shape": noise[:, :, 1:], "dtype": noise.double(), "finite": noise / 0}[spoilt]
        with pytest.raises(FieldError, match=r"^noise: "), passes_of(bench.backbone) as passes:
            bench.generate("none", noise=noise)
        assert not passes

    # ------------------------------------------------------------ mistakes, before any weight is read

    def refused(
        self,
        bench: Bench,
        field: str,
        of: Scene | None = None,
        *,
        controller: Controller[Any] | None = None,
        sampling: Sampling | None = None,
    ) -> FieldError:
        """The mistake that planning finds, made out of the subject's own run by the changes."""
        with no_weights_opened(), pytest.raises(FieldError) as caught:
            plan(
                of or bench.scene, outline_of(bench.folder), controller=controller or bench.subject.guided,
                sampling=sampling or bench.subject.sampling,
            )  # fmt: skip
        error = caught.value
        assert error.field.startswith(field) and error.problem and "\n" not in str(error)
        return error

    def test_a_run_that_can_be_is_planned_from_the_configuration(self, bench: Bench, name: str) -> None:
        with no_weights_opened():
            planned = plan(
                bench.scene, outline_of(bench.folder), controller=bench.subject.controllers[name],
                sampling=bench.subject.sampling,
            )  # fmt: skip
        assert planned.grid == bench.grid and planned.levels[-1].noise == 0

    def test_a_size_it_cannot_make_is_refused(self, bench: Bench, impossible: str) -> None:
        value: Any = bench.subject.impossible[impossible]
        error = self.refused(bench, impossible, sampling=replace(bench.subject.sampling, **{impossible: value}))
        assert str(value) in str(error)

    def test_a_layer_it_does_not_have_is_refused(self, bench: Bench) -> None:
        missing = replace(bench.subject.guided, layers=("nowhere.7:first-frame",))
        error = self.refused(bench, "controller.layers", controller=missing)
        assert "nowhere.7" in str(error)

    def test_a_source_it_does_not_have_is_refused(self, bench: Bench) -> None:
        block = bench.subject.guided.layers[0].partition(":")[0]
        missing = replace(bench.subject.guided, layers=(f"{block}:smell",))
        error = self.refused(bench, "controller.layers", controller=missing)
        assert "smell" in str(error)

    def test_a_range_without_a_step_is_refused(self, bench: Bench) -> None:
        nowhere = replace(bench.subject.guided, guided=Range(low=0.0, high=1e-9, unit="noise-level"))
        self.refused(bench, "controller.guided", controller=nowhere)

    def test_a_scene_without_motions_is_refused(self, bench: Bench) -> None:
        self.refused(bench, "motions", replace(bench.scene, motions=()))


def _group(bench: Bench, latent_frame: int) -> range:
    """The pictures that a latent frame stands for."""
    pictures: range = bench.grid.group(latent_frame)
    return pictures
