"""What a position of a generator's layer can change: the part of the image that it reaches, measured.

All units of a layer are set to NaN at one position, in a forward pass, and every pixel of the image that comes out as
NaN depends on that position: a NaN survives sums, products with tiny weights and rectifiers. As for the receptive
fields of networks that take images (`receptive_field.py`), a few positions give the law for all, where there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from microtome.dissect.models.generators import image_of
from microtome.dissect.models.model import Model
from microtome.dissect.models.receptive_field import (
    CHUNK,
    Pair,
    ReceptiveField,
    Spans,
    few_positions,
    fit_field,
    many_positions,
    measure,
    seed_at,
    table_field,
    unite,
    whole_image,
)
from microtome.dissect.models.sites import Site, site_of


def measure_fields(model: Model, names: Sequence[str]) -> dict[str, ReceptiveField]:
    """The part of the image that belongs to a position of layers (resolved names), by name: what it sees of an input,
    or in a generator what it can change of the output."""
    if model.generator is None:
        return measure(model, names)
    return {name: _influence(model, name) for name in names}


def _influence(model: Model, name: str) -> ReceptiveField:
    site = site_of(model, name)
    size, grid = model.preprocess.size, site.layout.grid
    try:
        seen = _observe(model, site, few_positions(grid))
        field = fit_field(seen, grid) if all(seen) else None
        if field is None and all(seen):
            field = table_field(_observe(model, site, many_positions(grid)), grid)
    except (RuntimeError, ValueError) as error:
        return whole_image(size, f"not measured: {' '.join(str(error).split())}")
    return field or whole_image(size, "not measured: no change reaches the image")


def _observe(model: Model, site: Site, positions: list[Pair]) -> tuple[Spans, Spans]:
    """The pixels that positions reach, by axis and index."""
    axes: tuple[Spans, Spans] = ({}, {})
    latents = model.inputs(CHUNK)
    for start in range(0, len(positions), CHUNK):
        chosen = positions[start : start + CHUNK]
        with torch.no_grad(), site.replacing(_marking(site, chosen)):
            image = image_of(model.run(latents), CHUNK)
        if image is not None:
            unite(image.isnan().any(dim=1), chosen, axes)
    return axes


def _marking(site: Site, positions: list[Pair]) -> Callable[[Tensor], Tensor]:
    """A copy of a raw tensor with NaN at one position an image, in all units."""

    def mark(raw: Tensor) -> Tensor:
        marked = raw.clone()
        maps = site.layout.maps(marked, CHUNK)
        changed = maps.masked_fill(seed_at(maps, positions), torch.nan)
        if maps.untyped_storage().data_ptr() == marked.untyped_storage().data_ptr():
            maps.copy_(changed)
            return marked
        raise ValueError("its positions lie in an order of their own")

    return mark
