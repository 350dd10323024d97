"""A run's progress as a bar on stderr."""

import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from sgi2v.pipeline import Progress


class Bar:
    """A run's progress on stderr: phase, step, guided iteration, loss and time left; counts steps and iterations."""

    def __init__(self, *, quiet: bool, title: str = "") -> None:
        """`quiet` shows nothing; `title` stands before the phase."""
        # Into a file, where every update is a line of its own, a few of them are enough.
        often = 0.1 if sys.stderr.isatty() else 5.0
        shape = "{desc} |{bar:24}| {percentage:3.0f}%{postfix}"
        self.title = title
        self.steps = self.iterations = 0
        self.bar = tqdm(total=1000, bar_format=shape, disable=quiet, mininterval=often, leave=False, file=sys.stderr)

    def __call__(self, progress: "Progress") -> None:
        """Show how far the run is."""
        self.steps += progress.phase == "sample" and not progress.iteration
        self.iterations += progress.iteration > 0
        phase = {"encode": "encoding the image", "decode": "decoding the frames"}.get(progress.phase)
        if phase is None:
            phase = f"step {progress.step}/{progress.num_steps}"
            if progress.iteration:
                phase += f", guided iteration {progress.iteration}/{progress.num_iterations}"
        said = [] if progress.loss is None else [f"loss {progress.loss:.3g}"]
        if progress.seconds_left is not None:
            minutes, seconds = divmod(round(progress.seconds_left), 60)
            said.append(f"{minutes}:{seconds:02d} left")
        self.bar.set_description_str(self.title + phase, refresh=False)
        self.bar.set_postfix_str(", ".join(said), refresh=False)
        self.bar.update(round(progress.fraction * self.bar.total) - self.bar.n)

    def close(self) -> None:
        """Take the bar off the screen."""
        self.bar.close()
