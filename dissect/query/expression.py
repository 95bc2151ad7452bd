"""The words of a query: `concept=car iou>0.1 layer=block*`. Parsing only; nothing here knows a run.

EXPR      = TERM*                       terms are separated by spaces; all must hold
TERM      = FIELD OP VALUE              a value reaches up to the next FIELD OP, or stands in quotes
OP        = "=" | "!=" | ">" | ">=" | "<" | "<="
FIELD     = concept | label | category | layer | unit | iou | tau | state | threshold | ...
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from microtome.storage.errors import UnknownNameError, UsageError

TEXT_FIELDS = ("concept", "label", "category", "layer", "state")
NUMBER_FIELDS = (
    "unit",
    "iou",
    "ceiling",
    "threshold",
    "realised",
    "tau",
    "maximum",
    "mean",
    "dead_share",
    "nan",
    "infinite",
    "information",
)
WORDS = {"tau": ("information",)}
"""What may stand for a number."""
FIELDS = (*TEXT_FIELDS, *NUMBER_FIELDS, "detector")
EXAMPLE = 'for example "concept=car iou>0.1 layer=block*"'

_OPERATOR = r"(>=|<=|!=|==|=|>|<)"
_TERM_START = re.compile(rf"(?<![^\s,])([A-Za-z_][\w-]*)\s*{_OPERATOR}")
_ADDRESS = re.compile(r"^(?P<layer>.+):(?P<unit>\d+)$")


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: `field` is one of FIELDS or iou_SPLIT, `op` as written ("==" becomes "="), `value` unquoted."""

    field: str
    op: str
    value: str

    @property
    def number(self) -> float:
        """The value as a number. Raises UsageError."""
        try:
            value = float(self.value)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise UsageError(f"{self.field}{self.op}{self.value}: {self.field} takes a number, {EXAMPLE}")
        return value


def parse(expression: str) -> list[Term]:
    """The terms of `expression`. Raises UsageError or UnknownNameError for what cannot be read."""
    text = expression.strip()
    starts = list(_TERM_START.finditer(_blank_quotes(text)))
    before = text[: starts[0].start()] if starts else text
    if before.strip():
        raise UsageError(f"cannot read {before.strip()!r} in the query; write FIELD=VALUE terms, {EXAMPLE}")
    ends = [*(start.start() for start in starts[1:]), len(text)][: len(starts)]
    return [
        _term(start.group(1), start.group(2), text[start.end() : end]) for start, end in zip(starts, ends, strict=True)
    ]


def split_address(text: str) -> tuple[tuple[str, int] | None, str]:
    """`layer4:123 tau=0.05` as ((layer, unit), the terms); (None, text) where no such address stands in it."""
    terms = list(_TERM_START.finditer(_blank_quotes(text)))
    for term in terms:
        if term.group(1).lower() != "tau":
            return None, text
    words = text.split()
    places = [word for word in words if not _TERM_START.match(word)]
    found = _ADDRESS.match(places[0]) if len(places) == 1 else None
    if found is None:
        return None, text
    return (found["layer"], int(found["unit"])), " ".join(word for word in words if word != places[0])


def _blank_quotes(text: str) -> str:
    """The text with everything inside quotes replaced, so that operators there are not taken for terms."""
    return re.sub(r"\"[^\"]*\"|'[^']*'", lambda found: "\x00" * len(found.group()), text)


def _term(name: str, op: str, raw: str) -> Term:
    value = raw.strip().rstrip(",").strip()
    value = re.sub(r"\s+(and|AND)$", "", value)
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    field = name.lower().replace("-", "_")
    if field not in FIELDS and not field.startswith("iou_"):
        raise UnknownNameError("query field", name, FIELDS)
    if not value:
        raise UsageError(f"{name}{op} lacks a value, {EXAMPLE}")
    term = Term(field, "=" if op == "==" else op, value)
    if field in TEXT_FIELDS and term.op not in ("=", "!="):
        raise UsageError(f"{name}{op}{value}: {name} is compared by = or !=, {EXAMPLE}")
    if field not in (*TEXT_FIELDS, "detector") and value not in WORDS.get(field, ()):
        _ = term.number
    return term
