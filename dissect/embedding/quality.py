"""Is a map true? Trustworthiness, recall of neighbours and purity of neighbourhoods, and when not to believe it.

Trustworthiness (Venna and Kaski, 2001, "Neighborhood preservation in nonlinear projection methods: an experimental
study", eq. 1), averaged over n sampled points i, whose ranks r are among all N points:

    T(k) = 1 - 2 / (n k (2N - 3k - 1)) * sum_i sum_{j in the k nearest of i on the map} max(0, r(i, j) - k)

With n = N it is the published figure, with fewer an unbiased estimate of it. It is 1 where the neighbours on the map
are those in feature space, and about 0.5 where they are drawn by lot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from microtome.dissect.embedding.ranks import rank_among_all
from microtome.dissect.embedding.vectors import Vectors
from microtome.storage.errors import UsageError

SAMPLE = 1000
"""Points that are looked at: the standard error of a share is then at most 0.016, and less for the means over k."""
NEIGHBORS = 10

TOO_FEW = 200
"""Below so many points ten neighbours are more than a twentieth of everything, and any map keeps some of them."""
LOW_TRUSTWORTHINESS = 0.95
"""1 - T is about how far down a point's ranking its neighbours on the map stand, as a share of all points: below this
they are on average further out than a twentieth of the dataset."""
LOW_RECALL = 0.1
"""Fewer than one in ten of a point's nearest on the map are among its nearest in feature space."""
MANY_TWINS = 0.1
"""Share of points with a twin in feature space above which the order among twins, which is arbitrary, shows."""
FAR_PURITY = 0.1
"""Difference between the purities of neighbourhoods on the map and in feature space that misleads the eye."""
CUT_ISLANDS = 0.6
"""Below this share of neighbours in feature space that lie on the same island, the gaps between islands are not
there: of five neighbours two or more are across a gap."""

Ints = NDArray[np.int64]


class QualityInfo(TypedDict):
    """How a map's quality stands in run.json. sample: how many points it was measured on; k: neighbours."""

    sample: int
    k: int
    trustworthiness: float
    recall: float
    purity: float | None
    purity_features: float | None
    warnings: list[str]


@dataclass(frozen=True)
class Quality:
    """Figures of one map. points: all of them, N; sample: how many of them were looked at; k: neighbours of each.

    trustworthiness: T(k); recall: share of the k nearest on the map that are among the k nearest in feature space, what
    is equally near counted in favour; purity, purity_features: share of a labelled point's k nearest (those with a
    label) that have its label, on the map and in feature space, None without labels; twins: share of the points that
    have another of the same vector; islands: share of the k nearest in feature space of a point in a cluster (those in
    any cluster) that are in the same one, None where there are not two clusters.
    """

    points: int
    sample: int
    k: int
    trustworthiness: float
    recall: float
    purity: float | None = None
    purity_features: float | None = None
    twins: float = 0.0
    islands: float | None = None

    def info(self) -> QualityInfo:
        """The figures and the warnings, for run.json."""
        return {
            "sample": self.sample,
            "k": self.k,
            "trustworthiness": self.trustworthiness,
            "recall": self.recall,
            "purity": self.purity,
            "purity_features": self.purity_features,
            "warnings": warnings(self),
        }


