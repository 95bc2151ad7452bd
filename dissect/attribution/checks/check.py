"""All checks on all methods, for one model and some images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from microtome.dissect.attribution.checks.candidates import Candidate, candidate_of
from microtome.dissect.attribution.checks.curves import Curves, centre_out, curves, displaced, order_of
from microtome.dissect.attribution.checks.intervals import Mean, bootstrap
from microtome.dissect.attribution.checks.pointing import TOLERANCE, Masks, centre_hits, chance_hits, pointing_game
from microtome.dissect.attribution.checks.randomisation import SHARES, Randomisation, randomisation
from microtome.dissect.attribution.checks.verdicts import Verdict, verdict
from microtome.dissect.attribution.subject import Target, classes_of, model_of
from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.audit.progress import progress
from microtome.dissect.models.model import Model
from microtome.storage.errors import DoesNotApplyError, UsageError

Told = Callable[[int], None]


@dataclass(frozen=True)
class Settings:
    """How the checks are done.

    seed: of all draws; probed: on how many images the network is randomised and curves are followed (the pointing
    game takes all); shares: of modules that are randomised; steps: of a curve; tolerance: of the pointing game in
    pixels; batch: images at once; options: of methods, by their name.
    """

    seed: int = 0
    probed: int = 16
    shares: tuple[float, ...] = SHARES
    steps: int = 20
    tolerance: float = TOLERANCE
    batch: int = 8
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.probed < 2 or self.batch < 1 or self.steps < 1:
            raise UsageError(
                f"{self.probed} images in batches of {self.batch}, {self.steps} steps; checks need 2 images or more, "
                "and at least 1 of the others"
            )


@dataclass(frozen=True)
class Check:
    """What one method came to. Means are over images, with their intervals.

    randomisation, curves: the raw figures; upper, structure: Spearman's rho and SSIM while the upper part of the
    network is random; elsewhere: Spearman's rho of maps of different images for the same class; deletion, insertion:
    areas; deletion_gain, insertion_gain: how much better each is than that of the same map displaced, above 0 where
    it is; pointing: the share of hits; off_centre: that of images whose centre is no hit (None without masks).
    """

    method: str
    randomisation: Randomisation
    curves: Curves
    upper: Mean
    structure: Mean
    elsewhere: Mean
    deletion: Mean
    insertion: Mean
    deletion_gain: Mean
    insertion_gain: Mean
    pointing: Mean | None
    off_centre: Mean | None

    @property
    def verdict(self) -> Verdict:
        """What that says of the method."""
        return verdict(self)


@dataclass(frozen=True)
class Baselines:
    """What is had without any map: areas of an order from the centre outwards, hits of the centre and of chance."""

    deletion: Mean
    insertion: Mean
    curves: Curves
    centre: Mean | None
    chance: Mean | None


@dataclass(frozen=True)
class Checks:
    """All methods' checks for one model; refused: why a method does not apply, by its name."""

    model: str
    images: int
    settings: Settings
    methods: tuple[Check, ...]
    refused: Mapping[str, str]
    baselines: Baselines


def check_methods(
    model: Model | nn.Module,
    images: Tensor,
    methods: Sequence[str | Candidate],
    *,
    target: Target = None,
    layer: str | None = None,
    masks: Masks | None = None,
    settings: Settings | None = None,
) -> Checks:
    """Put methods, by name or as candidates of one's own, through the checks.

    images: (n, 3, H, W), n >= 2, as the model takes them, on any device; target: the classes that are explained
    (default: each image's top class, as the model is); layer: for methods that look at one; masks: (n, H, W), where
    each map should point. Shows progress on stderr. Raises UnknownNameError for a method, UsageError for the rest.
    """
    found, settings = model_of(model, images), settings or Settings()
    if len(images) < 2:
        raise UsageError("checks compare images: give 2 or more")
    if masks is not None and masks.shape != (len(images), *images.shape[2:]):
        raise UsageError(f"masks {masks.shape} do not fit images {tuple(images.shape)}; give (n, H, W)")
    images = images.detach().to(found.placeholder())
    classes = _classes(found, images, target, settings.batch)
    probed = slice(min(settings.probed, len(images)))
    subject = Subject(found, images, classes, masks, probed, settings)
    each = len(images) + (2 + len(settings.shares)) * subject.probed_images + 2 * subject.probed_images
    total = 3 * subject.probed_images + each * len(methods)
    checked: list[Check] = []
    refused: dict[str, str] = {}
    with arithmetic("float32", images.device), progress("checks", total, "maps") as shown:
        baselines = _baselines(subject, shown.advance)
        for number, method in enumerate(methods, start=1):
            name = method if isinstance(method, str) else method.name
            try:
                options = settings.options.get(name)
                candidate = candidate_of(name, found, images, layer, options) if isinstance(method, str) else method
                checked.append(_checked(candidate, subject, shown.advance))
            except DoesNotApplyError as error:
                refused[name] = f"{error.reason}; {error.advice}" if error.advice else error.reason
            shown.move_to(3 * subject.probed_images + each * number, total)
    return Checks(found.spec, len(images), settings, tuple(checked), refused, baselines)


