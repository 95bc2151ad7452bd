"""The page of a generator, served: what is changed on it changes the picture where it should, and nowhere else.

The generator paints a red square where its unit 0 is, on grass alone, in cells of 4 x 4 pixels (helpers/painter.py).
"""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.browser import CHROMIUM, needs_browser
from helpers.painter import SQUARE, write_painter
from helpers.serving import served
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from starlette.testclient import TestClient

from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.cli import main
from microtome.dissect.generators.causal_table import empty_table, write_causal
from microtome.dissect.live.on_demand import GeneratorOnDemand, OnDemand
from microtome.dissect.live.unit_tables import UnitTables
from microtome.reports.server.actions import AbandonedError
from microtome.reports.server.app import create_app
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run
from microtome.storage.schema import CausalInfo

PATIENCE = 60_000
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("painted")
    file = write_painter(folder)
    run_audit(
        AuditConfig(
            model=f"{file}:painter",
            dataset="generated:48",
            segmenter=f"{file}:colours",
            layers=("mix",),
            out=folder / "run",
            tau=(0.05, 0.005),
            map=False,
            device="cpu",
        )
    )
    return folder / "run"


@pytest.fixture(scope="module")
def actions(run: Path) -> GeneratorOnDemand:
    return GeneratorOnDemand(Run.open(run))


@pytest.fixture(scope="module")
def client(run: Path, actions: GeneratorOnDemand) -> Iterator[TestClient]:
    opened = Run.open(run)
    app = create_app(opened.place, OnDemand(opened), host="127.0.0.1", port=8600, generator=actions)
    with TestClient(app, base_url="http://127.0.0.1:8600") as client:
        yield client


def never() -> bool:
    return False


def pixels_of(source: str | None) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode((source or "").partition(",")[2]))).convert("RGB"))


def reds(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    red, green, _ = np.moveaxis(pixels.astype(int), 2, 0)
    return (red > 200) & (green < 60)


def edit(**changes: Any) -> dict[str, Any]:
    return {"layer": "mix", "units": [SQUARE], "values": [0.0], **changes}


def test_units_come_best_first_with_their_high_values(run: Path, actions: GeneratorOnDemand) -> None:
    found = actions.units("mix")
    stored = Run.open(run).activation_range("mix", 0, 48).transpose(1, 0, 2, 3).reshape(8, -1)
    exact = np.quantile(stored, 0.995, axis=1, method="inverted_cdf")
    np.testing.assert_allclose(found["top"], exact, rtol=1e-6)
    square = next(one for one in found["concepts"] if one["name"] == "square")
    assert square["by"] == ["iou", "information"]
    for by in square["by"]:
        ranked = actions.ranking("mix", square["id"], by)
        assert ranked[0][0] == SQUARE
        assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
    with pytest.raises(UnknownNameError, match="mixx"):
        actions.units("mixx")
    with pytest.raises(UnknownNameError, match="iuo"):
        actions.ranking("mix", square["id"], "iuo")
    with pytest.raises(UsageError, match="no concept of number 99"):
        actions.ranking("mix", 99, "iou")


def test_high_values_without_their_threshold_come_from_the_histogram(run: Path) -> None:
    class WithoutThresholds:
        """The run, with another tau and no activations."""

        keeps_activations = False

        def __init__(self) -> None:
            self._run = Run.open(run)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._run, name)

        def layer_table(self, layer: str, name: str) -> Any:
            table = self._run.layer_table(layer, name)
            return table[table["tau"] != 0.005] if name == "thresholds" else table

    exact = UnitTables(Run.open(run)).units("mix")["top"]
    coarse = UnitTables(WithoutThresholds()).units("mix")["top"]  # type: ignore[arg-type]
    assert coarse != exact
    np.testing.assert_allclose(coarse, exact, rtol=0.1)


def test_a_ranking_that_is_added_is_there_at_the_next_question(run: Path, tmp_path: Path) -> None:
    copy = Run.open(shutil.copytree(run, tmp_path / "run"))
    actions = GeneratorOnDemand(Run.open(copy.path))
    before = actions.units("mix")["concepts"]
    table = empty_table(8, np.array([one["id"] for one in before])).assign(ace=0.5)
    info = CausalInfo(data="", samples=2, quantile=0.995, gradients="", alpha={}, pupil=None, seconds=0.0)
    write_causal(copy, copy.layer("mix"), table, info)
    after = actions.units("mix")["concepts"]
    assert [one["by"] for one in after] == [["ace", *one["by"]] for one in before]
    assert actions.ranking("mix", after[0]["id"], "ace") == [(unit, 0.5) for unit in range(8)]


