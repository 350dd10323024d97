"""Runs every study, as many at a time as asked for; each goes on where it was stopped, so this does too.

    python -m experiments.all --jobs 2
    python -m experiments.all --only gamma layers -- --backbone svd --recipe None --dtype None --vipseg FOLDER

What a study says goes to out/studies/NAME.log; a line here says which has begun, ended or failed.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro
from tyro.conf import Positional

HERE = Path(__file__).parent
LOGS = HERE.parent / "out" / "studies"
STUDIES = tuple(sorted(file.parent.name for file in HERE.glob("*/run.py") if "STUDY = Study(" in file.read_text()))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run studies side by side."""

    arguments: Positional[tuple[str, ...]] = ()
    """Arguments passed on to every study; put -- before them."""
    only: tuple[str, ...] = ()
    """Names of studies; all by default."""
    jobs: int = 1
    """Studies at a time, each with one thread."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.only) - set(STUDIES))
        if unknown:
            raise ValueError(f"only: no study is called {', '.join(unknown)}; there are {', '.join(STUDIES)}")
        if self.jobs < 1:
            raise ValueError(f"jobs: must be at least 1, got {self.jobs}")


def run(name: str, arguments: tuple[str, ...]) -> bool:
    """Run one study to its end; True if it succeeded."""
    LOGS.mkdir(parents=True, exist_ok=True)
    begun, log = time.monotonic(), LOGS / f"{name}.log"
    print(f"{name}: begun, says more in {log}", file=sys.stderr, flush=True)
    with log.open("w") as file:
        done = subprocess.run(
            [sys.executable, "-m", f"experiments.{name}.run", *arguments],
            cwd=HERE.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    ended = "ended" if done.returncode == 0 else f"FAILED ({done.returncode}), see {log}"
    print(f"{name}: {ended} after {(time.monotonic() - begun) / 60:.0f} min", file=sys.stderr, flush=True)
    return done.returncode == 0


def main(options: Options) -> int:
    """Run them; 1 where one failed."""
    with ThreadPoolExecutor(options.jobs) as pool:
        done = list(pool.map(lambda name: run(name, options.arguments), options.only or STUDIES))
    return int(not all(done))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
