"""Several methods over many images, a few at a time, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from microtome.dissect.attribution.attention import attention_layer
from microtome.dissect.attribution.choosing import default_layer
from microtome.dissect.attribution.explaining.asking import check_layer, check_options, methods_named, options_of
from microtome.dissect.attribution.explaining.calls import (
    ATTENTION,
    BY_IMAGE,
    CHOOSING,
    OF_MAPS,
    Call,
    first_convolution,
)
from microtome.dissect.attribution.explaining.results import Explained, Guess, Result
from microtome.dissect.attribution.explaining.sources import Given, Source, find_sources
from microtome.dissect.attribution.methods import FILTERS, Method
from microtome.dissect.attribution.rectifiers import sees_the_image
from microtome.dissect.attribution.subject import PEAK, TOP, At, at_rest, class_number, model_of, running, scoring
from microtome.dissect.models import Model
from microtome.dissect.models.feeding import Pixels, batch_of, prepare
from microtome.dissect.models.logits import NoLogitsError, logits_of
from microtome.storage.errors import DoesNotApplyError, SampleError, UsageError

BATCH = 4
SHOWN_CLASSES = 5

Told = Callable[[int], object]


SAME_FOR_ALL = "the same for every image: the network has no max-pooling on the way"
"""Said of a deconvnet."""
NO_ANSWER = "the model answers NaN or infinity for this image"
NOT_FINITE = "what it gives holds NaN or infinity for this image"


@dataclass
class Explainer:
    """What is asked about every image.

    methods: as `methods_named` gives them; target: the number of a class, None for each image's most probable one;
    with `unit`, that unit of `layer` is explained instead. options: what single methods take beyond that, given to
    those that have it. batch: images at a time. refusing: methods that were found to apply to no image, and why.
    """

    model: Model
    methods: tuple[Method, ...]
    target: int | None = None
    layer: str | None = None
    unit: int | None = None
    at: At = PEAK
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int = BATCH
    refusing: dict[str, str] = field(default_factory=dict, init=False)
    _remarks: dict[str, str] = field(default_factory=dict, init=False)
    _filters: Result | None = field(default=None, init=False)
    _chosen: str | None = field(default=None, init=False)

    def explain(self, sources: Iterable[Source], told: Told = lambda count: None) -> Iterator[Explained]:
        """Every image in its order, `batch` of them at a time; one that cannot be read comes with its `error`.

        told: called with 1 for each method that is through with an image. Raises UsageError for what does not fit the
        model: a class, a layer, a unit that it does not have, an option of a method.
        """
        waiting: list[tuple[Source, Pixels | str]] = []
        for source in sources:
            waiting.append((source, self._read(source)))
            if len(waiting) == self.batch:
                yield from self._through(waiting, told)
                waiting = []
        if waiting:
            yield from self._through(waiting, told)

    def inputs(self, sources: Iterable[Source], most: int) -> Tensor:
        """Those of the first `most` images that can be read, as the model takes them, to which it answers numbers:
        (n, 3, H, W)."""
        read = (pixels for source in sources if not isinstance(pixels := self._read(source), str))
        found = [torch.zeros(0, 3, *self.model.preprocess.size).to(self.model.placeholder())]
        rest = islice(read, most)
        while some := list(islice(rest, self.batch)):
            images = self._input(some)
            found.append(images[self._answered(len(images), self._logits(images), None)])
        return torch.cat(found)

    def _input(self, pixels: Sequence[Pixels]) -> Tensor:
        return batch_of(pixels, self.model.preprocess).to(self.model.placeholder())

    def _read(self, source: Source) -> Pixels | str:
        try:
            return prepare(source.read(), self.model.preprocess)
        except SampleError as error:
            return error.reason

    def _through(self, waiting: list[tuple[Source, Pixels | str]], told: Told) -> Iterator[Explained]:
        pixels = [read for _, read in waiting if not isinstance(read, str)]
        explained = iter(self._batch([s for s, read in waiting if not isinstance(read, str)], pixels, told))
        for source, read in waiting:
            if isinstance(read, str):
                told(len(self.methods))
                yield Explained(source.name, np.zeros((0, 0, 3), np.uint8), error=read)
            else:
                yield next(explained)

    def _batch(self, sources: Sequence[Source], pixels: list[Pixels], told: Told) -> list[Explained]:
        if not pixels:
            return []
        images = self._input(pixels)
        logits = self._logits(images)
        targets = self._targets(logits)
        values = self._values(images, logits, targets)
        kept = self._answered(len(images), logits, values)
        results: dict[str, list[Result]] = {}
        for method in self.methods:
            if kept:
                results[method.name] = self._results(method, images[kept], None if targets is None else targets[kept])
            told(len(pixels))
        explained = []
        for i, source in enumerate(sources):
            if i not in kept:
                explained.append(Explained(source.name, np.zeros((0, 0, 3), np.uint8), error=NO_ANSWER))
                continue
            guesses = [] if logits is None else _guesses(logits[i], self.model.class_names)
            explained.append(
                Explained(
                    source.name,
                    pixels[i],
                    classes=tuple(sorted(guesses, key=lambda guess: -guess.logit)[:SHOWN_CLASSES]),
                    target=None if targets is None else guesses[int(targets[i])],
                    layer=self.layer,
                    unit=self.unit,
                    score=None if values is None else float(values[i]),
                    results={name: each[kept.index(i)] for name, each in results.items()},
                )
            )
        return explained

    def _answered(self, count: int, logits: Tensor | None, values: Tensor | None) -> list[int]:
        """Which images have a score that can be explained: a number, of a class that can be told from others."""
        sound = torch.ones(count, dtype=torch.bool)
        if any(method.scored for method in self.methods):
            if logits is not None and self.unit is None:
                sound &= (logits < torch.inf).all(1).cpu()  # a class that is masked out may have -inf
            if values is not None:
                sound &= values.isfinite()
        return [int(i) for i in sound.nonzero()]

    def _logits(self, images: Tensor) -> Tensor | None:
        """(B, K) float32, None for a model that is no classifier."""
        with at_rest(self.model.module), torch.no_grad(), running(self.model, images):
            output = self.model.module(images.clone())
        try:
            return logits_of(output, self.model.class_names).float()
        except UsageError as error:
            wanted = self.unit is None and any(method.scored for method in self.methods)
            if self.target is not None or (wanted and not isinstance(error, NoLogitsError)):
                raise
            return None

    def _targets(self, logits: Tensor | None) -> Tensor | None:
        if logits is None or self.unit is not None:
            return None
        if self.target is None:
            return logits.argmax(1)
        if not 0 <= self.target < logits.shape[1]:
            raise UsageError(f"there is no class {self.target}: the model has {logits.shape[1]}, numbered from 0")
        return torch.full((len(logits),), self.target, device=logits.device)

    def _values(self, images: Tensor, logits: Tensor | None, targets: Tensor | None) -> Tensor | None:
        """(B,) what is explained comes to: logits, or values of the unit."""
        if self.unit is not None:
            with scoring(self.model, images, None, self.layer, unit=self.unit, at=self.at) as score, torch.no_grad():
                return score(score.images).cpu()
        if logits is None or targets is None:
            return None
        return logits.gather(1, targets[:, None])[:, 0].cpu()

    def _results(self, method: Method, images: Tensor, targets: Tensor | None) -> list[Result]:
        """One for each image; what does not apply to all of them is tried on each alone."""
        if method.gives == FILTERS:
            self._filters = self._filters or self._alone(method, images[:1], None)[0]
            return [self._filters] * len(images)
        if method.name in self.refusing:
            return [Result(method, None, refused=self.refusing[method.name])] * len(images)
        found = self._alone(method, images, targets)
        if found[0].values is not None or len(images) == 1 or method.name not in BY_IMAGE:
            return found
        return [
            self._alone(method, images[i : i + 1], None if targets is None else targets[i : i + 1])[0]
            for i in range(len(images))
        ]

    def _alone(self, method: Method, images: Tensor, targets: Tensor | None) -> list[Result]:
        try:
            asked = self._call(method, images, targets)
            found, remarks = asked.run(self.model, images, targets)
        except DoesNotApplyError as error:
            reason = f"{error.reason}; {error.advice}" if error.advice else error.reason
            if method.name not in BY_IMAGE:
                self.refusing[method.name] = reason
            return [Result(method, None, refused=reason)] * len(images)
        values = found.float().cpu().numpy()
        each = [values] if method.gives == FILTERS else values
        remark = self._remark(asked, images[:1], targets)
        return [
            Result(asked.method, one, asked.looked_at, self.unit, remark=remarks[i] or remark)
            if np.isfinite(one).all()
            else Result(asked.method, None, refused=NOT_FINITE)
            for i, one in enumerate(each)
        ]

    def _remark(self, asked: Call, images: Tensor, targets: Tensor | None) -> str:
        """What one should know of a method with this model; found with the first image, the same for all."""
        name = asked.method.name
        if name == "deconvnet" and name not in self._remarks:
            target = None if targets is None else targets[:1]
            sees = sees_the_image(self.model, images, target, asked.layer, unit=self.unit, at=self.at)
            self._remarks[name] = "" if sees else SAME_FOR_ALL
        return self._remarks.get(name, "")

    def _call(self, method: Method, images: Tensor, targets: Tensor | None) -> Call:
        """How a method is called: with the options that it has, and the layer that it is to look at."""
        own = {name: value for name, value in self.options.items() if name in options_of(method)}
        if self.unit is not None:
            own |= {"unit": self.unit, "at": self.at}
        elif targets is None and (method.scored or (method.name in CHOOSING and self.layer is None)):
            raise DoesNotApplyError(method.name, "the model answers no classes", "give --layer, and --unit of it")
        layer = self.layer if method.layer or self.unit is not None else None
        looked_at = self.layer if method.layer else None
        if method.name in OF_MAPS and self.unit is not None:
            looked_at = own["maps_layer"] = self._maps_layer(method, images, targets)
        elif method.name in CHOOSING and self.layer is None:
            looked_at = layer = self._maps_layer(method, images, targets)
        elif method.name in ATTENTION and layer is None and self.unit is None:
            looked_at = attention_layer(method.name, self.model)
        elif method.gives == FILTERS and self.layer is None:
            looked_at = first_convolution(self.model.module)
        return Call(method, layer, looked_at, own)

    def _maps_layer(self, method: Method, images: Tensor, targets: Tensor | None) -> str:
        """A layer chosen for its maps with the first image; the same for all images and methods."""
        if self._chosen is None:
            with scoring(self.model, images, targets, self.layer, unit=self.unit, at=self.at) as score:
                self._chosen = default_layer(score, method.name)
        return self._chosen


def _guesses(logits: Tensor, names: Sequence[str]) -> list[Guess]:
    values, probabilities = logits.tolist(), logits.double().softmax(0).tolist()
    named = names if len(names) == len(values) else [""] * len(values)
    return [Guess(i, named[i], values[i], probabilities[i]) for i in range(len(values))]


def explainer_of(
    model: Model | nn.Module,
    methods: str | Iterable[str],
    *,
    target: int | str | None = TOP,
    layer: str | None = None,
    unit: int | None = None,
    at: At = PEAK,
    options: Mapping[str, Any] | None = None,
    batch: int = BATCH,
    flags: Mapping[str, str] | None = None,
) -> Explainer:
    """An Explainer, checked: names of methods, class, layer and options. A bare module takes images of 224x224, scaled
    to [0, 1]. flags: what the user calls an option, where it is not so. Raises UsageError, UnknownNameError."""
    found = model if isinstance(model, Model) else model_of(model, torch.zeros(1, 3, 224, 224))
    named = methods_named(methods)
    number = class_number(target, found.class_names)
    if unit is not None and layer is None:
        raise UsageError(f"unit {unit} of which layer? give the layer too")
    if unit is not None and number is not None:
        raise UsageError(f"class {target} and unit {unit} of {layer} are two things to explain; give one of them")
    if batch < 1:
        raise UsageError(f"a batch of {batch} images: expected at least 1")
    check_options(named, options or {}, flags or {})
    if layer is not None:
        check_layer(found, layer)
        if unit is None and not any(method.layer for method in named):
            raise UsageError(f"layer {layer}: none of the methods asked for looks at a layer; give a unit of it, too")
    return Explainer(found, named, number, layer, unit, at, options or {}, batch)


def explain_images(
    model: Model | nn.Module, images: Iterable[Given], methods: str | Iterable[str], **settings: Any
) -> Iterator[Explained]:
    """Explain images one after the other; what is asked about them is as in `explainer_of`.

    images: paths of files and folders, dataset specs, or arrays (H, W, 3) uint8 RGB; each is prepared as the model
    wants it. methods: names, or "all". What does not apply is refused in the results. Raises UsageError,
    UnknownNameError.

    for cat in explain_images(load_model("torchvision:resnet18"), ["cat.jpg"], ["grad-cam", "occlusion"]):
        cat.results["grad-cam"].values, cat.results["grad-cam"].picture(cat.image)
    """
    return explainer_of(model, methods, **settings).explain(find_sources(images))
