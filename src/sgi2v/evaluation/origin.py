"""Origin of a measurement: versions, device, and the commit of the code that made it."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch

from sgi2v.device import device_name
from sgi2v.records import Json

_PACKAGES: Final = ("sgi2v", "torch", "diffusers", "transformers", "numpy", "opencv-python-headless")


def origin(device: torch.device) -> Json:
    """JSON values for a row: what ran, on what, from which commit (None for an installed package)."""
    return {"device": device_name(device), "versions": versions(), "commit": git_commit()}


def versions() -> dict[str, str]:
    """Versions of Python and the packages that decide a figure; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit this package's own files are at, with "+" where tracked files differ; None outside its checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            found = subprocess.run(
                ["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return found.stdout.strip()

    # An installed copy may lie within somebody's checkout of something else.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = git("rev-parse", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "..")
    return commit and commit + ("+" if changed else "")
