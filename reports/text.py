"""Text of a run (names of classes, concepts and layers, keys, messages) as a page may show it."""

from __future__ import annotations

import re
from typing import Any

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_REPLACEMENT = "\ufffd"


def without_controls(text: str) -> str:
    """`text` with U+FFFD for each character that steers how text around it reads.

    These are control characters other than tab and line ends, separators of lines and paragraphs, and all that change
    the direction of writing: a name with one of them could turn round the numbers beside it.
    """
    return _CONTROLS.sub(_REPLACEMENT, text)


def shown(value: Any) -> Any:
    """What a template prints for `value`: text without controls; markup (made of such text) and numbers as they are."""
    return without_controls(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def all_without_controls(value: Any) -> Any:
    """A value of JSON with all its strings `without_controls`, keys of objects apart."""
    if isinstance(value, str):
        return without_controls(value)
    if isinstance(value, dict):
        return {key: all_without_controls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [all_without_controls(item) for item in value]
    return value
