"""Two runs compared: what `microtome compare` computes, as plain values.

What is compared has to be comparable: the same samples (common.py), the same fraction tau, the same IoU convention.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from microtome.dissect.comparing.common import Common, common_samples
from microtome.dissect.comparing.concepts import clear_margin, concept_changes
from microtome.dissect.comparing.layers import Terms, compare_layers
from microtome.dissect.comparing.matching import QUANTILE
from microtome.dissect.comparing.pairing import layer_pairs
from microtome.dissect.comparing.streaming import ARRAYS
from microtome.dissect.query.dissection import Dissection
from microtome.storage.errors import RunMismatchError, UnknownNameError

FEW = 200
"""Fewer samples than these are worth a warning."""

Progress = Callable[[int, int], None]
"""Told of (samples of a layer that are done more, samples of each layer)."""


def compare_runs(
    a: Dissection, b: Dissection, layers: Sequence[str] = (), *, by: str = "means", progress: Progress | None = None
) -> dict[str, Any]:
    """Compare two finished runs over the samples that both have; gives JSON values, see docs/compare.md.

    layers: names and globs of layers that both have, or NAME_IN_A=NAME_IN_B; none = all that both have.
    by: "means" or "peaks", what is correlated.
    Raises RunMismatchError where the data differ or scores cannot be compared, UnknownNameError for layers.
    """
    if by not in ARRAYS:
        raise UnknownNameError("statistic to compare by", by, ARRAYS)
    pairs = layer_pairs(a.layers, b.layers, layers)
    terms, warnings = _terms(a, b, by)
    common = common_samples(a.run, b.run)
    changes, only = concept_changes(a, b, pairs, terms.tau, terms.bar)

    def on_samples(more: int) -> None:
        if progress is not None:
            progress(more, len(common))

    return {
        "a": _run_facts(a),
        "b": _run_facts(b),
        "samples": _sample_facts(common),
        "settings": {
            "by": by,
            "tau": terms.tau,
            "bar": terms.bar,
            "margin": clear_margin(terms.bar),
            "quantile": QUANTILE,
        },
        "warnings": [*warnings, *_sample_warnings(common)],
        "layers": [compare_layers(a, b, pair, common, terms, on_samples) for pair in pairs],
        "concepts": [change.to_dict() for change in changes],
        "only": only,
    }


def _terms(a: Dissection, b: Dissection, by: str) -> tuple[Terms, list[str]]:
    """What the comparison goes by, and what to know of that. Raises RunMismatchError."""
    config_a, config_b = a.run.info["config"], b.run.info["config"]
    if config_a["iou"] != config_b["iou"]:
        raise RunMismatchError(
            f"the runs count IoU otherwise (--iou {config_a['iou']} and {config_b['iou']}), so it cannot be compared; "
            "audit one of them again"
        )
    shared = [tau for tau in a.taus if tau in b.taus]
    if not shared:
        raise RunMismatchError(
            f"the runs have no tau in common ({_numbers(a.taus)}; {_numbers(b.taus)}), so IoU cannot be compared; "
            "audit one of them again with --tau of the other"
        )
    warnings = []
    bar = max(float(config_a["min_iou"]), float(config_b["min_iou"]))
    if config_a["min_iou"] != config_b["min_iou"]:
        warnings.append(f"The runs have other bars for detectors; here it is {bar:g} for both.")
    if shared[0] != a.taus[0] or shared[0] != b.taus[0]:
        warnings.append(f"Labels are those at τ = {shared[0]:g}, the first that both runs have.")
    if a.run.info["label_size"] != b.run.info["label_size"]:
        sizes = [" × ".join(map(str, one.run.info["label_size"])) for one in (a, b)]
        warnings.append(f"The label grids differ ({sizes[0]} and {sizes[1]}), so IoU does a little, too.")
    return Terms(by, shared[0], bar), warnings


def _sample_facts(common: Common) -> dict[str, Any]:
    return {
        "common": len(common),
        "a": common.count_a,
        "b": common.count_b,
        "same_data": common.same_data,
        "ambiguous_keys": common.doubtful,
        "other_sizes": common.resized,
    }


def _sample_warnings(common: Common) -> list[str]:
    warnings = []
    if not common.whole:
        shares = [100 * len(common) / count for count in (common.count_a, common.count_b)]
        warnings.append(
            f"Units are matched on {len(common):,} samples that both runs have ({shares[0]:.0f}% of A, "
            f"{shares[1]:.0f}% of B). IoU is that of each run over its own samples; a change may come from the images."
        )
    if len(common) < FEW:
        warnings.append(
            f"{len(common):,} samples are few: units that have nothing to do with each other correlate, too."
        )
    return warnings


def _run_facts(dissection: Dissection) -> dict[str, Any]:
    info = dissection.run.info
    return {
        "run": str(dissection.run.place.path or dissection.run.url),
        "model": info["model"]["spec"],
        "weights": info["model"]["weights"],
        "trained": info["model"]["trained"],
        "fingerprint": info["model"]["fingerprint"],
        "data": info["data"]["spec"],
        "samples": info["data"]["samples"],
        "layers": dissection.layers,
    }


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
