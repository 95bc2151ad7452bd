"""From what is asked on the command line to a folder of explanations."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from microtome.dissect.attribution.explaining.asking import ALL, methods_named
from microtome.dissect.attribution.explaining.explainer import Explainer, explainer_of
from microtome.dissect.attribution.explaining.results import Explained
from microtome.dissect.attribution.explaining.sources import Source, find_sources, names_of
from microtome.dissect.attribution.explaining.writing import Folder
from microtome.dissect.attribution.methods import METHODS
from microtome.dissect.attribution.subject import PEAK, At
from microtome.dissect.audit.config import check_token_hints, preprocess_overrides, token_hints
from microtome.dissect.audit.job import choose_device
from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.audit.progress import progress, say
from microtome.dissect.models import load_model
from microtome.storage.errors import DoesNotApplyError, UsageError

FLAGS = {"size": "--patch"} | {
    name: f"--{name}" for name in ("samples", "noise", "steps", "baseline", "stride", "fill", "seed", "head")
}


Before = Callable[[Explainer, Sequence[Source]], None]

_WIDEST, _REPLACEMENT = 60, "\ufffd"
"""Letters in a column of the table; what stands for one that cannot be shown."""


@dataclass(frozen=True)
class Asked:
    """One call of the command. settings: of the model, see `cli.options.preprocess_values`; own: options of methods."""

    model: str
    images: Sequence[str]
    methods: Sequence[str]
    out: Path
    target: str | None = None
    layer: str | None = None
    unit: int | None = None
    at: At = PEAK
    limit: int | None = None
    batch: int = 4
    device: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """What came of it.

    explainer, sources: what was asked about which images; told: as in explain.json; refusals: reasons by method, of any
    image; refused_by_name: methods among them that were asked for by name; unreadable: images that could
    not be read, or that the model answers with NaN.
    """

    explainer: Explainer
    sources: Sequence[Source]

    told: dict[str, Any]
    refusals: dict[str, str]
    refused_by_name: tuple[str, ...]
    unreadable: int

    @property
    def files(self) -> str:
        """What was written, in words."""
        images = len(self.told["images"]) - self.unreadable
        made = sum("file" in each for image in self.told["images"] for each in image.get("methods", {}).values())
        return f"{made:,} explanations of {images:,} images, sheet.png, explain.json"

    def table(self) -> tuple[list[str], list[list[str]], list[int]]:
        """Header, rows, and the columns that are flush right: a row for each image."""
        rows = []
        for image in self.told["images"]:
            if "error" in image:
                rows.append([_cell(image["image"]), "-", "-", "-", _cell(f"left out: {image['error']}")])
                continue
            best = image["classes"][0] if image["classes"] else None
            said = "-" if best is None else best["name"] or str(best["class"])
            share = "-" if best is None or best["probability"] is None else f"{100 * best['probability']:.1f} %"
            made = [name for name, each in image["methods"].items() if "file" in each]
            rows.append(
                [
                    _cell(image["image"]),
                    _cell(said),
                    share,
                    _cell(_subject(image)),
                    f"{len(made)} of {len(image['methods'])}",
                ]
            )
        return ["image", "most probable", "", "explained", "methods"], rows, [2]


def _cell(text: str) -> str:
    """Text in one line of a table, its middle left out where it is long."""
    plain = "".join(character if character.isprintable() else _REPLACEMENT for character in text)
    return plain if len(plain) <= _WIDEST else f"{plain[: _WIDEST // 2]}…{plain[-(_WIDEST // 2 - 1) :]}"


def _subject(image: dict[str, Any]) -> str:
    target = image["target"]
    if target is None:
        return "-"
    if "unit" in target:
        value = image["scores"].get("unit")
        return f"unit {target['unit']} of {target['layer']}" + ("" if value is None else f" ({value:.4g})")
    return str(target["name"] or target["class"])


def explain_to(asked: Asked, before: Before = lambda explainer, sources: None) -> Done:
    """Do what is asked; `before` is called with what was looked up for it, before any image is explained.

    Raises UsageError, UnknownNameError, and DoesNotApplyError where the only method that was asked for by name applies
    to no image.
    """
    if asked.unit is not None and asked.target is not None:
        raise UsageError("--target and --unit are two things to explain; give one of them")
    if os.path.exists(asked.out) and not os.path.isdir(asked.out):
        raise UsageError(f"--out {asked.out} is a file; give a folder")
    explainer = _explainer(asked)
    sources = find_sources(asked.images, limit=asked.limit, leave_out=asked.out)
    before(explainer, sources)
    names = names_of(sources, METHODS)
    folder: Folder | None = None
    told: list[dict[str, Any]] = []
    errors: list[str] = []
    refusals: dict[str, str] = {}
    said: set[str] = set()
    methods = [method.name for method in explainer.methods]
    device = explainer.model.placeholder().device
    with arithmetic("float32", device), progress("explain", len(sources) * len(methods), "explanations") as shown:
        for explained, name in zip(explainer.explain(sources, shown.advance), names, strict=True):
            if explained.error:
                say(f"{_cell(explained.name)}: {explained.error}; left out")
                errors.append(explained.error)
                told.append({"image": explained.name, "error": explained.error})
                continue
            _note(refusals, explained)
            _say_remarks(said, explained)
            if len(methods) == 1 and methods[0] in explainer.refusing:
                raise DoesNotApplyError(methods[0], refusals[methods[0]])
            folder = folder or Folder(asked.out, methods)
            told.append(folder.add(explained, name))
    if len(errors) == len(sources) or folder is None:
        first = f"{sources[0].name}: {errors[0]}" if sources else "there is none"
        raise UsageError(f"none of {len(sources):,} images can be explained ({first}); give others")
    if not any(_made(told, name) for name in methods) and len(methods) == 1:
        raise DoesNotApplyError(methods[0], refusals[methods[0]])
    by_name = () if ALL in asked.methods else tuple(refusals)
    whole = folder.finish({"model": asked.model, "methods": methods, "images": told})
    return Done(explainer, sources, whole, refusals, by_name, len(errors))


def _explainer(asked: Asked) -> Explainer:
    """The model, loaded, and what is asked about the images; names of methods are looked up first."""
    methods_named(asked.methods)
    settings = dict(asked.settings)
    check_token_hints(settings.get("grid"), settings.get("prefix"))
    device = choose_device(asked.device)
    model = load_model(
        asked.model,
        weights=settings.get("weights"),
        preprocess=preprocess_overrides(settings),
        tokens=token_hints(settings),
    )
    model.module.to(device)
    return explainer_of(
        model,
        asked.methods,
        target=asked.target,
        layer=asked.layer,
        unit=asked.unit,
        at=asked.at,
        options=asked.own,
        batch=asked.batch,
        flags=FLAGS,
    )


def _note(refusals: dict[str, str], explained: Explained) -> None:
    for name, result in explained.results.items():
        if result.values is None:
            refusals.setdefault(name, result.refused)


def _say_remarks(said: set[str], explained: Explained) -> None:
    """Say what is remarked of methods, once of each."""
    for name, result in explained.results.items():
        if result.remark and name not in said:
            said.add(name)
            say(f"{name}: {result.remark}")


def _made(told: list[dict[str, Any]], method: str) -> bool:
    """Whether a method gave anything."""
    return any("file" in image["methods"][method] for image in told if "methods" in image)
