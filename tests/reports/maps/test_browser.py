"""The page of maps in a browser, opened from disk: planted groups are drawn, lassoed, coloured and linked."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from helpers.browser import needs_browser
from helpers.map_browser import lasso, opened, screen, settled, state
from helpers.map_pages import CLASSES, GROUPS, LAYERS, Planted, write_map_page
from helpers.runs import HOSTILE, HOSTILE_KEY
from numpy.typing import NDArray
from playwright.sync_api import Page

pytestmark = needs_browser

COUNT = 3000


def test_the_last_layer_is_drawn_by_class(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted)
    assert [state(map_page, name) for name in ("layer", "view", "colour", "lit")] == [
        LAYERS[-1],
        "tsne",
        "class",
        COUNT,
    ]
    assert state(map_page, "frames") >= 1
    assert map_page.locator("#map-message").is_hidden()
    assert map_page.inner_text("#map-told").replace("\u202f", "") == f"{COUNT} of {COUNT + 5} images"
    slots = [map_page.evaluate(f"MICROTOME_MAP_STATE.slot({i})") for i in range(50)]
    assert slots == (planted.group[:50] + 1).tolist()
    x, y = map_page.evaluate("MICROTOME_MAP_STATE.place(7)")
    spread = np.ptp(planted.positions, axis=0).max() / 2
    middle = (planted.positions.min(axis=0) + planted.positions.max(axis=0)) / 2
    assert np.allclose([x, y], (planted.positions[7] - middle) / spread, atol=1e-4)


def test_colours_are_on_the_canvas(map_page: Page, planted: Planted) -> None:
    """The pixel under a group's middle has the colour of its class."""
    opened(map_page, planted, "#names=0")
    first = np.flatnonzero(planted.group == 0)
    middle = first[np.abs(planted.positions[first] - planted.positions[first].mean(axis=0)).sum(axis=1).argmin()]
    red, green, blue, alpha = map_page.evaluate(
        "point => { const [x, y] = MICROTOME_MAP_STATE.screen(point).map(Math.round);"
        " return [...document.getElementById('map-canvas').getContext('2d').getImageData(x, y, 1, 1).data] }",
        int(middle),
    )
    assert alpha > 150
    assert blue > green > red


def test_a_lasso_selects_the_planted_group(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted)
    map_page.click("[data-do=lasso]")
    lasso(map_page, planted, 2)
    map_page.wait_for_selector("#map-selection h2")
    settled(map_page)
    expected = np.flatnonzero(planted.group == 2)
    assert map_page.evaluate("MICROTOME_MAP_STATE.selection()") == expected.tolist()
    told = map_page.inner_text("#map-selection .sub").replace("\u202f", "")
    assert told.startswith(f"{len(expected)} images")
    assert map_page.get_attribute("[data-do=lasso]", "aria-pressed") == "false"
    map_page.wait_for_selector("#map-selection h3:text('Concepts more frequent here')")
    bars = map_page.locator("#map-selection .map-bars")
    assert bars.nth(0).locator("li").first.locator("button").inner_text() == CLASSES[2]
    boats = bars.nth(1).locator("li").first
    share, overall = planted.boats[expected].mean(), planted.boats.mean()
    assert boats.locator("button").inner_text() == "boat"
    assert boats.locator("small").last.inner_text() == f"×{share / overall:.1f}"
    assert len(map_page.locator("#map-selection .map-thumb").all()) == 36


def test_a_selection_stays_when_the_layer_changes_and_comes_back_by_its_address(
    map_page: Page, planted: Planted
) -> None:
    opened(map_page, planted)
    map_page.keyboard.down("Shift")
    lasso(map_page, planted, 4)
    map_page.keyboard.up("Shift")
    map_page.wait_for_selector("#map-selection h2")
    map_page.select_option("[name=layer]", LAYERS[0])
    map_page.wait_for_function(f"MICROTOME_MAP_STATE.layer === {LAYERS[0]!r} && MICROTOME_MAP_STATE.idle")
    map_page.select_option("[name=view]", "pca")
    settled(map_page)
    expected = np.flatnonzero(planted.group == 4).tolist()
    assert map_page.evaluate("MICROTOME_MAP_STATE.selection()") == expected
    address = map_page.evaluate("location.hash")
    opened(map_page, planted, address, anew=True)
    assert [state(map_page, "layer"), state(map_page, "view")] == [LAYERS[0], "pca"]
    assert map_page.evaluate("MICROTOME_MAP_STATE.selection()") == expected
    assert map_page.evaluate("location.hash") == address
    map_page.click("#map-selection >> text=let go")
    map_page.wait_for_function("MICROTOME_MAP_STATE.selected === 0")
    assert "lasso" not in map_page.evaluate("location.hash")


