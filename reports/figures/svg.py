"""A figure as SVG: a file that stands alone, or an element within a page or a notebook."""

from __future__ import annotations

from html import escape

from markupsafe import Markup

from microtome.reports.figures.colours import WHITE, Palette, in_notebook, on_page, on_paper
from microtome.reports.figures.marks import MARGIN, Area, Bar, Dot, Figure, Mark, Path, Point, Words
from microtome.reports.figures.text import on_one_line

FONTS = "Helvetica, Arial, 'DejaVu Sans', sans-serif"


def svg_file(figure: Figure) -> str:
    """The content of an SVG file: literal colours on white, its size in points."""
    width, height = map(_number, figure.size)
    ground = f'<rect x="{-MARGIN:g}" y="{-MARGIN:g}" width="{width}" height="{height}" fill="{WHITE}"/>'
    size = f'width="{width}pt" height="{height}pt" font-family="{FONTS}"'
    head = f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" {size}'
    return f"{head} {_open(figure, figure.name)}{ground}\n{_body(figure, on_paper)}\n</svg>\n"


def svg_on_page(figure: Figure) -> Markup:
    """An element for a page of the report: as wide as it is let, in the page's font and colours."""
    return Markup(f'<svg class="paper-figure" {_open(figure, figure.name)}{_body(figure, on_page)}</svg>')


def svg_in_notebook(figure: Figure, key: str) -> Markup:
    """An element that needs no style sheet. key: what its ids begin with, unlike those of any other on the page."""
    style = f"width:100%;max-width:{figure.size[0] * 4 / 3:.0f}px;height:auto;font-family:{FONTS}"
    return Markup(f'<svg style="{style}" {_open(figure, key)}{_body(figure, in_notebook)}</svg>')


def _open(figure: Figure, key: str) -> str:
    """The rest of the first tag, and what a reader that cannot see the figure is told."""
    title, description = (escape(on_one_line(text)) for text in (figure.title, figure.description))
    safe = escape(key)
    width, height = map(_number, figure.size)
    return (
        f'viewBox="{-MARGIN:g} {-MARGIN:g} {width} {height}" role="img" '
        f'aria-labelledby="{safe}-title {safe}-description">'
        f'<title id="{safe}-title">{title}</title><desc id="{safe}-description">{description}</desc>\n'
    )


def _body(figure: Figure, palette: Palette) -> str:
    return "\n".join(_mark(mark, palette) for mark in figure.marks)


def _mark(mark: Mark, palette: Palette) -> str:
    if isinstance(mark, Bar):
        edge = f' stroke="{palette(mark.edge)}" stroke-width="0.6"' if mark.edge else ""
        place = f'x="{_number(mark.x)}" y="{_number(mark.y)}"'
        size = f'width="{_number(mark.width)}" height="{_number(mark.height)}"'
        return _closed(f'<rect {place} {size} fill="{palette(mark.fill)}"{edge}', "rect", mark.hint)
    if isinstance(mark, Dot):
        place = f'cx="{_number(mark.x)}" cy="{_number(mark.y)}" r="{_number(mark.radius)}"'
        return _closed(f'<circle {place} fill="{palette(mark.fill)}"', "circle", mark.hint)
    if isinstance(mark, Area):
        return _closed(f'<polygon points="{_points(mark.points)}" fill="{palette(mark.fill)}"', "polygon", mark.hint)
    if isinstance(mark, Path):
        dashes = f' stroke-dasharray="{" ".join(map(_number, mark.dashes))}"' if mark.dashes else ""
        line = f'fill="none" stroke="{palette(mark.stroke)}" stroke-width="{_number(mark.width)}"{dashes}'
        return f'<polyline points="{_points(mark.points)}" {line}/>'
    return _words(mark, palette)


def _words(mark: Words, palette: Palette) -> str:
    x, y = _number(mark.x), _number(mark.y)
    turned = f' transform="rotate({_number(mark.angle)} {x} {y})"' if mark.angle else ""
    anchor = "" if mark.anchor == "start" else f' text-anchor="{mark.anchor}"'
    weight = ' font-weight="bold"' if mark.bold else ""
    style = f'font-size="{_number(mark.size)}" fill="{palette(mark.colour)}"{anchor}{weight}{turned}'
    return f'<text x="{x}" y="{y}" {style}>{escape(on_one_line(mark.text))}</text>'


def _closed(start: str, tag: str, hint: str) -> str:
    return f"{start}><title>{escape(on_one_line(hint))}</title></{tag}>" if hint else f"{start}/>"


def _points(points: tuple[Point, ...]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: float) -> str:
    """A coordinate to a hundredth of a point, without zeros that say nothing."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
