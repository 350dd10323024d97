"""The counter of live tensors sees what is alive and no more; a FreeTraj step takes hardly more than a plain one."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sgi2v import Controller
from sgi2v.attention import AttentionCall
from sgi2v.controllers import FreeTraj
from sgi2v.grid import Grid
from tiny import tiny_unet

ROOT = Path(__file__).parents[1]
KIB = 1024


@pytest.fixture(scope="module")
def counting() -> Iterator[Any]:
    """benchmarks/live_memory.py, which is no part of the package."""
    names = ("counting", "architecture", "phases", "live_memory")
    sys.path.insert(0, str(ROOT))
    try:
        yield importlib.import_module("benchmarks.live_memory")
    finally:
        sys.path.remove(str(ROOT))
        for name in names:
            sys.modules.pop(f"benchmarks.{name}", None)


def floats(kib: int, device: str = "cpu") -> Tensor:
    return torch.ones(kib * KIB // 4, device=device)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_let_go_of_does_not_count_and_views_count_once(counting: Any, device: str) -> None:
    weight = floats(100, device)

    def run() -> None:
        a = weight * 2  # 100
        b = (a + 1)[:10].view(2, 5)  # 200: the view keeps its base alive
        del a  # 100
        c = floats(64, device)  # 164
        c.add_(1)  # in place: nothing new
        del b, c
        d = floats(150, device)  # 150
        del d

    peak = counting.count(run, [weight, weight[:3]])
    assert (peak.held, peak.added, peak.total) == (100 * KIB, 200 * KIB, 300 * KIB)


def test_what_autograd_keeps_for_its_backward_pass_counts(counting: Any) -> None:
    x = floats(10, "meta").requires_grad_(True)

    def kept() -> None:
        y = x
        for _ in range(8):
            y = y.exp()  # each is kept
        y.sum().backward()

    def not_kept() -> None:
        with torch.no_grad():
            y = x
            for _ in range(8):
                y = y.exp()

    assert counting.count(kept, [x]).added >= 80 * KIB
    assert counting.count(not_kept, [x]).added == 20 * KIB


def test_attention_counts_as_a_fused_kernel_and_written_out_with_all_its_logits(counting: Any) -> None:
    query, key, value = torch.empty(3, 2, 4, 512, 8, device="meta")

    def fused() -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)

    def written_out() -> Tensor:
        tokens: Tensor = (query @ key.transpose(-2, -1)).softmax(-1) @ value
        return tokens

    tokens, logits = query.numel() * 4, 2 * 4 * 512 * 512 * 4
    assert counting.count(fused).added == tokens + 2 * 4 * 512 * 4
    assert counting.count(written_out).added >= 2 * logits


class Naive(FreeTraj):
    """FreeTraj with the whole mask in memory."""

    def during(self, step: Any, state: Any) -> Any:
        def edit(call: AttentionCall) -> Tensor | None:
            if call.source == "temporal":
                return None
            ids = state.regions[call.size].ids
            mask = torch.where(ids[:, :, None] == ids[:, None, :], 1.0, self.factor).to(call.query.dtype)
            query, key, value = (
                t.unflatten(-1, (call.num_heads, -1)).transpose(1, 2) for t in (call.query, call.key, call.value)
            )
            logits = query @ key.transpose(-2, -1) * mask[:, None]
            tokens: Tensor = logits.softmax(-1) @ value
            return tokens.transpose(1, 2).flatten(2)

        return state.setup.backbone.editing(edit, state.setup.grid)


@pytest.mark.long
def test_a_freetraj_step_takes_at_most_a_fifth_more_than_a_plain_one(
    counting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny network at the full picture's size: a mask would be 3 x 9216 x 9216. benchmarks/ has the full one."""
    architecture = sys.modules["benchmarks.architecture"]
    monkeypatch.setattr(architecture, "published_unet", lambda scale: tiny_unet())
    backbone = architecture.published_svd()
    grid = Grid(width=1024, height=576, num_frames=3)
    tracks = counting.tracks_over(grid, 0.4, 2)
    none = counting.step_peak(backbone, Controller(), grid, tracks, guided=False)
    freetraj, naive = (
        counting.step_peak(backbone, controller, grid, tracks, guided=False) for controller in (FreeTraj(), Naive())
    )
    assert freetraj.added <= 1.2 * none.added
    assert naive.added > 5 * none.added
