"""Pictures of explanations: heat over an image, signed pictures around grey, cut-outs, grids of maps and filters."""

from microtome.reports.explanations.grids import filters_grid, maps_grid, mosaic, strongest
from microtome.reports.explanations.overlays import cut_out, heat_of, overlay, picture_of

__all__ = ["cut_out", "filters_grid", "heat_of", "maps_grid", "mosaic", "overlay", "picture_of", "strongest"]
