"""The colours of figures by what they stand for: those of the pages, static/report.css.

A file is light, for paper. On a page the same names are its style sheet's variables, so that a figure turns dark with
it; in a notebook, whose colours nobody tells, text takes the colour of the text around it and lines a middle grey.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Palette: TypeAlias = Callable[[str], str]
"""From what a colour stands for to how it is written in an SVG."""

LIGHT = {
    "ink": "#1c232c",
    "soft": "#5d6774",
    "line": "#e2e3de",
    "accent": "#1f5f8b",
    "object": "#0072b2",
    "part": "#4aa8de",
    "material": "#d55e00",
    "texture": "#e0a000",
    "color": "#c4689c",
    "scene": "#00936a",
    "other-0": "#7a6fb0",
    "other-1": "#8a8d91",
    "other-2": "#9b7b4f",
    "other-3": "#5f9ea0",
}
"""As on a light page."""
WHITE = "#ffffff"
_NOTEBOOK = {"ink": "currentColor", "soft": "#808a95", "line": "#80808055", "paper": "none"}


def on_paper(name: str) -> str:
    """For a file: black on white."""
    return WHITE if name == "paper" else LIGHT[name]


def on_page(name: str) -> str:
    """For a page of the report: its own colour, whatever the reader's choice makes of it."""
    return f"var(--{name}, {on_paper(name)})"


def in_notebook(name: str) -> str:
    """For a notebook, light or dark."""
    return _NOTEBOOK.get(name) or LIGHT[name]