def map_quality(
    vectors: Vectors,
    positions: NDArray[np.floating],
    labels: NDArray[np.integer] | None = None,
    *,
    clusters: NDArray[np.integer] | None = None,
    sample: int = SAMPLE,
    k: int = NEIGHBORS,
    seed: int = 0,
    threads: int = 1,
) -> Quality:
    """How far the map `positions` (N, 2) of `vectors` (N rows) is true, measured on `sample` points drawn by `seed`.

    labels, clusters: (N,) class and cluster of each point, negative = none. Neighbours are exact, among all N points;
    of few points fewer than k are taken (k < N / 2). The vectors are read three times, the last time against all
    sampled points: 2 * sample * N * dims operations. Raises UsageError where shapes differ or a position is not finite.
    """
    n = vectors.rows
    _check(n, positions, labels, clusters)
    k = min(k, (n - 1) // 2)
    if k < 1:
        return Quality(n, n, 0, 1.0, 1.0)
    points = np.sort(np.random.default_rng(seed).choice(n, min(sample, n), replace=False)).astype(np.int64)
    near = map_neighbors(positions, points, k)
    ranks = rank_among_all(vectors, points, near, threads=threads)
    beyond = np.maximum(0, ranks.closer + 1 - k).sum()
    given = [np.asarray(numbers) if numbers is not None else None for numbers in (labels, clusters)]
    classes, islands = given
    return Quality(
        points=n,
        sample=len(points),
        k=k,
        trustworthiness=float(1 - 2 * beyond / (len(points) * k * (2 * n - 3 * k - 1))),
        recall=float((ranks.closer < k).mean()),
        purity=None if classes is None else purity_of(classes, points, near),
        purity_features=None if classes is None else purity_of(classes, points, ranks.nearest),
        twins=float((ranks.gaps[:, 0] == 0).mean()),
        islands=None if islands is None or islands.max() < 1 else purity_of(islands, points, ranks.nearest),
    )


def map_neighbors(positions: NDArray[np.floating], points: Ints, k: int) -> Ints:
    """The k nearest others of each of `points` (n,) on the map `positions` (N, 2): (n, k), nearest first."""
    tree = cKDTree(positions, balanced_tree=False, compact_nodes=False)
    found = np.asarray(tree.query(positions[points], k + 1)[1], np.int64).reshape(len(points), k + 1)
    others = found != points[:, None]
    others[others.all(axis=1), k] = False  # more than k others at the same place
    near: Ints = found[others].reshape(len(points), k)
    return near


def purity_of(labels: NDArray[np.integer], points: Ints, near: Ints) -> float | None:
    """Mean over the labelled `points` (n,) of the share of their labelled neighbours `near` (n, k) with the same label.

    labels: (N,), negative = none. None where no labelled point has a labelled neighbour.
    """
    own, theirs = labels[points][:, None], labels[near]
    known = (own >= 0) & (theirs >= 0)
    count = known.sum(axis=1)
    if not count.any():
        return None
    same = (known & (own == theirs)).sum(axis=1)
    return float((same[count > 0] / count[count > 0]).mean())


def warnings(quality: Quality) -> list[str]:
    """Sentences that say why the map should not be believed, most serious first; empty where nothing speaks against."""
    q, found = quality, []
    if q.points < TOO_FEW:
        found.append(
            f"Only {q.points} point{'' if q.points == 1 else 's'}: too few for a map to show structure; "
            "what looks like a group may be chance."
        )
    if q.trustworthiness < LOW_TRUSTWORTHINESS:
        found.append(
            f"Trustworthiness {q.trustworthiness:.3f} is below {LOW_TRUSTWORTHINESS}: points that lie together on the "
            "map are often far apart in feature space."
        )
    if q.recall < LOW_RECALL:
        found.append(
            f"Only {_percent(q.recall)} of a point's {q.k} nearest on the map are among its {q.k} nearest in feature "
            "space: read the map by regions, and ask for neighbours in feature space where single points matter."
        )
    if q.islands is not None and q.islands < CUT_ISLANDS:
        found.append(
            f"Only {q.islands:.0%} of the nearest in feature space of a point lie in its own cluster of the map: the "
            "gaps between clusters are made by the map."
        )
    if q.purity is not None and q.purity_features is not None:
        found += _purity_warnings(q.purity, q.purity_features)
    if q.twins > MANY_TWINS:
        found.append(
            f"{q.twins:.0%} of the points have a twin with the same vector: clumps of twins are drawn as groups, and "
            "the order within them means nothing."
        )
    return found


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "0.1% or less"


def _purity_warnings(on_map: float, in_features: float) -> list[str]:
    if in_features - on_map > FAR_PURITY:
        return [
            f"Classes mix more on the map than in feature space ({on_map:.0%} of neighbours share the class, against "
            f"{in_features:.0%}): what looks mixed may be apart."
        ]
    if on_map - in_features > FAR_PURITY:
        return [
            f"Classes look purer on the map than they are in feature space ({on_map:.0%} of neighbours share the "
            f"class, against {in_features:.0%})."
        ]
    return []


def _check(n: int, positions: NDArray[np.floating], *numbers: NDArray[np.integer] | None) -> None:
    if positions.shape != (n, 2):
        raise UsageError(f"a map of {n} points has positions of shape ({n}, 2), not {positions.shape}")
    if not np.isfinite(positions).all():
        raise UsageError("a map's positions must be finite numbers; leave out the samples that have none")
    for labels in numbers:
        if labels is not None and labels.shape != (n,):
            raise UsageError(f"classes and clusters of {n} points have shape ({n},), not {labels.shape}")
