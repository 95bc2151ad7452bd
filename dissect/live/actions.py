"""What a server has done by a run's model: explanations of units and classes, and images synthesised for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from torch import nn

from microtome.dissect.attribution.explaining import Explained, Explainer, explainer_of
from microtome.dissect.attribution.explaining.sources import Source
from microtome.dissect.attribution.methods import IMAGE, MAP, MASK, METHODS
from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.live.opened import OpenedRun
from microtome.dissect.synthesis import Settings, synthesise_classes, synthesise_units
from microtome.reports.server.actions import AbandonedError, Methods, Picture, Stop, Subject
from microtome.storage.errors import MicrotomeError, SampleError, UsageError

OFFERED = tuple(name for name, method in METHODS.items() if method.gives in (MAP, IMAGE, MASK))
"""Methods that give a picture of an image."""

_TRIED = ("deconvnet", "guided-backprop", "cam", "attention", "rollout", "grad-attention")
"""Those of them that depend on what the model is made of, and are tried before they are offered."""

_FOLLOW = {"guided-grad-cam": "guided-backprop"}
"""Methods that do not apply where another does not."""


class LiveActions:
    """What is asked of the model of a finished run, one question at a time (see reports/server/actions.py)."""

    def __init__(self, opened: OpenedRun) -> None:
        self._opened = opened
        self._known: dict[tuple[str | None, bool], Methods] = {}

    def methods(self, subject: Subject, stop: Stop) -> Methods:
        """Which methods apply, tried on noise; known for a layer once they were tried."""
        key = (subject.layer, subject.unit is not None)
        if key not in self._known:
            noise = np.random.default_rng(0).integers(0, 256, (*self._opened.model.preprocess.size, 3), np.uint8)
            explained = self._explained(subject, _TRIED, noise, stop)
            refused = {name: result.refused for name, result in explained.results.items() if result.values is None}
            refused |= {name: refused[other] for name, other in _FOLLOW.items() if other in refused}
            names = [name for name in OFFERED if name not in refused]
            self._known[key] = Methods(names, [(name, why) for name, why in refused.items() if name not in _FOLLOW])
        return self._known[key]

    def explain(
        self, subject: Subject, methods: Sequence[str], image: int | NDArray[np.uint8], stop: Stop
    ) -> list[Picture]:
        """The image as the model sees it with its most probable class, then a picture or a refusal a method."""
        pixels = self._opened.image(image) if isinstance(image, int) else image
        explained = self._explained(subject, methods, pixels, stop)
        top = explained.classes[0] if explained.classes else None
        shown = [
            Picture(
                "as the model sees it" + (f": {top.text}, {_percent(top.probability)}" if top else ""), explained.image
            )
        ]
        score = (
            ""
            if explained.score is None
            else f", {'value' if explained.unit is not None else 'logit'} {explained.score:.4g}"
        )
        for name, result in explained.results.items():
            picture = result.picture(explained.image)
            caption = f"{name}: {result.refused}" if picture is None else f"{name} of {explained.subject}{score}"
            shown.append(Picture(caption, picture))
        return shown

    def visualise(self, subject: Subject, seed: int, stop: Stop) -> list[Picture]:
        """An image synthesised for the subject, which the seed draws the beginning of."""
        model, settings = self._opened.model, Settings()
        with self._at_work(stop):
            if subject.unit is not None and subject.layer is not None:
                layer = self._layer(subject.layer)
                made = next(synthesise_units(model, layer, [subject.unit], seeds=[seed], settings=settings, stop=stop))
            elif subject.class_number is not None:
                made = next(
                    synthesise_classes(model, [subject.class_number], seeds=[seed], settings=settings, stop=stop)
                )
            else:
                raise UsageError("name a unit of a layer, or a class")
        if not made.driven:
            return [Picture("the ascent did not raise its answer: there is no image of it")]
        return [Picture(f"synthesised, seed {seed}: {made.before:.3g} became {made.after:.3g}", made.image)]

    def _layer(self, name: str) -> str:
        """A layer of the run. Raises UnknownNameError, and UsageError for one that holds directions in another."""
        readout = self._opened.run.layer(name).get("readout")
        if readout is not None:
            raise UsageError(f"layer {name} holds directions in {readout['base']}, which are no units of the network")
        return name

    def _explained(self, subject: Subject, methods: Sequence[str], pixels: NDArray[np.uint8], stop: Stop) -> Explained:
        """One image, explained. Raises MicrotomeError, and AbandonedError once `stop` says so."""
        explainer = self._explainer(subject, methods)
        with self._at_work(stop):
            (explained,) = explainer.explain([Source("the image", "", lambda: pixels)])
        if explained.error:
            raise SampleError("the image", explained.error)
        return explained

    def _explainer(self, subject: Subject, methods: Sequence[str]) -> Explainer:
        layer = None if subject.layer is None else self._layer(subject.layer)
        for name in methods:
            if name in METHODS and name not in OFFERED:
                raise UsageError(f"{name} shows no image; ask for one of {', '.join(OFFERED)}")
        target = "top" if subject.class_number is None else subject.class_number
        return explainer_of(self._opened.model, methods, target=target, layer=layer, unit=subject.unit)

    @contextmanager
    def _at_work(self, stop: Stop) -> Iterator[None]:
        """While open, float32 is float32, and the model's next pass raises AbandonedError once `stop` says so."""

        def look(module: nn.Module, given: object) -> None:
            if stop():
                raise AbandonedError

        handle = self._opened.model.module.register_forward_pre_hook(look)
        try:
            with arithmetic("float32", self._opened.device):
                yield
        except MicrotomeError:
            if stop():
                raise AbandonedError from None
            raise
        finally:
            handle.remove()


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
