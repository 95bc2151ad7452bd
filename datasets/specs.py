"""Dataset specs: the one string that names a dataset, in the shell, in a config and in a run.

    scenes:2000            the built-in scenes; scenes:2000?size=128&seed=0 sets their options
    folder:PATH            images/, masks/ and classes.csv in a folder
    images:PATH            a folder of images, and nothing else
    imagefolder:PATH       images in folders that are named after their classes
    broden: ade20k: coco: voc: cityscapes: webdataset: hf:      the formats of `microtome.datasets.formats`
    package.module:factory, path/file.py:factory      an ImageDataset of one's own

A reader of another format registers its scheme with `register`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from types import MappingProxyType
from urllib.parse import parse_qsl

from microtome.datasets.base import ImageDataset
from microtome.datasets.factories import call_factory, is_factory
from microtome.storage.errors import UnknownNameError, UsageError

Opener = Callable[[str], ImageDataset]
"""Takes the whole spec, "scheme:rest", and opens the dataset."""

_OPENERS: dict[str, Opener] = {}


def register(scheme: str, opener: Opener) -> None:
    """Make `scheme:...` open with `opener`. Raises ValueError where the scheme is taken."""
    if scheme in _OPENERS:
        raise ValueError(f"the dataset scheme {scheme!r} is registered already")
    if not scheme.isidentifier():
        raise ValueError(f"the dataset scheme {scheme!r} is not an identifier")
    _OPENERS[scheme] = opener


def schemes() -> Mapping[str, Opener]:
    """Every registered scheme with its opener, read-only."""
    return MappingProxyType(_OPENERS)


def open_dataset(spec: str) -> ImageDataset:
    """Open the dataset that `spec` names.

    Raises UnknownNameError for an unknown scheme, UsageError for a spec or a dataset that is not usable.
    """
    scheme, colon, _ = spec.partition(":")
    if colon and scheme in _OPENERS:
        return _OPENERS[scheme](spec)
    if colon and scheme == "generated":
        raise UsageError(
            f"{spec!r} are the images that a generator makes, and no dataset without one: audit it, as in "
            "microtome audit GENERATOR generated:2000 --segmenter SPEC --layers GLOB"
        )
    if is_factory(spec):
        return _checked(call_factory(spec), spec)
    if not colon:
        raise UsageError(f"{spec!r} is not a dataset spec; write {_advice(spec)}")
    raise UnknownNameError(
        "dataset scheme",
        scheme,
        _OPENERS,
        hint="A dataset of your own is package.module:factory or path/file.py:factory.",
    )


def parse_options(text: str, spec: str, example: str, known: Iterable[str]) -> dict[str, int]:
    """The options of "key=value&key=value" as integers; UsageError with the example where one is wrong."""
    allowed = sorted(known)
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True) if text else []
    except ValueError:
        raise UsageError(f"{spec!r}: options are key=value, joined by '&', such as {example}") from None
    options: dict[str, int] = {}
    for key, value in pairs:
        if key not in allowed or key in options:
            problem = "is given twice" if key in options else f"is no option; there are {', '.join(allowed)}"
            raise UsageError(f"{spec!r}: {key!r} {problem}. An example: {example}")
        options[key] = _integer(value, key, spec, example)
    return options


def _integer(text: str, what: str, spec: str, example: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{spec!r}: {what} is {text!r}; expected a whole number, such as {example}")
    return int(text)


def _advice(spec: str) -> str:
    if spec in _OPENERS:
        return {"scenes": "scenes:2000", "folder": "folder:PATH"}.get(spec, f"{spec}:...")
    return f"folder:{spec} for a folder of images, or one of: {', '.join(f'{s}:...' for s in sorted(_OPENERS))}"


def _checked(dataset: object, spec: str) -> ImageDataset:
    if isinstance(dataset, type):
        raise UsageError(f"{spec} returned the class {dataset.__name__}; expected an instance of it")
    members = sorted(name for name in {**vars(ImageDataset), **ImageDataset.__annotations__} if _is_interface(name))
    missing = [name for name in members if not hasattr(dataset, name)]
    if missing:
        raise UsageError(
            f"{spec} returned a {type(dataset).__name__} without {', '.join(missing)}; "
            "microtome.datasets.base.ImageDataset says what a dataset has"
        )
    if not isinstance(dataset, ImageDataset):
        raise UsageError(f"{spec} returned a {type(dataset).__name__}, which is not an ImageDataset")
    return dataset


def _is_interface(name: str) -> bool:
    return name == "__len__" or not name.startswith("_")


def _open_scenes(spec: str) -> ImageDataset:
    from microtome.datasets.scenes import ScenesDataset

    example = "scenes:2000?size=128&seed=0"
    count, _, options = spec.partition(":")[2].partition("?")
    number = _integer(count, "the number of scenes", spec, example)
    if number < 1:
        raise UsageError(f"{spec!r}: the number of scenes has to be 1 or more, such as {example}")
    chosen = parse_options(options, spec, example, ("size", "seed"))
    return ScenesDataset(number, size=chosen.get("size", 128), seed=chosen.get("seed", 0))


def _path_of(spec: str, example: str) -> str:
    scheme, _, path = spec.partition(":")
    if not path:
        raise UsageError(f"{scheme}: needs a path, such as {example}")
    return path


def _reader(reader: str, example: str) -> Opener:
    """An opener of the class `module:Class` in microtome.datasets.formats, imported when it is first needed.

    The class takes what follows the scheme: a path, with options where the format has any.
    """
    module, _, name = reader.partition(":")

    def opener(spec: str) -> ImageDataset:
        found = getattr(import_module(f"microtome.datasets.formats.{module}"), name)
        dataset: ImageDataset = found(_path_of(spec, example))
        return dataset

    return opener


register("scenes", _open_scenes)
for _scheme, _class, _example in (
    ("folder", "folder:FolderDataset", "folder:~/data/street"),
    ("images", "images:ImagesDataset", "images:~/photos"),
    ("imagefolder", "imagefolder:ImageFolderDataset", "imagefolder:~/data/birds"),
    ("broden", "broden:BrodenDataset", "broden:~/data/broden1_224"),
    ("ade20k", "ade20k:open_ade20k", "ade20k:~/data/ADEChallengeData2016"),
    ("coco", "coco:CocoDataset", "coco:~/data/coco"),
    ("voc", "voc:VocDataset", "voc:~/data/VOCdevkit/VOC2012"),
    ("cityscapes", "cityscapes:CityscapesDataset", "cityscapes:~/data/cityscapes"),
    ("webdataset", "webdataset:WebDataset", "webdataset:~/data/shards"),
    ("hf", "hf:HfDataset", "hf:~/data/saved-to-disk"),
):
    register(_scheme, _reader(_class, _example))
