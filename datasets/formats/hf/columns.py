"""Which columns of a HuggingFace dataset are the image, the masks and the class label."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from microtome.datasets.formats.hf.load import Table
from microtome.datasets.formats.hf.options import HfOptions
from microtome.storage.errors import UnknownNameError, UsageError

_IMAGE_NAMES = ("image", "img", "pixel_values")
_LABEL_NAMES = ("label", "labels")
_MASK_NAME = re.compile(r"masks?|annotations?|labels?|seg.*", re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """The columns that are read. label: "" where there is none; unused: columns of images that are none of these."""

    image: str
    masks: tuple[str, ...]
    label: str
    class_names: tuple[str, ...]
    unused: tuple[str, ...]


def choose_columns(tables: Sequence[Table], options: HfOptions) -> Columns:
    """The columns that `options` name, or that are recognised by name and kind; the same in every table.

    Raises UsageError where a column is missing, is of another kind, or could be several.
    """
    first = tables[0]
    masks = options.masks
    if masks is None:
        masks = tuple(name for name in first.images if _MASK_NAME.fullmatch(name) and name != options.image)
    image = options.image or _recognised_image(first, masks, options)
    label = options.label or _recognised_label(first)
    for table in tables:
        for name in (image, *masks):
            _check(table, name, table.images, "an image", options)
        if label:
            _check(table, label, tuple(table.labels), "a class label", options)
            if table.labels[label] != first.labels[label]:
                both = f"{first.split} and {table.split}"
                raise UsageError(f"{options.spec}: {both} name the classes of {label} differently; say split=NAME")
    if image in masks:
        raise UsageError(f"{options.spec}: the column {image} is named as image and as mask; expected two columns")
    unused = tuple(name for name in first.images if name not in (image, *masks))
    return Columns(image, masks, label, first.labels[label] if label else (), unused)


def _recognised_image(table: Table, masks: Sequence[str], options: HfOptions) -> str:
    candidates = [name for name in table.images if name not in masks]
    named = [name for name in _IMAGE_NAMES if name in candidates]
    if len(candidates) == 1 or named:
        return named[0] if named else candidates[0]
    found = f"columns of images: {', '.join(table.images) or 'none'}; all columns: {', '.join(table.columns)}"
    raise UsageError(f"{options.spec}: which column is the image cannot be told; say image=COLUMN ({found})")


def _recognised_label(table: Table) -> str:
    if len(table.labels) == 1:
        return next(iter(table.labels))
    return next((name for name in _LABEL_NAMES if name in table.labels), "")


def _check(table: Table, name: str, suitable: Sequence[str], kind: str, options: HfOptions) -> None:
    if name not in table.columns:
        where = f"the split {table.split} of {options.place}" if table.split else options.place
        raise UnknownNameError("column", name, table.columns, hint=f"Looked in {where}.")
    if name not in suitable:
        which = ", ".join(suitable) or "none"
        raise UsageError(f"{options.spec}: the column {name} is not of the kind {kind}; those that are: {which}")
