"""The page of maps in a browser, opened from disk: planted groups are drawn, lassoed, coloured and linked."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from helpers.browser import CHROMIUM, needs_browser
from helpers.map_pages import CLASSES, GROUPS, LAYERS, Planted, write_map_page
from helpers.runs import HOSTILE, HOSTILE_KEY
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

pytestmark = needs_browser

COUNT = 3000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=options)
        yield browser
        browser.close()


def watched(context: BrowserContext, trouble: list[str]) -> Page:
    """A page that notes what is printed, thrown or asked of the network; what software rendering mutters may pass."""
    page = context.new_page()
    page.on("console", lambda said: None if "GL Driver Message" in said.text else trouble.append(said.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss())[1])
    local = ("file:", "data:", "blob:")
    page.on("request", lambda asked: None if asked.url.startswith(local) else trouble.append(asked.url))
    page.on("requestfailed", lambda asked: trouble.append(f"failed: {asked.url}"))
    return page


@pytest.fixture(scope="module")
def shared(browser: Browser) -> Iterator[tuple[Page, list[str]]]:
    """One page for most tests, since the first drawing of each takes its time; and its trouble."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    trouble: list[str] = []
    yield watched(context, trouble), trouble
    context.close()


@pytest.fixture
def page(shared: tuple[Page, list[str]]) -> Iterator[Page]:
    page, trouble = shared
    page.mouse.move(1, 1)
    yield page
    assert not trouble


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return write_map_page(tmp_path_factory.mktemp("map"), COUNT)


def state(page: Page, name: str) -> Any:
    """A member of what the page tells of itself."""
    return page.evaluate(f"MICROTOME_MAP_STATE.{name}")


def settled(page: Page, timeout: float = 30_000) -> None:
    """Wait until the page has drawn what it was asked to."""
    page.wait_for_function("window.MICROTOME_MAP_STATE && MICROTOME_MAP_STATE.idle", timeout=timeout)


def opened(page: Page, planted: Planted, fragment: str = "", *, anew: bool = False) -> Page:
    """The page at an address: loaded, or where it is there already, told of the address alone."""
    if anew or page.url.partition("#")[0] != planted.address:
        page.goto("about:blank")
        page.goto(planted.address + fragment)
    else:
        page.evaluate(
            "hash => location.hash === hash ? null : new Promise(done => {"
            " addEventListener('hashchange', done, {once: true}); location.hash = hash })",
            fragment,
        )
    settled(page)
    return page


def screen(page: Page, point: int) -> tuple[float, float]:
    """Where a point is on the screen."""
    page.locator("#map-canvas").scroll_into_view_if_needed()
    box = page.locator("#map-canvas").bounding_box()
    assert box is not None
    across, down = page.evaluate(f"MICROTOME_MAP_STATE.screen({point})")
    return box["x"] + across, box["y"] + down


def lasso(page: Page, planted: Planted, group: int, margin: float = 12) -> None:
    """Draw around the points of a group, a margin of pixels away from them."""
    places = np.array([screen(page, int(i)) for i in _edges(planted, group)])
    (left, top), (right, bottom) = places.min(axis=0) - margin, places.max(axis=0) + margin
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top + 4)]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=6)
        page.wait_for_timeout(30)
    page.mouse.up()


def _edges(planted: Planted, group: int) -> list[int]:
    mine = np.flatnonzero(planted.group == group)
    x, y = planted.positions[mine].T
    return mine[[x.argmin(), x.argmax(), y.argmin(), y.argmax()]].tolist()


def test_the_last_layer_is_drawn_by_class(page: Page, planted: Planted) -> None:
    opened(page, planted)
    assert [state(page, name) for name in ("layer", "view", "colour", "lit")] == [LAYERS[-1], "tsne", "class", COUNT]
    assert state(page, "frames") >= 1
    assert page.locator("#map-message").is_hidden()
    assert page.inner_text("#map-told").replace("\u202f", "") == f"{COUNT} of {COUNT + 5} images"
    slots = [page.evaluate(f"MICROTOME_MAP_STATE.slot({i})") for i in range(50)]
    assert slots == (planted.group[:50] + 1).tolist()
    x, y = page.evaluate("MICROTOME_MAP_STATE.place(7)")
    spread = np.ptp(planted.positions, axis=0).max() / 2
    middle = (planted.positions.min(axis=0) + planted.positions.max(axis=0)) / 2
    assert np.allclose([x, y], (planted.positions[7] - middle) / spread, atol=1e-4)


