"""What holds for every test: one thread, no network, the same examples in every run.

Nothing of sgi2v is imported here: jaxtyping checks only what is imported after its hook is in place.
"""

import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test may reach for the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

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
