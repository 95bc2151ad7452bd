"""Image files to arrays, whatever the file: upright 8-bit RGB, label masks, and the crop that a model sees.

Every file either decodes or raises SampleError with a short reason; no warning and no other exception comes
out. All functions may be called from many threads, and no setting of Pillow's is changed.

What becomes of the less common kinds of image: the first frame of an animation or page of a document; the EXIF
orientation is applied; transparent pixels are laid over white; 16-bit values are scaled from [0, 65535], floats
from [0, 1] (or from [0, 255] where a value is above 1); CMYK without a colour profile.
"""

from __future__ import annotations

import functools
import io
import os
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from microtome.datasets.geometry import CropGeometry
from microtome.storage.errors import SampleError

MAX_PIXELS = 178_956_970
"""Images of more pixels are refused before they are decoded; it is where Pillow itself refuses by default."""

T = TypeVar("T", bound=np.generic)
Interpolation = Literal["bilinear", "bicubic", "nearest"]
Source = bytes | str | os.PathLike[str]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_WHOLE_IS_CHEAP = 8
_USUAL = ("JPEG", "PNG")
_RUNS_OTHER_PROGRAMS = {"EPS"}
_QUIET_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_ORIENTATION_TAG = 0x0112
_FIRST_TURNED = 5
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data_or_path: Source, key: str) -> NDArray[np.uint8]:
    """The image as (H, W, 3) uint8 RGB in [0, 255], upright, writable.

    data_or_path: the file's bytes, or its path; key: how the sample is called in errors. Raises SampleError.
    """
    with _opened(data_or_path, key) as image:
        orientation = _load(image)
        rgb = _to_rgb(image)
        if orientation in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[orientation])
        return np.array(rgb)


def image_size(data_or_path: Source, key: str) -> tuple[int, int]:
    """(height, width) of the image as it stands upright, from the file's head alone. Raises SampleError."""
    with _opened(data_or_path, key) as image:
        turned = _orientation(image) >= _FIRST_TURNED
        return (image.width, image.height) if turned else (image.height, image.width)


def decode_mask(data_or_path: Source, key: str) -> NDArray[np.uint16]:
    """A label mask as (h, w) uint16: the numbers as they are stored, never the colours of a palette.

    Accepted: grey and indexed images of 1 to 16 bits, and 8-bit RGB whose channels are equal. Raises SampleError.
    """
    with _opened(data_or_path, key) as image:
        raw_mode = _raw_mode(image)
        _check_depth(image, raw_mode)
        image.load()
        return _to_ids(image, raw_mode)


def decode_channels(data_or_path: Source, key: str) -> NDArray[np.uint8]:
    """A mask whose colour channels hold numbers, (h, w, 3) uint8 as stored, for formats that code ids as RGB.

    Accepted: 8-bit RGB alone; grey and indexed images are another kind of mask. Raises SampleError.
    """
    with _opened(data_or_path, key) as image:
        if image.mode != "RGB":
            raise _UnsuitableError(f"a mask of kind {image.mode}; expected RGB")
        _check_depth(image, _raw_mode(image))
        return np.array(image)


def resize_crop(
    image: NDArray[np.uint8], geometry: CropGeometry, interpolation: Interpolation = "bilinear"
) -> NDArray[np.uint8]:
    """The crop that a model sees: (H, W, 3) uint8 from an (height, width, 3) uint8 RGB image.

    Equal to resizing the whole image with Pillow (antialiased) and cutting out the crop, as torchvision does;
    where the crop is less than an eighth of the resized image only that part is computed, in which pixels may
    differ by the rounding between Pillow's two passes. "nearest" takes the pixels that `crop_labels` takes.
    Padding is black.
    """
    (height, width), (crop_height, crop_width) = image.shape[:2], geometry.size
    if (height, width) != (geometry.height, geometry.width):
        raise ValueError(f"the geometry is for {geometry.height}x{geometry.width}, the image {height}x{width}")
    if interpolation == "nearest" or geometry.resized == (height, width):
        whole: NDArray[np.uint8] = _gather(image[None], geometry, geometry.size)[0]
        return whole
    rh, rw = geometry.resized
    rows = slice(max(0, geometry.top), min(rh, geometry.top + crop_height))
    columns = slice(max(0, geometry.left), min(rw, geometry.left + crop_width))
    seen = _resize(image, geometry, rows, columns, _FILTERS[interpolation])
    if seen.shape[:2] == (crop_height, crop_width):
        return seen
    padded = np.zeros((crop_height, crop_width, 3), np.uint8)
    first_row, first_column = max(0, -geometry.top), max(0, -geometry.left)
    padded[first_row : first_row + seen.shape[0], first_column : first_column + seen.shape[1]] = seen
    return padded


