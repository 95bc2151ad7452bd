"""Which layer of one run is compared with which of the other."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from microtome.storage.errors import UnknownNameError, UsageError


def layer_pairs(in_a: Sequence[str], in_b: Sequence[str], asked: Sequence[str]) -> list[tuple[str, str]]:
    """Which layer of the first run is compared with which of the second; each pair once.

    Raises UnknownNameError for a name that a run does not have, UsageError where no layer has the same name in both.
    """
    shared = [name for name in in_a if name in in_b]
    if not asked:
        if not shared:
            raise UsageError(
                f"the runs have no layer of the same name ({_some(in_a)}; {_some(in_b)}); "
                "say which is compared with which: --layer NAME_IN_A=NAME_IN_B"
            )
        return [(name, name) for name in shared]
    pairs = [pair for text in asked for pair in _pairs_of(text, in_a, in_b, shared)]
    return list(dict.fromkeys(pairs))


def _pairs_of(text: str, in_a: Sequence[str], in_b: Sequence[str], shared: Sequence[str]) -> list[tuple[str, str]]:
    if text in shared:
        return [(text, text)]
    cuts = [place for place, character in enumerate(text) if character == "="]
    halves = [(text[:cut].strip(), text[cut + 1 :].strip()) for cut in cuts]
    for one, other in halves:
        if one in in_a and other in in_b:
            return [(one, other)]
    if halves:
        one, other = halves[0]
        if one not in in_a:
            raise UnknownNameError("layer of the first run", one, in_a)
        raise UnknownNameError("layer of the second run", other, in_b)
    found = fnmatch.filter(shared, text)
    if not found:
        raise UnknownNameError("layer that both runs have", text, shared, "Or say which is which: --layer A=B.")
    return [(name, name) for name in found]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
