"""What the clusters of a map have in common: the concepts and classes that are over-represented in them.

A concept's *lift* in a cluster is the share of the cluster's samples that show it over that share in all samples. It
counts only where so many samples would hardly be drawn by lot: by the hypergeometric distribution (Fisher's exact test,
one-sided), at a level that is divided by the number of comparisons (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.embedding.clusters import Clusters
from microtome.dissect.maths.jit import kernel

LEVEL = 0.01
"""Chance that any name at all is a product of chance."""
LEAST_SHARE = 0.3
"""A concept or class names a cluster if so many of its samples show it."""
LEAST_LIFT = 1.5
"""And if they do so this many times more often than all samples."""
CONCEPTS = 2
"""Concepts in a name, at most."""
COLUMNS = ("cluster", "samples", "x", "y", "name", "concept", "lift", "class", "purity")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Presence:
    """In how many samples of each cluster each concept occurs; blocks of samples may come in any order."""

    def __init__(self, clusters: int, concepts: int) -> None:
        self.counts: Ints = np.zeros((clusters, concepts + 1), np.int64)
        """(clusters, concepts + 1): column c is that of concept id c, 0 is no concept."""
        self.everywhere: Ints = np.zeros(concepts + 1, np.int64)
        """(concepts + 1,): the same over all samples, those in no cluster too."""
        self.samples = 0
        """How many samples were seen."""

    def update(self, labels: NDArray[np.integer], bits: NDArray[np.uint8]) -> None:
        """labels: (n,) cluster of each sample, negative = none; bits: (n, ceil((concepts + 1) / 8)) little-endian."""
        _count_bits(labels.astype(np.int64), np.ascontiguousarray(bits), self.counts, self.everywhere)
        self.samples += len(labels)

    def merge(self, other: Presence) -> None:
        """Add what another block of samples gave."""
        self.counts += other.counts
        self.everywhere += other.everywhere
        self.samples += other.samples


@kernel
def _count_bits(labels: Any, bits: Any, counts: Any, everywhere: Any) -> None:
    for i in range(len(labels)):
        for byte in range(bits.shape[1]):
            held = bits[i, byte]
            if held == 0:
                continue
            for bit in range(8):
                at = 8 * byte + bit
                if (held >> bit) & 1 and at < len(everywhere):
                    everywhere[at] += 1
                    if labels[i] >= 0:
                        counts[labels[i], at] += 1


def over_represented(counts: Ints, sizes: Ints, everywhere: Ints, total: int) -> tuple[Floats, NDArray[np.bool_]]:
    """(lift, significant), each (clusters, things).

    counts: (clusters, things) samples of each cluster that show each thing; sizes: (clusters,) samples of each;
    everywhere: (things,) samples that show it, of `total`. Significant: also LEAST_SHARE and LEAST_LIFT are reached.
    """
    share = counts / np.maximum(sizes, 1)[:, None]
    rate = everywhere / max(total, 1)
    lift = np.divide(share, rate, out=np.zeros_like(share), where=rate > 0)
    seen = (share >= LEAST_SHARE) & (lift >= LEAST_LIFT)
    cluster, thing = np.nonzero(seen)
    if not cluster.size:
        return lift, seen
    from scipy.stats import hypergeom  # takes as long to load as a small run to map

    chance = hypergeom.sf(counts[cluster, thing] - 1, total, everywhere[thing], sizes[cluster])
    compared = max(1, len(sizes) * int((everywhere > 0).sum()))
    seen[cluster, thing] = chance < LEVEL / compared
    return lift, seen


def cluster_table(
    clusters: Clusters,
    presence: Presence | None = None,
    concepts: Sequence[str] = (),
    classes: NDArray[np.integer] | None = None,
    class_names: Sequence[str] = (),
) -> pd.DataFrame:
    """One row a cluster, in the columns COLUMNS.

    presence: of the concepts in the clusters, `concepts` their names (id 1 first); classes: (N,) class of each point,
    negative = none. Column `concept`: id of the first concept of the name, -1 = none, `lift` its lift (NaN); `class`:
    the most frequent class of the cluster where it is over-represented, else empty; `purity`: the share of the most
    frequent class among the cluster's labelled samples (NaN where there are none). A class that holds half of the
    cluster names it before the concepts; where nothing stands out, it is called "cluster NUMBER".
    """
    count = clusters.count
    found = [_Named() for _ in range(count)]
    if presence is not None:
        _add_concepts(found, clusters, presence, concepts)
    if classes is not None:
        _add_classes(found, clusters, classes, class_names)
    rows = [
        (
            *(number, int(clusters.samples[number]), *map(float, clusters.centers[number])),
            *(named.words() or f"cluster {number}", named.concept, named.lift, named.class_name, named.purity),
        )
        for number, named in enumerate(found)
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    whole = {"cluster": "int32", "samples": "int64", "concept": "int32"}
    real = dict.fromkeys(("x", "y", "lift", "purity"), "float64")
    return table.astype(whole | real | {"name": "object", "class": "object"})


class _Named:
    """What one cluster is to be called."""

    def __init__(self) -> None:
        self.concept, self.lift = -1, float("nan")
        self.concepts: list[str] = []
        self.class_name, self.purity = "", float("nan")

    def words(self) -> str:
        """The name, empty where nothing stands out."""
        first = [self.class_name] if self.class_name and self.purity >= 0.5 else []
        rest = [name for name in self.concepts if name not in first]
        return ", ".join(first + rest[: CONCEPTS - len(first) or 1])


def _add_concepts(found: list[_Named], clusters: Clusters, presence: Presence, concepts: Sequence[str]) -> None:
    lift, seen = over_represented(presence.counts, clusters.samples, presence.everywhere, presence.samples)
    seen[:, 0] = False
    share = presence.counts / clusters.samples[:, None]
    weight = np.where(seen, share * np.log(np.where(seen, lift, 1.0)), 0.0)
    for number, named in enumerate(found):
        order = np.argsort(-weight[number], kind="stable")[:CONCEPTS]
        chosen = [int(concept) for concept in order if seen[number, concept]]
        named.concepts = [concepts[concept - 1] for concept in chosen]
        if chosen:
            named.concept, named.lift = chosen[0], float(lift[number, chosen[0]])


def _add_classes(
    found: list[_Named], clusters: Clusters, classes: NDArray[np.integer], class_names: Sequence[str]
) -> None:
    known = classes >= 0
    inside = known & (clusters.labels >= 0)
    counts = np.zeros((clusters.count, len(class_names)), np.int64)
    np.add.at(counts, (clusters.labels[inside], classes[inside]), 1)
    everywhere = np.bincount(classes[known], minlength=len(class_names)).astype(np.int64)
    sizes = counts.sum(axis=1)
    _, seen = over_represented(counts, sizes, everywhere, int(known.sum()))
    for number, named in enumerate(found):
        if not sizes[number]:
            continue
        most = int(counts[number].argmax())
        named.purity = float(counts[number, most] / sizes[number])
        named.class_name = class_names[most] if seen[number, most] else ""
