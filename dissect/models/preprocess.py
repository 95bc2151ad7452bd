"""How an image becomes a model's input: sizes, normalisation, and where each model states them.

An RGB image in [0, 1] is resized so that its shorter side has `resize` pixels, cropped in the centre to `size`,
then normalised per channel as (x - mean) / std.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from microtome.storage.errors import UnknownNameError, UsageError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
_KEYS = ("size", "resize", "mean", "std", "interpolation")

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing of one model.

    size: (H, W) of the network's input in pixels; resize: shorter side after resizing in pixels, None = as small as
    still covers the crop; mean, std: per channel R, G, B on the [0, 1] scale; interpolation: one of INTERPOLATIONS.
    """

    size: tuple[int, int]
    resize: int | None
    mean: Triple
    std: Triple
    interpolation: str = "bicubic"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dict; `from_dict` reads it back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, source: str = "preprocess") -> Preprocess:
        """Read `{"size", "mean", "std"}` (and optionally "resize", "interpolation"), as modules and runs state it.

        `size` is the side of a square or a pair (height, width). Without "resize" the shorter side of the image becomes
        as long as the square's; for other pairs it is None. `source` opens error messages. Raises UsageError.
        """
        missing = [key for key in ("size", "mean", "std") if key not in data]
        if missing:
            raise UsageError(f"{source} lacks {', '.join(missing)}: expected size, mean and std")
        for key in data:
            if key not in _KEYS:
                raise UnknownNameError(f"key of {source}", str(key), _KEYS)
        size = parse_size(data["size"], source)
        resize = data.get("resize", None if size[0] != size[1] else size[0])
        return cls(
            size=size,
            resize=None if resize is None else _positive(resize, f"{source}: resize"),
            mean=parse_mean(data["mean"], source),
            std=parse_std(data["std"], source),
            interpolation=parse_interpolation(data.get("interpolation", "bicubic"), source),
        )


@dataclass(frozen=True)
class PreprocessOverrides:
    """What the user's flags say about preprocessing; None = not said. Values are checked by `resolve`.

    `size` alone also sets the shorter side to the same length; `resize` says otherwise.
    """

    size: int | tuple[int, int] | None = None
    resize: int | None = None
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    interpolation: str | None = None

    def given(self) -> dict[str, Any]:
        """Only the fields that were set."""
        return {key: value for key in _KEYS if (value := getattr(self, key)) is not None}


def resolve(spec: str, stated: Preprocess | None, overrides: PreprocessOverrides | None) -> Preprocess:
    """Combine what the model states with the user's flags, which win.

    Raises UsageError naming the missing flags where neither says enough.
    """
    given = overrides.given() if overrides else {}
    if stated is None:
        missing = [key for key in ("size", "mean", "std") if key not in given]
        if missing:
            flags = " ".join(f"--{key}" for key in missing)
            raise UsageError(
                f"{spec} does not say how its images are prepared; give {flags} "
                "(for example --size 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225), or set module.preprocess "
                'to {"size": ..., "mean": [...], "std": [...]} in its factory'
            )
        return Preprocess.from_dict(given, source="the preprocessing flags")
    if not given:
        return stated
    base = stated.to_dict()
    if "size" in given:
        del base["resize"]
    return Preprocess.from_dict(base | given, source="the preprocessing flags")


def untouched(size: tuple[int, int]) -> Preprocess:
    """Images of `size` (H, W), as they are."""
    return Preprocess(size, None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bilinear")


def of_module(module: object, spec: str) -> Preprocess | None:
    """The `preprocess` attribute of a factory's module, or None where it has none (a method is none)."""
    stated = getattr(module, "preprocess", None)
    if stated is None or isinstance(stated, Preprocess):
        return stated
    if isinstance(stated, Mapping):
        return Preprocess.from_dict(stated, source=f"{spec}: module.preprocess")
    if callable(stated):
        return None
    raise UsageError(f"{spec}: module.preprocess is a {type(stated).__name__}; expected a dict with size, mean and std")


def parse_size(value: object, source: str) -> tuple[int, int]:
    """An int or a pair (height, width) of positive pixels."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) == 1:
            value = (value[0], value[0])
        if len(value) != 2:
            raise UsageError(f"{source}: size is {list(value)}; expected one number or (height, width)")
        return _positive(value[0], f"{source}: size"), _positive(value[1], f"{source}: size")
    side = _positive(value, f"{source}: size")
    return side, side


def parse_mean(value: object, source: str) -> Triple:
    """Three finite numbers on the [0, 1] scale; one number stands for all three channels."""
    mean = _triple(value, f"{source}: mean")
    if max(map(abs, mean)) > 2:
        raise UsageError(f"{source}: mean {list(mean)} is for pixels in 0..255; expected RGB in [0, 1] (divide by 255)")
    return mean


def parse_std(value: object, source: str) -> Triple:
    """Three positive numbers; one number stands for all three channels."""
    std = _triple(value, f"{source}: std")
    if min(std) <= 0:
        raise UsageError(f"{source}: std {list(std)} must be above 0")
    return std


def parse_interpolation(value: object, source: str) -> str:
    """One of INTERPOLATIONS, in any case."""
    name = str(value).lower()
    if name not in INTERPOLATIONS:
        raise UnknownNameError(f"interpolation ({source})", str(value), INTERPOLATIONS)
    return name


def _positive(value: object, what: str) -> int:
    try:
        number = int(cast(Any, value))
        exact = number == float(cast(Any, value))
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{what} is {value!r}; expected a number of pixels") from None
    if number < 1 or not exact:
        raise UsageError(f"{what} is {value!r}; expected a whole number of pixels above 0")
    return number


def _triple(value: object, what: str) -> Triple:
    values: list[Any] = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value] * 3
    if len(values) == 1:
        values = values * 3
    try:
        numbers = [float(v) for v in values]
    except (TypeError, ValueError):
        raise UsageError(f"{what} is {value!r}; expected numbers") from None
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise UsageError(f"{what} is {value!r}; expected three finite numbers (R, G, B)")
    return numbers[0], numbers[1], numbers[2]
