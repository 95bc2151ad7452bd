"""The endpoints of a generator's page, before hostile and careless clients; the generator is planted."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from microtome.reports.server.actions import Picture, Stop, Subject
from microtome.reports.server.app import create_app
from microtome.reports.server.generation import MOST_CELLS, MOST_EDITS, Areas, Edits
from microtome.storage.errors import RunMismatchError, UnknownNameError
from microtome.storage.places import open_place

PORT = 8600
BASE = f"http://127.0.0.1:{PORT}"
EDIT: dict[str, Any] = {"layer": "a", "units": [1], "values": [0.0], "strength": 1.0, "region": None}


class Planted:
    """A generator whose picture is its seed everywhere, and the number of edits in the last channel."""

    def __init__(self) -> None:
        self.areas_may_end = threading.Event()
        self.areas_may_end.set()

    def about(self) -> dict[str, Any]:
        return {"spec": "planted", "layers": [{"name": "a", "units": 4, "grid": [2, 2]}], "size": [6, 12]}

    def units(self, layer: str) -> dict[str, Any]:
        if layer != "a":
            raise UnknownNameError("layer", layer, ["a"])
        return {"layer": layer, "top": [1.0] * 4, "labels": [""] * 4, "states": ["ok"] * 4, "concepts": []}

    def ranking(self, layer: str, concept: int, by: str) -> Sequence[tuple[int, float]]:
        return [(3, 0.5), (concept, 0.25)]

    def picture(self, seed: int, edits: Edits, stop: Stop) -> NDArray[np.uint8]:
        pixels = np.full((6, 12, 3), seed % 256, np.uint8)
        pixels[..., 2] = len(edits)
        return pixels

    def areas(self, seed: int, edits: Edits, stop: Stop) -> Areas:
        while not self.areas_may_end.wait(0.02):
            pass
        maps = np.array([[[-1, 0, 1, 300]]], np.int64)
        return Areas(["sky", "tree"], np.array([0.25, 0.5]), np.array([0.25, 0.0]), maps, maps)

    def recipe(self, edits: Edits, seeds: Sequence[int]) -> dict[str, Any]:
        return {"edits": list(edits), "seeds": list(seeds)}

    def read_recipe(self, recipe: Mapping[str, Any]) -> tuple[Edits, Sequence[int]]:
        if "generator" in recipe:
            raise RunMismatchError("the recipe was made for another generator")
        return recipe["edits"], recipe["seeds"]


class Slow:
    """Explanations that last until they are let go."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def hello(self) -> dict[str, Any]:
        return {"layers": []}

    def visualise(self, subject: Subject, seed: int, stop: Stop) -> list[Picture]:
        self.begun.set()
        while not self.may_end.wait(0.02):
            pass
        return []


@pytest.fixture
def generator() -> Planted:
    return Planted()


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
def client(tmp_path: Path, generator: Planted, slow: Slow) -> Iterator[TestClient]:
    app = create_app(open_place(tmp_path), slow, host="127.0.0.1", port=PORT, generator=generator)  # type: ignore[arg-type]
    with TestClient(app, base_url=BASE) as client:
        yield client


def error_of(answer: Any) -> str:
    text: str = answer.json()["error"]
    assert text[0].isupper()
    assert text.endswith((".", "?"))
    assert "\n" not in text
    return text