def test_colours_are_on_the_canvas(page: Page, planted: Planted) -> None:
    """The pixel under a group's middle has the colour of its class."""
    opened(page, planted, "#names=0")
    first = np.flatnonzero(planted.group == 0)
    middle = first[np.abs(planted.positions[first] - planted.positions[first].mean(axis=0)).sum(axis=1).argmin()]
    red, green, blue, alpha = page.evaluate(
        "point => { const [x, y] = MICROTOME_MAP_STATE.screen(point).map(Math.round);"
        " return [...document.getElementById('map-canvas').getContext('2d').getImageData(x, y, 1, 1).data] }",
        int(middle),
    )
    assert alpha > 150
    assert blue > green > red


def test_a_lasso_selects_the_planted_group(page: Page, planted: Planted) -> None:
    opened(page, planted)
    page.click("[data-do=lasso]")
    lasso(page, planted, 2)
    page.wait_for_selector("#map-selection h2")
    settled(page)
    expected = np.flatnonzero(planted.group == 2)
    assert page.evaluate("MICROTOME_MAP_STATE.selection()") == expected.tolist()
    told = page.inner_text("#map-selection .sub").replace("\u202f", "")
    assert told.startswith(f"{len(expected)} images")
    assert page.get_attribute("[data-do=lasso]", "aria-pressed") == "false"
    page.wait_for_selector("#map-selection h3:text('Concepts more frequent here')")
    bars = page.locator("#map-selection .map-bars")
    assert bars.nth(0).locator("li").first.locator("button").inner_text() == CLASSES[2]
    boats = bars.nth(1).locator("li").first
    share, overall = planted.boats[expected].mean(), planted.boats.mean()
    assert boats.locator("button").inner_text() == "boat"
    assert boats.locator("small").last.inner_text() == f"×{share / overall:.1f}"
    assert len(page.locator("#map-selection .map-thumb").all()) == 36


def test_a_selection_stays_when_the_layer_changes_and_comes_back_by_its_address(page: Page, planted: Planted) -> None:
    opened(page, planted)
    page.keyboard.down("Shift")
    lasso(page, planted, 4)
    page.keyboard.up("Shift")
    page.wait_for_selector("#map-selection h2")
    page.select_option("[name=layer]", LAYERS[0])
    page.wait_for_function(f"MICROTOME_MAP_STATE.layer === {LAYERS[0]!r} && MICROTOME_MAP_STATE.idle")
    page.select_option("[name=view]", "pca")
    settled(page)
    expected = np.flatnonzero(planted.group == 4).tolist()
    assert page.evaluate("MICROTOME_MAP_STATE.selection()") == expected
    address = page.evaluate("location.hash")
    opened(page, planted, address, anew=True)
    assert [state(page, "layer"), state(page, "view")] == [LAYERS[0], "pca"]
    assert page.evaluate("MICROTOME_MAP_STATE.selection()") == expected
    assert page.evaluate("location.hash") == address
    page.click("#map-selection >> text=let go")
    page.wait_for_function("MICROTOME_MAP_STATE.selected === 0")
    assert "lasso" not in page.evaluate("location.hash")


def test_hovering_shows_thumbnail_key_and_class(page: Page, planted: Planted) -> None:
    opened(page, planted)
    point = int(np.flatnonzero(planted.group == 3)[5])
    page.mouse.move(*screen(page, point))
    page.wait_for_selector("#map-tip b")
    assert page.inner_text("#map-tip b") == CLASSES[3]
    picture = page.locator("#map-tip .map-picture")
    assert "map/sprites/" in picture.evaluate("node => getComputedStyle(node).backgroundImage")
    page.mouse.move(5, 5)
    page.wait_for_selector("#map-tip", state="hidden")


def test_a_click_picks_a_point_and_shows_its_neighbours(page: Page, planted: Planted) -> None:
    opened(page, planted)
    mine = np.flatnonzero(planted.group == 5)
    corner = int(mine[planted.positions[mine, 0].argmax()])
    page.mouse.click(*screen(page, corner))
    page.wait_for_selector("#map-point h3")
    settled(page)
    assert state(page, "point") == corner
    apart = ((planted.positions - planted.positions[corner]) ** 2).sum(axis=1)
    apart[corner] = np.inf
    nearest = np.argsort(apart, kind="stable")[:12]
    assert set(state(page, "near")) == set(nearest.tolist())
    assert f"point={corner}" in page.evaluate("location.hash")
    facts = page.locator("#map-point .facts")
    page.wait_for_function("document.querySelector('#map-point .facts dd')")
    assert CLASSES[5] in facts.inner_text()
    assert page.locator(".map-ring").count() == 13