def crop_labels(planes: NDArray[np.uint16], geometry: CropGeometry, label_size: tuple[int, int]) -> NDArray[np.uint16]:
    """The labels under the crop: (P, LH, LW) uint16 from planes (P, h, w) that cover the whole image.

    Nearest: each pixel of the label grid takes the plane's label at its centre; 0 where the crop is padding.
    """
    return _gather(planes[..., None], geometry, label_size)[..., 0]


def _resize(
    image: NDArray[np.uint8],
    geometry: CropGeometry,
    rows: slice,
    columns: slice,
    resampling: Image.Resampling,
) -> NDArray[np.uint8]:
    """These rows and columns of the resized image.

    Pillow picks the order of its two passes by the size of the output, and rounds between them: asking for the
    part alone can give other values than the whole. So the whole is made, unless it dwarfs the part.
    """
    rh, rw = geometry.resized
    height, width = rows.stop - rows.start, columns.stop - columns.start
    source = Image.fromarray(image)
    if rh * rw <= _WHOLE_IS_CHEAP * height * width:
        whole = source.resize((rw, rh), resampling)
        return np.array(whole.crop((columns.start, rows.start, columns.stop, rows.stop)))
    top, left, bottom, right = geometry.source_box()
    return np.array(source.resize((width, height), resampling, box=(left, top, right, bottom)))


def _gather(planes: NDArray[T], geometry: CropGeometry, label_size: tuple[int, int]) -> NDArray[T]:
    """(P, h, w, X) to (P, LH, LW, X) at the centres of the label grid; 0 in the padding."""
    rows, columns = geometry.label_indices(label_size, (planes.shape[1], planes.shape[2]))
    taken = planes[:, rows][:, :, columns]
    taken[:, rows < 0] = 0
    taken[:, :, columns < 0] = 0
    return np.ascontiguousarray(taken)


class _UnsuitableError(Exception):
    """A whole file with unusable contents; its text is the reason."""


@contextmanager
def _opened(source: Source, key: str) -> Iterator[Image.Image]:
    """The image, identified and not yet decoded; whatever goes wrong inside comes out as SampleError."""
    try:
        with _byte_stream(source, key) as stream:
            _silence_pillow()
            with Image.open(stream, formats=_formats()) as image:
                _check_size(image, key)
                yield image
    except SampleError:
        raise
    except Exception as error:  # the decoders raise nearly every type there is on damaged input
        raise SampleError(key, _reason(error)) from error


def _byte_stream(source: Source, key: str) -> BinaryIO:
    if isinstance(source, bytes):
        stream: BinaryIO = io.BytesIO(source)
        length = len(source)
    else:
        status = os.stat(source)
        if stat.S_ISDIR(status.st_mode):
            raise SampleError(key, "a folder, not an image file")
        if not stat.S_ISREG(status.st_mode):
            raise SampleError(key, "not a regular file")
        length = status.st_size
        stream = open(source, "rb") if length else io.BytesIO()  # noqa: SIM115 (the caller closes it)
    if not length:
        raise SampleError(key, "empty file (0 bytes)")
    return stream


def _silence_pillow() -> None:
    """Keep Pillow's warnings in, also where warnings are errors.

    `warnings.catch_warnings` is not safe among threads; a filter for Pillow's modules, always in front, is.
    """
    if not warnings.filters or warnings.filters[0] != _QUIET_PILLOW:
        warnings.filterwarnings("ignore", module=r"PIL\.")


