"""An index of a layer's neighbours in a run: `layers/LAYER/neighbors.METRIC.faiss`, with what is known of it as JSON.

It can be made again at any time, so what is missing, altered or of another state of the run is as good as nothing.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

from microtome.storage.files import json_bytes
from microtome.storage.places import Place

FORMAT = 1


def index_keys(folder: str, metric: str) -> tuple[str, str]:
    """Where the index of the layer in `folder` lies, and its description."""
    return f"layers/{folder}/neighbors.{metric}.faiss", f"layers/{folder}/neighbors.{metric}.json"


def write_index(place: Place, folder: str, metric: str, content: bytes, info: dict[str, Any], made_of: str) -> None:
    """Store an index; made_of: a hash of all that it depends on."""
    content_key, info_key = index_keys(folder, metric)
    place.delete([info_key])
    place.write(content_key, content)
    described = {"format": FORMAT, "made_of": made_of, "size": len(content), "crc32": zlib.crc32(content), "info": info}
    place.write(info_key, json_bytes(described))


def read_index(place: Place, folder: str, metric: str, made_of: str) -> tuple[bytes, dict[str, Any]] | None:
    """The content and `info` of an index that was made of `made_of`; None where there is none that can be relied on."""
    content_key, info_key = index_keys(folder, metric)
    try:
        described = json.loads(place.read(info_key))
        if (described["format"], described["made_of"]) != (FORMAT, made_of):
            return None
        content = place.read(content_key)
        intact = (described["size"], described["crc32"]) == (len(content), zlib.crc32(content))
        return (content, dict(described["info"])) if intact else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
