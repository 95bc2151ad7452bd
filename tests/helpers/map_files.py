"""The map page's data files read back, each step as plainly as it can be said."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray


def decode_file(text: str) -> tuple[str, bytes]:
    """The name and the content of a data file."""
    found = re.fullmatch(r'MICROTOME_MAP_DATA\((".*?"),"([A-Za-z0-9+/=]*)"\);\n', text)
    assert found is not None, text[:100]
    return json.loads(found[1]), gzip.decompress(base64.b64decode(found[2], validate=True))


def read_data(report: Path, address: str) -> bytes:
    """The content of the data file at `address`, as the manifest has it; its name must be that without ".js"."""
    name, content = decode_file((report / unquote(address)).read_text(encoding="ascii"))
    assert f"{name}.js" == address
    return content


def read_manifest(report: Path) -> dict[str, Any]:
    """The manifest of a report."""
    text = (report / "map" / "manifest.js").read_text(encoding="ascii")
    assert text.startswith("window.MICROTOME_MAP=")
    assert text.endswith(";\n")
    manifest: dict[str, Any] = json.loads(text.removeprefix("window.MICROTOME_MAP=").removesuffix(";\n"))["manifest"]
    return manifest


def undo_deltas(values: NDArray[Any]) -> NDArray[np.int64]:
    """Values from their differences."""
    total, found = 0, []
    for value in values.tolist():
        total += value
        found.append(total)
    return np.array(found, np.int64)


def decode_order(content: bytes) -> NDArray[np.int64]:
    """The samples."""
    apart = [value // 2 if value % 2 == 0 else -(value // 2) - 1 for value in np.frombuffer(content, "<u4").tolist()]
    return undo_deltas(np.array(apart, np.int64))


def decode_view(content: bytes, box: list[float]) -> NDArray[np.float64]:
    """The positions (n, 2)."""
    n = len(content) // 4
    raw = np.frombuffer(content, np.uint8).astype(np.int64)
    across, down = raw[:n] + 256 * raw[n : 2 * n], raw[2 * n : 3 * n] + 256 * raw[3 * n :]
    x, y = undo_deltas(across) % 65536, undo_deltas(down) % 65536
    return np.stack([box[0] + x * (box[2] - box[0]) / 65535, box[1] + y * (box[3] - box[1]) / 65535], axis=1)


def decode_bits(content: bytes, count: int) -> NDArray[np.bool_]:
    """Whether each of `count` points has it."""
    return np.array([bool(content[i // 8] >> (i % 8) & 1) for i in range(count)], np.bool_)


def decode_top(content: bytes, count: int) -> NDArray[np.uint8]:
    """The value at each of `count` points, 0 where none is given."""
    fires = int(np.frombuffer(content, "<u4", 1)[0])
    assert len(content) == 4 + 5 * fires
    values = np.zeros(count, np.uint8)
    points = undo_deltas(np.frombuffer(content, "<u4", fires, 4))
    values[points] = np.frombuffer(content, np.uint8, fires, 4 + 4 * fires)
    return values
