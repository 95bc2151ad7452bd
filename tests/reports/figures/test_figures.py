"""Figures for papers: numbers as in the tables, whatever layers are called and however many there are."""

from __future__ import annotations

import csv
import io
import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from helpers.figures import HOSTILE_NAMES, made_concepts, made_layer
from helpers.runs import LAYERS, write_run
from PIL import Image

from microtome.reports.figures.bitmap import png_of
from microtome.reports.figures.colours import LIGHT, on_page
from microtome.reports.figures.depth import concept_figure
from microtome.reports.figures.distribution import BINS, bin_edges
from microtome.reports.figures.layout import HIGHEST
from microtome.reports.figures.marks import WIDTH, Area, Bar, Dot, Figure, Mark, Words
from microtome.reports.figures.marks import Path as Line
from microtome.reports.figures.svg import svg_file, svg_in_notebook, svg_on_page
from microtome.reports.figures.text import on_one_line, shortened, width_of
from microtome.reports.figures.write import run_figures
from microtome.reports.pages import package_file
from microtome.reports.summaries import Concepts, summarise_layer
from microtome.storage.run import Run

SVG = "{http://www.w3.org/2000/svg}"
BAR = 0.04


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return write_run(tmp_path_factory.mktemp("figures") / "run", splits=True)


@pytest.fixture(scope="module")
def figures(run: Run) -> dict[str, Figure]:
    concepts = Concepts.of(run.table("concepts"))
    layers = [summarise_layer(run, entry, concepts) for entry in run.info["layers"]]
    return {figure.name: figure for figure in run_figures(layers, concepts, BAR)}


def table(figure: Figure) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(figure.csv())))


def texts(figure: Figure) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg_file(figure)).iter(f"{SVG}text")]


