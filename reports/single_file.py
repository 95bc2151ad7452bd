"""A whole report in one file, to be sent to somebody: every page, data file and picture as an element of one document.

The script of the pages shows one of them at a time, by the part of the address after #: `#/layers/block5.html#unit-12`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from urllib.parse import quote

from microtome.reports.bundles import MAP, PAGES
from microtome.reports.pages import ASK_PAGE, GENERATOR_PAGE
from microtome.reports.text import without_controls

NAME = "single-file.html"
LARGE_BYTES = 50_000_000
"""From this size on, mail and browsers have trouble with one file."""

_HELD = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".svg": "image/svg+xml", ".csv": "text/csv"}
_ONLY_SERVED = (GENERATOR_PAGE, ASK_PAGE)
_TEXTS = (".html", ".js")

_HEAD = """<!doctype html>
<html lang="en" data-single-file>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}
</style>
</head>
<body>
<div id="page">
<noscript>This report is drawn by the script in this file; nothing is loaded from the network.</noscript>
</div>
"""


def write_single_file(folder: Path, title: str) -> Path:
    """Write the report in `folder` as `folder/single-file.html` and return its path. One file is in memory at a time.

    Pages that only a server makes useful are left out.
    """
    styles = sorted((folder / "static").glob("*.css"), key=lambda path: (path.name != "report.css", path.name))
    style = "\n".join(path.read_text(encoding="utf-8") for path in styles)
    made = folder / NAME
    with made.open("w", encoding="utf-8") as opened:
        opened.write(_HEAD.format(title=escape(without_controls(title)), style=style))
        for path in _parts(folder):
            opened.write(_element(path, path.relative_to(folder).as_posix()))
        opened.write(f"<script>{_script((folder / 'static' / PAGES).read_text(encoding='utf-8'))}</script>\n")
        opened.write("</body>\n</html>\n")
    return made


def _parts(folder: Path) -> Iterator[Path]:
    """Every file that pages show or load, in the order of their names."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name == NAME or name in _ONLY_SERVED:
            continue
        if name.startswith("static/") and name != f"static/{MAP}":
            continue
        if path.suffix in _TEXTS or path.suffix in _HELD:
            yield path


def _element(path: Path, name: str) -> str:
    """A file as a script element that no browser runs: texts as JSON, pictures in base64."""
    kind = _HELD.get(path.suffix)
    if kind is None:
        content = _safe(path.read_text(encoding="utf-8"))
        return f'<script type="application/json" id="file:{quote(name)}">{content}</script>\n'
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<script type="text/plain" id="file:{quote(name)}" data-type="{kind}">{content}</script>\n'


def _safe(text: str) -> str:
    """A JSON string that can neither end its element nor begin a comment."""
    return json.dumps(text, ensure_ascii=False).replace("<", "\\u003c")


def _script(text: str) -> str:
    """The text of a script that runs, within a script element."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