def test_hovering_shows_thumbnail_key_and_class(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted)
    point = int(np.flatnonzero(planted.group == 3)[5])
    map_page.mouse.move(*screen(map_page, point))
    map_page.wait_for_selector("#map-tip b")
    assert map_page.inner_text("#map-tip b") == CLASSES[3]
    picture = map_page.locator("#map-tip .map-picture")
    assert "map/sprites/" in picture.evaluate("node => getComputedStyle(node).backgroundImage")
    map_page.mouse.move(5, 5)
    map_page.wait_for_selector("#map-tip", state="hidden")


def test_a_click_picks_a_point_and_shows_its_neighbours(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted)
    mine = np.flatnonzero(planted.group == 5)
    corner = int(mine[planted.positions[mine, 0].argmax()])
    map_page.mouse.click(*screen(map_page, corner))
    map_page.wait_for_selector("#map-point h3")
    settled(map_page)
    assert state(map_page, "point") == corner
    apart = ((planted.positions - planted.positions[corner]) ** 2).sum(axis=1)
    apart[corner] = np.inf
    nearest = np.argsort(apart, kind="stable")[:12]
    assert set(state(map_page, "near")) == set(nearest.tolist())
    assert f"point={corner}" in map_page.evaluate("location.hash")
    facts = map_page.locator("#map-point .facts")
    map_page.wait_for_function("document.querySelector('#map-point .facts dd')")
    assert CLASSES[5] in facts.inner_text()
    assert map_page.locator(".map-ring").count() == 13


PRESS = """async ([across, down]) => {
  const canvas = document.getElementById("map-canvas");
  const corner = canvas.getBoundingClientRect();
  const tell = (kind, x, y, buttons, to) => {
    const Event = kind.startsWith("pointer") ? PointerEvent : MouseEvent;
    to.dispatchEvent(new Event(kind, {bubbles: true, clientX: corner.left + x, clientY: corner.top + y, buttons}));
  };
  const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  tell("mousemove", 10, 10, 0, window);
  await frame();
  tell("mousemove", across, down, 0, window);
  tell("pointerdown", across, down, 1, canvas);
  tell("mousedown", across, down, 1, canvas);
  await frame();
  tell("mouseup", across, down, 0, window);
  return MICROTOME_MAP_STATE.screen(0);
}"""


def test_a_press_right_after_a_move_does_not_drag_the_map(map_page: Page, planted: Planted) -> None:
    """As happens where frames are slow: the mouse comes and presses before the next one is drawn."""
    opened(map_page, planted)
    before = map_page.evaluate("MICROTOME_MAP_STATE.screen(0)")
    assert map_page.evaluate(PRESS, [310, 210]) == pytest.approx(before, abs=0.01)


def test_a_unit_is_lit_up_by_its_address(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted, f"#layer={quote(LAYERS[1], safe='')}&unit=2")
    lit = planted.lit(2)
    assert [state(map_page, "colour"), state(map_page, "lit")] == ["unit", len(lit)]
    strongest = map_page.locator("#map-unit .map-thumb").evaluate_all(
        "nodes => nodes.map(n => Number(n.dataset.point))"
    )
    assert len(strongest) == 24
    assert set(strongest) <= set(lit.tolist())
    link = map_page.locator("#map-unit h2 a")
    assert link.get_attribute("href") == "unit.html#layer=block2%3Aa%2Fb&unit=2"
    assert map_page.inner_text("#map-unit h2") == "Unit 2 · boat"
    map_page.fill("[name=unit]", "3")
    map_page.press("[name=unit]", "Enter")
    map_page.wait_for_function("document.querySelector('#map-unit h2').textContent === 'Unit 3 · tree'")
    settled(map_page)
    assert state(map_page, "lit") == len(planted.lit(3))
    assert "unit=3" in map_page.evaluate("location.hash")


def test_only_the_strongest_images_of_a_unit(map_page: Page, tmp_path: Path) -> None:
    planted = write_map_page(tmp_path, 500, mode="top")
    opened(map_page, planted, "#unit=1")
    assert state(map_page, "lit") == len(planted.lit(1))
    assert "125 strongest images of each unit" in map_page.inner_text("#map-unit")


def test_points_with_a_concept_are_lit_up(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted)
    map_page.select_option("[name=colour]", "concept")
    map_page.wait_for_function("MICROTOME_MAP_STATE.colour === 'concept' && MICROTOME_MAP_STATE.idle")
    map_page.fill("[name=concept]", "BOA")
    map_page.press("[name=concept]", "Enter")
    map_page.wait_for_function(f"MICROTOME_MAP_STATE.lit === {int(planted.boats.sum())}")
    slots = [map_page.evaluate(f"MICROTOME_MAP_STATE.slot({i})") for i in range(60)]
    assert slots == planted.boats[:60].astype(int).tolist()
    assert "concept=3" in map_page.evaluate("location.hash")
    assert "boat" in map_page.inner_text("#map-legend")