def test_a_unit_is_lit_up_by_its_address(page: Page, planted: Planted) -> None:
    opened(page, planted, f"#layer={quote(LAYERS[1], safe='')}&unit=2")
    lit = planted.lit(2)
    assert [state(page, "colour"), state(page, "lit")] == ["unit", len(lit)]
    strongest = page.locator("#map-unit .map-thumb").evaluate_all("nodes => nodes.map(n => Number(n.dataset.point))")
    assert len(strongest) == 24
    assert set(strongest) <= set(lit.tolist())
    link = page.locator("#map-unit h2 a")
    assert link.get_attribute("href") == "layers/block2%253Aa%252Fb.html#unit-2"
    assert page.inner_text("#map-unit h2") == "Unit 2 · boat"
    page.fill("[name=unit]", "3")
    page.press("[name=unit]", "Enter")
    page.wait_for_function("document.querySelector('#map-unit h2').textContent === 'Unit 3 · tree'")
    settled(page)
    assert state(page, "lit") == len(planted.lit(3))
    assert "unit=3" in page.evaluate("location.hash")


def test_only_the_strongest_images_of_a_unit(page: Page, tmp_path: Path) -> None:
    planted = write_map_page(tmp_path, 500, mode="top")
    opened(page, planted, "#unit=1")
    assert state(page, "lit") == len(planted.lit(1))
    assert "125 strongest images of each unit" in page.inner_text("#map-unit")


def test_points_with_a_concept_are_lit_up(page: Page, planted: Planted) -> None:
    opened(page, planted)
    page.select_option("[name=colour]", "concept")
    page.wait_for_function("MICROTOME_MAP_STATE.colour === 'concept' && MICROTOME_MAP_STATE.idle")
    page.fill("[name=concept]", "BOA")
    page.press("[name=concept]", "Enter")
    page.wait_for_function(f"MICROTOME_MAP_STATE.lit === {int(planted.boats.sum())}")
    slots = [page.evaluate(f"MICROTOME_MAP_STATE.slot({i})") for i in range(60)]
    assert slots == planted.boats[:60].astype(int).tolist()
    assert "concept=3" in page.evaluate("location.hash")
    assert "boat" in page.inner_text("#map-legend")


def test_a_cluster_is_chosen_from_list_name_and_address(page: Page, planted: Planted) -> None:
    opened(page, planted, "#cluster=3")
    assert state(page, "selected") == int((planted.group == 3).sum())
    page.click("#map-clusters button >> text=harbour")
    page.wait_for_function(f"MICROTOME_MAP_STATE.selected === {int((planted.group == 2).sum())}")
    page.locator(".map-name >> text=beach").click()
    page.wait_for_function(f"MICROTOME_MAP_STATE.selected === {int((planted.group == 0).sum())}")
    assert "cluster=0" in page.evaluate("location.hash")


def test_names_lie_on_their_clusters_in_every_view(page: Page, planted: Planted) -> None:
    opened(page, planted)
    for view in ("tsne", "pca"):
        page.select_option("[name=view]", view)
        page.wait_for_function(f"MICROTOME_MAP_STATE.view === {view!r} && MICROTOME_MAP_STATE.idle")
        members = np.flatnonzero(planted.group == 3)[::10]
        middle = np.mean([screen(page, int(i)) for i in members], axis=0)
        name = page.locator(".map-name >> text=forest").bounding_box()
        assert name is not None
        found = np.array([name["x"] + name["width"] / 2, name["y"] + name["height"] / 2])
        assert np.abs(found - middle).max() < 25


def test_a_candidate_for_a_wrong_label_is_shown_on_the_map(page: Page, planted: Planted) -> None:
    opened(page, planted)
    first = page.locator("#map-wrong li").first
    assert first.inner_text().startswith(f"labelled {CLASSES[planted.group[planted.suspects[0]]]}")
    page.click("#map-wrong >> text=show 12 more")
    assert page.locator("#map-wrong li").count() == 20
    first.locator("button").click()
    page.wait_for_function(f"MICROTOME_MAP_STATE.point === {planted.suspects[0]}")
    settled(page)
    box = page.locator("#map-canvas").bounding_box()
    assert box is not None
    across, down = page.evaluate(f"MICROTOME_MAP_STATE.screen({planted.suspects[0]})")
    assert abs(across - box["width"] / 2) < 2
    assert abs(down - box["height"] / 2) < 2