@dataclass(frozen=True)
class Subject:
    """What methods are checked on: a model, images (n, 3, H, W) and their classes (n,), masks (n, H, W) or None."""

    model: Model
    images: Tensor
    classes: Tensor
    masks: Masks | None
    probed: slice
    settings: Settings

    @property
    def probed_images(self) -> int:
        """On how many images the network is randomised and curves are followed."""
        return len(self.images[self.probed])

    def followed(self, maps: NDArray[np.floating], told: Told) -> Curves:
        """The curves of maps of the probed images."""
        settings = self.settings
        orders = order_of(maps, settings.seed)
        images, classes = self.images[self.probed], self.classes[self.probed]
        return curves(self.model, images, orders, classes, steps=settings.steps, batch=4 * settings.batch, told=told)


def _checked(candidate: Candidate, subject: Subject, told: Told) -> Check:
    """All figures of one method. Raises DoesNotApplyError."""
    settings, probed = subject.settings, subject.probed
    maps = candidate.maps(subject.model, subject.images, subject.classes, settings.batch)
    told(len(subject.images))
    random = randomisation(
        candidate,
        subject.model,
        subject.images[probed],
        subject.classes[probed],
        shares=settings.shares,
        batch=settings.batch,
        seed=settings.seed,
        trained=maps.magnitudes[probed],
        told=told,
    )
    own = subject.followed(maps.evidence[probed], told)
    other = subject.followed(displaced(maps.evidence[probed], settings.seed), told)

    def mean(values: NDArray[np.floating]) -> Mean:
        return bootstrap(values, settings.seed)

    pointing = off_centre = None
    if subject.masks is not None:
        hits = pointing_game(maps.evidence, subject.masks, settings.tolerance)
        pointing = mean(hits)
        off_centre = mean(hits[centre_hits(subject.masks, settings.tolerance) < 1])
    return Check(
        method=candidate.name,
        randomisation=random,
        curves=own,
        upper=mean(random.upper),
        structure=mean(random.upper_structure),
        elsewhere=mean(random.elsewhere),
        deletion=mean(own.deletion_area),
        insertion=mean(own.insertion_area),
        deletion_gain=mean(other.deletion_area - own.deletion_area),
        insertion_gain=mean(own.insertion_area - other.insertion_area),
        pointing=pointing,
        off_centre=off_centre,
    )


def _baselines(subject: Subject, told: Told) -> Baselines:
    settings = subject.settings
    count, (height, width) = subject.probed_images, subject.images.shape[2:]
    centred = subject.followed(np.broadcast_to(centre_out(height, width), (count, height, width)), told)
    centre = chance = None
    if subject.masks is not None:
        centre = bootstrap(centre_hits(subject.masks, settings.tolerance), settings.seed)
        chance = bootstrap(chance_hits(subject.masks, settings.tolerance), settings.seed)
    deletion, insertion = (bootstrap(each, settings.seed) for each in (centred.deletion_area, centred.insertion_area))
    return Baselines(deletion, insertion, centred, centre, chance)


def _classes(model: Model, images: Tensor, target: Target, batch: int) -> Tensor:
    """(n,) int64: the class of each image, asked a few images at a time."""
    single = target is None or isinstance(target, int | str) or len(target) == 1
    parts = []
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        own = target if single or target is None or isinstance(target, int | str) else target[start : start + batch]
        parts.append(classes_of(model, part, own))
    return torch.cat(parts)
