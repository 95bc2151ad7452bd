"""Pictures as PNG files."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def png_bytes(picture: Image.Image | NDArray[np.uint8]) -> bytes:
    """A picture, or pixels (H, W, 3) uint8, as the content of a PNG file."""
    content = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(content, "PNG")
    return content.getvalue()