def many(count: int) -> list[Figure]:
    concepts = made_concepts()
    layers = [made_layer(f"encoder.{n}.mlp.fc1", concepts, seed=n, units=2048 // (n % 7 + 1)) for n in range(count)]
    names = [layer.entry["name"] for layer in layers]
    best = [None if number % 5 == 4 else 1 / (2 + number % 7) for number in range(count)]
    return [*run_figures(layers, concepts, BAR), concept_figure("wheel", names, best, range(count), BAR)]


def hostile() -> list[Figure]:
    concepts = made_concepts(HOSTILE_NAMES[:8])
    layers = [made_layer(name, concepts, seed=n) for n, name in enumerate(HOSTILE_NAMES)]
    numbers = range(len(layers))
    by_depth = concept_figure(HOSTILE_NAMES[1] * 100, HOSTILE_NAMES, [0.1 * n for n in numbers], numbers, BAR)
    return [*run_figures(layers, concepts, BAR), by_depth]


def silent() -> list[Figure]:
    concepts = made_concepts()
    layers = [made_layer("a", concepts, best=0.0), made_layer("b", concepts, units=1)]
    return run_figures(layers, concepts, BAR)


def box(mark: Mark) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a mark; of text by the width that is expected of it."""
    if isinstance(mark, Bar):
        return mark.x, mark.y, mark.x + mark.width, mark.y + mark.height
    if isinstance(mark, Dot):
        return mark.x - mark.radius, mark.y - mark.radius, mark.x + mark.radius, mark.y + mark.radius
    if isinstance(mark, Words):
        wide = width_of(on_one_line(mark.text), mark.size)
        left = mark.x - wide * {"start": 0, "middle": 0.5, "end": 1}[mark.anchor]
        if mark.angle:  # slanted, it ends at (x, y)
            return mark.x - 0.77 * wide, mark.y, mark.x, mark.y + 0.65 * wide
        return left, mark.y - 0.7 * mark.size, left + wide, mark.y
    across, down = zip(*mark.points, strict=True)
    return min(across), min(down), max(across), max(down)


ALL = {
    "one layer": lambda: many(1),
    "three layers": lambda: many(3),
    "fifty layers": lambda: many(50),
    "two hundred layers": lambda: many(200),
    "hostile names": hostile,
    "no detectors": silent,
}


def test_unique_detectors_are_those_of_the_tables(run: Run, figures: dict[str, Figure]) -> None:
    rows = table(figures["unique-detectors"])
    assert [row["layer"] for row in rows] == list(LAYERS)
    for row in rows:
        units = run.layer_table(row["layer"], "units")
        found = units[units["is_detector"]].drop_duplicates("concept_id")
        assert int(row["all"]) == len(found)
        counted = found["category"].value_counts()
        assert {name: int(row[name]) for name in counted.index} == counted.to_dict()
        hints = [mark.hint for mark in figures["unique-detectors"].marks if isinstance(mark, Bar)]
        assert {f"{row['layer']}: {many} {name}" for name, many in counted.items()} <= set(hints)


def test_the_distribution_is_that_of_the_tables(run: Run, figures: dict[str, Figure]) -> None:
    for row in table(figures["iou-distribution"]):
        units = run.layer_table(row["layer"], "units")
        iou = units["iou"].fillna(0).to_numpy()
        assert (int(row["units"]), int(row["detectors"])) == (len(units), units["is_detector"].sum())
        assert float(row["p50"]) == np.median(iou)
        assert float(row["p95"]) == np.quantile(iou, 0.95)
        assert float(row["maximum"]) == iou.max()
        bins = {name: int(count) for name, count in row.items() if name.startswith("units in")}
        assert sum(bins.values()) == len(units)
        beyond = [count for name, count in bins.items() if float(name.split("(")[1].split(",")[0]) >= BAR]
        assert sum(beyond) == units["is_detector"].sum()


def test_detectors_by_depth_are_those_of_the_tables(run: Run, figures: dict[str, Figure]) -> None:
    for row in table(figures["detectors-by-depth"]):
        units = run.layer_table(row["layer"], "units")
        labels = units["concept_id"][units["is_detector"]]
        assert (int(row["units"]), int(row["detectors"])) == (len(units), len(labels))
        assert int(row["unique_detectors"]) == labels.nunique()


def test_a_concept_by_depth_keeps_its_numbers() -> None:
    figure = concept_figure("wheel", ["a", "b", "c"], [0.1, None, 0.25], [3, 0, 7], BAR)
    rows = [(row["layer"], float(row["best_iou"]), int(row["detectors"])) for row in table(figure)]
    assert rows == [("a", 0.1, 3), ("b", 0.0, 0), ("c", 0.25, 7)]
    assert "b best IoU 0.000, 0 detecting" in figure.description
    assert len([mark for mark in figure.marks if isinstance(mark, Dot)]) == 5  # none where no mask meets it


def test_points_lie_where_the_numbers_are(figures: dict[str, Figure]) -> None:
    figure = figures["detectors-by-depth"]
    dots = [mark for mark in figure.marks if isinstance(mark, Dot)]
    rows = table(figure)
    upper = dots[: len(rows)]
    counts = [int(row["detectors"]) for row in rows]
    grid = [mark for mark in figure.marks if isinstance(mark, Line)][:2]
    zero, first = (line.points[0][1] for line in grid)
    ticks = [mark.text for mark in figure.marks if isinstance(mark, Words)]
    step = float(ticks[2])
    for dot, count in zip(upper, counts, strict=True):
        assert (zero - dot.y) / (zero - first) * step == pytest.approx(count)


@pytest.mark.parametrize("kind", ALL)
def test_a_figure_is_xml_that_keeps_within_its_page(kind: str) -> None:
    for figure in ALL[kind]():
        assert figure.height <= HIGHEST
        tree = ET.fromstring(svg_file(figure))
        assert tree.get("viewBox") == f"-4 -4 468 {figure.size[1]:.2f}".rstrip("0").rstrip(".")
        labelled = (tree.get("aria-labelledby") or "").split()
        said = [element for element in tree if element.tag in (f"{SVG}title", f"{SVG}desc")]
        assert [element.get("id") for element in said] == labelled
        assert all(element.text for element in said)
        for mark in figure.marks:
            left, top, right, bottom = box(mark)
            assert left >= -4, (figure.name, mark)
            assert right <= WIDTH + 4, (figure.name, mark)
            assert top >= -4, (figure.name, mark)
            assert bottom <= figure.height + 4, (figure.name, mark)


def test_hostile_names_stay_names() -> None:
    for figure in hostile():
        for text in (svg_file(figure), svg_on_page(figure), svg_in_notebook(figure, "key")):
            assert "<script" not in text
            assert "<img" not in text
            assert len(text) < 120_000
            assert not set("\x00\x1b\u202e\u2066\ufffe") & set(text)
            text.encode("utf-8")
        assert figure.csv().count("x" * 10_000) <= 2
        assert not set("\x00\x1b\u202e\u2066") & set(figure.csv())
        assert png_of(figure).startswith(b"\x89PNG")


def test_every_layer_of_many_is_in_the_table() -> None:
    for figure in many(200):
        assert len(table(figure)) == 200
        assert any(re.fullmatch(r"Every \d+\w\w layer is named\.", text) for text in texts(figure))


def test_nothing_to_show_is_shown_as_nothing() -> None:
    concepts = made_concepts()
    assert run_figures([], concepts, BAR) == []
    unique, distribution, _ = silent()
    assert table(unique)[0]["all"] == "0"
    assert float(table(distribution)[0]["maximum"]) == 0


def test_the_same_figure_gives_the_same_bytes() -> None:
    for one, other in zip(hostile(), hostile(), strict=True):
        assert svg_file(one) == svg_file(other)
        assert png_of(one) == png_of(other)
        assert one.csv() == other.csv()


def test_a_png_shows_what_the_svg_says(figures: dict[str, Figure]) -> None:
    figure = figures["unique-detectors"]
    picture = Image.open(io.BytesIO(png_of(figure))).convert("RGB")
    assert picture.size == (1950, int(figure.size[1] * 300 / 72))
    assert "Software" not in picture.info
    drawn = np.asarray(picture)
    assert (drawn[0, 0] == 255).all()
    for mark in figure.marks:
        if isinstance(mark, Bar):
            x, y = (mark.x + mark.width / 2 + 4) * 300 / 72, (mark.y + mark.height / 2 + 4) * 300 / 72
            wanted = [int(LIGHT[mark.fill][at : at + 2], 16) for at in (1, 3, 5)]
            assert drawn[int(y), int(x)].tolist() == wanted


def test_a_users_settings_of_matplotlib_change_nothing(figures: dict[str, Figure]) -> None:
    import matplotlib

    figure = figures["iou-distribution"]
    before = png_of(figure)
    with matplotlib.rc_context({"lines.antialiased": False, "text.usetex": True, "savefig.facecolor": "black"}):
        assert png_of(figure) == before
        assert matplotlib.rcParams["text.usetex"] is True


def test_colours_are_those_of_the_style_sheet() -> None:
    css = package_file("static", "report.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)[:2]
    )
    assert {name: light[name] for name in LIGHT} == LIGHT
    assert LIGHT.keys() <= dark.keys()
    assert on_page("object") == "var(--object, #0072b2)"


@pytest.mark.parametrize(
    ("bar", "highest"), list(itertools.product([0.0, 0.001, 0.04, 0.3, 0.9], [0.01, 0.06, 0.5, 1.0]))
)
def test_bins_meet_at_the_bar(bar: float, highest: float) -> None:
    edges = bin_edges(bar, highest)
    assert edges[0] == 0
    assert edges[-1] >= highest - 1e-12
    assert 1 <= len(edges) - 1 <= 1.5 * BINS
    equal = edges if bar == 0 or bar >= 0.6 * edges[-1] / BINS else np.delete(edges, 1)
    assert np.allclose(np.diff(equal), equal[1], rtol=1e-6)
    assert bar in edges or bar > edges[-1]


def test_names_lose_their_middle() -> None:
    assert shortened("block1", 8, 100) == "block1"
    short = shortened("features.encoder.layers.11.mlp.fc1", 8, 80)
    assert short.startswith("feat")
    assert short.endswith("fc1")
    assert width_of(short, 8) <= 80
    assert shortened("a\n b\x00", 8, 100) == "a b\ufffd"
    assert len(shortened("y" * 1_000_000, 8, 100)) < 40


def test_areas_are_closed(figures: dict[str, Figure]) -> None:
    for mark in figures["iou-distribution"].marks:
        if isinstance(mark, Area):
            assert mark.points[0][1] == mark.points[-1][1]


def test_files_of_a_report(run: Run, tmp_path: Path) -> None:
    from microtome.reports.figures.write import write_figures

    concepts = Concepts.of(run.table("concepts"))
    layers = [summarise_layer(run, entry, concepts) for entry in run.info["layers"]]
    shown = write_figures(tmp_path, layers, concepts, BAR)
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert written == {f"{figure.name}.{ending}" for figure in shown for ending in ("svg", "png", "csv")}
    assert [figure.name for figure in shown if figure.element is None] == ["unique-detectors"]