def test_quality_is_told_and_warned_of(page: Page, planted: Planted) -> None:
    opened(page, planted)
    assert "0.980" in page.inner_text("#map-quality")
    assert "41%" in page.inner_text("#map-quality")
    assert page.locator("#map-quality .untrained").count() == 0
    page.select_option("[name=layer]", LAYERS[0])
    page.wait_for_selector("#map-quality .untrained")
    assert page.inner_text("#map-quality .untrained") == f"This map should not be believed <{HOSTILE}>."


def test_the_keyboard_moves_zooms_picks_and_selects(page: Page, planted: Planted) -> None:
    opened(page, planted)
    page.focus("#map-canvas")
    target = int(np.flatnonzero(planted.group == 0)[0])
    before = page.evaluate(f"MICROTOME_MAP_STATE.screen({target})")
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"MICROTOME_MAP_STATE.screen({target})[0] < {before[0]} - 10")
    page.keyboard.press("+")
    page.wait_for_function("location.hash.includes('at=')")
    page.keyboard.press("0")
    page.wait_for_function("!location.hash.includes('at=')")
    page.keyboard.press("s")
    page.wait_for_function(f"MICROTOME_MAP_STATE.selected === {COUNT}")
    page.keyboard.press("Enter")
    page.wait_for_function("MICROTOME_MAP_STATE.point >= 0")
    page.keyboard.press("Escape")
    page.wait_for_function("MICROTOME_MAP_STATE.selected === 0 && MICROTOME_MAP_STATE.point === -1")


def test_dragging_and_the_wheel_move_the_map_and_the_address_keeps_where(page: Page, planted: Planted) -> None:
    opened(page, planted)
    x, y = screen(page, 0)
    page.mouse.move(600, 500)
    page.mouse.down()
    page.mouse.move(640, 530, steps=4)
    page.mouse.up()
    page.wait_for_function("location.hash.includes('at=')")
    moved = screen(page, 0)
    assert np.allclose(moved, (x + 40, y + 30), atol=2)
    page.mouse.wheel(0, -300)
    page.wait_for_function(f"Math.abs(MICROTOME_MAP_STATE.screen(0)[0] - {moved[0]}) > 20")
    page.wait_for_timeout(400)
    there = screen(page, 0)
    address = page.evaluate("location.hash")
    opened(page, planted, address, anew=True)
    assert np.allclose(screen(page, 0), there, atol=2)


def test_keys_of_a_selection_are_copied(browser: Browser, planted: Planted) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = opened(watched(context, []), planted, "#cluster=1")
    page.click("#map-selection >> text=copy keys")
    page.wait_for_selector("#map-selection >> text=/copied|Here they are/")
    expected = [HOSTILE_KEY if i == 0 else f"images/{i:07d}.jpg" for i in np.flatnonzero(planted.group == 1)]
    held = page.locator("#map-selection textarea")
    text = held.input_value() if held.count() else page.evaluate("navigator.clipboard.readText()")
    assert text.split("\n") == expected
    context.close()


def test_hostile_names_are_read_not_run(page: Page, planted: Planted) -> None:
    opened(page, planted, "#point=0&unit=1&concept=9&cluster=1&colour=concept")
    page.wait_for_function("document.querySelector('#map-point h2').textContent !== '…'")
    assert page.inner_text("#map-point h2") == HOSTILE_KEY.replace("\u2028", "\n") or HOSTILE_KEY[
        :20
    ] in page.inner_text("#map-point h2")
    assert HOSTILE in page.inner_text("#map-selection h2")
    assert HOSTILE in page.inner_text("#map-legend")
    page.select_option("[name=colour]", "unit")
    page.wait_for_selector("#map-unit h2")
    assert page.inner_text("#map-unit h2") == f"Unit 1 · {HOSTILE}"


@pytest.mark.parametrize(
    "fragment", ["#layer=nosuch&view=x", "#unit=999999&point=99999999", "#at=1,2&lasso=1,2,3", "#%%%"]
)
def test_a_wrong_address_shows_the_map_all_the_same(page: Page, planted: Planted, fragment: str) -> None:
    opened(page, planted, fragment)
    assert state(page, "layer") == LAYERS[1]
    assert state(page, "point") == -1


