"""The command text: prompts encoded once and kept, or brought from another machine."""

from collections.abc import Sequence

from sgi2v.cli.common import parse
from sgi2v.cli.options import TextOptions
from sgi2v.errors import FieldError


def text(arguments: Sequence[str]) -> None:
    """Encode prompts once, so that other runs or machines need no text encoder."""
    options = parse(TextOptions, "text", arguments)
    from sgi2v.backbones.animatediff.outline import AnimateDiffOutline
    from sgi2v.backbones.dit.outline import DiTOutline
    from sgi2v.backbones.text import Texts, add, check_length, texts_folder

    if options.add is not None:
        if options.texts:
            raise FieldError("texts", "stand beside --add", "give prompts, or a file to take in")
        print(f"{add(options.add)} texts taken into {texts_folder()}")
        return
    if not options.texts:
        raise FieldError("texts", "there are none", 'give prompts in quotes: sgi2v text "a cat walks" ""')
    from sgi2v.backbones.quiet import quiet_libraries
    from sgi2v.backbones.registry import outline_of
    from sgi2v.device import choose_device

    outline = outline_of(options.backbone)
    if not isinstance(outline, DiTOutline | AnimateDiffOutline):
        raise FieldError("backbone", f"{options.backbone!r} takes no text", "name a model that does")
    for one in options.texts:
        check_length(outline.folder, "texts", one, outline.TEXT.length)
    outline = outline.with_texts()
    texts = Texts(outline.folder, outline.TEXT, outline.choose_dtype(options.dtype, choose_device(None)))
    with quiet_libraries():
        if options.output is not None:
            texts.export(options.texts, options.output)
        else:
            texts.rows(options.texts)
    where = options.output or texts_folder()
    print(f"{len(options.texts)} texts of at most {outline.TEXT.length} tokens, in {where}")
