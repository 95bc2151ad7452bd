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
from numpy.typing import NDArray

from microtome.datasets.specs import open_dataset
from microtome.dissect.attribution.checks.candidates import candidate_of
from microtome.dissect.attribution.checks.intervals import Mean, bootstrap
from microtome.dissect.attribution.checks.labelled import read_labelled
from microtome.dissect.attribution.checks.pointing import TOLERANCE, centre_hits, chance_hits, pointing_game
from microtome.dissect.attribution.checks.randomisation import UPPER, randomisation
from microtome.dissect.attribution.checks.verdicts import INSENSITIVE_FROM
from microtome.dissect.attribution.subject import classes_of
from microtome.dissect.models import load_model
from microtome.storage.errors import DoesNotApplyError

Row = dict[str, object]

BUILTIN = "builtin:scenes-cnn"
KIT = Path(__file__).resolve().parents[2] / "shared" / "real"
STAMPS = Path(os.environ.get("STAMPS", "/tmp/stamps-data"))

METHODS = (
    *("saliency", "gradient-x-input", "integrated-gradients", "smoothgrad", "occlusion"),
    *("cam", "grad-cam", "grad-cam++", "guided-grad-cam", "deconvnet", "guided-backprop"),
)
OPTIONS: dict[str, dict[str, Any]] = {"smoothgrad": {"samples": 10}, "integrated-gradients": {"steps": 16}}
"""Fewer passes than as they come."""
WIDE: dict[str, dict[str, Any]] = {**OPTIONS, "occlusion": {"size": 64, "stride": 32}}
"""And for photos of 224 pixels, a patch that hides much of an object."""

STAND_FOR = {
    "aquatic mammal": [(147, 150)],
    "ball": [(429, 430), (522, 522), (574, 574), (722, 722), (768, 768), (805, 805), (852, 852), (890, 890)],
    "bear": [(294, 297)],
    "big cat": [(286, 293)],
    "bird": [(7, 24), (80, 100), (127, 146)],
    "camel": [(354, 354)],
    "car": [(407, 407), (436, 436), (468, 468), (511, 511), (609, 609), (627, 627), (656, 656), (661, 661), (717, 717)],
    "cattle": [(345, 347)],
    "deer": [(351, 353)],
    "dog": [(151, 268)],
    "drum": [(541, 541)],
    "fish": [(0, 6), (389, 397)],
    "flower": [(984, 986)],
    "fruit": [(948, 957)],
    "guitar or violin": [(402, 402), (420, 420), (486, 486), (546, 546), (889, 889)],
    "horse": [(339, 340)],
    "insect": [(300, 326)],
    "marsupial": [(104, 106)],
    "mushroom": [(947, 947), (991, 997)],
    "primate": [(365, 384)],
    "road sign": [(919, 919)],
    "rodent": [(330, 338)],
    "tank": [(847, 847)],
    "vegetable": [(936, 946)],
}
"""Which of ImageNet's classes, in ranges with both ends, are a label of the stamps; the other labels have none."""

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


def _randomised(spec: str, data: str, names: tuple[str, ...], sets: int, each: int = 6) -> list[Row]:
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
                "flagged": sum(bootstrap(one.upper).low > INSENSITIVE_FROM for one in found),
            }
        )
    return rows


def _pointing(spec: str, names: tuple[str, ...], count: int) -> list[Row]:
    """Every labelled object for which ImageNet has classes is a trial: its class of highest logit is explained."""
    model = load_model(spec)
    data = read_labelled(open_dataset(f"folder:{STAMPS}"), model, count)
    ids = {concept.name: concept.id for concept in data.concepts}
    numbers = {name: [n for low, high in spans for n in range(low, high + 1)] for name, spans in STAND_FOR.items()}
    trials = data.trials(model, {ids[name]: tuple(each) for name, each in numbers.items() if name in ids})
    centre, masks = centre_hits(trials.masks), trials.masks
    rows = [_row("the centre", centre, centre_hits(masks, 0), centre)]
    rows.append(_row("chance", chance_hits(masks), chance_hits(masks, 0), centre))
    for name in names:
        try:
            candidate = candidate_of(name, model, trials.images, options=WIDE.get(name))
            maps = candidate.maps(model, trials.images, trials.classes).evidence
        except DoesNotApplyError:
            continue
        rows.append(_row(name, pointing_game(maps, masks), pointing_game(maps, masks, 0), centre))
    return rows


def _row(name: str, near: NDArray[np.float64], exact: NDArray[np.float64], centre: NDArray[np.float64]) -> Row:
    more = bootstrap(near - centre)
    return {
        "points": name,
        "trials": len(near),
        f"hits within {TOLERANCE} pixels": _shown(bootstrap(near)),
        "more than the centre": _shown(more),
        "where the centre misses": _shown(bootstrap(near[centre < 1])),
        "no tolerance": _shown(bootstrap(exact)),
    }


def _shown(mean: Mean) -> str:
    return f"{mean.mean:.2f} ({mean.low:.2f} to {mean.high:.2f})"
