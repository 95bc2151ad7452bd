"""Colour names: the published model, checked by what does not come from it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import ImageColor
from skimage.color import rgb2lab

from microtome.datasets.free.colours import (
    COLOUR_TERMS,
    cielab,
    memberships,
    name_colours,
    name_exactly,
    term_table,
)
from microtome.datasets.scenes import ScenesDataset


def term(*rgb: int) -> str:
    return COLOUR_TERMS[int(name_colours(np.array([[rgb]], np.uint8))[0, 0]) - 1]


def css(name: str) -> str:
    return term(*ImageColor.getrgb(name)[:3])


def test_the_terms_are_the_eleven() -> None:
    assert len(COLOUR_TERMS) == 11
    assert list(COLOUR_TERMS) == sorted(COLOUR_TERMS)
    assert set(COLOUR_TERMS[:1]) == {"black"}


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        ((0, 0, 0), "black"),
        ((128, 128, 128), "gray"),
        ((255, 255, 255), "white"),
        ((255, 0, 0), "red"),
        ((0, 255, 0), "green"),
        ((0, 0, 255), "blue"),
        ((255, 255, 0), "yellow"),
        ((0, 255, 255), "blue"),
        ((255, 0, 255), "pink"),
        ((255, 165, 0), "orange"),
        ((200, 0, 0), "red"),
        ((240, 20, 20), "red"),
        ((255, 60, 60), "red"),
        ((20, 60, 230), "blue"),
    ],
)
def test_the_corners_of_a_display(rgb: tuple[int, int, int], expected: str) -> None:
    assert term(*rgb) == expected


@pytest.mark.parametrize(
    ("expected", "names"),
    [
        ("black", "black"),
        ("blue", "royalblue steelblue skyblue dodgerblue lightblue deepskyblue cornflowerblue mediumblue midnightblue"),
        ("brown", "saddlebrown"),
        ("gray", "gray silver dimgray darkgray"),
        ("green", "darkgreen forestgreen limegreen seagreen lightgreen olivedrab palegreen springgreen lawngreen"),
        ("orange", "darkorange orange sandybrown coral chocolate"),
        ("pink", "hotpink deeppink pink lightpink palevioletred"),
        ("purple", "purple indigo rebeccapurple darkviolet mediumpurple blueviolet darkorchid darkmagenta"),
        ("red", "crimson firebrick red"),
        ("white", "white snow whitesmoke ivory ghostwhite"),
        ("yellow", "gold yellow khaki"),
    ],
)
def test_css_colours_of_an_obvious_kind(expected: str, names: str) -> None:
    assert {name: css(name) for name in names.split()} == dict.fromkeys(names.split(), expected)


# Average sRGB colours to which speakers of English gave these names on their own displays; from the public data of
# Kim, Thayer, Silva and Heer, "Color names across languages" (EuroVis 2019). The last word is the basic term.
SPOKEN = """
green 94 179 80, purple 144 67 178, blue 74 107 202, pink 230 106 172, brown 136 88 49, red 209 47 49,
orange 232 129 48, yellow 230 219 68, gray 145 150 149, black 36 31 34, lime green 133 229 66,
light green 141 222 116, dark green 51 102 48, light blue 112 189 228, sky blue 102 184 232, dark blue 46 51 142,
forest green 55 111 53, navy blue 42 52 119, dark purple 95 40 110, neon green 95 239 68, hot pink 235 50 159,
royal blue 50 56 196, light purple 182 123 213, bright green 85 227 74, mint green 128 228 160,
olive green 121 140 55, dark pink 199 70 130, light brown 174 127 78, baby blue 139 196 234, light pink 238 169 203,
burnt orange 206 105 40, seafoam green 115 219 161, dark brown 78 45 32, grass green 94 177 61,
bright purple 167 56 220, army green 104 122 55, dark red 150 33 38, sea green 95 196 145, mustard yellow 213 184 51,
pale green 168 222 153, bright blue 77 122 233, royal purple 109 40 155, brick red 168 52 43, neon pink 239 55 191,
midnight blue 40 40 100, dark orange 209 102 38, dark yellow 196 175 50, dark gray 77 80 82, ocean blue 62 118 182,
deep purple 93 37 113, light yellow 238 237 135, light gray 197 201 194, light orange 238 163 78,
pale blue 152 189 218, pale pink 233 176 195, deep blue 46 51 161
"""


def test_names_agree_with_those_given_in_another_experiment() -> None:
    missed = set()
    for words in SPOKEN.replace("\n", " ").split(","):
        *name, red, green, blue = words.split()
        if term(int(red), int(green), int(blue)) != name[-1]:
            missed.add(" ".join(name))
    assert missed == {"light brown", "light gray"}  # named orange and white


def test_grays_are_neutral_and_in_order() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3)
    names = [COLOUR_TERMS[number - 1] for number in name_colours(ramp)[0]]
    assert sorted(set(names), key=names.index) == ["black", "gray", "white"]
    lightness = rgb2lab(ramp)[0, :, 0]
    first = names.index("gray"), names.index("white")
    assert abs(lightness[first[0]] - 28.28) < 1
    assert abs(lightness[first[1]] - 79.65) < 1


@pytest.mark.parametrize("lightness", [20, 36, 46, 58, 70, 85])
def test_hues_follow_one_another_and_none_comes_twice(lightness: float) -> None:
    angle = np.radians(np.arange(0, 360, 0.5))
    ring = np.stack([np.full(720, lightness), 30 * np.cos(angle), 30 * np.sin(angle)], axis=1)
    names = [COLOUR_TERMS[number] for number in memberships(ring).argmax(axis=1)]
    runs = [name for place, name in enumerate(names) if name != names[place - 1]]
    assert len(runs) == len(set(runs))
    order = ["red", "orange", "brown", "yellow", "green", "blue", "purple", "pink"]
    start = runs.index("green")
    places = [order.index(name) for name in runs[start:] + runs[:start]]
    turned = [(place - order.index("green")) % len(order) for place in places]
    assert turned == sorted(turned)


@pytest.mark.parametrize("number", range(1, 12))
def test_every_term_is_one_region(number: int) -> None:
    """No holes, no islands: the cells of RGB with a name hang together, but for a crumb of the whole."""
    region = (term_table() == number).reshape(64, 64, 64)
    largest = _largest_component(region)
    assert largest >= 0.99 * region.sum()


def _largest_component(region: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> int:
    from scipy.ndimage import label

    labels, _ = label(region, np.ones((3, 3, 3)))
    return int(np.bincount(labels.ravel())[1:].max())


def test_memberships_are_shares_of_one() -> None:
    colours = np.random.default_rng(0).uniform(0, 255, (20000, 3))
    found = memberships(cielab(colours))
    sums = found.sum(axis=1)
    assert found.min() >= 0
    assert sums.min() > 1 - 1e-9
    assert sums.max() < 1.2
    assert (sums > 1.02).mean() < 0.02


def test_borders_between_neighbours_are_crossed_at_a_half() -> None:
    """Far from the neutral axis the two terms of a border have half a membership each."""
    angle = np.radians(np.arange(0, 360, 0.01))
    ring = np.stack([np.full(36000, 58.0), 40 * np.cos(angle), 40 * np.sin(angle)], axis=1)
    found = memberships(ring)
    names = found.argmax(axis=1)
    changes = np.flatnonzero(names != np.roll(names, 1))
    assert len(changes) == 7
    best = np.sort(found[changes], axis=1)[:, ::-1]
    np.testing.assert_allclose(best[:, 0], 0.5, atol=0.03)
    np.testing.assert_allclose(best[:, 1], 0.5, atol=0.03)


def test_cielab_is_that_of_other_implementations() -> None:
    colours = np.random.default_rng(1).integers(0, 256, (1, 5000, 3)).astype(np.uint8)
    ours = cielab(colours[0].astype(np.float64))
    opencv = cv2.cvtColor((colours / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    assert np.linalg.norm(ours - rgb2lab(colours)[0], axis=1).max() < 0.05
    assert np.linalg.norm(ours - opencv, axis=1).max() < 0.5
    np.testing.assert_allclose(cielab(np.array([[255.0, 255, 255]])), [[100, 0, 0]], atol=1e-9)


def test_the_table_is_the_formula() -> None:
    colours = np.random.default_rng(2).integers(0, 256, (40000, 3)).astype(np.uint8)
    direct = name_exactly(colours.astype(np.float64))
    assert (name_colours(colours[None])[0] == direct).mean() > 0.98
    centres = (colours >> 2).astype(np.float64) * 4 + 1.5
    np.testing.assert_array_equal(name_colours(colours[None])[0], name_exactly(centres))


def test_where_the_table_differs_the_formula_hesitates() -> None:
    colours = np.random.default_rng(3).integers(0, 256, (40000, 3)).astype(np.uint8)
    lab = cielab(colours.astype(np.float64))
    calm = np.hypot(lab[:, 1], lab[:, 2]) < 70
    found = np.sort(memberships(lab), axis=1)
    certain = calm & (found[:, -1] - found[:, -2] > 0.98)
    agree = name_colours(colours[None])[0] == name_exactly(colours.astype(np.float64))
    assert certain.mean() > 0.3
    assert agree[certain].mean() > 0.995


def test_only_vivid_colours_are_renamed() -> None:
    colours = np.random.default_rng(4).integers(0, 256, (40000, 3)).astype(np.float64)
    lab = cielab(colours)
    renamed = name_exactly(colours) != memberships(lab).argmax(axis=1) + 1
    assert 0 < renamed.mean() < 0.025
    assert (np.hypot(lab[renamed, 1], lab[renamed, 2]) > 75).all()


def test_the_table_cannot_be_written_to() -> None:
    table = term_table()
    assert table.shape == (64**3,)
    assert table.dtype == np.uint8
    assert table.min() == 1
    assert table.max() == 11
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 5


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
def test_any_image_is_named_pixel_by_pixel(image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    names = name_colours(image)
    assert names.shape == image.shape[:2]
    assert names.dtype == np.uint8
    assert names.min() >= 1
    assert names.max() <= 11
    np.testing.assert_array_equal(names, name_colours(np.asfortranarray(image)))
    np.testing.assert_array_equal(names[::-1, ::-1], name_colours(image[::-1, ::-1]))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (0, 4)])
def test_extreme_shapes(shape: tuple[int, int]) -> None:
    assert name_colours(np.zeros((*shape, 3), np.uint8)).shape == shape


def test_threads_that_begin_together_get_the_same() -> None:
    term_table.cache_clear()
    image = np.random.default_rng(5).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: name_colours(image), range(16)))
    assert all(np.array_equal(found[0], other) for other in found)
    assert pickle.loads(pickle.dumps(name_colours)) is name_colours


def test_nothing_is_computed_at_import() -> None:
    code = "from microtome.datasets.free import colours; print(colours.term_table.cache_info().currsize)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "0"


def test_the_colours_that_scenes_are_painted_with() -> None:
    """Chromatic terms of the generator's own palette agree; its browns and grays reach further than the model's."""
    dataset = ScenesDataset(24, size=64)
    ids = {concept.id: concept.name for concept in dataset.concepts if concept.category == "color"}
    agree: dict[str, list[bool]] = {name: [] for name in ids.values()}
    for index in range(len(dataset)):
        sample = dataset.read(index)
        names = name_colours(np.asarray(cv2.blur(sample.image, (3, 3)), np.uint8))
        for number, name in ids.items():
            agree[name].extend((names[sample.planes[4] == number] == COLOUR_TERMS.index(name) + 1).tolist())
    for name in ("blue", "green", "orange", "purple", "red", "yellow"):
        assert np.mean(agree[name]) > 0.75, name
