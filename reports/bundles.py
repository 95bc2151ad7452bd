"""The scripts built from TypeScript (`reports/frontend`), and what takes their place where they are missing."""

from __future__ import annotations

from microtome.reports.pages import package_file
from microtome.reports.payload import safe_json

MAP = "map.js"
PAGES = "pages.js"
GENERATOR = "gan.js"

_MISSING = {
    MAP: "The interactive map",
    PAGES: "What these pages show by script",
    GENERATOR: "Editing what it generates",
}

_INSTEAD = """(function () {
  var place = document.getElementById("map-message") || document.querySelector("main");
  if (!place) return;
  if (place.id) place.textContent = TEXT;
  else place.insertAdjacentText("afterbegin", TEXT);
})();
"""


def words_instead(name: str) -> str:
    """What is said where the script `name` is missing."""
    return (
        f"{_MISSING[name]} is missing from this installation: its script reports/static/{name} was not built. "
        "Build it with `make setup`, then make the pages again with `microtome report RUN`."
    )


def missing_bundles(*, maps: bool, generator: bool) -> list[str]:
    """Of the scripts that a report needs, those that this installation lacks; maps: whether it has a map; generator:
    whether it is of one."""
    wanted = [PAGES, *([MAP] if maps else []), *([GENERATOR] if generator else [])]
    return [name for name in wanted if not package_file("static", name).is_file()]


def script_instead(name: str) -> str:
    """What takes the place of a script that is missing: it says so on the page."""
    return _INSTEAD.replace("TEXT", safe_json(words_instead(name)))