def test_areas_follow_the_picture(actions: GeneratorOnDemand) -> None:
    found = actions.areas(0, [edit()], never)
    square = list(found.names).index("square")
    before = actions.picture(0, [], never)
    assert found.before[square] == reds(before).mean() > 0
    assert found.after[square] == 0
    assert ((found.maps_before[0] == square) == reds(before)).all()
    with pytest.raises(AbandonedError):
        actions.areas(0, [edit()], lambda: True)
    with pytest.raises(AbandonedError):
        actions.picture(1, [edit()], lambda: True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layer": "mixx"}, "No layer named 'mixx'"),
        ({"units": [8]}, "there is no unit 8"),
        ({"units": [-1]}, "units[0] is -1"),
        ({"units": [0, 0], "values": [0, 0]}, "each once"),
        ({"units": []}, "at least one"),
        ({"values": [0, 1]}, "2 values for 1 units"),
        ({"values": [float("nan")]}, "is NaN"),
        ({"values": [float("inf")]}, "is Infinity"),
        ({"values": ["0"]}, "values[0] is 0"),
        ({"strength": float("nan")}, "strength is NaN"),
        ({"region": {"grid": [2, 2], "runs": [3]}}, "3 cells"),
        ({"region": {"grid": [2], "runs": [2]}}, "height and width"),
        ({"region": {"grid": [100_000, 100_000], "runs": []}}, "coarser"),
        ({"region": {"box": [0.5, 0, 0.1, 1]}}, "box"),
        ({"region": "left"}, "region is left"),
        ({"colour": 1}, "has 'colour'"),
    ],
)
def test_bad_edits_are_refused_in_a_sentence(client: TestClient, changes: dict[str, Any], said: str) -> None:
    content = json.dumps({"seed": 0, "edits": [edit(**changes)]})
    for path in ("generate", "areas"):
        answer = client.post(f"/api/{path}", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert said in answer.json()["error"]
        assert "\n" not in answer.json()["error"]


def test_seeds_beyond_31_bits_are_made(client: TestClient) -> None:
    for path in ("generate", "areas"):
        assert client.post(f"/api/{path}", json={"seed": 2**53 - 1, "edits": [edit()]}).status_code == 200
    assert client.post("/api/recipe", json={"edits": [edit()], "seeds": [2**40]}).json()["recipe"]["seeds"] == [2**40]


def test_recipes_of_other_generators_are_refused(client: TestClient) -> None:
    recipe = client.post("/api/recipe", json={"edits": [edit()], "seeds": [4]}).json()["recipe"]
    assert client.post("/api/edits", json={"recipe": recipe}).json()["seeds"] == [4]
    recipe["generator"]["fingerprint"] = "0" * 64
    answer = client.post("/api/edits", json={"recipe": recipe})
    assert answer.status_code == 409
    assert "was made for" in answer.json()["error"]
    assert client.post("/api/edits", json={"recipe": {"edits": 3}}).status_code == 400


@contextmanager
def opened_page(run: Path, actions: GeneratorOnDemand) -> Iterator[Page]:
    """The page in a browser, with its first picture; fails on any error and any request elsewhere."""
    opened = Run.open(run)
    with served(opened.place, OnDemand(opened), generator=actions) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(PATIENCE)
        trouble: list[str] = []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss())[1])
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.on(
            "request",
            lambda asked: None if asked.url.startswith((address, "data:", "blob:")) else trouble.append(asked.url),
        )
        page.goto(address)
        page.get_by_role("link", name="Edit").click()
        page.locator("#after[src]").wait_for()
        yield page
        assert trouble == []
        browser.close()


