"""Distances between two sets of features: the Fréchet distance (FID, FVD) and the kernel distance (KID, KVD)."""

import math
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sgi2v.errors import FieldError
from sgi2v.evaluation.metrics import Interval

_NUM_RESAMPLES: Final = 1000
_ROWS_AT_ONCE: Final = 2048


@dataclass(frozen=True, kw_only=True)
class FeatureDistance:
    """Both distances of two sets of clips, and all that a reader needs to judge them."""

    frechet: Interval
    """Fréchet distance; its interval is of the spread alone (see `frechet_interval`)."""
    kernel: Interval
    """Unbiased squared maximum mean discrepancy, which may fall below 0."""
    num_clips: tuple[int, int]
    """Clips of each set."""
    num_rows: tuple[int, int]
    """Rows of features of each set: clips, or their frames."""
    num_dimensions: int
    """Features a row has."""
    singular: bool
    """True if a covariance is singular for want of rows: then the Fréchet distance says little."""


def is_singular(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> bool:
    """True if a set has too few rows for a covariance of full rank: at most as many as dimensions."""
    return min(len(a), len(b)) <= a.shape[1]


def frechet_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Squared Fréchet distance of the two normal distributions with the features' means and covariances.

    `|mean_a - mean_b|² + tr(A + B - 2 (A B)^½)`, covariances over n - 1, in float64. The root's trace is the sum of
    the singular values of `R_a R_bᵀ`, R the triangular factor of the centred features: real and defined for singular
    covariances too, where the eigenvalues of A B lose half of their digits. Never below 0. It is biased upwards, the
    more so the fewer the rows: compare only sets of equal size. ValueError for fewer than 2 rows, or values that are
    not finite.

    Source: Dowson and Landau 1982; on Inception features FID (Heusel et al., arXiv 1706.08500), on I3D's FVD
    (Unterthiner et al., arXiv 1812.01717).
    """
    a, b = _checked(a, b)
    offset = (a.mean(0) - b.mean(0)).square().sum()
    root_a, root_b = _root(a), _root(b)
    spread = root_a.square().sum() + root_b.square().sum()
    shared = torch.linalg.svdvals(root_a @ root_b.T).sum()
    return max(0.0, float(offset + spread - 2 * shared))


def _root(features: Float64[Tensor, "n d"]) -> Float64[Tensor, "k d"]:
    """R with RᵀR the covariance."""
    centred = (features - features.mean(0)) / math.sqrt(len(features) - 1)
    # The triangular factor only spares work where there are more rows than dimensions.
    return torch.linalg.qr(centred, mode="r").R if len(centred) > centred.shape[1] else centred


def kernel_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """Squared maximum mean discrepancy under the kernel `(x·y / d + 1)³`, unbiased, in float64.

    Its expectation does not depend on the number of rows and is 0 for equal distributions, so it falls below 0 by
    chance. All pairs of rows are used, none of a row with itself. ValueError for fewer than 2 rows, or values that
    are not finite. Source: KID (Bińkowski et al., arXiv 1801.01401, Eq. 4); on video features it is called KVD.
    """
    a, b = _checked(a, b)
    return float(_Discrepancy.of(a, b, 1).once())


def frechet_interval(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    *,
    rows_per_clip: int = 1,
    num_resamples: int = _NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The Fréchet distance with a 95 % bootstrap interval over clips.

    a, b: features of whole clips one after the other, `rows_per_clip` each; clips are drawn, never single frames.
    A set drawn with replacement holds fewer different clips, which raises this distance: the resampled values are
    moved so that their mean is the figure itself. So the interval says how much other clips would change the
    figure, and nothing of its bias. ValueError for rows that are no whole number of clips.
    """
    a, b = _checked(a, b)
    value = frechet_distance(a, b)
    generator = torch.Generator().manual_seed(seed)
    clips = [_clips(rows, rows_per_clip) for rows in (a, b)]
    found = torch.empty(max(1, num_resamples), dtype=torch.float64)
    for index in range(len(found)):
        draws = [rows[torch.randint(len(rows), (len(rows),), generator=generator)] for rows in clips]
        found[index] = frechet_distance(draws[0].flatten(0, 1), draws[1].flatten(0, 1))
    return _moved(value, found, lowest=0.0)


def kernel_interval(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    *,
    rows_per_clip: int = 1,
    num_resamples: int = _NUM_RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The kernel distance with a 95 % bootstrap interval over clips.

    a, b: features of whole clips one after the other, `rows_per_clip` each; clips are drawn, never single frames. Of
    a clip that is drawn twice no pair with itself is counted, or the estimate would no longer be unbiased. ValueError
    for rows that are no whole number of clips.
    """
    a, b = _checked(a, b)
    generator = torch.Generator().manual_seed(seed)
    discrepancy = _Discrepancy.of(a, b, rows_per_clip)
    counts = []
    for num in discrepancy.across.shape:
        draws = torch.randint(num, (max(1, num_resamples), num), generator=generator)
        ones = torch.ones(draws.shape, dtype=torch.float64)
        counts.append(torch.zeros(len(draws), num, dtype=torch.float64).scatter_add_(1, draws, ones))
    found = discrepancy.drawn(counts[0], counts[1])
    # Of two or three clips, one may be drawn alone: then there is no pair.
    return _moved(float(discrepancy.once()), found[found.isfinite()], lowest=-math.inf)


def feature_distance(
    a: Float[Tensor, "n d"],
    b: Float[Tensor, "m d"],
    *,
    rows_per_clip: int = 1,
    num_resamples: int = _NUM_RESAMPLES,
    seed: int = 0,
) -> FeatureDistance:
    """Both distances with their intervals, for features of whole clips one after the other."""
    frechet = frechet_interval(a, b, rows_per_clip=rows_per_clip, num_resamples=num_resamples, seed=seed)
    kernel = kernel_interval(a, b, rows_per_clip=rows_per_clip, num_resamples=num_resamples, seed=seed)
    return FeatureDistance(
        frechet=frechet,
        kernel=kernel,
        num_clips=(len(a) // rows_per_clip, len(b) // rows_per_clip),
        num_rows=(len(a), len(b)),
        num_dimensions=a.shape[1],
        singular=is_singular(a, b),
    )


def _checked(a: Tensor, b: Tensor) -> tuple[Float64[Tensor, "n d"], Float64[Tensor, "m d"]]:
    for name, rows in (("a", a), ("b", b)):
        if len(rows) < 2:
            raise FieldError(name, f"{len(rows)} rows of features have no spread", "give at least 2")
        if not rows.isfinite().all():
            raise FieldError(name, "features that are not finite", "look at the frames they come from")
    return a.detach().double().cpu(), b.detach().double().cpu()


def _clips(rows: Float64[Tensor, "n d"], rows_per_clip: int) -> Float64[Tensor, "c r d"]:
    if rows_per_clip < 1 or len(rows) % rows_per_clip:
        raise FieldError("rows_per_clip", f"{len(rows)} rows are no whole number of clips of {rows_per_clip}")
    clips: Tensor = rows.unflatten(0, (-1, rows_per_clip))
    return clips


def _kernel(a: Float64[Tensor, "n d"], b: Float64[Tensor, "m d"], rows: int) -> Float64[Tensor, "ca cb"]:
    """The kernel of all `rows` rows of each clip of one set with all of each clip of the other, summed."""
    parts = []
    for part in a.split(max(1, _ROWS_AT_ONCE // rows) * rows):
        values = (part @ b.T / a.shape[1] + 1) ** 3
        parts.append(values.unflatten(0, (-1, rows)).unflatten(2, (-1, rows)).sum((1, 3)))
    return torch.cat(parts)


@dataclass(frozen=True)
class _Pairs:
    """The kernel of pairs of rows of one set, summed over clips; a row with itself is left out."""

    apart: Float64[Tensor, "c c"]
    """Pairs of different clips; 0 on the diagonal."""
    within: Float64[Tensor, " c"]
    """Pairs of different rows of the same clip."""
    rows: int
    """Rows of a clip."""

    @classmethod
    def of(cls, features: Float64[Tensor, "n d"], rows: int) -> "_Pairs":
        every = _kernel(features, features, rows)
        alone = (features.square().sum(1) / features.shape[1] + 1) ** 3
        within = every.diagonal() - _clips(alone[:, None], rows).sum((1, 2))
        return cls(every - every.diagonal().diag(), within, rows)

    def mean(self, counts: Float64[Tensor, "s c"]) -> Float64[Tensor, " s"]:
        """Mean over pairs of different rows when each clip is taken as often as `counts` says."""
        total = ((counts @ self.apart) * counts).sum(1) + counts @ self.within
        num, squares = counts.sum(1), counts.square().sum(1)
        return total / ((num.square() - squares) * self.rows**2 + num * self.rows * (self.rows - 1))


@dataclass(frozen=True)
class _Discrepancy:
    """All that the kernel distance of any draw of clips needs."""

    a: _Pairs
    b: _Pairs
    across: Float64[Tensor, "ca cb"]

    @classmethod
    def of(cls, a: Float64[Tensor, "n d"], b: Float64[Tensor, "m d"], rows: int) -> "_Discrepancy":
        _clips(a, rows), _clips(b, rows)
        return cls(_Pairs.of(a, rows), _Pairs.of(b, rows), _kernel(a, b, rows))

    def drawn(self, counts_a: Float64[Tensor, "s ca"], counts_b: Float64[Tensor, "s cb"]) -> Float64[Tensor, " s"]:
        """The distance when each clip is taken as often as the counts say."""
        pairs = counts_a.sum(1) * counts_b.sum(1) * (self.a.rows * self.b.rows)
        between = ((counts_a @ self.across) * counts_b).sum(1) / pairs
        return self.a.mean(counts_a) + self.b.mean(counts_b) - 2 * between

    def once(self) -> Float64[Tensor, ""]:
        """The distance of the sets as they are."""
        counts = [torch.ones(1, num, dtype=torch.float64) for num in self.across.shape]
        return self.drawn(counts[0], counts[1])[0]


def _moved(value: float, found: Float64[Tensor, " n"], *, lowest: float) -> Interval:
    """The interval of resampled values, moved so that their mean is the value."""
    low, high = torch.quantile(found, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    move = value - float(found.mean())
    return Interval(value=value, low=max(lowest, low + move), high=high + move)
