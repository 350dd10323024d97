"""What holds for every test: one thread, no network, the same examples in every run.

Nothing of sgi2v is imported here: jaxtyping checks only what is imported after its hook is in place.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: no test may reach for the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import HealthCheck, settings

# A shared machine makes any deadline a coin toss; a fixed seed makes a failure repeatable.
settings.register_profile(
    "sgi2v", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], max_examples=50
)
settings.load_profile("sgi2v")


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Start every test from the same global random state, so that order and workers change nothing."""
    torch.manual_seed(0)