def pixels_of(source: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


def test_a_picture_is_made_with_edits_and_as_small_as_it_is_asked_for(client: TestClient) -> None:
    found = client.post("/api/generate", json={"seed": 7, "edits": [EDIT, EDIT]}).json()
    picture = pixels_of(found["picture"])
    assert picture.shape == (6, 12, 3)
    assert picture[0, 0].tolist() == [7, 7, 2]
    assert found["seed"] == 7
    small = client.post("/api/generate", json={"seed": 7, "side": 4}).json()
    assert pixels_of(small["picture"]).shape == (2, 4, 3)


def test_what_can_be_edited_units_and_rankings(client: TestClient) -> None:
    about = client.get("/api/generator").json()
    assert (about["spec"], about["most_edits"]) == ("planted", MOST_EDITS)
    assert client.post("/api/units", json={"layer": "a"}).json()["top"] == [1.0] * 4
    assert "no layer named" in error_of(client.post("/api/units", json={"layer": "b"})).lower()
    ranked = client.post("/api/ranking", json={"layer": "a", "concept": 2, "by": "iou"}).json()
    assert ranked["units"] == [[3, 0.5], [2, 0.25]]


def test_areas_come_with_maps_of_ids(client: TestClient) -> None:
    found = client.post("/api/areas", json={"seed": 1, "edits": []}).json()
    assert found["concepts"][1] == {"name": "tree", "before": 0.5, "after": 0.0}
    ids = pixels_of(found["maps"][0]).astype(int)
    assert (ids[..., 0] + 256 * ids[..., 1] - 1).tolist() == [[-1, 0, 1, 300]]
    assert found["planes"] == 1


def test_recipes_go_out_and_come_in(client: TestClient) -> None:
    made = client.post("/api/recipe", json={"edits": [EDIT], "seeds": [3]}).json()["recipe"]
    assert client.post("/api/edits", json={"recipe": made}).json()["edits"] == [EDIT]
    assert client.post("/api/edits", json={"recipe": {**made, "generator": {}}}).status_code == 409


@pytest.mark.parametrize(
    ("path", "asked", "said"),
    [
        ("generate", {}, "Seed is a whole number"),
        ("generate", {"seed": -1}, "Seed is a whole number"),
        ("generate", {"seed": 1.5}, "Seed is a whole number"),
        ("generate", {"seed": 2**53}, "Seed is a whole number"),
        ("generate", {"seed": 1, "edits": {}}, "Edits is a list"),
        ("generate", {"seed": 1, "edits": [3]}, "Edits is a list"),
        ("generate", {"seed": 1, "edits": [EDIT] * (MOST_EDITS + 1)}, "at most"),
        ("generate", {"seed": 1, "side": 0}, "Side is a number"),
        ("generate", {"seed": 1, "side": 10**6}, "Side is a number"),
        ("generate", {"seed": 1, "edits": [{**EDIT, "region": {"grid": [MOST_CELLS, 2], "runs": []}}]}, "coarser"),
        ("areas", {"seed": 1, "edits": [{**EDIT, "region": {"grid": [3000, 1000], "runs": []}}] * 2}, "coarser"),
        ("areas", {"seed": None}, "Seed is a whole number"),
        ("units", {"layer": 3}, "Layer is a name"),
        ("ranking", {"layer": "a", "concept": "tree", "by": "iou"}, "Concept is a whole number"),
        ("ranking", {"layer": "a", "concept": 1}, "By is a name"),
        ("recipe", {"edits": []}, "Seeds is a list"),
        ("recipe", {"edits": [], "seeds": []}, "Seeds is a list"),
        ("recipe", {"edits": [], "seeds": [-1]}, "whole number"),
        ("recipe", {"edits": 7, "seeds": [1]}, "Edits is a list"),
        ("edits", {"recipe": [1]}, "no JSON object"),
        ("edits", {"recipe": {"edits": [{"region": {"grid": [10**9, 10**9]}}]}}, "coarser"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    client: TestClient, path: str, asked: dict[str, Any], said: str
) -> None:
    answer = client.post(f"/api/{path}", json=asked)
    assert answer.status_code == 400
    assert said in error_of(answer)


def test_too_long_a_question_is_refused_before_it_is_read_to_the_end(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    assert client.post("/api/generate", content=b" " * 5_000_000, headers=headers).status_code == 413


def test_pages_of_others_may_not_ask(client: TestClient) -> None:
    for headers in ({"Origin": "http://evil.com"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post("/api/generate", json={"seed": 1}, headers=headers).status_code == 403
    assert client.post("/api/generate", data={"seed": "1"}).status_code == 415
    assert client.get("/api/generator", headers={"Host": f"evil.com:{PORT}"}).status_code == 421


def test_a_picture_waits_neither_for_an_explanation_nor_for_areas(
    client: TestClient, generator: Planted, slow: Slow
) -> None:
    generator.areas_may_end.clear()
    with ThreadPoolExecutor(2) as others:
        explained = others.submit(client.post, "/api/visualise", json={"class": 1})
        seen = others.submit(client.post, "/api/areas", json={"seed": 1})
        assert slow.begun.wait(60)
        assert client.post("/api/generate", json={"seed": 1}).status_code == 200
        assert not explained.done()
        assert not seen.done()
        generator.areas_may_end.set()
        slow.may_end.set()
    assert explained.result().status_code == seen.result().status_code == 200


def test_runs_of_classifiers_have_no_such_endpoints(tmp_path: Path, slow: Slow) -> None:
    with TestClient(create_app(open_place(tmp_path), slow, host="127.0.0.1", port=PORT), base_url=BASE) as client:  # type: ignore[arg-type]
        assert client.get("/api/generator").status_code == 404
        assert client.post("/api/generate", json={"seed": 1}).status_code == 404
