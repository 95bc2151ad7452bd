"""The exact kernels against what one would write without them, on the same inputs, with one thread, equal results.

Inputs: 256 units on a 14x14 grid, after a ReLU (half zeros) or dense; "smooth" maps are blurred noise, "noise" is
white. Labels: 6 planes of 112x112 with 700 concepts, either in patches as people draw them or white noise, the worst
case. Every baseline's counts are checked against the kernel's.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from benchmarks.timing import best_cpu
from microtome.dissect.maths.labels import count_labels
from microtome.dissect.maths.moments import Moments, observe
from microtome.dissect.maths.tally import TallyCounts, tally
from microtome.dissect.maths.thresholds import (
    CoarseHistogram,
    FineHistogram,
    Thresholds,
    exact_thresholds,
    most_above,
    plan_fine,
)
from microtome.dissect.maths.upsample import axis_weights

UNITS, GRID, SIZE, PLANES, CONCEPTS, CATEGORIES = 256, 14, 112, 6, 700, 6
Acts = NDArray[np.float16]
Labels = NDArray[np.uint16]
Row = dict[str, object]


def activations(kind: str, n: int, *, relu: bool = True) -> Acts:
    """(n, 256, 14, 14) float16 from a fixed seed; kind: "smooth" or "noise"."""
    values = np.random.default_rng(0).standard_normal((n, UNITS, GRID, GRID), dtype=np.float32)
    if kind == "smooth":
        values = gaussian_filter(values, (0, 0, 1.5, 1.5))
        values /= values.std()
    return (np.maximum(values, 0) if relu else values).astype(np.float16)


def label_planes(kind: str, n: int) -> Labels:
    """(n, 6, 112, 112) uint16; kind: "patches" (warped cells, a third unlabelled) or "noise"."""
    rng = np.random.default_rng(1)
    if kind == "noise":
        return rng.integers(0, CONCEPTS + 1, (n, PLANES, SIZE, SIZE)).astype(np.uint16)
    labels = np.empty((n, PLANES, SIZE, SIZE), np.uint16)
    y, x = np.mgrid[:SIZE, :SIZE]
    for sample in range(n):
        for plane in range(PLANES):
            bend = zoom(rng.standard_normal((2, 5, 5)) * 6, (1, SIZE / 5, SIZE / 5), order=1)[:, :SIZE, :SIZE]
            cells = rng.integers(1, CONCEPTS + 1, (8, 8)) * (rng.random((8, 8)) > 0.33)
            rows = np.clip((y + bend[0]) // 14, 0, 7).astype(np.int64)
            columns = np.clip((x + bend[1]) // 14, 0, 7).astype(np.int64)
            labels[sample, plane] = cells[rows, columns]
    return labels


def measure(acts: Acts, taus: list[float]) -> Thresholds:
    """Both passes of the exact thresholds."""
    coarse = CoarseHistogram.empty(UNITS)
    coarse.update(acts)
    fine = FineHistogram.empty(plan_fine(coarse, taus))
    fine.update(acts)
    return exact_thresholds(coarse, fine, taus)


def thresholds_by_partition(acts: Acts, tau: float) -> Acts:
    """np.partition of each unit's values in float32."""
    found = np.empty(UNITS, np.float16)
    for unit in range(UNITS):
        values = acts[:, unit].astype(np.float32).ravel()
        at = values.size - 1 - int(most_above(np.array([values.size]), tau)[0])
        found[unit] = np.partition(values, at)[at]
    return found


def thresholds_by_kthvalue(acts: Acts, tau: float) -> Acts:
    """torch.kthvalue over each unit's values in float32."""
    values = torch.from_numpy(acts).permute(1, 0, 2, 3).reshape(UNITS, -1).float()
    rank = values.shape[1] - int(most_above(np.array([values.shape[1]]), tau)[0])
    return values.kthvalue(rank, dim=1).values.numpy().astype(np.float16)


def thresholds_by_quantile(acts: Acts, tau: float) -> Acts:
    """np.quantile, interpolating: close to the threshold, not equal to it."""
    values = acts.transpose(1, 0, 2, 3).reshape(UNITS, -1).astype(np.float32)
    return np.quantile(values, 1 - tau, axis=1).astype(np.float16)


