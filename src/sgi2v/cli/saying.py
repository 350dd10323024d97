"""The command that turns a sentence into a scene: say."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from sgi2v.cli.common import default_output, parse
from sgi2v.cli.options import SayOptions
from sgi2v.cli.prompts import NOTHING_SAID, opened_scene, pictures_at
from sgi2v.errors import FieldError, within


def say(arguments: Sequence[str]) -> None:
    """Write the scene that a sentence means, and its preview."""
    options = parse(SayOptions, "say", arguments)
    from sgi2v.draw import preview
    from sgi2v.prompting.clicks import sam2
    from sgi2v.prompting.detection import detector
    from sgi2v.prompting.drags import Drag
    from sgi2v.prompting.said import among, first_of, named_in, say, scene_said
    from sgi2v.prompting.vision import kind_in
    from sgi2v.scene import Box
    from sgi2v.scene_io import save_scene
    from sgi2v.writing import check_place, writing

    if not 0 <= options.threshold <= 1:
        raise FieldError("threshold", f"{options.threshold} must lie in 0..1")
    output = options.output or default_output(options.scene, "-said")
    if output.suffix:
        raise FieldError("output", f"{str(output)!r} is no folder", "give a name without a suffix")
    check_place(output / "scene.json")
    scene = opened_scene(options.scene, NOTHING_SAID, may_rest=True)
    boxes: dict[str, Box] = {}
    for index, text in enumerate(options.box):
        with within(f"box[{index}]"):
            named = re.fullmatch(r"\s*([^=,]+?)\s*=\s*(.*)", text)
            place = Drag.parse(named[2]) if named else None
            if named is None or place is None or len(place.place) != 4 or place.stops:
                raise FieldError("", f"{text!r} is no name and box", "say name=left,top,right,bottom")
            boxes[named[1].lower()] = place.box(scene.image.size)
    find = first_of(among(boxes), named_in(scene))
    if options.detector is not None:
        seen = detector(options.detector, scene.image, threshold=options.threshold, device=options.device)
        find = first_of(find, seen)
    if options.segmenter is not None:
        kind_in("segmenter", options.segmenter)
    said = say(options.sentence, scene, find=find)
    for line in said.lines():
        print(f"understood: {line}", file=sys.stderr)
    for remark in said.remarks:
        print(f"note: {remark}", file=sys.stderr)
    made = scene_said(said, scene)
    if options.mask or options.segmenter is not None:
        from sgi2v.prompting.clicks import with_outlines

        segment = None if options.segmenter is None else sam2(options.segmenter, device=options.device)
        made, failed = with_outlines(made, segment)
        for error in failed:
            print(f"sgi2v: warning: {error}", file=sys.stderr)
    print(save_scene(made, output, keep=pictures_at(Path(options.scene))))
    with writing(output / "preview.png") as temporary:
        preview(made).save(temporary)
    print(output / "preview.png")
