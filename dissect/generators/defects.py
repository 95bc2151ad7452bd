"""Which units are at work where images are bad: their values in the worst images against those in the others.

Bau et al. (ICLR 2019, section 4.2) found units behind artefacts by their top images, and ablated them. Here each unit's
peak (or mean) in an image is asked how well it tells the worst images from the others: the area under the ROC curve is
the chance that it is higher in one of the worst than in one of the others. That says what goes together; what causes
what, only the ablation says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, mannwhitneyu, norm, rankdata

from microtome.storage.arrays import MEANS, PEAKS, layer_array
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run

STATISTICS = ("peak", "mean")
SIGNIFICANT = 0.05
"""Of p-values that allow for all units tested (Benjamini and Hochberg, 1995)."""

LEAST_IMAGES = 5
"""Of the worst, and of the others."""

_COVERED = 0.95
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What speaks against each of C units. auc: in [0, 1], 0.5 = nothing; low, high: its 95 % interval (DeLong, DeLong
    and Clarke-Pearson, 1988); p: of a rank test, one-sided, before any correction; patches: the share of the unit's top
    patches that lie in the worst images; (C,) float64 each."""

    auc: Values
    low: Values
    high: Values
    p: Values
    patches: Values


@dataclass(frozen=True, eq=False)
class Suspects:
    """The units of one layer that stand out, the strongest first. p: corrected; tested: units of all layers."""

    layer: str
    units: NDArray[np.int64]
    p: Values
    evidence: Evidence
    tested: int


def worst_of(badness: NDArray[np.floating], share: float) -> NDArray[np.bool_]:
    """(N,) the `share` of images of highest badness, of equals the first. Raises UsageError where they are too few."""
    count = round(share * len(badness))
    if not LEAST_IMAGES <= count <= len(badness) - LEAST_IMAGES:
        raise UsageError(
            f"--worst {share:g} of {len(badness):,} images with a score are {count}; at least {LEAST_IMAGES} have to "
            "be the worst, and as many the others"
        )
    worst = np.zeros(len(badness), np.bool_)
    worst[np.argsort(-badness, kind="stable")[:count]] = True
    return worst


def evidence_of(values: NDArray[np.floating], worst: NDArray[np.bool_], patches: Values) -> Evidence:
    """Of values (N, C), one an image and unit, and which images are the worst (N,)."""
    held = np.asarray(values, np.float64)
    bad, good = held[worst], held[~worst]
    ranks = rankdata(held, axis=0)
    beaten = (ranks[worst] - rankdata(bad, axis=0)) / len(
        good
    )  # the share of the others that each of the worst exceeds
    beats = 1 - (ranks[~worst] - rankdata(good, axis=0)) / len(bad)
    auc = beaten.mean(axis=0)
    variance = beaten.var(axis=0, ddof=1) / len(bad) + beats.var(axis=0, ddof=1) / len(good)
    reach = norm.ppf((1 + _COVERED) / 2) * np.sqrt(variance)
    alive = np.ptp(held, axis=0) > 0
    p = np.ones(held.shape[1])
    if alive.any():
        test = mannwhitneyu(bad[:, alive], good[:, alive], alternative="greater", axis=0, method="asymptotic")
        p[alive] = test.pvalue
    return Evidence(auc, np.clip(auc - reach, 0, 1), np.clip(auc + reach, 0, 1), p, patches)


def suspects_of(found: Mapping[str, Evidence], top: int) -> Suspects | None:
    """The at most `top` units of one layer that stand out beyond doubt, allowing for all that were tested: of the layer
    in which they tell the worst images best, on average. None where no unit of any layer stands out."""
    tested = np.concatenate([each.p for each in found.values()])
    corrected = false_discovery_control(tested, method="bh")
    best: tuple[float, Suspects] | None = None
    start = 0
    for layer, each in found.items():
        p = corrected[start : start + len(each.p)]
        start += len(each.p)
        order = np.argsort(-each.auc, kind="stable")
        units = order[(p[order] < SIGNIFICANT) & (each.auc[order] > 0.5)][:top]
        if len(units) and (best is None or each.auc[units].mean() > best[0]):
            best = float(each.auc[units].mean()), Suspects(layer, units.astype(np.int64), p, each, len(tested))
    return None if best is None else best[1]


def search(
    run: Run, layers: Sequence[str], samples: NDArray[np.int64], worst: NDArray[np.bool_], statistic: str
) -> dict[str, Evidence]:
    """The evidence against every unit of `layers`. samples: (n,) those with a score, ascending; worst: (n,) of them.

    statistic: "peak" or "mean" of a unit's map in an image. Raises UnknownNameError for another one.
    """
    if statistic not in STATISTICS:
        raise UnknownNameError("statistic of a unit in an image", statistic, STATISTICS)
    found = {}
    for layer in layers:
        values = unit_values(run, layer, samples, statistic)
        readable = ~np.isnan(values).any(axis=1)
        if not (readable & worst).any() or not (readable & ~worst).any():
            raise UsageError(f"{run.url} holds no values of layer {layer} for the worst images, or for the others")
        patches = patches_in(run, layer, samples[worst], samples)
        found[layer] = evidence_of(values[readable], worst[readable], patches)
    return found


def unit_values(run: Run, layer: str, samples: NDArray[np.int64], statistic: str) -> NDArray[np.float32]:
    """(n, C) each unit's peak or mean in each of `samples`, as the run stores it, in true values."""
    entry = run.layer(layer)
    array = layer_array(entry["folder"], PEAKS if statistic == "peak" else MEANS)
    scale = entry["scale"] if statistic == "peak" else 1.0
    parts = []
    for shard in range(run.plan.count):
        inside = run.plan.samples_of(shard)
        mine = samples[(samples >= inside.start) & (samples < inside.stop)]
        if len(mine):
            stored = run.arrays.read(array, inside.start, inside.stop)[mine - inside.start]
            parts.append(stored.astype(np.float32) * np.float32(scale))
    return np.concatenate(parts)


def patches_in(run: Run, layer: str, worst: NDArray[np.int64], samples: NDArray[np.int64]) -> Values:
    """(C,) the share of each unit's top patches in scored images that lie in the worst; NaN of a unit without any."""
    patches = run.layer_table(layer, "patches")
    patches = patches[patches["sample"].isin(samples)]
    inside = patches.assign(inside=patches["sample"].isin(worst).astype(np.float64))
    shares = inside.groupby("unit")["inside"].mean()
    return shares.reindex(range(run.layer(layer)["units"])).to_numpy(np.float64)
