"""What was explained as files: raw values, pictures, a contact sheet, and explain.json, which tells of them all."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from microtome.dissect.attribution.explaining.results import Explained, Guess, Result
from microtome.dissect.attribution.methods import FILTERS, MAPS
from microtome.reports.contact import SIDE, Row, Tile, draw_sheet
from microtome.reports.explanations import mosaic
from microtome.reports.png import png_bytes
from microtome.reports.text import without_controls
from microtome.storage.files import folder_asked, json_bytes, write_asked

SCHEMA_VERSION = 1
MOST_ROWS = 40
"""Images on the contact sheet; those after them have their own files."""

_MOST_ACROSS = 9


@dataclass
class Folder:
    """The folder `--out`: files of the same names are replaced, others stay. Raises UsageError where none can be made.

    methods: in the order of the sheet's columns.
    """

    path: Path
    methods: Sequence[str]
    _rows: list[Row] = field(default_factory=list)
    _left_out: int = 0
    _whole: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        folder_asked(self.path)

    def add(self, explained: Explained, name: str) -> dict[str, Any]:
        """Write what one image came to, as NAME.png, NAME.METHOD.npy and .png; its part of explain.json."""
        write_asked(self.path / f"{name}.png", png_bytes(explained.image))
        methods: dict[str, Any] = {}
        tiles = []
        for result in explained.results.values():
            if result.method.gives == FILTERS:
                methods[result.method.name] = self._once(result)
                continue
            picture = result.picture(explained.image)
            methods[result.method.name] = self._result(result, picture, f"{name}.{result.method.name}")
            tiles.append(_tile(result, picture))
        if len(self._rows) < MOST_ROWS:
            self._rows.append(_row(explained, tiles))
        else:
            self._left_out += 1
        return {"image": explained.name, "file": f"{name}.png", **_told(explained), "methods": methods}

    def finish(self, told: dict[str, Any]) -> dict[str, Any]:
        """Write the sheet and explain.json, which holds `told`; returns what it holds, with "sheet"."""
        sheet = None
        if self._rows:
            note = f"and {self._left_out:,} more images, each with files of its own" if self._left_out else ""
            sheet = "sheet.png"
            rows = _without_empty_columns(self._rows)
            write_asked(self.path / sheet, png_bytes(draw_sheet(rows, note, per_line=_across(len(rows[0].found)))))
        whole = {"schema_version": SCHEMA_VERSION, **told, "sheet": sheet}
        write_asked(self.path / "explain.json", json_bytes(whole))
        return whole

    def _once(self, result: Result) -> dict[str, Any]:
        """What belongs to the model, and to no image: written when it is first met."""
        name = result.method.name
        if name not in self._whole:
            self._whole[name] = self._result(result, result.picture(np.zeros((1, 1, 3), np.uint8)), name)
        return self._whole[name]

    def _result(self, result: Result, picture: NDArray[np.uint8] | None, name: str) -> dict[str, Any]:
        if result.values is None or picture is None:
            return {"refused": result.refused}
        raw = io.BytesIO()
        np.save(raw, np.ascontiguousarray(result.values, np.float32), allow_pickle=False)
        write_asked(self.path / f"{name}.npy", raw.getvalue())
        write_asked(self.path / f"{name}.png", png_bytes(picture))
        known = result.values[np.isfinite(result.values)]
        return {
            "file": f"{name}.npy",
            "picture": f"{name}.png",
            "layer": result.layer,
            "shape": list(result.values.shape),
            "min": float(known.min()) if known.size else None,
            "max": float(known.max()) if known.size else None,
            **({"remark": result.remark} if result.remark else {}),
        }


def _told(explained: Explained) -> dict[str, Any]:
    target = explained.target
    score = explained.score if explained.score is not None and np.isfinite(explained.score) else None
    scores = {"unit": score} if target is None else {"logit": score, "probability": _finite(target.probability)}
    return {
        "classes": [_class(guess) for guess in explained.classes],
        "target": {"layer": explained.layer, "unit": explained.unit} if explained.unit is not None else _class(target),
        "scores": {name: value for name, value in scores.items() if value is not None},
    }


def _class(guess: Guess | None) -> dict[str, Any] | None:
    if guess is None:
        return None
    return {"class": guess.number, "name": guess.name or None, "probability": _finite(guess.probability)}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _tile(result: Result, picture: NDArray[np.uint8] | None) -> Tile:
    """A method's place in the row of an image."""
    if result.values is None:
        return Tile(None, [result.method.name, "does not apply"], missing=without_controls(result.refused))
    if result.method.gives == MAPS:
        picture = mosaic(result.values)
    return Tile(_small(picture), [result.method.name, without_controls(result.remark or result.layer or "")])


def _without_empty_columns(rows: Sequence[Row]) -> list[Row]:
    """Rows without the methods that gave nothing for any of them, unless none did."""
    filled = [any(tile.image is not None for tile in column) for column in zip(*(r.found for r in rows), strict=True)]
    if not any(filled):
        return list(rows)
    return [replace(row, found=[tile for tile, keep in zip(row.found, filled, strict=True) if keep]) for row in rows]


def _across(tiles: int) -> int:
    """How many stand beside each other, so that all lines of a row are about as long."""
    lines = max(1, -(-tiles // _MOST_ACROSS))
    return max(1, -(-tiles // lines))


def _row(explained: Explained, tiles: list[Tile]) -> Row:
    best = explained.classes[0] if explained.classes else None
    lines = [] if best is None else [f"{100 * best.probability:.0f} % {without_controls(best.text)}"]
    title = without_controls(explained.name)
    if explained.subject:
        title += f": {without_controls(explained.subject)} explained"
    return Row(title, Tile(_small(explained.image), lines), tiles)


def _small(picture: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    """A picture no larger than its place on the sheet: many wait there."""
    if picture is None or max(picture.shape[:2]) <= SIDE:
        return picture
    scale = SIDE / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), np.uint8)
