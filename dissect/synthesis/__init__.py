"""Images made by a network: what a unit or a class answers to most strongly, and dreams."""

from __future__ import annotations

from microtome.dissect.synthesis.ascent import StoppedError
from microtome.dissect.synthesis.dreaming import dream
from microtome.dissect.synthesis.images import (
    Made,
    synthesise_classes,
    synthesise_units,
    visualise_classes,
    visualise_units,
)
from microtome.dissect.synthesis.settings import TEXTBOOK, DreamSettings, Settings

__all__ = [
    "TEXTBOOK",
    "DreamSettings",
    "Made",
    "Settings",
    "StoppedError",
    "dream",
    "synthesise_classes",
    "synthesise_units",
    "visualise_classes",
    "visualise_units",
]
