"""From what is asked on the command line to a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.attribution.explaining.sources import find_sources, names_of
from microtome.dissect.audit.config import check_token_hints, preprocess_overrides, token_hints
from microtome.dissect.audit.job import choose_device
from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.audit.progress import progress, say
from microtome.dissect.audit.stopping import AuditStoppedError
from microtome.dissect.models import Model, describe_layers, load_model, resolve_layers
from microtome.dissect.models.trace import places_of
from microtome.dissect.synthesis.dreaming import dream, tiles_in
from microtome.dissect.synthesis.images import Made, synthesise_classes, synthesise_units
from microtome.dissect.synthesis.objectives import class_numbers
from microtome.dissect.synthesis.settings import DreamSettings, Settings
from microtome.dissect.synthesis.writing import Folder, Picture, class_file_names
from microtome.storage.errors import UsageError
from microtome.storage.run import folder_name

ALL = "all"


@dataclass(frozen=True)
class Asked:
    """One call of the command: units of a layer, or classes, or dreams over images.

    units: as in `("3,17", "40-44")`, or "all"; classes: names or numbers; start: an image to begin with; seeds: a
    picture of each subject for each, none = one, by the subject's number. model_settings: see
    `cli.options.preprocess_values`.
    """

    model: str
    out: Path
    layer: str | None = None
    units: Sequence[str] = ()
    classes: Sequence[str] = ()
    dreams: Sequence[str] = ()
    start: str | None = None
    seeds: Sequence[int] = ()
    settings: Settings = field(default_factory=Settings)
    dream_settings: DreamSettings = field(default_factory=DreamSettings)
    device: str = "auto"
    model_settings: Mapping[str, Any] = field(default_factory=dict)


def visualise_to(asked: Asked) -> dict[str, Any]:
    """Do what is asked; what visualize.json holds. Raises UsageError, UnknownNameError; AuditStoppedError after
    Ctrl-C, when everything that was done by then is in the folder."""
    _check(asked)
    model = _loaded(asked)
    folder = Folder(asked.out)
    with arithmetic("float32", model.placeholder().device):
        told = {"model": asked.model, "layer": asked.layer, "settings": asked.settings.to_dict()}
        try:
            if asked.dreams:
                layer = asked.layer or default_layer(model)
                told |= {"layer": layer, "settings": asked.dream_settings.to_dict()}
                _dream(asked, model, layer, folder)
            else:
                _synthesise(asked, model, folder)
        except KeyboardInterrupt:
            whole = folder.finish(told)
            raise AuditStoppedError(f"interrupted; {len(whole['pictures'])} pictures are in {asked.out}") from None
        return folder.finish(told)


def default_layer(model: Model) -> str:
    """Where dreams come from unless said otherwise: the block at three quarters of the depth, among those with a grid
    of more than one position. Raises UsageError where there is none."""
    infos = [info for info in describe_layers(model) if info.usable and info.grid[0] * info.grid[1] > 1]
    inner = [info for info in infos if info.kind == "block"] or infos
    if not inner:
        raise UsageError(f"{model.spec} has no layer with maps to dream of")
    return inner[min(len(inner) - 1, 3 * len(inner) // 4)].name


def numbered_units(texts: Sequence[str], layer: str, count: int) -> list[int]:
    """`("3,17", "40-44")` or `("all",)` as units, in the order given, each once. Raises UsageError."""
    found: dict[int, None] = {}
    for part in (part.strip() for text in texts for part in text.split(",")):
        first, dash, last = part.partition("-")
        if part == ALL:
            found.update(dict.fromkeys(range(count)))
            continue
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UsageError(f"--unit {part!r}: give numbers, ranges or all, as in --unit 3,17,40-44")
        units = range(int(first), int(last if dash else first) + 1)
        if not units or units[-1] >= count:
            raise UsageError(f"--unit {part}: layer {layer} has units 0 to {count - 1}")
        found.update(dict.fromkeys(units))
    return list(found)


def named_classes(texts: Sequence[str], model: Model) -> list[int]:
    """Names or numbers, several behind commas (unless a name holds the comma), as numbers, each once."""
    parts: list[str] = []
    for text in texts:
        parts += [text] if text in model.class_names else [part.strip() for part in text.split(",")]
    return list(dict.fromkeys(class_numbers(model, parts)))


def _check(asked: Asked) -> None:
    kinds = [bool(asked.units) and not asked.dreams, bool(asked.classes), bool(asked.dreams)]
    if sum(kinds) != 1:
        raise UsageError(
            "say what to make an image of: --layer L --unit U, or --class C, or --dream IMAGE; one of them"
        )
    if asked.units and not asked.layer:
        raise UsageError(f"unit {asked.units[0]} of which layer? give --layer too")
    if asked.classes and asked.layer:
        raise UsageError("--layer goes with --unit or --dream; a class is of the whole network")
    if asked.dreams and asked.start:
        raise UsageError("--from goes with --unit and --class; a dream begins with its own image")


def _loaded(asked: Asked) -> Model:
    settings = dict(asked.model_settings)
    check_token_hints(settings.get("grid"), settings.get("prefix"))
    model = load_model(
        asked.model,
        weights=settings.get("weights"),
        preprocess=preprocess_overrides(settings),
        tokens=token_hints(settings),
    )
    model.module.to(choose_device(asked.device))
    return model


def _units_of(asked: Asked, model: Model, layer: str) -> list[int]:
    names = resolve_layers(model, [layer])
    if len(names) != 1:
        raise UsageError(f"--layer {layer} stands for {len(names)} layers ({', '.join(names[:4])}); give one")
    return numbered_units(asked.units, layer, places_of(model, names)[names[0]].layout.units)


def _synthesise(asked: Asked, model: Model, folder: Folder) -> None:
    """One picture for each subject and seed."""
    start = None if asked.start is None else read_image(asked.start)
    layer = asked.layer
    subjects = named_classes(asked.classes, model) if layer is None else _units_of(asked, model, layer)
    wanted = [(each, seed) for each in subjects for seed in (asked.seeds or (each,))]
    numbers, seeds = [each for each, _ in wanted], [seed for _, seed in wanted]
    with progress("visualize", len(wanted) * asked.settings.steps, "steps") as shown:
        made: Iterator[Made]
        more: dict[str, Any] = {"seeds": seeds, "settings": asked.settings, "start": start, "told": shown.advance}
        if asked.layer is not None:
            made = synthesise_units(model, asked.layer, numbers, **more)
        else:
            made = synthesise_classes(model, numbers, **more)
        files = class_file_names(model.class_names)
        for each in made:
            folder.add(_picture(each, asked, model.class_names, files))


def _picture(made: Made, asked: Asked, names: Sequence[str], files: Sequence[str]) -> Picture:
    """What is written of one image. names, files: of the classes, and of their files (`class_file_names`)."""
    tail = f".seed-{made.seed}" if len(asked.seeds) > 1 else ""
    told: dict[str, Any]
    if asked.layer is not None:
        name, title = f"{folder_name(asked.layer)}.unit-{made.subject}{tail}", f"unit {made.subject}"
        told = {"layer": asked.layer, "unit": made.subject}
    else:
        named = made.subject < len(names)
        title, file = (names[made.subject], files[made.subject]) if named else (str(made.subject),) * 2
        name, told = f"class-{file}{tail}", {"class": made.subject, "name": title}
    told |= {"seed": made.seed, "start": made.before, "reached": made.after, "driven": made.driven}
    if not made.driven:
        say(f"{title} could not be driven: it answers {made.after:.4g} whatever was tried; no picture of it")
    return Picture(name, title, made.image if made.driven else None, told)


def _dream(asked: Asked, model: Model, layer: str, folder: Folder) -> None:
    """One dream for each image and seed."""
    units = _units_of(asked, model, layer) if asked.units else None
    sources = find_sources(asked.dreams, leave_out=asked.out)
    settings = asked.dream_settings
    tile = (settings.tile, settings.tile) if settings.tile else model.preprocess.size
    seeds = asked.seeds or (0,)
    with progress("dream", 0, "tiles") as shown:
        done = 0
        for source, name in zip(sources, names_of(sources, ["dream"]), strict=True):
            image = source.read()
            total = done + tiles_in(settings, (image.shape[0], image.shape[1]), tile) * (len(sources) * len(seeds))
            shown.move_to(done, total)
            for seed in seeds:
                picture = dream(model, image, layer, units, seed=seed, settings=settings, told=shown.advance)
                tail = f".seed-{seed}" if len(seeds) > 1 else ""
                told = {"image": source.name, "layer": layer, "units": units, "seed": seed}
                folder.add(Picture(f"{name}.dream{tail}", source.name, picture, told))


def read_image(text: str) -> NDArray[np.uint8]:
    """The one image that `text` stands for, (H, W, 3) uint8. Raises UsageError, SampleError."""
    sources = find_sources([text])
    if len(sources) != 1:
        raise UsageError(f"--from {text}: {len(sources)} images; give one")
    return sources[0].read()
