"""What the spec of a HuggingFace dataset says: `hf:PLACE?image=...&mask=...`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl

from microtome.storage.errors import UsageError

EXAMPLE = "hf:~/data/saved?image=image&mask=mask&classes=classes.csv"
_KEYS = ("image", "mask", "label", "split", "config", "classes")


@dataclass(frozen=True)
class HfOptions:
    """A parsed spec; None for what it does not say.

    place: a folder, or the name of a dataset on the hub; masks: the mask columns, () for none of them
    """

    spec: str
    place: str
    image: str | None = None
    masks: tuple[str, ...] | None = None
    label: str | None = None
    split: str | None = None
    config: str | None = None
    classes: str | None = None


def parse_spec(text: str) -> HfOptions:
    """What follows `hf:`. Raises UsageError for an option that there is not, or that is there twice."""
    place, _, tail = text.partition("?")
    spec = f"hf:{text}"
    if not place:
        raise UsageError(f"{spec!r} names no dataset; expected a folder or a name on the hub, such as {EXAMPLE}")
    try:
        pairs = parse_qsl(tail, keep_blank_values=True, strict_parsing=True) if tail else []
    except ValueError:
        raise UsageError(f"{spec!r}: options are key=value, joined by '&', such as {EXAMPLE}") from None
    given: dict[str, str] = {}
    for key, value in pairs:
        if key == "streaming":
            raise UsageError(f"{spec!r}: streaming datasets are not supported; rows are read in any order")
        if key not in _KEYS or key in given:
            problem = "is given twice" if key in given else f"is no option; there are {', '.join(_KEYS)}"
            raise UsageError(f"{spec!r}: {key!r} {problem}. An example: {EXAMPLE}")
        if not value and key != "mask":
            raise UsageError(f"{spec!r}: {key} is empty; write {key}=... or leave it out")
        given[key] = value
    masks = given.pop("mask", None)
    columns = None if masks is None else tuple(part.strip() for part in masks.split(",") if part.strip())
    if columns and len(set(columns)) < len(columns):
        raise UsageError(f"{spec!r}: a column is twice in mask={masks}; name each of them once")
    return HfOptions(spec, place, masks=columns, **given)
