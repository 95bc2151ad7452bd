"""Pictures of maps: dots where points are, in the page's colours, and what is written around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.maps import plant_maps
from helpers.runs import HOSTILE, LayerShape, write_run
from numpy.typing import NDArray
from PIL import Image

from microtome.reports.maps.canvas import Label, Legend, compose, shortened, wrapped
from microtome.reports.maps.colours import CATEGORICAL, NONE, PRESENT, rgb
from microtome.reports.maps.picture import (
    Colouring,
    by_activation,
    by_class,
    by_cluster,
    by_presence,
    caption,
    colouring,
    render,
    write_picture,
)
from microtome.reports.maps.points import Classes
from microtome.reports.maps.quality import FLAT
from microtome.reports.maps.raster import dot_size, draw_dots, place, to_pixels
from microtome.storage.arrays import PEAKS, PRESENCE, layer_array
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run

LAYER = "layer4.0:conv/2"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = write_run(tmp_path_factory.mktemp("picture") / "run", samples=60, unreadable=2)
    plant_maps(run, umap=True)
    return run


def slow_dots(
    at: NDArray[np.float32], colours: NDArray[np.float32], order: list[int], side: int
) -> NDArray[np.float64]:
    """What `draw_dots` gives, pixel by pixel."""
    radius, opacity = dot_size(len(at), side)
    picture = np.ones((side, side, 3))
    middles = np.arange(side) + 0.5
    for point in order:
        distance = np.hypot(middles[None] - at[point, 0], middles[:, None] - at[point, 1])
        alpha = opacity * np.clip(radius + 0.5 - distance, 0, 1)[..., None]
        picture += alpha * (colours[point] - picture)
    return np.round(picture * 255)


@pytest.mark.parametrize("count", [1, 40, 3000])
def test_dots_are_what_they_are_pixel_by_pixel(count: int) -> None:
    dice = np.random.default_rng(count)
    at = (dice.random((count, 2)) * 70 - 3).astype(np.float32)  # some of them across the edge
    colours = dice.random((count, 3)).astype(np.float32)
    order = dice.permutation(count)
    found = draw_dots(at, colours, order, 64)
    assert np.abs(found - slow_dots(at, colours, order.tolist(), 64)).max() <= 1


def test_dots_are_small_and_clear_where_there_are_many() -> None:
    sizes = [dot_size(count, 1400) for count in (10, 1000, 30_000, 1_000_000, 100_000_000)]
    radii, opacities = zip(*sizes, strict=True)
    assert list(radii) == sorted(radii, reverse=True)
    assert list(opacities) == sorted(opacities, reverse=True)
    assert radii[0] < 8
    assert radii[-1] == 0.6
    assert opacities[-1] > 0.1


def test_the_map_keeps_its_proportions_and_stands_upright() -> None:
    positions = np.array([[0, 0], [10, 0], [0, 5]], np.float64)
    at, scale, middle = place(positions, 200)
    assert np.allclose(at, to_pixels(positions, 200, scale, middle))
    assert np.allclose(at, [[6, 147], [194, 147], [6, 53]])
    assert at[1, 0] - at[0, 0] == pytest.approx(2 * (at[0, 1] - at[2, 1]), rel=1e-5)
    assert (at > 0).all()
    assert (at < 200).all()
    single, _, _ = place(np.array([[3.0, 4.0]]), 100)
    assert single.tolist() == [[50, 50]]


def colours_in(picture: Image.Image) -> set[str]:
    """The colours of single pixels of a picture, nearly, as those of the palette that are there."""
    pixels = np.asarray(picture).reshape(-1, 3) / 255
    palette = (*CATEGORICAL, NONE)
    return {
        name
        for name, value in zip(palette, rgb(*palette), strict=True)
        if (np.abs(pixels - value).max(1) < 0.005).any()
    }


def test_every_class_shows_in_its_colour_on_the_map_and_in_the_legend() -> None:
    dice = np.random.default_rng(0)
    labels = dice.integers(-1, 4, 400)
    classes = Classes.of(pd.Series(labels), ["a", "b", "c", "d"])
    positions = dice.standard_normal((400, 2)) + 8 * labels[:, None]
    chosen = by_class(classes)
    assert [(colour, name) for colour, name, _ in chosen.legend.entries] == [
        *zip(CATEGORICAL[:4], "abcd", strict=True),
        (NONE, "no class"),
    ]
    assert [count for _, _, count in chosen.legend.entries] == [str((labels == k).sum()) for k in (0, 1, 2, 3, -1)]
    picture = render(positions, chosen, title="", lines=[], pixels=600)
    assert picture.width == 600
    assert colours_in(picture) == {*CATEGORICAL[:4], NONE}


def test_many_classes_have_a_legend_of_the_most_frequent() -> None:
    numbers = np.repeat(np.arange(100), np.arange(100) + 1)
    chosen = by_class(Classes.of(pd.Series(numbers), [f"c{n}" for n in range(100)]))
    assert len(chosen.legend.entries) == 24
    assert chosen.legend.entries[0] == (CATEGORICAL[99 % 12], "c99", "100")
    assert chosen.legend.notes == ["and 76 more classes", "12 colours, which repeat"]


def test_what_lights_up_lies_on_top() -> None:
    present = np.array([True, False, True, False])
    chosen = by_presence(present, "sea")
    assert present[chosen.order].tolist() == [False, False, True, True]
    assert np.array_equal(chosen.colours[0], rgb(PRESENT)[0])
    values = np.array([np.nan, 3.0, -1.0, 0.5, np.inf], np.float32)
    active = by_activation(values, "unit 3")
    assert active.order[-1] == 1
    assert active.legend.high == "3"
    assert active.legend.entries == [(NONE, "0 or below", "3")]
    assert by_activation(np.zeros(3), "unit 0").legend.ramp == ()


def test_clusters_bear_their_names_on_the_map() -> None:
    table = pd.DataFrame(
        {"cluster": [0, 1], "name": ["sea", "bed"], "x": [0.0, 9.0], "y": [1.0, 2.0], "samples": [3, 2]}
    )
    chosen = by_cluster(np.array([0, 0, 0, 1, 1, -1]), table, named=True)
    assert chosen.labels == [("sea", 0.0, 1.0), ("bed", 9.0, 2.0)]
    assert chosen.order[0] == 5
    assert chosen.legend.entries[-1] == (NONE, "no cluster", "1")
    assert by_cluster(np.array([0]), table, named=False).labels == []


def test_names_do_not_cover_each_other_and_fit() -> None:
    dots = np.full((300, 300, 3), 255, np.uint8)
    legend = Legend("", [])

    def dark(labels: list[Label]) -> int:
        return int((np.asarray(compose(dots, labels, legend, "", [], 420)).max(axis=2) < 100).sum())

    one = dark([Label("harbour", 150, 150)])
    assert one > 20
    assert dark([Label("harbour", 150, 150), Label("street", 152, 150)]) == one
    assert dark([Label("harbour", 150, 150), Label("street", 100, 250)]) > one
    assert dark([Label("x" * 500, 0, 0)]) > 0


def test_text_is_cut_and_wrapped_to_its_width() -> None:
    assert wrapped("one two three", 10, 1000) == ["one two three"]
    lines = wrapped("word " * 40, 12, 200)
    assert len(lines) > 3
    assert " ".join(lines).split() == ["word"] * 40
    assert shortened("a" * 100, 12, 80).endswith("...")
    assert shortened("größer\u202e 中文", 12, 400) == "größer\ufffd 中文"
    assert shortened("wide", 12, 1) == ""


def test_a_picture_of_a_run(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new" / "map.png"
    write_picture(run, LAYER, path, inches=4, dpi=150)
    picture = Image.open(path)
    assert picture.size[0] == 600
    assert picture.info["dpi"] == pytest.approx((150, 150), abs=0.1)
    assert len(colours_in(picture.convert("RGB"))) >= 2  # by class
    first = path.read_bytes()
    write_picture(run, LAYER, path, inches=4, dpi=150)
    assert path.read_bytes() == first
    for view in ("pca", "umap"):
        write_picture(run, LAYER, path, view=view, colour="none", title=HOSTILE, inches=2)
        assert path.read_bytes() != first


def test_the_line_below_says_what_it_is_and_how_far_it_is_true(run: Run) -> None:
    lines = caption(run, LAYER, run.info["map"][LAYER], "tsne", 58)
    assert lines[0].startswith("t-SNE of 58 images of ")
    assert f"layer {LAYER} of " in lines[0]
    assert "Trustworthiness 0.973, recall@10 0.420" in lines[0]
    assert "measured on 58 of them" in lines[0]
    assert lines[1].startswith("Mind: At a recall of 0.12")
    assert "Trustworthiness" not in " ".join(caption(run, LAYER, run.info["map"][LAYER], "pca", 58))


def test_the_line_below_says_when_principal_components_are_drawn(run: Run) -> None:
    made = run.info["map"][LAYER]
    lines = caption(run, LAYER, {**made, "engine": FLAT}, "tsne", 1)
    assert lines[0].startswith("Principal components 1 and 2 of 1 image of ")
    assert "Trustworthiness" not in lines[0]
    assert lines[1:] == [f"Mind: {warning}" for warning in made["quality"]["warnings"]]


def of(run: Run, colour: str | None) -> tuple[NDArray[np.int64], Colouring]:
    table = run.layer_table(LAYER, "map")
    table = table[np.isfinite(table["x"])]
    return table["sample"].to_numpy(np.int64), colouring(run, LAYER, table, colour, "tsne")


def test_colours_are_what_the_run_says(run: Run) -> None:
    samples, chosen = of(run, "unit:3")
    entry = run.layer(LAYER)
    assert entry["scale"] == 2
    peaks = 2 * run.arrays.read(layer_array(entry["folder"], PEAKS), 0, 60)[samples, 3].astype(np.float32)
    assert (np.diff(np.maximum(peaks, 0)[chosen.order]) >= 0).all()
    assert chosen.legend.high == f"{peaks.max():.4g}"
    assert chosen.legend.title == "peak of unit 3"
    concepts = run.table("concepts")
    bits = np.unpackbits(run.arrays.read(PRESENCE, 0, 60).astype(np.uint8), axis=1, bitorder="little")
    for number in concepts["id"].tolist()[:4]:
        _, shown = of(run, f"concept:{number}")
        expected = bits[samples, number].astype(bool)
        assert np.array_equal((shown.colours == rgb(PRESENT)).all(axis=1), expected)
        assert shown.legend.entries[0][1] == str(concepts.set_index("id")["name"][number])
    assert of(run, None)[1].legend.title == "class"
    assert of(run, "cluster")[1].legend.title == "cluster"


@pytest.mark.parametrize(
    ("colour", "message"),
    [
        ("unit:9999", "has no unit 9999"),
        ("unit:x", "has no unit x"),
        ("unit:²", "has no unit ²"),
        ("unit:٣", "has no unit ٣"),
        (f"unit:{'9' * 5000}", "has no unit 999"),
        ("concept:nothing", "no concept named 'nothing'"),
        ("rainbow", "give none, class, cluster, concept:NAME or unit:NUMBER"),
        ("concept:", "give none, class"),
    ],
)
def test_colours_that_are_not_there_are_refused(run: Run, colour: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        of(run, colour)


def test_what_the_run_does_not_have_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    with pytest.raises(UnknownNameError, match="no layer named 'nix'"):
        write_picture(run, "nix", path)
    with pytest.raises(UnknownNameError, match="view of a map"):
        write_picture(run, LAYER, path, view="3d")
    for inches in (0.1, 1000):
        with pytest.raises(UsageError, match="pixels; give a size"):
            write_picture(run, LAYER, path, inches=inches)
    bare = write_run(tmp_path / "bare", layers={"a": LayerShape(4, 7, 60), "b": LayerShape(4, 7, 60)})
    plant_maps(bare, ["a"], arrays=False, classes=False)
    with pytest.raises(UsageError, match="layer b has no map; make it with: microtome map RUN --layer b"):
        write_picture(bare, "b", path)
    with pytest.raises(UsageError, match="--umap"):
        write_picture(bare, "a", path, view="umap")
    with pytest.raises(UsageError, match="have no classes"):
        write_picture(bare, "a", path, colour="class")
    with pytest.raises(UsageError, match="does not know which concepts"):
        write_picture(bare, "a", path, colour=f"concept:{bare.table('concepts')['name'][0]}")
    write_picture(bare, "a", path, inches=2)  # by cluster
    assert path.is_file()


def test_a_million_points_take_seconds() -> None:
    dice = np.random.default_rng(0)
    numbers = dice.integers(0, 30, 1_000_000)
    positions = (dice.standard_normal((1_000_000, 2)) + 12 * np.stack([numbers % 6, numbers // 6], 1)).astype(
        np.float32
    )
    chosen = by_class(Classes.of(pd.Series(numbers), [f"class {n}" for n in range(30)]))
    picture = render(positions, chosen, title="many", lines=["One million points."], pixels=900)
    assert colours_in(picture) >= set(CATEGORICAL)


def test_a_wide_map_takes_less_height_but_not_less_than_its_legend() -> None:
    wide = np.stack([np.linspace(0, 10, 50), np.sin(np.arange(50))], axis=1)
    few = by_presence(np.arange(50) < 9, "sea")
    many = by_class(Classes.of(pd.Series(np.arange(50) % 20), [f"c{n}" for n in range(20)]))
    flat = render(wide, few, title="", lines=[], pixels=600)
    listed = render(wide, many, title="", lines=[], pixels=600)
    square = render(wide[:, ::-1], few, title="", lines=[], pixels=600)
    assert flat.height < listed.height < square.height
    assert colours_in(flat) == {PRESENT, NONE}
