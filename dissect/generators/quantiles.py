"""High values of units, taken from the values that they have by themselves in a run.

The quantile q of a unit is the smallest value t with P(a > t) <= 1 - q over every position of every sample, as a
threshold is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.storage.errors import UsageError
from microtome.storage.run import Run

QUANTILE = 0.995
"""As the doors of Bau et al. (2019) were inserted."""

MOST_VALUES = 2**26
"""Stored values that are read for quantiles that the run's thresholds do not hold; of more, evenly spaced samples."""


def check_quantile(quantile: float) -> None:
    """Raise UsageError where it is none."""
    if not 0 < quantile < 1:
        raise UsageError(f"--quantile {quantile:g}: give a fraction between 0 and 1, as in --quantile 0.995")


def high_values(run: Run, layer: str, units: Sequence[int], quantile: float = QUANTILE) -> NDArray[np.float64]:
    """The `quantile` of each of `units` of `layer`, in true values: (n,).

    From the run's thresholds where one is of tau = 1 - quantile, else from its activations. Raises UsageError where the
    run has neither, or the quantile is none.
    """
    check_quantile(quantile)
    chosen = np.asarray(units, np.int64)
    thresholds = run.layer_table(layer, "thresholds")
    at = thresholds[np.isclose(thresholds["tau"], 1 - quantile, rtol=0, atol=1e-9)]
    if len(at):
        return at.set_index("unit")["threshold"].reindex(chosen).to_numpy(np.float64)
    if not run.keeps_activations:
        taus = ", ".join(f"{1 - tau:g}" for tau in sorted(set(thresholds["tau"])))
        raise UsageError(
            f"--quantile {quantile:g}: {run.url} keeps no activations, and its thresholds are the quantiles {taus}; "
            "take one of these"
        )
    return _from_activations(run, layer, chosen, quantile)


def _from_activations(run: Run, layer: str, units: NDArray[np.int64], quantile: float) -> NDArray[np.float64]:
    """(n,) quantiles of the stored values, NaN of unreadable samples left out."""
    height, width = run.layer(layer)["grid"]
    most = max(1, MOST_VALUES // (height * width * len(units)))
    step = -(-run.plan.samples // most)
    parts = []
    for shard in range(run.plan.count):
        samples = run.plan.samples_of(shard)
        first = -(-samples.start // step) * step
        taken = np.arange(first, samples.stop, step) - samples.start
        if len(taken):
            held = run.activation_range(layer, samples.start, samples.stop)[taken][:, units]
            parts.append(held.transpose(1, 0, 2, 3).reshape(len(units), -1))
    values = np.concatenate(parts, axis=1)
    values = values[:, ~np.isnan(values).any(axis=0)]
    if not values.shape[1]:
        raise UsageError(f"{run.url} holds no readable sample of layer {layer}; audit again")
    return np.quantile(values, quantile, axis=1, method="inverted_cdf").astype(np.float64)
