"""Images that somebody sends: in base64, small enough, and of a format that is understood."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.images import decode_image, image_size
from microtome.reports.server.questions import RefusedError, whole_number
from microtome.storage.errors import SampleError, UsageError

UPLOAD_BYTES = 10_000_000
UPLOAD_PIXELS = 50_000_000
BODY_BYTES = UPLOAD_BYTES * 4 // 3 + 100_000
"""Of a question that brings an image."""

TOO_LARGE = f"an image may have at most {UPLOAD_BYTES // 1_000_000} MB"
_FORMATS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")


def asked_image(asked: Mapping[str, Any]) -> int | str:
    """The sample that a question is about, or the image that was sent with it, in base64. Raises RefusedError."""
    if ("image" in asked) == ("sample" in asked):
        raise RefusedError(400, "give a sample of the run, or an image")
    if "sample" in asked:
        return whole_number(asked["sample"], "sample")
    if not isinstance(asked["image"], str):
        raise RefusedError(400, "the image is not base64")
    return asked["image"]


def pixels_of(image: int | str) -> int | NDArray[np.uint8]:
    """A sample as it is; the pixels (H, W, 3) of an image that was sent. Raises RefusedError and UsageError."""
    if isinstance(image, int):
        return image
    try:
        content = base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError(400, "the image is not base64") from None
    if len(content) > UPLOAD_BYTES:
        raise RefusedError(413, TOO_LARGE)
    if not content.startswith(_FORMATS):
        raise RefusedError(400, "the file is no image that is understood here; send JPEG, PNG, WebP, GIF, BMP or TIFF")
    try:
        height, width = image_size(content, "the image")
        if height * width > UPLOAD_PIXELS:
            raise UsageError(f"the image has {height * width:,} pixels; at most {UPLOAD_PIXELS:,} are taken")
        return decode_image(content, "the image")
    except SampleError as error:
        raise RefusedError(400, f"the image cannot be read: {error.reason}") from None