def statistics_by_numpy(acts: Acts) -> tuple[NDArray[np.generic], ...]:
    """Peak, its position, spatial mean, mean, spread and a 256-bin histogram of each unit."""
    planes = acts.reshape(len(acts), UNITS, -1)
    values = planes.astype(np.float32)
    bins = np.empty((UNITS, 256), np.int64)
    for unit in range(UNITS):
        bins[unit] = np.bincount(planes[:, unit].ravel().view(np.uint16) >> 8, minlength=256)
    spread = values.std(axis=(0, 2), dtype=np.float64)
    return values.max(2), values.argmax(2), values.mean(2), values.mean((0, 2), dtype=np.float64), spread, bins


def tally_dense_torch(acts: Acts, thresholds: Acts, labels: Labels, *, interpolate: bool) -> NDArray[np.int64]:
    """Whole maps upsampled, compared, and multiplied with one-hot labels.

    interpolate: by F.interpolate, whose weights round otherwise; else by a + l * (b - a), as the kernel does.
    """
    total = np.zeros((UNITS, CONCEPTS + 1), np.int64)
    limits = torch.from_numpy(thresholds.astype(np.float32))[:, :, None]
    low, high, share = (torch.from_numpy(part) for part in axis_weights(GRID, SIZE))
    for sample in range(len(acts)):
        maps = torch.from_numpy(acts[sample]).float()
        if interpolate:
            dense = torch.nn.functional.interpolate(maps[None], (SIZE, SIZE), mode="bilinear")[0]
        else:
            dense = maps[:, :, low] + share * (maps[:, :, high] - maps[:, :, low])
            dense = dense[:, low] + share[:, None] * (dense[:, high] - dense[:, low])
        masks = (dense > limits).reshape(UNITS, -1).float()
        one_hot = torch.zeros(SIZE * SIZE, CONCEPTS + 1)
        for plane in labels[sample]:
            one_hot.scatter_(1, torch.from_numpy(plane.astype(np.int64)).reshape(-1, 1), 1.0)
        total += (masks @ one_hot).numpy().astype(np.int64)
    total[:, 0] = 0
    return total


def tally_dense_numpy(acts: Acts, thresholds: Acts, labels: Labels) -> NDArray[np.int64]:
    """Whole maps upsampled by hand, and np.bincount of the labels under each mask."""
    total = np.zeros((UNITS, CONCEPTS + 1), np.int64)
    low, high, share = axis_weights(GRID, SIZE)
    for sample in range(len(acts)):
        maps = acts[sample].astype(np.float32)
        dense = maps[:, :, low] + share * (maps[:, :, high] - maps[:, :, low])
        dense = dense[:, low] + share[:, None] * (dense[:, high] - dense[:, low])
        for unit in range(UNITS):
            mask = dense[unit] > np.float32(thresholds[unit, 0])
            if mask.any():
                total[unit] += np.bincount(labels[sample][:, mask].ravel(), minlength=CONCEPTS + 1)
    total[:, 0] = 0
    return total


def threshold_rows(quick: bool) -> list[Row]:
    """Nanoseconds a value: both passes, each pass, the fused capture pass, and the baselines."""
    rows: list[Row] = []
    tau, n = 0.005, 100 if quick else 500
    for name, relu in (("half zeros", True), ("dense", False)):
        acts = activations("noise", n, relu=relu)
        exact = measure(acts, [tau])
        plan = exact_plan(acts, tau)
        for baseline in (thresholds_by_partition, thresholds_by_kthvalue):
            if not np.array_equal(baseline(acts, tau), exact.value[:, 0]):
                raise RuntimeError(f"{baseline.__name__} differs from the exact thresholds")
        repeats = 3 if quick else 7
        times = {
            "exact thresholds, both passes": best_cpu(lambda a=acts: measure(a, [tau]), repeats=repeats),
            "  first pass": best_cpu(lambda a=acts: CoarseHistogram.empty(UNITS).update(a), repeats=repeats),
            "  second pass": best_cpu(lambda a=acts, p=plan: FineHistogram.empty(p).update(a), repeats=repeats),
            "first pass with moments and peaks": best_cpu(
                lambda a=acts: observe(a, CoarseHistogram.empty(UNITS), Moments.empty(UNITS)), repeats=repeats
            ),
            "numpy for moments, peaks, histogram": best_cpu(lambda a=acts: statistics_by_numpy(a), repeats=2),
            "np.partition": best_cpu(lambda a=acts: thresholds_by_partition(a, tau), repeats=2),
            "torch.kthvalue": best_cpu(lambda a=acts: thresholds_by_kthvalue(a, tau), repeats=2),
            "np.quantile": best_cpu(lambda a=acts: thresholds_by_quantile(a, tau), repeats=2),
        }
        ours = times["exact thresholds, both passes"]
        for method, seconds in times.items():
            rows.append(
                {"input": name, "method": method, "ns/value": seconds / acts.size * 1e9, "ratio": seconds / ours}
            )
    return rows


