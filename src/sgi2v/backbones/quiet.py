"""Silence of the libraries that load a model."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

_ON_IMPORT: Final = ("torchao", "torch.utils._pytree")
"""Loggers that tell of kernels and classes as they are imported, which is when the first model is loaded."""


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps the libraries that load a model from bars, reports and advice of their own; as before afterwards."""
    import diffusers.utils.logging as of_diffusers
    import transformers.utils.logging as of_transformers

    with ExitStack() as undo:
        for name in _ON_IMPORT:
            logger = logging.getLogger(name)
            undo.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        for library in (of_diffusers, of_transformers):
            undo.callback(library.set_verbosity, library.get_verbosity())
            library.set_verbosity(logging.ERROR)
            if library.is_progress_bar_enabled():
                undo.callback(library.enable_progress_bar)
                library.disable_progress_bar()
        yield
