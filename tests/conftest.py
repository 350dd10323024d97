"""What holds for every test: one thread, no network, a cache of its own, the same examples in every run.

Nothing of sgi2v is imported here: jaxtyping checks only what is imported after its hook is in place.
"""

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test may reach for the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="sgi2v-cache-")  # a person's own is not read, nor added to

import pytest
import torch
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("contract", "imprint")  # tests that other files run: they explain a failure too

# A shared machine makes any deadline a coin toss; a fixed seed makes a failure repeatable.
settings.register_profile(
    "sgi2v", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.load_profile("sgi2v")

# Whoever runs the tests may have advice of their own on a model.
_NO_CONFIG = tempfile.TemporaryDirectory(prefix="sgi2v-config-")
os.environ["XDG_CONFIG_HOME"] = _NO_CONFIG.name


@pytest.fixture(autouse=True, scope="session")
def cache_of_its_own() -> Iterator[None]:
    """What the run has kept goes with it."""
    folder = os.environ["XDG_CACHE_HOME"]
    yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Start every test from the same global random state, so that order and workers change nothing."""
    torch.manual_seed(0)


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a module of experiments/, which is no part of the package, anew by its name."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
        monkeypatch.delitem(sys.modules, f"experiments.{name}", raising=False)
        return importlib.import_module(f"experiments.{name}")

    return load
