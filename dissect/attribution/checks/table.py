"""What the checks came to: as a table on a terminal, as JSON, in sentences, and as what a chart shows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microtome.dissect.attribution.checks.check import Check, Checks
from microtome.dissect.attribution.checks.intervals import Mean
from microtome.dissect.attribution.checks.verdicts import BLIND, FAITHFUL, INSENSITIVE, UNSUPPORTED
from microtome.reports.explanations.charts import Chart, Line

FEW = 10
"""Of fewer images a bootstrap's interval is too narrow."""

_SAID = {
    FAITHFUL: "Faithful for this model",
    INSENSITIVE: "Insensitive to what the model has learned",
    BLIND: "The same whatever the image",
    UNSUPPORTED: "Not shown to matter more than anywhere else",
}


def rows_of(checks: Checks) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, a row for each method and each baseline, and the columns that are flush right."""
    pointed = checks.baselines.centre is not None
    header = ["method", "randomised", "other image", "deletion", "gain", "insertion", "gain"]
    header += (["pointing", "off centre"] if pointed else []) + ["verdict"]
    rows = [_row(check, pointed) for check in checks.methods]
    base = checks.baselines
    centre = ["(centre outwards)", "", "", _number(base.deletion), "", _number(base.insertion), ""]
    rows.append(centre + ([_number(base.centre), ""] if pointed else []) + [""])
    if pointed:
        rows.append(["(chance)", *[""] * 6, _number(base.chance), "", ""])
    rows += [[name, *["-"] * (len(header) - 2), "does not apply"] for name in checks.refused]
    return header, rows, list(range(1, len(header) - 1))


def sentences(checks: Checks) -> list[str]:
    """Which methods are faithful for this model, and which are not, one sentence for each verdict that was given."""
    said = []
    for verdict, words in _SAID.items():
        names = [check.method for check in checks.methods if check.verdict.name == verdict]
        if names:
            said.append(f"{words}: {', '.join(names)}.")
    return said


def notes(checks: Checks) -> list[str]:
    """What one should know before one believes the figures."""
    followed = min(checks.settings.probed, checks.images)
    if followed >= FEW:
        return []
    return [f"With {followed} images the 95 % intervals are too narrow to be believed; give {FEW} or more."]


def to_dict(checks: Checks) -> dict[str, Any]:
    """Ready for JSON: what explain.json holds as "check"."""
    base = checks.baselines
    settings = checks.settings
    return {
        "images": checks.images,
        "probed": min(settings.probed, checks.images),
        "seed": settings.seed,
        "steps": settings.steps,
        "tolerance": settings.tolerance,
        "methods": {check.method: _told(check) for check in checks.methods},
        "refused": dict(checks.refused),
        "baselines": {
            "centre_deletion": base.deletion.to_dict(),
            "centre_insertion": base.insertion.to_dict(),
            "centre_pointing": _maybe(base.centre),
            "chance_pointing": _maybe(base.chance),
        },
        "summary": sentences(checks),
        "notes": notes(checks),
    }


def charts_of(checks: Checks) -> list[Chart]:
    """Two charts for each method: what is left of its maps while parameters are randomised, and its curves."""
    charts = []
    base = checks.baselines.curves
    for check in checks.methods:
        found = check.randomisation
        shares = [0.0] + [depth.share for depth in found.depths]
        rho = Line("rank correlation", shares, [1.0, *_means(found.correlation.T)], "#1864ab")
        ssim = Line("SSIM", shares, [1.0, *_means(found.structure.T)], "#e8890c")
        left = f"randomised {_number(check.upper)}, other image {_number(check.elsewhere)}"
        charts.append(Chart(f"{check.method}: {check.verdict.name}", (rho, ssim), left, "share randomised"))
        pixels = np.linspace(0, 1, check.curves.deletion.shape[1]).tolist()
        lines = (
            Line("deletion", pixels, _means(check.curves.deletion), "#c92a2a"),
            Line("insertion", pixels, _means(check.curves.insertion), "#2b8a3e"),
            Line("", pixels, _means(base.deletion), "#e3b5b5"),
            Line("", pixels, _means(base.insertion), "#b7d4bd"),
        )
        areas = f"deletion {_number(check.deletion)}, insertion {_number(check.insertion)}; pale: from the centre"
        charts.append(Chart("", lines, areas, "share of pixels"))
    return charts


def _row(check: Check, pointed: bool) -> list[str]:
    values = [check.upper, check.elsewhere, check.deletion, check.deletion_gain, check.insertion, check.insertion_gain]
    signed = {3, 5}
    row = [check.method, *(_number(value, signed=at in signed) for at, value in enumerate(values))]
    return row + ([_number(check.pointing), _number(check.off_centre)] if pointed else []) + [check.verdict.name]


def _told(check: Check) -> dict[str, Any]:
    found = check.randomisation
    depths = [
        {"modules": depth.modules, "of": depth.of, "down_to": depth.name, "rank_correlation": rho, "ssim": ssim}
        for depth, rho, ssim in zip(found.depths, _means(found.correlation.T), _means(found.structure.T), strict=True)
    ]
    means = ("upper", "structure", "elsewhere", "deletion", "insertion", "deletion_gain", "insertion_gain")
    names = dict(zip(means, ("randomised", "randomised_ssim", "other_image", *means[3:]), strict=True))
    return {
        "verdict": check.verdict.name,
        "because": check.verdict.because,
        **{names[mean]: getattr(check, mean).to_dict() for mean in means},
        "pointing": _maybe(check.pointing),
        "pointing_off_centre": _maybe(check.off_centre),
        "depths": depths,
        "deletion_curve": _means(check.curves.deletion),
        "insertion_curve": _means(check.curves.insertion),
    }


def _means(values: Any) -> list[float]:
    """The mean over images (n, k) of each of the k columns."""
    return [float(value) for value in np.asarray(values).mean(axis=0)]


def _maybe(mean: Mean | None) -> dict[str, float | int | None] | None:
    return None if mean is None else mean.to_dict()


def _number(mean: Mean | None, *, signed: bool = False) -> str:
    if mean is None or math.isnan(mean.mean):
        return "-"
    return f"{mean.mean:+.2f}" if signed else f"{mean.mean:.2f}"
