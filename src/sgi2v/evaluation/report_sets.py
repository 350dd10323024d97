"""Distances of whole sets of clips to the true ones, from stored features, under the names they may be given."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float32
from torch import Tensor

from sgi2v.evaluation.distances import FeatureDistance, feature_distance
from sgi2v.evaluation.report import PAPER, PAPER_TOLERANCE, Report
from sgi2v.evaluation.report_rows import Rows
from sgi2v.evaluation.store import Store
from sgi2v.listing import listed
from sgi2v.records import Json

_FAMOUS: Final = (("inception-v3-2015", ("FID", "KID")), ("i3d-kinetics-400", ("FVD", "KVD")))
_MANY_DIMENSIONS: Final = 256  # with more, a Fréchet distance takes long and is drawn less often


@dataclass(frozen=True, kw_only=True)
class SetColumn:
    """One extractor's distances, by method."""

    names: tuple[str, str]
    """Names of the Fréchet and the kernel distance on these features."""
    by_method: dict[str, FeatureDistance]
    said: str
    """Clips, frames, resize kernel and hash: what must stand beside the figures."""
    untrusted: str | None
    """Reason not to use it on these scenes."""


def names_of(extractor: str) -> tuple[str, str]:
    """Names that distances on an extractor's features may have: FID only with Inception's, FVD only with I3D's."""
    for name, famous in _FAMOUS:
        if extractor == name:
            return famous
    return f"stand-in Fréchet distance ({extractor})", f"stand-in kernel distance ({extractor})"


def set_columns(rows: Rows, store: Store, *, num_resamples: int = 1000) -> tuple[list[SetColumn], list[str]]:
    """Distances of every method's clips to the true clips of the same scenes, first seed; and what is missing.

    Intervals are from `num_resamples` draws, a tenth of them where features have many dimensions.
    """
    folder = store.clip_folder / "features"
    places = sorted(place for place in listed(folder) if place.is_dir()) if folder.is_dir() else []
    if "true" not in rows.by_method:
        return [], ["No distances of sets: there are no rows of the true clips."] if places else []
    found, notes = [], []
    for place in places:
        about = _about(place)
        by_method: dict[str, FeatureDistance] = {}
        num_frames = rows.one()["size"][2]
        for method, cases in rows.by_method.items():
            shared = [case for case in cases if case in rows.by_method["true"]]
            sets = [
                _features(store, place.name, [of[case][0]["clip"] for case in shared])
                for of in (cases, rows.by_method["true"])
            ]
            if method == "true" or sets[0] is None or sets[1] is None:
                continue
            by_method[method] = feature_distance(
                sets[0],
                sets[1],
                rows_per_clip=num_frames if about.get("unit") == "frame" else 1,
                num_resamples=num_resamples if sets[0].shape[1] <= _MANY_DIMENSIONS else num_resamples // 10,
            )
        if not by_method:
            notes.append(f"{place.name}: features of too few clips for a distance (or not of all clips).")
            continue
        found.append(_column(about, by_method, num_frames))
    return found, notes


def _column(about: Json, by_method: dict[str, FeatureDistance], num_frames: int) -> SetColumn:
    one = next(iter(by_method.values()))
    names = names_of(str(about.get("name")))
    said = (
        f"{names[0]} and {names[1]}: {about.get('name')}, sha256 {str(about.get('sha256'))[:12]}…; "
        f"{one.num_clips[0]} clips of {num_frames} frames against the true ones, {one.num_dimensions} features a "
        f"{about.get('unit')}, frames seen at {about.get('resize', 'their own size')}"
    )
    if one.singular:
        said += "; fewer rows than features: the covariance is singular and only the kernel distance means something"
    untrusted = None
    known = "paste" in by_method and "still" in by_method
    if known and by_method["paste"].kernel.value >= by_method["still"].kernel.value:
        untrusted = "it ranks still above paste"
    return SetColumn(names=names, by_method=by_method, said=said, untrusted=untrusted)


def _about(place: Path) -> Json:
    try:
        about = json.loads((place / "extractor.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        about = None
    return about if isinstance(about, dict) else {"name": place.name, "unit": "clip"}


def _features(store: Store, folder: str, clips: list[str]) -> Float32[Tensor, "n d"] | None:
    """Features of all these clips one after the other; None where one lacks, or there are too few."""
    found = [store.load_features(clip, folder) for clip in clips]
    known = [torch.from_numpy(one) for one in found if one is not None]
    return torch.cat(known) if len(known) == len(clips) > 1 else None


def comparable(report: Report, columns: list[SetColumn], *, on_vipseg: bool) -> str:
    """True if these figures may stand beside the paper's Table 1: only if no control comes out on VIPSeg as there."""
    figures: dict[str, float] = {}
    for line in report.lines:
        if line.method == "none" and (cell := line.cells["objmc"]) is not None:
            figures["ObjMC"] = cell.value
    for column in columns:
        if "none" in column.by_method:
            figures[column.names[0]] = column.by_method["none"].frechet.value
    told = ", ".join(f"{name} {figures[name]:.2f}" if name in figures else f"no {name}" for name, _ in PAPER)
    wanted = ", ".join(f"{name} {value}" for name, value in PAPER)
    if on_vipseg and all(
        name in figures and abs(figures[name] / value - 1) <= PAPER_TOLERANCE for name, value in PAPER
    ):
        return f"Comparable with the paper's Table 1: no control gives {told} (there: {wanted})."
    return (
        f"Not comparable with the paper's table: there no control has {wanted} (VIPSeg, 576x1024, protocol "
        f"unpublished); here it has {told}."
    )
