"""Models of HuggingFace's transformers, by folder, hub name or type: image classifiers, backbones and image towers.

Weights are read from safetensors alone, and no code of the hub's is ever run.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from microtome.dissect.models.image_processors import (
    default_processor,
    image_processor,
    preprocess_of,
    resized,
    reverses_channels,
)
from microtome.dissect.models.preprocess import Preprocess
from microtome.dissect.models.zoo import (
    DEFAULT,
    NONE,
    ZooModel,
    hub_as_reachable,
    no_weights,
    quiet,
    seeded,
    timm_preprocess,
)
from microtome.storage.errors import UnknownNameError, UsageError

_CONFIG, _PROCESSOR, _SAFE = "config.json", "preprocessor_config.json", "model.safetensors"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_INPUT = "pixel_values"
_NO_NAME = re.compile(r"LABEL_\d+")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_POOLER = "pooler."
_CONVERSION = "DISABLE_SAFETENSORS_CONVERSION"
_REASON = 300  # characters of a foreign message
_SHOWN = 3
_FORMS = (
    f"expected a folder with {_CONFIG}, OWNER/NAME on the Hugging Face hub or in its cache, or a model type such as "
    "hf:vit?weights=none"
)


@dataclass(frozen=True)
class _Place:
    """What a name means: `where` is a folder or the hub's OWNER/NAME, None for a bare model type."""

    name: str
    where: str | None
    on_hub: bool = False

    @property
    def spec(self) -> str:
        """The spec, without its options."""
        return f"hf:{self.name}"


@dataclass(frozen=True)
class _Network:
    """The class to build, and the config that it takes: a part of the whole one where it is a tower."""

    kind: Any
    config: Any
    classifies: bool


