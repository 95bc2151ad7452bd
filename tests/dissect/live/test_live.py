"""A served run: its own model explains units and classes, and a browser shows it."""

from __future__ import annotations

import base64
import io
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from helpers.browser import CHROMIUM, needs_browser
from helpers.serving import served
from PIL import Image
from playwright.sync_api import sync_playwright
from starlette.testclient import TestClient

from microtome.dissect.cli import main
from microtome.dissect.live.on_demand import OnDemand
from microtome.dissect.live.opened import OpenedRun
from microtome.reports.server.actions import AbandonedError, Subject
from microtome.reports.server.app import create_app
from microtome.storage.errors import RunMismatchError, UnknownNameError, UsageError
from microtome.storage.run import Run

PATIENCE = 60_000
UNIT = Subject("second", 1)


def never() -> bool:
    return False


def test_only_methods_that_apply_are_offered(actions: OnDemand) -> None:
    found = actions.methods(UNIT, never)
    assert {"guided-backprop", "grad-cam", "occlusion"} <= set(found.names)
    assert {"cam", "attention", "rollout"}.isdisjoint(found.names)
    assert all(reason for _, reason in found.refused)
    assert "cam" in actions.methods(Subject(class_number=1), never).names


def test_a_unit_and_a_class_are_explained(actions: OnDemand) -> None:
    seen, guided, refused = actions.explain(UNIT, ["guided-backprop", "attention"], 3, never)
    assert seen.pixels is not None
    assert seen.pixels.shape == (32, 32, 3)
    assert guided.pixels is not None
    assert "guided-backprop of unit 1 of second, value" in guided.caption
    assert refused.pixels is None
    assert refused.caption.startswith("attention:")
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    pictures = actions.explain(Subject(class_number=3), ["occlusion"], image, never)
    assert [picture.pixels is not None for picture in pictures] == [True, True]
    assert "<b>& co" in pictures[1].caption


def test_whoever_left_is_not_worked_for(actions: OnDemand) -> None:
    asked = []

    def leaves() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(AbandonedError):
        actions.explain(UNIT, ["occlusion", "smoothgrad"], 3, leaves)
    with pytest.raises(AbandonedError):
        actions.visualise(UNIT, 0, lambda: True)


def test_an_image_is_synthesised(actions: OnDemand, monkeypatch: pytest.MonkeyPatch) -> None:
    from microtome.dissect.synthesis import Settings

    monkeypatch.setattr("microtome.dissect.live.actions.Settings", lambda: Settings(steps=3))
    (picture,) = actions.visualise(UNIT, 5, never)
    assert "seed 5" in picture.caption or "did not raise" in picture.caption


def test_what_is_not_there_is_named(actions: OnDemand) -> None:
    with pytest.raises(UnknownNameError, match="secnd"):
        actions.explain(Subject("secnd", 1), ["grad-cam"], 0, never)
    with pytest.raises(UsageError, match="unit 99"):
        actions.explain(Subject("second", 99), ["guided-backprop"], 0, never)
    with pytest.raises(UsageError, match="no sample 24"):
        actions.explain(UNIT, ["grad-cam"], 24, never)
    with pytest.raises(UnknownNameError, match="grad-cat"):
        actions.explain(UNIT, ["grad-cat"], 0, never)
    with pytest.raises(UsageError, match="filters shows no image"):
        actions.explain(UNIT, ["filters"], 0, never)
    with pytest.raises(UsageError, match="class 77"):
        actions.explain(Subject(class_number=77), ["saliency"], 0, never)


def test_another_model_is_refused(run: Path, tmp_path: Path) -> None:
    changed = tmp_path / "run"
    shutil.copytree(run, changed)
    opened = Run.open(changed)
    opened.info["model"]["fingerprint"] = "0" * 64
    with pytest.raises(RunMismatchError, match="another model"):
        _ = OpenedRun(opened).model


def test_over_http(run: Path, actions: OnDemand) -> None:
    app = create_app(Run.open(run).place, actions, host="127.0.0.1", port=8600)
    with TestClient(app, base_url="http://127.0.0.1:8600") as client:
        asked = {"layer": "second", "unit": 1, "sample": 2, "methods": ["grad-cam", "guided-backprop"]}
        found = client.post("/api/explain", json=asked).json()["pictures"]
        assert len(found) == 3
        picture = Image.open(io.BytesIO(base64.b64decode(found[2]["src"].partition(",")[2])))
        assert picture.size == (32, 32)
        answer = client.post("/api/explain", json={**asked, "layer": "<img src=x>"})
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/json"


@needs_browser
def test_a_unit_is_explained_in_a_browser(run: Path, actions: OnDemand, tmp_path: Path) -> None:
    upload = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8)).save(upload)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    with served(Run.open(run).place, actions) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        trouble: list[str] = []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith((address, "data:")) else trouble.append("!"))
        page.goto(f"{address}/layers/second.html#unit-1")
        card = page.locator("#unit-1 .live")
        card.locator("summary").first.click()
        card.locator("option[value='guided-backprop']").wait_for(state="attached")
        card.locator("select").first.select_option("guided-backprop")
        card.locator("button[type=submit]").click()
        card.locator(".answers figure >> nth=1").wait_for()
        assert "guided-backprop of unit 1 of second" in card.locator(".answers").inner_text()
        assert page.evaluate("document.querySelector('#unit-1 .answers figure:nth-child(2) img').naturalWidth") == 32
        card.locator("select >> nth=1").select_option("upload")
        card.locator("input[type=file]").set_input_files(bad)
        card.locator("button[type=submit]").click()
        card.locator(".trouble:not([hidden])").wait_for()
        assert "is no image that is understood here" in card.locator(".trouble").inner_text()
        card.locator("input[type=file]").set_input_files(upload)
        with page.expect_response("**/api/explain") as answer:
            card.locator("button[type=submit]").click()
        assert answer.value.status == 200
        card.locator(".trouble[hidden]").wait_for(state="attached")
        assert trouble == []
        browser.close()


def test_serve_refuses_in_a_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error_of(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["serve", *arguments])
        assert ended.value.code == 2
        return capsys.readouterr().err

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} of 127.0.0.1 cannot be used" in error_of(str(run), "--port", port)
    assert "no address of this machine" in error_of(str(run), "--host", "300.1.1.1")
    assert "does not exist" in error_of(str(tmp_path / "nothing"))
    unbuilt = tmp_path / "run"
    shutil.copytree(run, unbuilt, ignore=shutil.ignore_patterns("report"))
    assert "has no pages yet" in error_of(str(unbuilt))
