"""Data files of a report, as its pages are handed them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

_BEFORE, _AFTER = "(window.MICROTOME=window.MICROTOME||[]).push(", ");\n"


def read_page_data(report: Path, name: str) -> Any:
    """The value of `data/NAME.js` in `report`; the file must say that name."""
    text = (report / "data" / f"{name}.js").read_text(encoding="ascii")
    assert text.startswith(_BEFORE), text[:80]
    assert text.endswith(_AFTER)
    said, value = json.loads(text.removeprefix(_BEFORE).removesuffix(_AFTER))
    assert said == quote(name)
    return value
