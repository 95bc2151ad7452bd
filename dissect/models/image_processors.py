"""What the image processors of transformers do to an image, as a `Preprocess`.

A processor resizes, crops, rescales and normalises as its settings (preprocessor_config.json) say. Where it squeezes an
image into a rectangle, Microtome resizes the shorter side and crops the centre, as for every other model; for images of
the rectangle's shape that is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from microtome.dissect.models.preprocess import INTERPOLATIONS, Preprocess, Triple, parse_mean, parse_std
from microtome.storage.errors import UsageError

Settings = Mapping[str, Any]
"""The settings of an image processor, as its `to_dict` gives them."""
_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_TOWER = "_vision_model"  # ends the types of image towers, whose processor is that of the model with two
_SQUEEZED_FROM = 384  # ConvNeXt's processor crops below this side only
_LEVIT_RESIZE = 256 / 224


def image_processor(transformers: Any, where: str) -> Any:
    """The image processor saved beside a model; None where there is none that can be used without the hub's code."""
    try:
        return transformers.AutoImageProcessor.from_pretrained(where, trust_remote_code=False)
    except (OSError, ValueError, ImportError):
        return None


def default_processor(transformers: Any, config: Any) -> Any:
    """The image processor of a config's model type with its default settings; None where the type has none."""
    name = str(config.model_type).removesuffix(_TOWER)
    kind = transformers.CONFIG_MAPPING[name] if name in transformers.CONFIG_MAPPING else type(config)
    known = transformers.IMAGE_PROCESSOR_MAPPING.get(kind, ())
    classes = known.values() if isinstance(known, Mapping) else known
    for each in classes:
        try:
            if each is not None:
                return each()
        except (TypeError, ValueError, ImportError):  # not to be had without settings, or without another library
            continue
    return None


def preprocess_of(
    settings: Settings, image_size: object = None, *, source: str = "the image processor"
) -> Preprocess | None:
    """What a processor with these settings does; None where they do not say how large its images come out.

    image_size: the side, or (height, width), that the model's config states, for settings that leave it open;
    source: opens error messages. Raises UsageError for a mean or deviation that cannot be.
    """
    resize, size = _geometry(settings, pair(image_size))
    if size is None:
        return None
    mean, std = _normalisation(settings, source)
    return Preprocess(size=size, resize=resize, mean=mean, std=std, interpolation=_interpolation(settings))


def resized(preprocess: Preprocess, image_size: object) -> Preprocess:
    """The same preprocessing for images of a config's `image_size`; as it is where the config states none."""
    size = pair(image_size)
    if size is None or size == preprocess.size:
        return preprocess
    share = min(size) / min(preprocess.size)
    resize = None if preprocess.resize is None else round(preprocess.resize * share)
    return Preprocess(size, resize, preprocess.mean, preprocess.std, preprocess.interpolation)


def reverses_channels(settings: Settings) -> bool:
    """Whether the model takes its channels as B, G, R."""
    return bool(settings.get("do_flip_channel_order")) or _is(settings, "PPLCNet")


def pair(size: object) -> tuple[int, int] | None:
    """(height, width) of a side or a pair; None for anything else."""
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size, size
    if isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
        height, width = size
        if all(isinstance(side, int) and side > 0 for side in size):
            return height, width
    return None


def _geometry(settings: Settings, image_size: tuple[int, int] | None) -> tuple[int | None, tuple[int, int] | None]:
    """(resize, size) of a `Preprocess`."""
    shorter, whole = _sides(settings.get("size")) if settings.get("do_resize", True) else (None, None)
    crop = _sides(settings.get("crop_size"))[1] if settings.get("do_center_crop") else None
    share = settings.get("crop_pct") or 1.0
    if shorter is not None:
        if _is(settings, "Levit"):
            share = 1 / _LEVIT_RESIZE
        if crop is None and "crop_pct" in settings:
            crop = (shorter, shorter)
            share = share if shorter < _SQUEEZED_FROM else 1.0
        return int(shorter / share), crop or image_size or (shorter, shorter)
    if whole is not None:
        height, width = (int(side / share) for side in whole)
        return (height if height == width else None), crop or (height, width)
    return None, crop or image_size


def _sides(size: object) -> tuple[int | None, tuple[int, int] | None]:
    """The shorter side, or (height, width), that a `size` names; neither where it bounds the longer side."""
    if isinstance(size, Mapping):
        known = {key: value for key, value in size.items() if value is not None}
        if {"height", "width"} <= set(known):
            return None, pair((known["height"], known["width"]))
        side = known.get("shortest_edge")
        return (side if pair(side) and "longest_edge" not in known else None), None
    return None, pair(size)


def _is(settings: Settings, model: str) -> bool:
    """Whether these are a processor's that does something special without a setting that would say so."""
    return str(settings.get("image_processor_type")).startswith(f"{model}ImageProcessor")


def _normalisation(settings: Settings, source: str) -> tuple[Triple, Triple]:
    """Mean and deviation on the [0, 1] scale of all that is done to values: (v - mean) / std."""
    scale, offset = 255.0, 0.0  # of 8-bit values
    if settings.get("do_rescale", True):
        scale *= float(settings.get("rescale_factor") or 1 / 255)
        offset = 1.0 if settings.get("rescale_offset") else 0.0
    scale = 1.0 if math.isclose(scale, 1.0, abs_tol=1e-6) else scale
    mean, std, again = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)
    if settings.get("do_normalize"):
        mean, std = _three(settings, "image_mean", source), _three(settings, "image_std", source)
    if settings.get("include_top"):  # EfficientNet's divides once more
        again = _three(settings, "image_std", source)
    means = [(m + offset) / scale for m in mean]
    deviations = [s * twice / scale for s, twice in zip(std, again, strict=True)]
    return parse_mean(means, source), parse_std(deviations, source)


def _three(settings: Settings, key: str, source: str) -> Triple:
    value = settings.get(key)
    try:
        red, green, blue = map(float, value if isinstance(value, Sequence) else [value] * 3)
    except (TypeError, ValueError):
        raise UsageError(f"{source}: {key} is {value!r}; expected three numbers (R, G, B)") from None
    return red, green, blue


def _interpolation(settings: Settings) -> str:
    value = settings.get("resample")
    value = getattr(value, "value", value)  # an enum of Pillow's numbers, or of torchvision's names
    name = value if isinstance(value, str) else _RESAMPLING.get(value if isinstance(value, int) else -1, "")
    return name if name in INTERPOLATIONS else "bicubic"