@functools.cache
def _formats() -> tuple[str, ...]:
    """Every format that Pillow decodes by itself, in the order in which it tries them: the usual ones first."""
    Image.init()
    others = (name for name in Image.ID if name not in {*_USUAL, *_RUNS_OTHER_PROGRAMS})
    return (*_USUAL, *others)


def _check_size(image: Image.Image, key: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise SampleError(key, f"too large: {image.width}x{image.height}, more than {MAX_PIXELS:,} pixels in all")
    if image.width < 1 or image.height < 1:
        raise SampleError(key, "an image without pixels")


def _reason(error: Exception) -> str:
    """A short reason for samples.parquet, without paths, which differ between machines."""
    known: tuple[tuple[type[Exception], str], ...] = (
        (FileNotFoundError, "the file is missing"),
        (NotADirectoryError, "the file is missing"),
        (PermissionError, "no permission to read the file"),
        (UnidentifiedImageError, "not an image in a format that can be read"),
        (Image.DecompressionBombError, f"too large: more than {MAX_PIXELS:,} pixels"),
        (MemoryError, "too large for the memory there is"),
    )
    if isinstance(error, _UnsuitableError):
        return str(error)
    for kind, reason in known:
        if isinstance(error, kind):
            return reason
    if isinstance(error, OSError) and error.filename is not None:
        return f"the file cannot be read ({error.strerror})"
    text = " ".join(str(error).split())[:120]
    if "truncated" in text.lower():
        return f"truncated image file ({text})"
    return f"damaged image ({text or type(error).__name__})"


def _load(image: Image.Image) -> int:
    """Decode, and return the EXIF orientation that is still to be applied (TIFF is upright once loaded)."""
    image.load()
    return _orientation(image)


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata does not spoil the pixels
        return 1
    return orientation if isinstance(orientation, int) else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey values of more than 8 bits, or floats, scaled to [0, 255] by the range that their kind has."""
    grey = values.astype(np.float64)
    low, high = float(grey.min()), float(grey.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise _UnsuitableError("values that are not finite")
    if low < 0 or high > 65535:
        raise _UnsuitableError(f"values from {low:g} to {high:g}; expected [0, 65535], or [0, 1] for floats")
    if values.dtype.kind == "f" and high <= 255:
        grey *= 255 if high <= 1 else 1
    else:
        grey *= 255 / 65535
    return np.rint(grey).astype(np.uint8)


def _raw_mode(image: Image.Image) -> str:
    """How the samples lie in the file ("L;4": 4-bit grey), "" where the format does not tell."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    raw_mode = arguments if isinstance(arguments, str) else (arguments or ("",))[0]
    return raw_mode if isinstance(raw_mode, str) else ""


def _check_depth(image: Image.Image, raw_mode: str) -> None:
    """Refuse masks of several channels of 16 bits: Pillow keeps the upper 8 of each."""
    if ";16" in raw_mode and image.mode in ("LA", "RGB", "RGBA"):
        raise _UnsuitableError(f"a mask of kind {image.mode}, 16 bits; expected 8 bits")


def _to_ids(image: Image.Image, raw_mode: str) -> NDArray[np.uint16]:
    values = np.array(image)
    if image.mode in ("LA", "RGBA"):
        if (values[..., -1] != 255).any():
            raise _UnsuitableError("a mask with transparent pixels; expected grey or indexed")
        values = values[..., :-1]
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise _UnsuitableError("a mask in colours; expected label ids in a grey or indexed PNG")
        values = values[..., 0]
    if values.dtype.kind == "f" or image.mode == "CMYK":
        raise _UnsuitableError(f"a mask of kind {image.mode}; expected grey or indexed")
    if values.dtype.kind == "i" and values.size and (values.min() < 0 or values.max() > 65535):
        raise _UnsuitableError("a mask with ids outside 0..65535")
    # Pillow stretches grey of 2 and 4 bits to [0, 255]; the id is the number that is stored.
    stretch = {"L;2": 85, "L;4": 17}.get(raw_mode, 1)
    return values.astype(np.uint16) // np.uint16(stretch)
