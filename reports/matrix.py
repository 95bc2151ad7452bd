"""The picture of units by classes: how far each class falls without each unit, bounded for layers of any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from microtome.reports.importance import Importance

UNITS = 60
CLASSES = 40
CLASSES_OF_UNIT = 3
_STEPS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
"""Falls at which a cell gets darker; below the first it is empty."""


def matrix_context(importance: Importance, addresses: Mapping[int, str]) -> dict[str, Any]:
    """The units and classes with the largest falls, each unit beside those that hurt the same class.

    addresses: the page of each class. Cells are (style, text): falls in points, rises with another colour.
    """
    falls = np.nan_to_num(importance.fall, nan=0.0)
    count = len(importance.classes)
    if count > CLASSES:
        classes = np.sort(np.argsort(-falls.max(axis=0, initial=0.0), kind="stable")[:CLASSES])
    else:
        classes = np.arange(count)
    falls = falls[:, classes]
    most = falls.max(axis=1, initial=0.0)
    units = np.argsort(-most, kind="stable")[:UNITS]
    units = units[most[units] > 0]
    worst = falls[units].argmax(axis=1) if len(classes) else np.zeros(0, np.int64)
    units = units[np.lexsort((units, -most[units], worst))]
    return {
        "classes": [{"name": importance.classes[k], "href": addresses[k]} for k in classes.tolist()],
        "all_classes": count,
        "all_units": len(importance.fall),
        "rows": [
            {"unit": unit, "concept": int(importance.label[unit]), "cells": [_cell(fall) for fall in falls[unit]]}
            for unit in units.tolist()
        ],
        "steps": [{"style": _cell(step)[0], "at": step} for step in _STEPS],
    }


def _cell(fall: float) -> tuple[str, str]:
    """The style class and the text of a fall: whole points."""
    step = int(np.searchsorted(_STEPS, abs(fall) + 1e-9, side="right"))
    if step == 0:
        return "", ""
    sign = "u" if fall < 0 else "d"
    text = f"{100 * abs(fall):.0f}"
    return f"{sign}{step}", f"−{text}" if fall < 0 else text


def classes_payload(importance: Importance, addresses: Mapping[int, str]) -> dict[str, Any]:
    """For the cards of a layer page: the classes that need each unit most, as [class, fall]."""
    needing = [importance.needing(unit, CLASSES_OF_UNIT) for unit in range(len(importance.fall))]
    used = sorted({number for classes in needing for number in classes})
    place = {number: at for at, number in enumerate(used)}
    return {
        "names": [importance.classes[number] for number in used],
        "pages": [addresses[number] for number in used],
        "units": [
            [[place[number], round(float(importance.fall[unit, number]), 5)] for number in classes]
            for unit, classes in enumerate(needing)
        ],
    }
