"""`microtome explain --check`: the checks on what was asked, written beside the explanations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microtome.datasets.factories import is_factory
from microtome.datasets.specs import open_dataset, schemes
from microtome.dissect.attribution.checks.check import Checks, Settings, check_methods
from microtome.dissect.attribution.checks.labelled import read_labelled
from microtome.dissect.attribution.checks.mapping import read_classes
from microtome.dissect.attribution.checks.pointing import TOLERANCE, Masks
from microtome.dissect.attribution.checks.table import charts_of, sentences, to_dict
from microtome.dissect.attribution.explaining.asking import options_of
from microtome.dissect.attribution.explaining.explainer import Explainer
from microtome.dissect.attribution.explaining.sources import Source
from microtome.dissect.attribution.methods import IMAGE, MAP
from microtome.dissect.attribution.subject import Target, classes_of
from microtome.reports.explanations.charts import draw_charts
from microtome.reports.png import png_bytes
from microtome.reports.text import without_controls
from microtome.storage.errors import UsageError
from microtome.storage.files import json_bytes, write_asked

PICTURE = "check.png"


@dataclass(frozen=True)
class Checking:
    """How the methods are checked. data: a dataset spec (default: the images of the command, whose masks are used
    where they are one dataset); count: images at most; concepts: what a map may
    point at; classes: a CSV file of the classes that stand for a concept, each of which is then explained; seed: of all
    draws."""

    data: str | None = None
    count: int = 16
    concepts: Sequence[str] = ()
    classes: Path | None = None
    tolerance: float = TOLERANCE
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """Checks that can be done: methods by name, images (n, 3, H, W), classes to explain, where maps should point."""

    explainer: Explainer
    methods: Sequence[str]
    images: Tensor
    target: Target
    masks: Masks | None
    settings: Settings


def plan_checks(explainer: Explainer, sources: Sequence[Source], given: Sequence[str], checking: Checking) -> Plan:
    """How the methods that are asked for will be checked. given: what the command was given as images.

    Raises UsageError for fewer than two images, for what the dataset does not have, and where no method gives each
    pixel a weight.
    """
    methods = [method for method in explainer.methods if method.gives in (MAP, IMAGE)]
    if not methods:
        names = ", ".join(method.name for method in explainer.methods)
        raise UsageError(f"none of {names} gives each pixel a weight, so there is nothing to check")
    options = {
        method.name: {name: value for name, value in explainer.options.items() if name in options_of(method)}
        for method in methods
    }
    images, target, masks = _read(explainer, sources, given, checking)
    settings = Settings(seed=checking.seed, tolerance=checking.tolerance, batch=explainer.batch, options=options)
    return Plan(explainer, [method.name for method in methods], images, target, masks, settings)


def check_planned(plan: Plan) -> Checks:
    """Check the methods."""
    explainer, settings = plan.explainer, plan.settings
    return check_methods(
        explainer.model,
        plan.images,
        plan.methods,
        target=plan.target,
        layer=explainer.layer,
        masks=plan.masks,
        settings=settings,
    )


def write_checks(checks: Checks, out: Path) -> dict[str, Any]:
    """Add "check" to explain.json and draw check.png, both in the folder `out`; returns what was added."""
    told = to_dict(checks)
    title = f"{checks.model}: checks on {checks.images} images"
    picture = draw_charts(charts_of(checks), without_controls(title), sentences(checks))
    found = {**told, "picture": PICTURE}
    try:
        whole = json.loads((out / "explain.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{out / 'explain.json'} cannot be read ({error.strerror}); explain again") from error
    write_asked(out / PICTURE, png_bytes(picture))
    write_asked(out / "explain.json", json_bytes({**whole, "check": found}))
    return found


def _read(
    explainer: Explainer, sources: Sequence[Source], given: Sequence[str], checking: Checking
) -> tuple[Tensor, Target, Masks | None]:
    """Images (n, 3, H, W), the classes to explain, and where their maps should point, if the dataset says."""
    model, target = explainer.model, explainer.target
    spec = checking.data or (given[0] if len(given) == 1 and _is_dataset(given[0]) else None)
    if spec is None:
        if checking.concepts or checking.classes:
            raise UsageError("--check-concepts and --check-classes are about a dataset; give --check-data")
        images = explainer.inputs(sources, checking.count)
        if len(images) < 2:
            many = "one" if len(images) else "none"
            raise UsageError(
                f"--check compares images, and {many} can be explained; give 2 or more, or a dataset as --check-data"
            )
        return images, target, None
    data = read_labelled(open_dataset(spec), model, checking.count, checking.concepts)
    if checking.classes is not None:
        trials = data.trials(model, read_classes(checking.classes, data.concepts, model.class_names))
        return trials.images, trials.classes, trials.masks
    if not data.planes.any():
        return data.images, target, None
    like, size = model.placeholder(), explainer.batch
    starts = range(0, len(data.images), size)
    classes = torch.cat([classes_of(model, data.images[i : i + size].to(like), target) for i in starts])
    return data.images, classes, data.masks(model.class_names, classes)


def _is_dataset(given: str) -> bool:
    return not Path(given).exists() and (given.partition(":")[0] in schemes() or is_factory(given))
