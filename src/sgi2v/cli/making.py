"""Commands that make pictures: generate, preview, mask, convert, replay, demo."""

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sgi2v.cli.bar import Bar
from sgi2v.cli.common import computing, default_output, opened, parse, progress_bar, say, say_plan
from sgi2v.cli.options import ConvertOptions, DemoOptions, MaskOptions, PreviewOptions, ReplayOptions
from sgi2v.cli.prompts import opened_exchange, opened_scene, pictures_at
from sgi2v.errors import FieldError

if TYPE_CHECKING:
    from sgi2v.content_check import ContentCheck
    from sgi2v.exchange import Form


def generate(arguments: Sequence[str]) -> None:
    """Make a video of a scene."""
    from sgi2v.cli import generate_options as o

    default = o.default_options(arguments)
    try:
        options = parse(type(default), "generate", arguments, default)
    except ValueError as error:
        from sgi2v.cli.mistakes import explain, explain_missing

        explain(arguments, default.settings, o.OPTIONS)
        explain_missing(str(error))
        raise
    from sgi2v.latents import Given, check_latents_place, save_latents
    from sgi2v.opening import check_loras, loras
    from sgi2v.pipeline import generate, plan
    from sgi2v.scene_io import with_reference
    from sgi2v.video import check_writable

    output = options.output or default_output(options.scene, ".mp4")
    check_writable(output)
    if options.save_latents is not None:
        check_latents_place(options.save_latents, "save_latents")
    scene = opened_scene(options.scene, options.prompts, may_rest=o.needs_no_motion(options))
    scene = with_reference(scene, options.reference, options.reference_mask)
    words = {name: getattr(options, name) for name in ("prompt", "negative_prompt")}
    scene = replace(scene, **{name: text for name, text in words.items() if text is not None})
    begun = time.perf_counter()
    outline = options.model.outline(o.changed_settings(options, default))
    check_loras(outline, options.lora)
    controller = o.chosen_controller(options, default, outline, named=o.names_controller(arguments))
    sampling = o.sampling_said(options, arguments)
    planned = plan(scene, outline, controller=controller, sampling=sampling)
    o.check_heeded(options, outline, planned.controller)
    given = Given.read(options.noise, options.reference_latents, planned.grid)
    looks = _content_check(options.content_check, options.content_labels)
    if looks is not None:
        print(f"content check: {looks.check('the photo', [scene.image])}", file=sys.stderr)
    say_plan(planned, outline.settings, quiet=options.quiet, chosen=controller is not None)
    with computing():
        backbone = opened(options.model, outline, planned.sampling, quiet=options.quiet)
        with progress_bar(quiet=options.quiet) as bar:
            video = generate(
                scene,
                backbone=backbone,
                controller=planned.controller,
                sampling=sampling,
                adapters=loras(backbone, options.lora),
                progress=bar,
                noise=given.noise,
                reference_latents=given.reference_latents,
            )
            if looks is not None:
                from sgi2v.content_check import frames_to_check
                from sgi2v.video import to_uint8

                frames = frames_to_check(to_uint8(video.frames))
                print(f"content check: {looks.check('the clip', frames)}", file=sys.stderr)
            video.save(output, record=options.record, provenance=options.provenance)
            if options.save_latents is not None:
                save_latents(options.save_latents, noise=video.noise, latents=video.latents)
    say(video, bar, begun, quiet=options.quiet)
    print(output)


def _content_check(folder: Path | None, labels: Sequence[str]) -> "ContentCheck | None":
    """The check that was asked for; FieldError for labels without one."""
    if folder is None:
        if labels:
            raise FieldError("content_labels", "nothing looks at the pictures", "give --content-check FOLDER too")
        return None
    from sgi2v.content_check import ContentCheck

    return ContentCheck(folder, labels=labels)


def preview(arguments: Sequence[str]) -> None:
    """Draw a scene's boxes and paths on its image; no model is loaded."""
    options = parse(PreviewOptions, "preview", arguments)
    from sgi2v.draw import preview
    from sgi2v.writing import check_place, writing

    output = options.output or default_output(options.scene, ".png")
    if output.suffix.lower() not in (".png", ".jpg"):
        raise FieldError(
            "output", f"{str(output)!r} is no picture that is written here", "end its name in .png or .jpg"
        )
    if not 2 <= options.num_frames <= 1000:
        raise FieldError("num_frames", f"{options.num_frames} must lie in 2..1000")
    check_place(output)
    picture = preview(opened_scene(options.scene, options.prompts), options.num_frames)
    with writing(output) as temporary:
        picture.save(temporary)
    print(output)


def mask(arguments: Sequence[str]) -> None:
    """Make masks from a scene's boxes."""
    options = parse(MaskOptions, "mask", arguments)
    from sgi2v.prompting.clicks import clicked, segmenter
    from sgi2v.scene_io import save_scene
    from sgi2v.segmentation import touching, with_masks
    from sgi2v.writing import check_place

    output = options.output or default_output(options.scene, "-masks")
    check_place(output if output.suffix == ".json" else output / "scene.json")
    if options.segmenter is not None and not options.at:
        raise FieldError("segmenter", "it takes clicks, and there is none", "say --at x,y")
    scene = opened_scene(options.scene, options.prompts, may_rest=bool(options.at))
    if options.at:
        scene = clicked(scene, options.at, segmenter(options.segmenter, device=options.device))
        print(save_scene(scene, output, keep=pictures_at(options.scene)))
        return
    failed: list[FieldError] = []
    masked = with_masks(scene, anew=options.anew, failed=failed.append)
    if failed and masked == scene:
        raise failed[0]
    for error in failed:
        print(f"sgi2v: warning: {error}", file=sys.stderr)
    for remark in touching(masked, scene):
        print(f"sgi2v: warning: {remark}", file=sys.stderr)
    print(save_scene(masked, output, keep=pictures_at(options.scene)))


