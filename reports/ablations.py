"""The page of ablations: what each class loses without chosen units, beside random sets of as many units.

Those of generators, which lose concepts, are in `generated.py`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from microtome.reports.generated import generated_ablation, is_generated
from microtome.reports.importance import ClassEntry, readable

PICTURED = 40
LISTED = 300
UNITS_LISTED = 40
_RANDOM = ("mean", "low", "high", "min", "max")


def ablations_context(
    kept: Sequence[Mapping[str, Any]], addresses: Mapping[str, str], components: Collection[str] = ()
) -> dict[str, Any]:
    """What ablations.html shows.

    kept: as `ReportRun.ablations` gives them; addresses: pages of classes by name; components: the layers whose units
    are principal components. Of classifiers in "ablations", of generators in "generated", each with its "file".
    """
    shown: list[dict[str, Any]] = []
    generated: list[dict[str, Any]] = []
    damaged: list[dict[str, str]] = []
    for one in kept:
        file = readable(one.get("file", ""))
        error = str(one.get("error", ""))
        made = None if error or not is_generated(one) else generated_ablation(one)
        ablation = None if error or is_generated(one) else _ablation(one, addresses)
        if made is not None:
            generated.append({**made, "file": str(one["file"]), "anchor": f"generated-{len(generated) + 1}"})
        elif ablation is None:
            damaged.append({"file": file, "why": error or "it has not the parts of an ablation"})
        else:
            place = {"components": ablation["layer"] in components, "anchor": f"ablation-{len(shown) + 1}"}
            shown.append({**ablation, **place})
    return {"ablations": shown, "generated": generated, "damaged": damaged}


def pages_by_name(classes: Sequence[ClassEntry], address: Any) -> dict[str, str]:
    """The page of each class by its name; of equal names the first."""
    found: dict[str, str] = {}
    for entry in classes:
        found.setdefault(entry.name, address(entry))
    return found


def _ablation(one: Mapping[str, Any], addresses: Mapping[str, str]) -> dict[str, Any] | None:
    """One ablation, or None where it has not the parts that a picture needs."""
    try:
        rows = [_row(row, addresses) for row in one["rows"]]
        units = [int(unit) for unit in one["units"]]
        found = {
            "name": readable(one["name"]),
            "layer": readable(one["layer"]),
            "chosen_by": readable(one["chosen_by"]),
            "value": readable(one["value"]),
            "removal": readable(one.get("removal", "")),
            "truth": readable(one["truth"]),
            "draws": int(one["draws"]),
            "images": int(one["images"]),
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    if not rows:
        return None
    whole, classes = rows[0], sorted(rows[1:], key=lambda row: -row["fall"])
    pictured = [whole, *classes[:PICTURED]]
    start, step = _axis(min(place for row in pictured for place in row["shares"].values()))
    return {
        **found,
        "units": units[:UNITS_LISTED],
        "unit_count": len(units),
        "whole": whole,
        "pictured": [{**row, "at": _places(row["shares"], start)} for row in pictured],
        "ticks": [{"value": at, "at": 100 * (at - start) / (100 - start)} for at in range(start, 101, step)],
        "listed": [whole, *classes[:LISTED]],
        "classes": len(classes),
        "has_random": any(row["random"] is not None for row in rows),
    }


def _row(row: Mapping[str, Any], addresses: Mapping[str, str]) -> dict[str, Any]:
    """A row in figures, with the accuracies that a picture shows; raises where one is missing or no number."""
    name = readable(row["class"])
    accuracy, without, fall = (_number(row[part]) for part in ("accuracy", "accuracy_without", "fall"))
    given = row.get("random")
    random = None if given is None else {part: _number(given[part]) for part in _RANDOM}
    shares = {"untouched": accuracy, "without": without}
    if random is not None:
        shares |= {part: accuracy - random[part] for part in _RANDOM}
    return {
        "class": name,
        "href": addresses.get(name, ""),
        "images": int(row["images"]),
        "accuracy": accuracy,
        "without": without,
        "fall": fall,
        "random": random,
        "beyond": random is not None and fall > random["high"],
        "shares": shares,
    }


def _number(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError(f"{value} is no finite number")
    return number


def _axis(least: float) -> tuple[int, int]:
    """Where an axis of accuracy up to 100 % begins, so that `least` lies on it, and its ticks' distance, in percent."""
    span = 100 * (1 - min(max(least, 0.0), 1.0))
    reach, step = next(pair for pair in ((20, 5), (40, 10), (60, 20), (100, 25)) if pair[0] >= span - 1e-9)
    return 100 - reach, step


def _places(shares: Mapping[str, float], start: int) -> dict[str, float]:
    """Accuracies as percentages of an axis from `start` percent to 100."""
    return {name: min(max(100 * (100 * s - start) / (100 - start), 0.0), 100.0) for name, s in shares.items()}
