"""Names as a figure may hold them: on one line, no longer than there is room, and nothing that XML forbids."""

from __future__ import annotations

import re
import unicodedata

from microtome.reports.text import without_controls

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST = 400
"""Characters of a name that are looked at: no figure has room for more."""
_SENTENCE = 60
_NARROW, _WIDE = frozenset("iljtfrI.,:;'|!()[]{}/\\ -\u202f"), frozenset("mwMWQO@%…")


def on_one_line(text: str) -> str:
    """`text` without breaks and controls, and with U+FFFD for characters that XML cannot hold."""
    return " ".join(_FORBIDDEN.sub("\ufffd", without_controls(text)).split())


def width_of(text: str, size: float) -> float:
    """About how wide `text` is in a sans serif of `size`: rather too much than too little, as fonts differ."""
    return size * sum(map(_em, text))


def shortened(text: str, size: float, room: float) -> str:
    """`text` on one line no wider than `room`: where it must, without its middle, since names of layers differ at
    their ends."""
    line = on_one_line(text[: 4 * _MOST] + text[-4 * _MOST :] if len(text) > 8 * _MOST else text)
    if len(line) > _MOST:
        line = line[: _MOST // 2] + "…" + line[-_MOST // 2 :]
    if width_of(line, size) <= room:
        return line
    low, high = 0, len(line)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if width_of(_cut(line, middle), size) <= room else (low, middle - 1)
    return _cut(line, low)


def brief(text: str) -> str:
    """`text` on one line, for a sentence: without its middle where it is longer than most names are."""
    line = on_one_line(text[:_MOST] + text[-_MOST:] if len(text) > 2 * _MOST else text)
    return line if len(line) <= _SENTENCE else f"{line[: _SENTENCE // 2]}…{line[1 - _SENTENCE // 2 :]}"


def _cut(line: str, kept: int) -> str:
    """The first and last characters of `line`, `kept` in all, and dots between them."""
    tail = kept // 2
    return f"{line[: kept - tail].rstrip()}…{line[len(line) - tail :].lstrip()}"


def _em(character: str) -> float:
    if unicodedata.combining(character):
        return 0.0
    if unicodedata.east_asian_width(character) in "FW":
        return 1.05
    if character in _NARROW:
        return 0.38
    if character in _WIDE:
        return 0.95
    return 0.7 if character.isupper() else 0.62
