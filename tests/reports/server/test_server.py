"""The server before hostile and careless clients: names, paths, origins, tokens, uploads, crowds."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from microtome.reports.server.actions import Methods, Picture, Stop, Subject
from microtome.reports.server.app import create_app
from microtome.reports.server.pages import page_key
from microtome.reports.server.uploads import UPLOAD_BYTES
from microtome.storage.errors import DoesNotApplyError, RunMismatchError, UnknownNameError
from microtome.storage.places import open_place

PORT = 8600
BASE = f"http://127.0.0.1:{PORT}"
EXPLAIN: dict[str, Any] = {"layer": "a", "unit": 1, "sample": 0, "methods": ["grad-cam"]}


class Planted:
    """Actions that note what they were asked, and wait where they are told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Subject, object]] = []
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Event()
        self.stopped = threading.Event()

    def hello(self) -> dict[str, Any]:
        return {"layers": ["a"], "visualise": True}

    def methods(self, subject: Subject, stop: Stop) -> Methods:
        return Methods(["grad-cam"], [("cam", "it has no such layer")])

    def explain(
        self, subject: Subject, methods: Sequence[str], image: int | NDArray[np.uint8], stop: Stop
    ) -> list[Picture]:
        self.begun.set()
        while not self.open.wait(0.02):
            if stop():
                self.stopped.set()
                return []
        if methods == ["guided-backprop"]:
            raise DoesNotApplyError("guided-backprop", "the network has no ReLU")
        if methods == ["other"]:
            raise RunMismatchError("it is another model")
        if methods == ["grad-cm"]:
            raise UnknownNameError("method", "grad-cm", ["grad-cam"])
        if methods == ["broken"]:
            raise ZeroDivisionError("oh")
        self.asked.append((subject, image if isinstance(image, int) else image.shape))
        return [Picture("the image", np.zeros((4, 4, 3), np.uint8)), Picture("cam: refused")]

    def visualise(self, subject: Subject, seed: int, stop: Stop) -> list[Picture]:
        return [Picture(f"seed {seed}", np.full((4, 4, 3), seed, np.uint8))]


@pytest.fixture
def actions() -> Planted:
    return Planted()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    report = tmp_path / "report"
    (report / "layers").mkdir(parents=True)
    (report / "index.html").write_text('<!doctype html><head>\n<meta charset="utf-8">\n<title>index</title>')
    (report / "layers" / "layer4%3Aconv.html").write_text("a layer")
    (report / "script.js").write_text("1")
    (tmp_path / "run.json").write_text("secret")
    return tmp_path


@pytest.fixture
def client(place: Path, actions: Planted) -> Iterator[TestClient]:
    with TestClient(create_app(open_place(place), actions, host="127.0.0.1", port=PORT), base_url=BASE) as client:
        yield client


def error_of(answer: Any) -> str:
    text: str = answer.json()["error"]
    assert text[0].isupper() or text[0].isdigit()
    assert text.endswith((".", "?"))
    assert text[-2] not in ".?!"
    return text


def png(side: int = 8) -> str:
    encoded = io.BytesIO()
    Image.fromarray(np.zeros((side, side + 1, 3), np.uint8)).save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode()