def import_transformers(spec: str) -> Any:
    """The library; raises UsageError, which names `spec`, where it is not installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise UsageError(
            f"{spec} needs transformers, which is not installed: pip install microtome[transformers]"
        ) from error


def build_hf(name: str, weights: str) -> ZooModel:
    """Build the model in the folder `name`, of the hub's OWNER/NAME, or of the model type `name`; in float32.

    A classifier where the config's architecture is one (where it states none: its type), else the bare network; of
    two towers, for images and for text, that for images. weights: NONE (random, seed 0) or DEFAULT. Raises UsageError
    when config or weights are neither there nor to be downloaded, UnknownNameError for an unknown type.
    """
    transformers = import_transformers(f"hf:{name}")
    if weights not in (NONE, DEFAULT):
        raise UnknownNameError(f"weights of hf:{name}", weights, [NONE])
    trained = weights == DEFAULT
    with quiet(), _silent(transformers):
        place = _place(transformers, name)
        config, processor = _read(transformers, place)
        network = _network(transformers, config, place)
        with seeded():
            module: nn.Module = _trained(network, place) if trained else _random(network, place)
        stated = _preprocess(transformers, processor, config, network, place)
        used = processor or default_processor(transformers, config)
    if used is not None and reverses_channels(used.to_dict()):
        module.register_forward_pre_hook(_reverse_channels)
    return ZooModel(
        module.float(),
        stated,
        _class_names(network.config) if trained and network.classifies else (),
        f"transformers {name}" if trained else "random, seed 0",
    )


def _place(transformers: Any, name: str) -> _Place:
    folder = Path(name).expanduser()
    if (folder / _CONFIG).is_file():
        return _Place(name, str(folder))
    if name in transformers.CONFIG_MAPPING:
        return _Place(name, None)
    if folder.is_dir():
        raise UsageError(f"hf:{name}: this folder holds no {_CONFIG}; {_FORMS}")
    if _HUB_NAME.fullmatch(name):
        return _Place(name, name, on_hub=True)
    if "/" in name:
        raise UsageError(f"hf:{name}: there is no such folder; {_FORMS}")
    raise UnknownNameError("transformers model type", name, _image_types(transformers), f"A spec of hf: {_FORMS}.")


def _image_types(transformers: Any) -> list[str]:
    """The model types that classify images or are backbones for them."""
    names = importlib.import_module("transformers.models.auto.modeling_auto")
    known = ("MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES", "MODEL_FOR_IMAGE_MAPPING_NAMES")
    return [each for table in known for each in getattr(names, table, {}) if each in transformers.CONFIG_MAPPING]


def _read(transformers: Any, place: _Place) -> tuple[Any, Any]:
    """The config, and the image processor saved beside it (None where there is none). Raises UsageError."""
    try:
        if place.where is None:
            return transformers.AutoConfig.for_model(place.name), None
        with hub_as_reachable(place.on_hub):
            config = transformers.AutoConfig.from_pretrained(place.where, trust_remote_code=False)
            return config, image_processor(transformers, place.where)
    except Exception as error:
        raise UsageError(f"{place.spec} cannot be read ({_reason(error)}); {_FORMS}") from error


def _network(transformers: Any, config: Any, place: _Place) -> _Network:
    """Which class to build. Raises UsageError where there is none that takes images alone."""
    tower = getattr(config, "vision_config", None)
    part = config if tower is None else tower
    heads = _classes(transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, config)
    named = [head for head in heads if head.__name__ in (config.architectures or ())]
    if not named and not config.architectures and tower is None:
        named = heads
    found = named or _classes(transformers.MODEL_MAPPING, part)
    if not found:
        raise UsageError(f"{place.spec}: transformers has no model of type {part.model_type} that takes images alone")
    takes = next(name for name in inspect.signature(found[0].forward).parameters if name != "self")
    if takes != _INPUT:
        raise UsageError(f"{place.spec} is no image model: its {found[0].__name__} takes {takes} first, not {_INPUT}")
    return _Network(found[0], config if named else part, bool(named))


def _classes(mapping: Any, config: Any) -> list[Any]:
    found = mapping.get(type(config), ())
    return list(found) if isinstance(found, Sequence) else [found]


def _random(network: _Network, place: _Place) -> nn.Module:
    try:
        module: nn.Module = network.kind(network.config)
    except Exception as error:  # a library that it needs, a config that does not say enough
        raise UsageError(f"{place.spec} cannot be built ({_reason(error)})") from error
    return module


def _trained(network: _Network, place: _Place) -> nn.Module:
    """The network with the weights of its place. Raises UsageError."""
    if place.where is None:
        raise no_weights("hf", place.name, "a model type has none")
    try:
        with hub_as_reachable(place.on_hub):
            module, missing = _load(network, place.where)
            if missing and all(key.startswith(_POOLER) for key in missing) and _has_optional_pooler(network):
                module, missing = _load(network, place.where, add_pooling_layer=False)
    except Exception as error:
        raise no_weights("hf", place.name, _pickled(place) or _reason(error)) from error
    if missing:
        first = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        reason = f"{len(missing)} tensors of {network.kind.__name__} are not among them: {first}"
        raise no_weights("hf", place.name, reason)
    return module


def _load(network: _Network, where: str, **settings: bool) -> tuple[nn.Module, list[str]]:
    """The module, and the names of its tensors that the file has not."""
    module, told = network.kind.from_pretrained(
        where, config=network.config, use_safetensors=True, output_loading_info=True, **settings
    )
    return module, sorted(told["missing_keys"])


def _has_optional_pooler(network: _Network) -> bool:
    return "add_pooling_layer" in inspect.signature(network.kind.__init__).parameters


def _pickled(place: _Place) -> str:
    """Why a folder that holds nothing but pickles is not loaded; empty for any other."""
    folder = Path(place.where or "")
    names = [name for name in _PICKLES if (folder / name).is_file()]
    if place.on_hub or not names or any(folder.glob("*.safetensors")):
        return ""
    return f"{names[0]} is a pickle, which can run code and is not loaded; save_pretrained writes {_SAFE}"


def _preprocess(transformers: Any, processor: Any, config: Any, network: _Network, place: _Place) -> Preprocess | None:
    """What the saved processor says; where none is saved, what is usual for the type, at the config's image size.

    None for one that is saved and cannot be read: what is usual need not be what it says.
    """
    size = getattr(network.config, "image_size", None)
    if processor is None and place.where is not None and (Path(place.where) / _PROCESSOR).exists():
        return None
    if processor is None:
        usual = default_processor(transformers, config)
        stated = None if usual is None else preprocess_of(usual.to_dict(), size, source=place.spec)
        return None if stated is None else resized(stated, size)
    if hasattr(processor, "data_config"):  # a model of timm's in the form of transformers
        return timm_preprocess(processor.data_config)
    return preprocess_of(processor.to_dict(), size, source=f"{place.spec}: {_PROCESSOR}")


def _class_names(config: Any) -> tuple[str, ...]:
    """The names in a config, one a logit; none where they are only numbered or do not fit the logits."""
    names: Mapping[int, object] = config.id2label or {}
    if sorted(names) != list(range(len(names))):
        return ()
    found = tuple(str(names[index]) for index in range(len(names)))
    return () if all(_NO_NAME.fullmatch(name) for name in found) else found


def _reverse_channels(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A forward pre-hook of networks that take B, G, R: images are R, G, B everywhere else."""
    return inputs[0].flip(1), *inputs[1:]


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= _REASON else text[:_REASON] + '...'}"


@contextmanager
def _silent(transformers: Any) -> Iterator[None]:
    """Without messages and bars of the library's, and without its asking the hub to convert anybody's pickles."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    before = os.environ.get(_CONVERSION)
    os.environ[_CONVERSION] = "1"
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if before is None:
            del os.environ[_CONVERSION]
        else:
            os.environ[_CONVERSION] = before
