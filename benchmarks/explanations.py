"""Which explanations are worth their pixels: randomised parameters over seeds and sets, and the pointing game.

The first needs nothing but the project; for the second the stamps set has to be made before (docs/performance.md), and
lie where STAMPS says. What is measured does not depend on the machine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from microtome.datasets.specs import open_dataset
from microtome.dissect.attribution.checks.candidates import candidate_of
from microtome.dissect.attribution.checks.intervals import Mean, bootstrap
from microtome.dissect.attribution.checks.labelled import read_labelled
from microtome.dissect.attribution.checks.pointing import TOLERANCE, centre_hits, chance_hits, pointing_game
from microtome.dissect.attribution.checks.randomisation import UPPER, randomisation
from microtome.dissect.attribution.checks.verdicts import INSENSITIVE_FROM
from microtome.dissect.attribution.subject import classes_of
from microtome.dissect.models import Model, load_model
from microtome.storage.errors import DoesNotApplyError

BUILTIN = "builtin:scenes-cnn"
KIT = Path(__file__).resolve().parents[2] / "shared" / "real"
STAMPS = Path(os.environ.get("STAMPS", "/tmp/stamps-data"))

METHODS = (
    *("saliency", "gradient-x-input", "integrated-gradients", "smoothgrad", "occlusion"),
    *("cam", "grad-cam", "grad-cam++", "guided-grad-cam", "deconvnet", "guided-backprop"),
)
OPTIONS: dict[str, dict[str, Any]] = {"smoothgrad": {"samples": 10}, "integrated-gradients": {"steps": 16}}
"""Fewer passes than as they come; the ranks of pixels hardly change."""

SHARES = (0.0, 0.125, UPPER)


def run(quick: bool) -> dict[str, Any]:
    """Both tables; SPEC and METHODS in the environment choose another model and fewer methods."""
    names = tuple(os.environ["METHODS"].split(",")) if "METHODS" in os.environ else METHODS
    result: dict[str, Any] = {}
    spec = os.environ.get("SPEC", BUILTIN)
    data = f"folder:{STAMPS}" if "SPEC" in os.environ and "builtin" not in spec else "scenes:400"
    sets = int(os.environ.get("SETS", "2" if quick else "5"))
    result[f"{spec}: maps while the upper part of the network is random"] = _randomised(spec, data, names, sets)
    if "SPEC" not in os.environ and (STAMPS / "masks").is_dir() and (KIT / "classifiers.py").is_file():
        count = int(os.environ.get("IMAGES", "20" if quick else "200"))
        spec = f"{KIT}/classifiers.py:efficientnet_lite0"
        result[f"efficientnet_lite0: pointing game on {count} stamps"] = _pointing(spec, names, count)
    return result


def _randomised(spec: str, data: str, names: tuple[str, ...], sets: int, each: int = 8) -> list[dict[str, object]]:
    """Figures of the verdict on `sets` sets of `each` images, with a seed of its own for each set."""
    model, rows = load_model(spec), []
    images = read_labelled(open_dataset(data), model, sets * each).images
    classes = torch.cat([classes_of(model, part, None) for part in images.split(each)])
    for name in names:
        try:
            candidate = candidate_of(name, model, images[:each], options=OPTIONS.get(name))
            found = [
                randomisation(candidate, model, part, labels, shares=SHARES, seed=seed)
                for seed, (part, labels) in enumerate(zip(images.split(each), classes.split(each), strict=True))
            ]
        except DoesNotApplyError:
            continue
        upper = [float(one.upper.mean()) for one in found]
        rows.append(
            {
                "method": name,
                "rho, mean": float(np.mean(upper)),
                "least of sets": min(upper),
                "most of sets": max(upper),
                "SSIM": float(np.mean([one.upper_structure.mean() for one in found])),
                "rho, other image": float(np.mean([one.elsewhere.mean() for one in found])),
                "flagged": sum(value > INSENSITIVE_FROM for value in upper),
            }
        )
    return rows


def _pointing(spec: str, names: tuple[str, ...], count: int) -> list[dict[str, object]]:
    model = load_model(spec)
    data = read_labelled(open_dataset(f"folder:{STAMPS}"), model, count)
    classes = torch.cat([classes_of(model, part, None) for part in data.images.split(16)])
    masks = data.masks(model.class_names, classes)
    rows = []
    for name, hits in (("the centre", centre_hits), ("chance", chance_hits)):
        rows.append(_row(name, bootstrap(hits(masks)), bootstrap(hits(masks, 0)), None))
    for name in names:
        try:
            candidate = candidate_of(name, model, data.images, options=OPTIONS.get(name))
            maps = candidate.maps(model, data.images, classes).evidence
        except DoesNotApplyError:
            continue
        near, exact = pointing_game(maps, masks), pointing_game(maps, masks, 0)
        off = bootstrap(near[centre_hits(masks) < 1])
        rows.append(_row(name, bootstrap(near), bootstrap(exact), off))
    return rows


def _row(name: str, near: Mean, exact: Mean, off: Mean | None) -> dict[str, object]:
    return {
        "points": name,
        f"hits within {TOLERANCE} pixels": _shown(near),
        "hits, no tolerance": _shown(exact),
        "where the centre misses": _shown(off) if off is not None else "",
    }


def _shown(mean: Mean) -> str:
    return f"{mean.mean:.2f} ({mean.low:.2f} to {mean.high:.2f})"