def convert(arguments: Sequence[str]) -> None:
    """Write a scene as JSON, or as the published img.png and traj.npy."""
    options = parse(ConvertOptions, "convert", arguments)
    from sgi2v.exchange import write_scene
    from sgi2v.scene_io import save_scene, save_traj

    output = options.output
    if not 2 <= options.num_frames <= 1000:
        raise FieldError("num_frames", f"{options.num_frames} must lie in 2..1000")
    form = options.to or {".json": "scene", ".npy": "wan-move", ".pth": "ati", ".mp4": "magic-motion"}.get(
        output.suffix.lower(), "traj" if not output.suffix else None
    )
    if form is None:
        raise FieldError("output", f"{str(output)!r} is neither", "end it in .json, or name a folder for traj.npy")
    found = opened_exchange(options.scene, options.prompts, options.photo)
    lost = [f"{options.scene.name}: {one}" for one in found.lost]
    if form == "scene":
        print(save_scene(found.scene, output, embed=options.embed, keep=pictures_at(options.scene, found.form)))
    elif form == "traj":
        keep = pictures_at(options.scene, found.form)
        print(save_traj(found.scene, output, options.num_frames, keep=keep))
    else:
        lost += write_scene(found.scene, output, cast("Form", form), num_frames=options.num_frames)
        print(output)
    for one in lost:
        print(f"lost: {one}", file=sys.stderr)


def replay(arguments: Sequence[str]) -> None:
    """Make a video again from the record in its file."""
    options = parse(ReplayOptions, "replay", arguments)
    from sgi2v.video import check_writable, read_run

    source = options.video
    output = options.output or source.with_name(f"{source.stem}-replay{source.suffix}")
    record = read_run(source)
    check_writable(output)
    from sgi2v.latents import Given
    from sgi2v.opening import ModelChoice, check_loras, loras
    from sgi2v.pipeline import replay
    from sgi2v.planning import Sampling
    from sgi2v.run import Run, trusted_source

    run = Run.from_dict(record)
    begun = time.perf_counter()
    model = ModelChoice(
        backbone=options.backbone or trusted_source(run),
        device=options.device,
        dtype=run.sampling.get("dtype"),
        memory=options.memory,
        transformer=options.transformer,
        transformer_2=options.transformer_2,
        quantise=options.quantise,
    )
    size: dict[str, Any] = {name: run.sampling.get(name) for name in ("width", "height", "num_frames")}
    outline = model.outline()
    check_loras(outline, options.lora)
    given = Given.read(options.noise, options.reference_latents, outline.grid(**size))
    with computing():
        backbone = opened(model, outline, Sampling(**size), quiet=options.quiet)
        with progress_bar(quiet=options.quiet) as bar:
            video = replay(
                run,
                backbone=backbone,
                adapters=loras(backbone, options.lora),
                progress=bar,
                noise=given.noise,
                reference_latents=given.reference_latents,
            )
            video.save(output, record=options.record, provenance=options.provenance)
    say(video, bar, begun, quiet=options.quiet)
    print(output)


def demo(arguments: Sequence[str]) -> None:
    """Make a shipped scene move on the bundled model, without control and with it."""
    options = parse(DemoOptions, "demo", arguments)
    from sgi2v.demo import TITLES, make_demo, shipped_scene
    from sgi2v.evaluation.tracker import TemplateTracker
    from sgi2v.opening import ModelChoice
    from sgi2v.planning import Sampling
    from sgi2v.scene_io import load_scene
    from sgi2v.video import check_writable
    from sgi2v.writing import writing

    output = {name: options.output / f"{name}.mp4" for name in ("demo", "no_control", "side_by_side")}
    check_writable(output["demo"])
    scene = load_scene(shipped_scene(options.scene))
    sampling = Sampling(seed=options.seed, num_steps=options.num_steps)
    begun = time.perf_counter()
    model = ModelChoice(backbone=options.backbone, device=options.device, memory=options.memory)
    shown: list[Bar] = []
    with computing(), contextlib.ExitStack() as bars:
        backbone = opened(model, model.outline(), sampling, quiet=options.quiet)

        def next_bar(title: str) -> Bar:
            bars.close()
            shown.append(bars.enter_context(progress_bar(quiet=options.quiet, title=f"{title}: ")))
            return shown[-1]

        demo = make_demo(
            scene,
            backbone=backbone,
            tracker=TemplateTracker(),
            sampling=sampling,
            progress=next_bar,
        )
    for name, video in zip(output, (demo.controlled, demo.plain, demo.side_by_side), strict=True):
        print(video.save(output[name], provenance=options.provenance))
    with writing(options.output / "sheet.png") as temporary:
        demo.sheet.save(temporary)
    print(options.output / "sheet.png")
    height, width = demo.plain.frames.shape[-2:]
    print(
        f"how far from its path, as a template tracker sees it, in pixels of {width}x{height}, and how much of it is "
        "still there (the tracker's own match of what it follows, mean over the frames):"
    )
    for title, error in zip(TITLES, demo.errors, strict=True):
        if error is not None:
            end, lost = float(error.path_end.mean()), float(error.lost.mean())
            there = "" if error.match is None else f"; still there {float(error.match.mean()):.0%}"
            print(
                f"  {title:10}  mean {error.scene:.1f}, at the end {end:.1f}, lost in {lost:.0%} of the frames{there}"
            )
    say(demo.controlled, shown[-1], begun, quiet=options.quiet)