def test_layers_fly_into_each_other(browser: Browser, planted: Planted) -> None:
    context = browser.new_context(viewport={"width": 900, "height": 700})
    trouble: list[str] = []
    page = opened(watched(context, trouble), planted)
    before = state(page, "frames")
    page.select_option("[name=layer]", LAYERS[0])
    page.wait_for_function(f"MICROTOME_MAP_STATE.layer === {LAYERS[0]!r} && MICROTOME_MAP_STATE.idle")
    assert state(page, "frames") > before + 3
    page.select_option("[name=layer]", LAYERS[1])
    page.select_option("[name=colour]", "cluster")
    page.wait_for_function("MICROTOME_MAP_STATE.colour === 'cluster' && MICROTOME_MAP_STATE.idle")
    assert [state(page, "layer"), state(page, "lit")] == [LAYERS[1], COUNT]
    context.close()
    assert not trouble


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_scrolls_one_way_only(browser: Browser, planted: Planted, width: int, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    trouble: list[str] = []
    page = opened(watched(context, trouble), planted, "#point=5&cluster=1&unit=1")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()
    assert not trouble


def test_fingers_move_and_zoom(browser: Browser, planted: Planted) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    trouble: list[str] = []
    page = opened(watched(context, trouble), planted)
    session = context.new_cdp_session(page)
    x, y = screen(page, 0)
    box = page.locator("#map-canvas").bounding_box()
    assert box is not None
    middle, height = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": across, "y": down, "id": number} for number, (across, down) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (middle, height))
    for step in range(1, 6):
        touch("touchMove", (middle + 6 * step, height + 4 * step))
        page.wait_for_timeout(40)
    touch("touchEnd")
    page.wait_for_function("location.hash.includes('at=')")
    assert np.allclose(screen(page, 0), (x + 30, y + 20), atol=8)
    before = page.evaluate("location.hash")
    touch("touchStart", (middle - 30, height), (middle + 30, height))
    for step in range(1, 6):
        touch("touchMove", (middle - 30 - 8 * step, height), (middle + 30 + 8 * step, height))
        page.wait_for_timeout(40)
    touch("touchEnd")
    page.wait_for_function(f"location.hash !== {before!r}")
    distance = float(page.evaluate("location.hash").split("at=")[1].split(",")[2])
    assert 0.3 < distance < 0.65
    context.close()
    assert not trouble


def test_without_webgl_the_page_says_so_and_lists_work(browser: Browser, planted: Planted) -> None:
    context = browser.new_context()
    trouble: list[str] = []
    page = watched(context, trouble)
    page.add_init_script(
        "const real = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext ="
        " function (kind, ...more) { return kind.includes('webgl') ? null : real.call(this, kind, ...more) }"
    )
    opened(page, planted)
    assert page.inner_text("#map-message").startswith("This browser has no WebGL")
    page.click("#map-clusters button >> text=harbour")
    page.wait_for_function(f"MICROTOME_MAP_STATE.selected === {int((planted.group == 2).sum())}")
    context.close()
    assert not trouble


@pytest.mark.parametrize("missing", ["map/manifest.js", "map/class.js"])
def test_what_is_missing_is_named(browser: Browser, planted: Planted, tmp_path: Path, missing: str) -> None:
    shutil.copytree(planted.page.parent, tmp_path / "report")
    (tmp_path / "report" / missing).unlink()
    context = browser.new_context()
    page = context.new_page()
    page.goto((tmp_path / "report" / "map.html").as_uri())
    page.wait_for_function(f"document.getElementById('map-message').textContent.includes({missing!r})")
    context.close()


@pytest.mark.slow
def test_a_million_points_are_drawn_lassoed_and_linked(browser: Browser, tmp_path: Path) -> None:
    n = 1_000_000
    planted = write_map_page(tmp_path, n, units=GROUPS)
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, reduced_motion="reduce")
    trouble: list[str] = []
    page = watched(context, trouble)
    seconds = []
    for _ in range(3):
        page.goto("about:blank")
        start = time.perf_counter()
        page.goto(planted.address)
        page.wait_for_function("window.MICROTOME_MAP_STATE?.drawnAt > 0", timeout=60_000)
        seconds.append(time.perf_counter() - start)
        settled(page, 60_000)
    assert min(seconds) < 5, seconds
    page.click("[data-do=lasso]")
    lasso(page, planted, 2)
    expected = np.flatnonzero(planted.group == 2)
    page.wait_for_function(f"MICROTOME_MAP_STATE.selected === {len(expected)}", timeout=60_000)
    assert page.evaluate("MICROTOME_MAP_STATE.selection()") == expected.tolist()
    opened(page, planted, "#unit=4", anew=True)
    lit = planted.lit(4)
    assert state(page, "lit") == len(lit)
    of_group = page.evaluate("points => points.every(i => MICROTOME_MAP_STATE.slot(i) > 12)", lit[::100].tolist())
    others = np.flatnonzero(planted.group != 4)[::100].tolist()
    assert of_group
    assert page.evaluate("points => points.every(i => MICROTOME_MAP_STATE.slot(i) < 12)", others)
    context.close()
    assert not trouble