def test_pages_know_that_they_are_served(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert '<meta name="microtome-server" content="/api/">' in answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert client.get("/script.js").headers["content-type"].startswith("text/javascript")


def test_names_with_percent_signs_are_decoded_once(client: TestClient) -> None:
    assert client.get("/layers/layer4%253Aconv.html").text == "a layer"
    assert client.get("/layers/layer4%3Aconv.html").status_code == 404


@pytest.mark.parametrize("path", ["/", "/nothing", "/api/hello", "/api/nothing"])
def test_every_answer_has_the_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert not [name for name in headers if name.startswith("access-control")]


def test_only_the_map_may_compile_what_it_draws_with(client: TestClient, place: Path) -> None:
    (place / "report" / "map.html").write_text("the map")
    assert "script-src 'self' 'unsafe-eval';" in client.get("/map.html").headers["content-security-policy"]
    for path in ("/", "/layers/map.html", "/map.html/", "/api/hello"):
        policy = client.get(path).headers["content-security-policy"]
        assert ("unsafe-eval" in policy) == (path == "/map.html/")


@pytest.mark.parametrize(
    "host", ["evil.com", f"evil.com:{PORT}", "127.0.0.1", "127.0.0.1:1", "", f"127.0.0.1:{PORT}.evil.com"]
)
def test_foreign_names_are_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "LOCALHOST"])
def test_names_of_this_machine_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": f"{host}:{PORT}"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/..%2frun.json",
        "/%2e%2e/run.json",
        "/..%5crun.json",
        "/layers/..%2f..%2frun.json",
        "/%00",
        "/.hidden",
        "/layers",
        "/" + "a" * 5000,
    ],
)
def test_nothing_outside_the_report_is_given_out(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_keys_of_pages() -> None:
    assert page_key("/") == page_key("") == "report/index.html"
    assert page_key("/a/b.js") == "report/a/b.js"
    assert [page_key(path) for path in ("/../a", "/a/../b", "/a//b", "/.a", "/a\\b", "/a\nb", "/a.partial")] == [
        None
    ] * 7


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_other_methods_are_refused(client: TestClient, method: str) -> None:
    assert client.request(method, "/api/explain").status_code == 405


def test_pages_take_no_posts(client: TestClient) -> None:
    assert client.post("/", json={}).status_code == 405


def test_a_unit_is_explained(client: TestClient, actions: Planted) -> None:
    found = client.post("/api/explain", json=EXPLAIN).json()
    assert actions.asked == [(Subject("a", 1), 0)]
    assert [one["caption"] for one in found["pictures"]] == ["the image", "cam: refused"]
    picture = base64.b64decode(found["pictures"][0]["src"].partition(",")[2])
    assert Image.open(io.BytesIO(picture)).size == (4, 4)
    assert found["pictures"][1]["src"] == ""


def test_an_image_that_is_sent_is_explained(client: TestClient, actions: Planted) -> None:
    asked = {"class": 2, "image": png(), "methods": ["grad-cam"]}
    assert client.post("/api/explain", json=asked).status_code == 200
    assert actions.asked == [(Subject(class_number=2), (8, 9, 3))]


def test_methods_and_synthesis(client: TestClient) -> None:
    found = client.post("/api/methods", json={"layer": "a", "unit": 1}).json()
    assert found["methods"] == ["grad-cam"]
    assert found["refused"] == [{"name": "cam", "why": "it has no such layer"}]
    assert client.post("/api/visualise", json={"class": 1, "seed": 7}).json()["pictures"][0]["caption"] == "seed 7"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unit": -1}, "Unit is a whole number"),
        ({"unit": True}, "Unit is a whole number"),
        ({"unit": 10**30}, "Unit is a whole number"),
        ({"layer": 3}, "Give a layer"),
        ({"class": 1}, "not both"),
        ({"sample": "1"}, "Sample is a whole number"),
        ({"methods": []}, "Name from 1"),
        ({"methods": "grad-cam"}, "Methods is a list"),
        ({"methods": ["a"] * 99}, "Name from 1"),
        ({"image": "AAAA"}, "Give a sample"),
        ({"sample": None}, "Sample is a whole number"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(client: TestClient, changes: dict[str, Any], said: str) -> None:
    answer = client.post("/api/explain", json={**EXPLAIN, **changes})
    assert answer.status_code == 400
    assert said in error_of(answer)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("%%%", "not base64"),
        (7, "not base64"),
        (base64.b64encode(b"hello").decode(), "no image that is understood"),
        (base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 50).decode(), "cannot be read"),
        (base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0").decode(), "no image that is understood"),
    ],
)
def test_bad_images_are_refused_in_a_sentence(client: TestClient, image: object, said: str) -> None:
    answer = client.post("/api/explain", json={"class": 1, "methods": ["grad-cam"], "image": image})
    assert answer.status_code == 400
    assert said in error_of(answer)


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(client: TestClient) -> None:
    encoded = io.BytesIO()
    Image.new("1", (10_000, 6_000)).save(encoded, "PNG")
    asked = {"class": 1, "methods": ["grad-cam"], "image": base64.b64encode(encoded.getvalue()).decode()}
    answer = client.post("/api/explain", json=asked)
    assert answer.status_code == 400
    assert "60,000,000 pixels" in error_of(answer)


def test_too_large_a_body_is_refused(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    assert client.post("/api/explain", content=b" " * (UPLOAD_BYTES * 2), headers=headers).status_code == 413

    def parts() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 1_000_000

    assert client.post("/api/explain", content=parts(), headers=headers).status_code == 413


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"7", b"[" * 100_000, b"\xff\xfe"])
def test_what_is_no_object_is_refused(client: TestClient, content: bytes) -> None:
    answer = client.post("/api/explain", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    error_of(answer)


def test_forms_of_other_pages_are_refused(client: TestClient) -> None:
    assert client.post("/api/explain", data={"layer": "a"}).status_code == 415
    for headers in ({"Origin": "http://evil.com"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post("/api/explain", json=EXPLAIN, headers=headers).status_code == 403
    assert client.post("/api/explain", json=EXPLAIN, headers={"Origin": BASE}).status_code == 200


def test_errors_of_actions_are_sentences(client: TestClient, capfd: pytest.CaptureFixture[str]) -> None:
    answers = [
        client.post("/api/explain", json={**EXPLAIN, "methods": [name]})
        for name in ("guided-backprop", "other", "broken", "grad-cm")
    ]
    assert [answer.status_code for answer in answers] == [400, 409, 500, 400]
    assert error_of(answers[0]) == "Guided-backprop does not apply: the network has no ReLU."
    assert "ZeroDivisionError" in error_of(answers[2])
    assert error_of(answers[3]).endswith("did you mean grad-cam?")
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert client.get("/api/hello").status_code == 200


def test_a_crowd_is_served_or_told_to_wait(client: TestClient, actions: Planted) -> None:
    actions.open.clear()
    with ThreadPoolExecutor(51) as crowd:
        asked = [crowd.submit(client.post, "/api/explain", json=EXPLAIN) for _ in range(50)]
        while sum(one.done() for one in asked) < 41:  # refused at once; those at work and waiting are nine
            assert client.get("/").status_code == 200
        actions.open.set()
        codes = sorted(one.result().status_code for one in asked)
    assert codes == [200] * 9 + [503] * 41
    assert client.post("/api/explain", json=EXPLAIN).status_code == 200


def test_a_token_is_asked_for(place: Path, actions: Planted) -> None:
    app = create_app(open_place(place), actions, host="0.0.0.0", port=PORT, token="open sesame")
    with TestClient(app, base_url=f"http://192.168.1.7:{PORT}", follow_redirects=False) as client:
        assert client.get("/").status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        assert client.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/", headers={"Authorization": "Bearer open sesame"}).status_code == 200
        assert client.post("/api/explain", json=EXPLAIN).status_code == 401
        shown = client.get("/layers/?a=b&token=open%20sesame")
        assert (shown.status_code, shown.headers["location"]) == (303, "/layers/?a=b")
        assert "httponly" in shown.headers["set-cookie"].lower()
        assert client.get("/").status_code == 200
        assert client.get("/", headers={"Host": f"evil.com:{PORT}"}).status_code == 421