def test_a_cluster_is_chosen_from_list_and_address(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted, "#cluster=3")
    assert state(map_page, "selected") == int((planted.group == 3).sum())
    map_page.click("#map-clusters button >> text=harbour")
    map_page.wait_for_function(f"MICROTOME_MAP_STATE.selected === {int((planted.group == 2).sum())}")
    assert "cluster=2" in map_page.evaluate("location.hash")


def on_screen(page: Page) -> NDArray[np.float64]:
    """(n, 2) where every point is on the screen."""
    page.locator("#map-canvas").scroll_into_view_if_needed()
    return np.array(
        page.evaluate(
            "n => { const box = document.getElementById('map-canvas').getBoundingClientRect();"
            " return Array.from({length: n}, (_, i) => i).map(i => MICROTOME_MAP_STATE.screen(i))"
            " .map(([x, y]) => [x + box.x, y + box.y]) }",
            COUNT,
        )
    )


def names_shown(page: Page) -> dict[str, tuple[float, float, float, float]]:
    """The names on the map and their left, top, right and bottom on the screen."""
    found = page.locator(".map-name:visible").evaluate_all(
        "nodes => nodes.map(n => [n.textContent, n.getBoundingClientRect()])"
        " .map(([text, box]) => [text, [box.left, box.top, box.right, box.bottom]])"
    )
    return {text: tuple(box) for text, box in found}