def exact_plan(acts: Acts, tau: float) -> NDArray[np.int16]:
    """Where the second pass looks."""
    coarse = CoarseHistogram.empty(UNITS)
    coarse.update(acts)
    return plan_fine(coarse, [tau])


def tally_rows(quick: bool) -> list[Row]:
    """Milliseconds an image of the tally and its baselines, over kinds of activations and labels."""
    rows: list[Row] = []
    n, few = (16, 2) if quick else (64, 6)
    category_of = np.concatenate([[-1], np.arange(CONCEPTS) % CATEGORIES])
    image_labels = np.zeros((n, 1), np.uint16)
    for label_kind in ("patches", "noise"):
        labels = label_planes(label_kind, n)
        counted = count_labels(labels, image_labels, CONCEPTS, category_of, CATEGORIES)
        seconds = best_cpu(lambda a=labels: count_labels(a, image_labels, CONCEPTS, category_of, CATEGORIES))
        rows.append(_tally_row(label_kind, "", "count_labels", 0.0, seconds / n))
        for kind in ("smooth", "noise"):
            acts = activations(kind, n)
            for taus in ([0.005], [0.05], [0.005, 0.05]):
                found = measure(acts, taus)
                counts = TallyCounts.empty(len(taus), UNITS, CONCEPTS, CATEGORIES)
                rest = (found.for_masks, found.saturated, labels, image_labels, category_of, counted.annotated)
                seconds = best_cpu(lambda a=acts, r=rest, c=counts: c.update(a, *r))
                name = " and ".join(str(tau) for tau in taus)
                rows.append(_tally_row(label_kind, kind, f"tally, tau {name}", seconds / n, seconds / n))
            found = measure(acts, [0.005])
            ours = rows[-3]["ms/image"]
            assert isinstance(ours, float)
            rows += baseline_rows(label_kind, kind, ours / 1e3, acts[:few], found, labels[:few], category_of)
    return rows


def baseline_rows(
    label_kind: str,
    kind: str,
    ours: float,
    acts: Acts,
    found: Thresholds,
    labels: Labels,
    category_of: NDArray[np.int64],
) -> list[Row]:
    """The dense ways on a few images. A concept counts once a pixel: planes that repeat one are cleared first."""
    clean = labels.copy()
    for plane in range(1, PLANES):
        repeated = np.any(clean[:, :plane] == clean[:, plane : plane + 1], axis=1)
        clean[:, plane][repeated] = 0
    none = np.zeros((len(acts), 0), np.uint16)
    annotated = np.ones((len(acts), CATEGORIES), np.bool_)
    exact = tally(acts, found.for_masks, found.saturated, clean, none, category_of, annotated).intersection[0]
    limits = found.for_masks
    ways = {
        "dense torch, a + l * (b - a)": lambda: tally_dense_torch(acts, limits, clean, interpolate=False),
        "dense torch, F.interpolate": lambda: tally_dense_torch(acts, limits, clean, interpolate=True),
        "dense numpy, np.bincount": lambda: tally_dense_numpy(acts, limits, clean),
    }
    rows = []
    for method, way in ways.items():
        off = int(np.abs(way() - exact).sum())
        if off and "interpolate" not in method:
            raise RuntimeError(f"{method} differs from the tally in {off} counts")
        row = _tally_row(label_kind, kind, method, ours, best_cpu(way, repeats=2) / len(acts))
        rows.append(row | {"counts off": f"{off / max(int(exact.sum()), 1):.1e}" if off else "0"})
    return rows


def _tally_row(labels: str, acts: str, method: str, ours: float, seconds: float) -> Row:
    return {
        "labels": labels,
        "activations": acts,
        "method": method,
        "ms/image": seconds * 1e3,
        "ratio": seconds / ours if ours else "",
        "counts off": "0",
    }


def run(quick: bool = False) -> dict[str, object]:
    """All of it, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {
            "note": "one thread; least CPU time of several repeats; counts equal unless said otherwise",
            "thresholds": threshold_rows(quick),
            "tally": tally_rows(quick),
        }
    finally:
        torch.set_num_threads(threads)
