"""How large a report is, by part: every file counts once."""

from __future__ import annotations

from pathlib import Path

import pytest

from microtome.reports.single_file import NAME
from microtome.reports.sizes import OTHER, PARTS, PartSize, report_sizes, size_lines, size_words, sizes_of

FILES = {
    "index.html": "pages",
    "layers/units.html": "pages",
    "classes/a.html": "pages",
    NAME: "single",
    "static/pages.js": "static",
    "data/layers/layer1.js": "data",
    "patches/layer1/0.jpg": "patches",
    "explanations/layer1/0.webp": "explanations",
    "ablations/1.png": "ablations",
    "figures/iou.svg": "figures",
    "maps/layer1.png": "maps",
    "map.html": "pages",
    "map/order.js": "map",
    "map/layer1/tsne.js": "map",
    "map/units/tsne.js": "map",
    "map/layer1/units/0.js": "units",
    "map/concepts/units/0.js": "units",
    "map/concepts/1.js": "concepts",
    "map/keys/0.js": "keys",
    "map/sprites/0.webp": "sprites",
}


@pytest.mark.parametrize(("name", "part"), FILES.items())
def test_every_file_has_a_part(name: str, part: str) -> None:
    assert sizes_of([(name, 7)]) == [PartSize(PARTS[part], 1, 7)]


def test_what_is_unknown_is_counted_too() -> None:
    assert sizes_of([("new/a.bin", 3), ("b.bin", 4)]) == [PartSize(OTHER, 2, 7)]


def test_a_folder_adds_up(tmp_path: Path) -> None:
    for number, name in enumerate([*FILES, "a/b/c"]):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(number))
    parts = report_sizes(tmp_path)
    assert [part.part for part in parts] == [*PARTS.values(), OTHER]
    assert sum(part.files for part in parts) == len(FILES) + 1
    assert sum(part.bytes for part in parts) == sum(range(len(FILES) + 1))


def test_lines_align_and_end_with_the_sum() -> None:
    assert size_lines([PartSize("pages", 1, 812), PartSize("map: thumbnails", 1234, 4_710_000)]) == [
        "  pages               812 B          1 file",
        "  map: thumbnails   4.71 MB      1,234 files",
        "  report            4.71 MB      1,235 files",
    ]
    assert size_lines([]) == ["  report       0 B          0 files"]


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (9_996, "10.0 kB"), (99_960, "100 kB"), (999_700, "1.00 MB"),
     (12_345_678, "12.3 MB"), (2_000_000_000, "2.00 GB"), (10**16, "10000 TB")],
)  # fmt: skip
def test_sizes_have_three_digits(size: int, words: str) -> None:
    assert size_words(size) == words