def inside(at: NDArray[np.float64], box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    left, top, right, bottom = box
    return (at[:, 0] > left) & (at[:, 0] < right) & (at[:, 1] > top) & (at[:, 1] < bottom)


@pytest.mark.parametrize("view", ["tsne", "pca"])
def test_names_lie_beside_their_clusters(map_page: Page, planted: Planted, view: str) -> None:
    opened(map_page, planted, f"#view={view}")
    at, names = on_screen(map_page), names_shown(map_page)
    assert len(names) == GROUPS
    for group, name in enumerate(CLASSES):
        box = names[f"{name} (cluster)"]
        mine = at[planted.group == group]
        assert inside(at, box).sum() < 0.03 * len(mine)
        left, top, right, bottom = box
        away = np.hypot(
            np.maximum(0, np.maximum(left - mine[:, 0], mine[:, 0] - right)),
            np.maximum(0, np.maximum(top - mine[:, 1], mine[:, 1] - bottom)),
        )
        assert away.min() < 20


def test_names_do_not_cover_each_other_and_stay_in_view(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted, f"#layer={LAYERS[0]}&at=0,0,40", anew=True)  # groups that mix, far away
    boxes = list(names_shown(map_page).values())
    assert 1 <= len(boxes) < GROUPS
    for number, (left, top, right, bottom) in enumerate(boxes):
        assert not any(
            left < other[2] and other[0] < right and top < other[3] and other[1] < bottom for other in boxes[:number]
        )
    largest = np.bincount(planted.group).argmax()
    assert f"{CLASSES[largest]} (cluster)" in names_shown(map_page)
    opened(map_page, planted, anew=True)
    members = np.flatnonzero(planted.group == 3).tolist()
    x, y = np.mean([map_page.evaluate(f"MICROTOME_MAP_STATE.place({i})") for i in members[::5]], axis=0)
    opened(map_page, planted, f"#at={x:.4f},{y:.4f},0.02", anew=True)  # within a group
    assert list(names_shown(map_page)) == ["forest (cluster)"]


def test_a_name_lets_the_pointer_through(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted, anew=True)
    point = int(np.flatnonzero(planted.group == 4)[3])
    map_page.evaluate(
        "point => { const [x, y] = MICROTOME_MAP_STATE.screen(point);"
        " document.querySelector('.map-name').style.transform = `translate(${x - 20}px, ${y - 8}px)` }",
        point,
    )
    x, y = screen(map_page, point)
    assert sum(inside(np.array([[x, y]]), box).item() for box in names_shown(map_page).values()) == 1
    map_page.mouse.move(x, y)
    map_page.wait_for_selector("#map-tip b")
    assert map_page.inner_text("#map-tip b") == CLASSES[4]
    map_page.mouse.click(x, y)
    map_page.wait_for_function("MICROTOME_MAP_STATE.point >= 0 && MICROTOME_MAP_STATE.idle")
    assert state(map_page, "selected") == 0
    assert planted.group[state(map_page, "point")] == 4


def test_a_candidate_for_a_wrong_label_is_shown_on_the_map(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted)
    first = map_page.locator("#map-wrong li").first
    assert first.inner_text().startswith(f"labelled {CLASSES[planted.group[planted.suspects[0]]]}")
    map_page.click("#map-wrong >> text=show 12 more")
    assert map_page.locator("#map-wrong li").count() == 20
    first.locator("button").click()
    map_page.wait_for_function(f"MICROTOME_MAP_STATE.point === {planted.suspects[0]}")
    settled(map_page)
    box = map_page.locator("#map-canvas").bounding_box()
    assert box is not None
    across, down = map_page.evaluate(f"MICROTOME_MAP_STATE.screen({planted.suspects[0]})")
    assert abs(across - box["width"] / 2) < 2
    assert abs(down - box["height"] / 2) < 2


def test_quality_is_told_and_warned_of(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted)
    assert "0.980" in map_page.inner_text("#map-quality")
    assert "41%" in map_page.inner_text("#map-quality")
    assert map_page.locator("#map-quality .untrained").count() == 0
    map_page.select_option("[name=layer]", LAYERS[0])
    map_page.wait_for_selector("#map-quality .untrained")
    assert map_page.inner_text("#map-quality .untrained") == f"This map should not be believed <{HOSTILE}>."


def test_the_keyboard_moves_zooms_picks_and_selects(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted)
    map_page.focus("#map-canvas")
    target = int(np.flatnonzero(planted.group == 0)[0])
    before = map_page.evaluate(f"MICROTOME_MAP_STATE.screen({target})")
    map_page.keyboard.press("ArrowRight")
    map_page.wait_for_function(f"MICROTOME_MAP_STATE.screen({target})[0] < {before[0]} - 10")
    map_page.keyboard.press("+")
    map_page.wait_for_function("location.hash.includes('at=')")
    map_page.keyboard.press("0")
    map_page.wait_for_function("!location.hash.includes('at=')")
    map_page.keyboard.press("s")
    map_page.wait_for_function(f"MICROTOME_MAP_STATE.selected === {COUNT}")
    map_page.keyboard.press("Enter")
    map_page.wait_for_function("MICROTOME_MAP_STATE.point >= 0")
    map_page.keyboard.press("Escape")
    map_page.wait_for_function("MICROTOME_MAP_STATE.selected === 0 && MICROTOME_MAP_STATE.point === -1")


def test_dragging_and_the_wheel_move_the_map_and_the_address_keeps_where(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted)
    x, y = screen(map_page, 0)
    map_page.mouse.move(600, 500)
    map_page.mouse.down()
    map_page.mouse.move(640, 530, steps=4)
    map_page.mouse.up()
    map_page.wait_for_function("location.hash.includes('at=')")
    moved = screen(map_page, 0)
    assert np.allclose(moved, (x + 40, y + 30), atol=2)
    map_page.mouse.wheel(0, -300)
    map_page.wait_for_function(f"Math.abs(MICROTOME_MAP_STATE.screen(0)[0] - {moved[0]}) > 20")
    map_page.wait_for_timeout(400)
    there = screen(map_page, 0)
    address = map_page.evaluate("location.hash")
    opened(map_page, planted, address, anew=True)
    assert np.allclose(screen(map_page, 0), there, atol=2)


def test_hostile_names_are_read_not_run(map_page: Page, planted: Planted) -> None:
    opened(map_page, planted, "#point=0&unit=1&concept=9&cluster=1&colour=concept")
    map_page.wait_for_function("document.querySelector('#map-point h2').textContent !== '…'")
    assert map_page.inner_text("#map-point h2") == HOSTILE_KEY.replace("\u2028", "\n") or HOSTILE_KEY[
        :20
    ] in map_page.inner_text("#map-point h2")
    assert HOSTILE in map_page.inner_text("#map-selection h2")
    assert HOSTILE in map_page.inner_text("#map-legend")
    map_page.select_option("[name=colour]", "unit")
    map_page.wait_for_selector("#map-unit h2")
    assert map_page.inner_text("#map-unit h2") == f"Unit 1 · {HOSTILE}"


@pytest.mark.parametrize(
    "fragment", ["#layer=nosuch&view=x", "#unit=999999&point=99999999", "#at=1,2&lasso=1,2,3", "#%%%"]
)
def test_a_wrong_address_shows_the_map_all_the_same(map_page: Page, planted: Planted, fragment: str) -> None:
    opened(map_page, planted, fragment)
    assert state(map_page, "layer") == LAYERS[1]
    assert state(map_page, "point") == -1
