"""Findings of a study: what its rows and the features of their clips say of each variant."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from experiments.study.options import Study
from sgi2v.evaluation.distances import frechet_interval, kernel_interval
from sgi2v.evaluation.metrics import Interval, bootstrap_mean, bootstrap_ratio
from sgi2v.evaluation.store import Store
from sgi2v.records import Json


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A line of the table."""

    by_scene: Mapping[str, float]
    """ObjMC of each scene, the mean over seeds."""
    objmc: Interval
    ratio: Interval | None
    """ObjMC over that without control, the same scenes in pairs."""
    over_default: Interval | None
    """ObjMC over that of the study's default, the same scenes in pairs."""
    lost: float
    distance: Interval | None
    """Kernel distance of the clips' features to the true clips'."""
    frechet: Interval | None
    """Their Fréchet distance."""
    background: float | None
    psnr: float | None
    """Likeness to what really happened, dB."""
    seconds: float
    memory: float | None


def findings_of(study: Study, rows: Sequence[Json], store: Store, folder: str) -> dict[str, Finding]:
    """A finding for every method of the rows; ``folder`` is that of an extractor's features in the store."""
    by_label: dict[str, dict[str, list[Json]]] = {}
    for row in rows:
        by_label.setdefault(row["method"], {}).setdefault(row["case"], []).append(row)

    def features(label: str, names: Sequence[str]) -> Float[Tensor, "n d"] | None:
        keys = [row["clip"] for name in names for row in by_label[label][name]]
        found = [store.load_features(key, folder) for key in keys]
        known = [torch.from_numpy(one) for one in found if one is not None]
        return torch.cat(known) if len(known) == len(keys) > 1 else None

    def values(label: str, names: Sequence[str], metric: str) -> Float64[Tensor, " n"]:
        means = [_mean(_of(by_label[label][name], metric)) for name in names]
        return torch.tensor(means, dtype=torch.float64)

    def ratio(label: str, names: Sequence[str], other: str) -> Interval | None:
        shared = [name for name in names if name in by_label.get(other, {})]
        return bootstrap_ratio(values(label, shared, "objmc"), values(other, shared, "objmc"))

    default = study.decisive(by_label)
    findings = {}
    for label, cases in by_label.items():
        names = sorted(name for name, found in cases.items() if None not in _of(found, "objmc"))
        true = [name for name in names if name in by_label.get("true", {})]
        ours, theirs = (features(label, true), features("true", true)) if true else (None, None)
        known = None if ours is None or theirs is None else (ours, theirs)
        made = [row for name in names for row in cases[name]]
        objmc = values(label, names, "objmc")
        memory = [row["peak_memory"] for row in made if row.get("peak_memory")]
        findings[label] = Finding(
            by_scene=dict(zip(names, objmc.tolist(), strict=True)),
            objmc=bootstrap_mean(objmc),
            ratio=ratio(label, names, "none"),
            over_default=ratio(label, names, default),
            lost=float(values(label, names, "lost").mean()),
            distance=None if known is None else kernel_interval(*known),
            frechet=None if known is None else frechet_interval(*known),
            background=_mean(_of(made, "background_change")),
            psnr=_mean(_of(made, "psnr")),
            seconds=statistics.median_high(row["seconds"] for row in made),
            memory=max(memory) / 2**30 if memory else None,
        )
    return findings


def _of(rows: Iterable[Json], metric: str) -> list[float | None]:
    return [row["metrics"][metric] for row in rows]


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of those that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