def pictures(page: Page) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Before and after, once nothing is waited for."""
    page.locator("#after:not(.waiting)").wait_for()
    return pixels_of(page.get_attribute("#before", "src")), pixels_of(page.get_attribute("#after", "src"))


def select_square(page: Page) -> None:
    page.fill("#find", "squa")
    page.locator("#units li", has_text="unit 0").wait_for()
    page.fill("#count", "1")
    page.click("#choose")


def paint(page: Page, across: float, down: float) -> None:
    box = page.locator("#over-after").bounding_box()
    assert box is not None
    page.locator("#over-after").click(position={"x": across * box["width"], "y": down * box["height"]})


@needs_browser
def test_a_slider_takes_the_square_away_and_areas_say_so(run: Path, actions: GeneratorOnDemand) -> None:
    with opened_page(run, actions) as page:
        before, after = pictures(page)
        assert (before == after).all()
        assert reds(before).any()
        select_square(page)
        slider = page.locator(f"#chosen input[data-unit='{SQUARE}']")
        slider.focus()
        page.keyboard.press("Home")
        before, after = pictures(page)
        assert not reds(after).any()
        assert (before == after)[~reds(before)].all()
        assert slider.get_attribute("aria-valuetext") == "ablated"
        row = page.locator("#seen tr", has_text="square")
        row.get_by_text("−").wait_for()
        row.get_by_role("button").click()
        assert row.get_by_role("button").get_attribute("aria-pressed") == "true"
        page.get_by_text("difference: ").wait_for()
        page.keyboard.press("Control+z")
        _, after = pictures(page)
        assert (before == after).all()
        assert page.locator("#chosen output").inner_text() == "untouched"
        page.click("#next")
        page.wait_for_function("document.getElementById('seed').value === '1'")
        page.locator("#strip [aria-pressed=true]", has_text="1").wait_for()


@needs_browser
def test_a_brush_inserts_where_it_paints_and_the_recipe_is_replayed(
    run: Path, actions: GeneratorOnDemand, tmp_path: Path
) -> None:
    with opened_page(run, actions) as page:
        before, _ = pictures(page)
        left = reds(before)[:, :16].any()  # paint on the side where there is no square
        near, far = (slice(16, 32), slice(0, 16)) if left else (slice(0, 16), slice(16, 32))
        select_square(page)
        page.click("#insert")
        _, everywhere = pictures(page)
        assert reds(everywhere)[-8:].all()
        paint(page, 0.75 if left else 0.25, 0.85)
        _, after = pictures(page)
        assert (before == after)[:, far].all()
        assert (reds(after) & ~reds(before))[:, near].any()
        assert (before == after)[:12].all()  # the sky refuses it, and it is not painted there
        page.locator("#edits", has_text="% of the picture").wait_for()

        page.click("#add")  # a second edit: no grass in a corner of the far side
        page.fill("#find", "")
        page.select_option("#concept", value="")  # all units by number
        page.locator("#units li", has_text="unit 1").locator("input").check()
        page.click("#ablate")
        paint(page, 0.06 if left else 0.94, 0.94)
        _, both = pictures(page)
        assert not (both == after)[:, far].all()
        assert (both == after)[:, near].all()

        with page.expect_download() as recipe:
            page.click("#save-recipe")
        recipe.value.save_as(tmp_path / "edit.json")
        with page.expect_download() as picture:
            page.click("#save-picture")
        picture.value.save_as(tmp_path / "picture.png")
        assert (np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")) == both).all()

        page.click("#reset")
        assert (pictures(page)[1] == before).all()
        page.set_input_files("#open-recipe", tmp_path / "edit.json")
        page.locator("#edits li >> nth=1").wait_for()
        assert (pictures(page)[1] == both).all()
    spec = Run.open(run).info["model"]["spec"]
    arguments = ["generate", spec, "--recipe", str(tmp_path / "edit.json"), "--seeds", "0", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code
    assert (np.asarray(Image.open(tmp_path / "seed-000000.png").convert("RGB")) == both).all()


@needs_browser
def test_without_a_pointer_on_a_narrow_screen_with_hostile_names(run: Path) -> None:
    class Hostile(GeneratorOnDemand):
        """Names that would be markup."""

        def units(self, layer: str) -> dict[str, Any]:
            found = super().units(layer)
            return {
                **found,
                "labels": [HOSTILE] * 8,
                "concepts": [{**one, "name": HOSTILE} for one in found["concepts"]],
            }

    with opened_page(run, Hostile(Run.open(run))) as page:
        page.set_viewport_size({"width": 360, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.locator("#units input").first.focus()
        page.keyboard.press("Space")
        page.locator("#chosen input").focus()
        page.keyboard.press("Home")
        pictures(page)
        page.locator("#over-before").focus()
        for key in ("ArrowDown", "ArrowLeft", "Space"):
            page.keyboard.press(key)
        page.locator("#where", has_text="% of the picture").wait_for()
        pictures(page)
        page.check("input[value=erase]")
        page.locator("#size").focus()
        page.keyboard.press("End")
        page.locator("#over-before").focus()
        for _ in range(9):
            page.keyboard.press("Shift+ArrowUp")
            page.keyboard.press("Space")
        assert HOSTILE in page.locator("#concept").inner_text()
        assert page.locator("main img[src=x]").count() == 0


@needs_browser
def test_from_disk_it_says_how_to_serve(run: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto((run / "report" / "gan.html").as_uri())
        assert "microtome serve RUN" in page.locator("#unserved").inner_text()
        assert page.locator("#gan").is_hidden()
        browser.close()
