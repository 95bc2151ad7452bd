"""Samples whose neighbours in feature space disagree with their label: candidates for wrong labels.

Each labelled neighbour of a sample has one vote, as in the editing of nearest-neighbour rules (Wilson, 1972). A sample
is suspicious if one other class has most of the votes; the first are those with the fewest votes for their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.maths.jit import kernel
from microtome.storage.errors import UsageError

MAJORITY = 0.5
"""Share of the neighbours that another class must exceed: one class, not several together, speaks against a label."""
LEAST_VOTES = 5
"""Labelled neighbours below which a vote says nothing."""
COLUMNS = ("sample", "class", "neighbors_class", "agreement", "share")


def disagreements(
    neighbors: NDArray[np.integer],
    labels: NDArray[np.integer],
    class_names: Sequence[str],
    samples: NDArray[np.integer] | None = None,
) -> pd.DataFrame:
    """The suspicious points, most suspicious first, in the columns COLUMNS.

    neighbors: (N, k) the nearest others of each point in feature space, nearest first, negative = none; labels: (N,)
    its class, negative = none; samples: (N,) which sample each point is (default: its number). `agreement`: share of
    the votes for the sample's own class; `share`: that of `neighbors_class`, whose lead over it decides the order
    (then the larger share, then the nearer votes, then the lower sample). Raises UsageError where shapes differ.
    """
    if neighbors.ndim != 2 or labels.shape != neighbors.shape[:1]:
        raise UsageError(f"neighbours {neighbors.shape} and classes {labels.shape} are not of the same points")
    own, other, weight, votes, winner = _votes(np.asarray(neighbors, np.int64), np.asarray(labels, np.int64))
    agreement, share = own / np.maximum(votes, 1), other / np.maximum(votes, 1)
    points = np.flatnonzero((votes >= LEAST_VOTES) & (share > MAJORITY))
    order = np.lexsort((points, -weight[points], -share[points], agreement[points] - share[points]))
    points = points[order]
    names = np.asarray(class_names, object)
    return pd.DataFrame(
        {
            "sample": (points if samples is None else samples[points]).astype(np.int64),
            "class": names[labels[points]],
            "neighbors_class": names[winner[points]],
            "agreement": agreement[points],
            "share": share[points],
        },
        columns=list(COLUMNS),
    )


@kernel
def _votes(neighbors: Any, labels: Any) -> Any:
    """Of each point: votes for its own class and for the strongest other one, the latter's by nearness (1/rank), votes
    in all, and which class the strongest other one is (of equally strong ones, the one nearest by)."""
    n, k = neighbors.shape
    own, other, total = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    weight, winner = np.zeros(n), np.full(n, -1, np.int64)
    for i in range(n):
        if labels[i] < 0:
            continue
        for j in range(k):
            if neighbors[i, j] < 0 or labels[neighbors[i, j]] < 0:
                continue
            voted = labels[neighbors[i, j]]
            total[i] += 1
            if voted == labels[i]:
                own[i] += 1
                continue
            count, near = 0, 0.0
            for m in range(k):
                if neighbors[i, m] >= 0 and labels[neighbors[i, m]] == voted:
                    count += 1
                    near += 1.0 / (1 + m)
            if count > other[i] or (count == other[i] and near > weight[i]):
                other[i], weight[i], winner[i] = count, near, voted
    return own, other, weight, total, winner
