"""The endpoints of the page "Ask", before hostile and careless clients; what answers is planted."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.serving import served
from httpx import Client, Limits
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.testclient import TestClient

from microtome.reports.server.actions import AbandonedError, Methods, Picture, Stop, Subject
from microtome.reports.server.app import create_app
from microtome.reports.server.exploring import LONGEST_EXPRESSION, MOST_NEIGHBORS, MOST_UNITS, SIDE, Near, Removal
from microtome.reports.server.streams import Told
from microtome.storage.errors import RunMismatchError, UnknownNameError
from microtome.storage.places import open_place

PORT = 8600
BASE = f"http://127.0.0.1:{PORT}"
QUERY: dict[str, Any] = {"expression": "concept=dog"}
NEAR: dict[str, Any] = {"layer": "a", "sample": 1}
ABLATE: dict[str, Any] = {"layer": "a", "units": [2, 1, 2]}
EXPLAIN: dict[str, Any] = {"layer": "a", "unit": 1, "sample": 0, "methods": ["grad-cam"]}
QUESTIONS = {
    "query": QUERY,
    "neighbors": NEAR,
    "ablate": ABLATE,
    "methods": {"class": 1},
    "explain": EXPLAIN,
    "visualise": {"class": 1},
}


class Planted:
    """Explanations and answers that note what was asked, and wait while they are told to."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.go = threading.Event()
        self.go.set()
        self.begun, self.stopped = threading.Event(), threading.Event()
        self.says: Exception | None = None

    def _work(self, stop: Stop) -> None:
        self.begun.set()
        while not self.go.wait(0.02):
            if stop():
                self.stopped.set()
                raise AbandonedError
        if self.says is not None:
            raise self.says

    def hello(self) -> dict[str, Any]:
        return {"layers": ["a"]}

    def about(self) -> dict[str, Any]:
        return {"ablate": {"why": "it has no classes"}}

    def methods(self, subject: Subject, stop: Stop) -> Methods:
        self._work(stop)
        return Methods(["grad-cam"], [])

    def explain(self, subject: Subject, methods: Any, image: int | NDArray[np.uint8], stop: Stop) -> list[Picture]:
        self._work(stop)
        return []

    def visualise(self, subject: Subject, seed: int, stop: Stop) -> list[Picture]:
        self._work(stop)
        return []

    def query(self, expression: str, count: int, stop: Stop) -> dict[str, Any]:
        self._work(stop)
        self.asked.append((expression, count))
        return {"kind": "units", "units": [{"unit": 1}], "total": 7}

    def neighbors(self, image: int | NDArray[np.uint8], layer: str, count: int, metric: str, stop: Stop) -> Near:
        self._work(stop)
        self.asked.append((image if isinstance(image, int) else image.shape, layer, count, metric))
        rows = [({"sample": 3}, np.zeros((300, 150, 3), np.uint8)), ({"sample": 4}, None)]
        return Near({"layer": layer}, np.zeros((5, 6, 3), np.uint8), rows)

    def ablate(self, removal: Removal, stop: Stop, told: Told) -> dict[str, Any]:
        self.asked.append(removal)
        if removal.layer != "silent":
            told(0, 9)
        self._work(stop)
        return {"rows": []}


@pytest.fixture
def planted() -> Planted:
    return Planted()


@pytest.fixture
def client(tmp_path: Path, planted: Planted) -> Iterator[TestClient]:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("index")
    (tmp_path / "run.json").write_text("secret")
    app = create_app(open_place(tmp_path), planted, host="127.0.0.1", port=PORT, explorer=planted)
    with TestClient(app, base_url=BASE) as client:
        yield client


def error_of(answer: Any) -> str:
    text: str = (answer.json() if not isinstance(answer, str) else json.loads(answer))["error"]
    assert text[0].isupper() or text[0].isdigit()
    assert text.endswith((".", "?"))
    assert "\n" not in text
    return text


def encoded(save: Callable[[io.BytesIO], object]) -> bytes:
    content = io.BytesIO()
    save(content)
    return content.getvalue()


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8))


def test_what_is_asked_arrives(client: TestClient, planted: Planted) -> None:
    found = client.post("/api/query", json={**QUERY, "count": 3}).json()
    assert (found["total"], found["units"]) == (7, [{"unit": 1}])
    near = client.post("/api/neighbors", json={**NEAR, "count": 5, "metric": "cosine"}).json()
    assert [bool(one["src"]) for one in near["neighbors"]] == [True, False]
    shown = Image.open(io.BytesIO(base64.b64decode(near["neighbors"][0]["src"].partition(",")[2])))
    assert shown.size == (SIDE // 2, SIDE)
    sent = base64.b64encode(encoded(lambda file: noise().save(file, "JPEG"))).decode()
    assert client.post("/api/neighbors", json={"layer": "b", "image": sent}).status_code == 200
    client.post("/api/ablate", json={**ABLATE, "images": 20, "draws": 0})
    client.post("/api/ablate", json={"layer": "a", "concept": "dog", "top": 4})
    assert planted.asked == [
        ("concept=dog", 3),
        (1, "a", 5, "cosine"),
        ((40, 50, 3), "b", 12, "euclidean"),
        Removal("a", [1, 2], images=20, draws=0),
        Removal("a", concept="dog", top=4),
    ]
    assert client.get("/api/hello").json()["ablate"] == {"why": "it has no classes"}


@pytest.mark.parametrize(
    ("path", "changes", "said"),
    [
        ("query", {"expression": 7}, "Expression is a name"),
        ("query", {"expression": "a" * (LONGEST_EXPRESSION + 1)}, "at most 2,000 characters"),
        ("query", {"count": 0}, "Count is a whole number from 1"),
        ("query", {"count": 10**6}, "Count is a whole number from 1"),
        ("neighbors", {"layer": None}, "Layer is a name"),
        ("neighbors", {"sample": -1}, "Sample is a whole number"),
        ("neighbors", {"image": "AAAA"}, "Give a sample of the run, or an image"),
        ("neighbors", {"count": MOST_NEIGHBORS + 1}, "Count is a whole number from 1 to 60"),
        ("neighbors", {"metric": 3}, "Metric is a name"),
        ("ablate", {"units": []}, "Units is a list of numbers"),
        ("ablate", {"units": "3"}, "Units is a list of numbers"),
        ("ablate", {"units": [1.5]}, "A unit is a whole number"),
        ("ablate", {"units": [0] * (MOST_UNITS + 1)}, "Units is a list of numbers"),
        ("ablate", {"concept": "dog"}, "Give units of the layer, or a concept"),
        ("ablate", {"images": 2001}, "Images is a whole number from 1 to 2,000"),
        ("ablate", {"draws": -1}, "Draws is a whole number"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    client: TestClient, path: str, changes: dict[str, Any], said: str
) -> None:
    answer = client.post(f"/api/{path}", json={**QUESTIONS[path], **changes})
    assert answer.status_code == 400
    assert said in error_of(answer)


@pytest.mark.parametrize("path", ["query", "neighbors", "ablate"])
def test_errors_come_with_a_code_or_as_the_last_line(client: TestClient, planted: Planted, path: str) -> None:
    asked = {**QUESTIONS[path], "layer": "silent"}
    planted.says = UnknownNameError("concept", "dgo", ["dog"])
    answer = client.post(f"/api/{path}", json=asked)
    assert answer.status_code == 400
    assert error_of(answer).endswith("did you mean dog?")
    planted.says = RunMismatchError("it is another model")
    assert client.post(f"/api/{path}", json=asked).status_code == 409
    planted.says = ZeroDivisionError("oh")
    assert "ZeroDivisionError" in error_of(client.post(f"/api/{path}", json=asked))
    answer = client.post("/api/ablate", json=ABLATE)
    step, last = answer.text.splitlines()
    assert (answer.status_code, json.loads(step)) == (200, {"done": 0, "of": 9})
    assert "ZeroDivisionError" in error_of(last)


def long_text() -> PngInfo:
    info = PngInfo()
    info.add_text("comment", "x" * 100_000_000, zip=True)
    return info


BAD: dict[str, Callable[[], bytes]] = {
    "text": lambda: b"hello",
    "nothing": lambda: b"",
    "a truncated JPEG": lambda: encoded(lambda file: noise().save(file, "JPEG"))[:700],
    "a truncated PNG": lambda: encoded(lambda file: noise().save(file, "PNG"))[:900],
    "a head alone": lambda: b"\xff\xd8\xff",
    "a sound in RIFF": lambda: b"RIFF\x24\x00\x00\x00WAVEfmt ",
    "60 million pixels in 7 kB": lambda: encoded(lambda file: Image.new("1", (10_000, 6_000)).save(file, "PNG")),
    "100 MB of text in 100 kB": lambda: encoded(lambda file: noise().save(file, "PNG", pnginfo=long_text())),
}


@pytest.mark.parametrize("path", ["explain", "neighbors"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_images_are_refused_in_a_sentence(client: TestClient, path: str, kind: str) -> None:
    asked: dict[str, Any] = {**QUESTIONS[path], "image": base64.b64encode(BAD[kind]()).decode()}
    del asked["sample"]
    answer = client.post(f"/api/{path}", json=asked)
    assert answer.status_code == 400
    error_of(answer)


@pytest.mark.parametrize("path", QUESTIONS)
def test_who_sends_too_much_is_refused(client: TestClient, path: str) -> None:
    headers = {"Content-Type": "application/json"}
    assert client.post(f"/api/{path}", content=b" " * 14_000_000, headers=headers).status_code == 413
    answer = client.post(f"/api/{path}", content=(b" " * 500_000 for _ in range(40)), headers=headers)
    assert answer.status_code == 413
    error_of(answer)


@pytest.mark.parametrize("path", ["/api/hello", *(f"/api/{path}" for path in QUESTIONS)])
def test_foreign_names_and_origins_are_refused_everywhere(client: TestClient, planted: Planted, path: str) -> None:
    method = "GET" if path == "/api/hello" else "POST"
    asked = QUESTIONS.get(path.rpartition("/")[2])
    assert client.request(method, path, json=asked, headers={"Host": f"evil.com:{PORT}"}).status_code == 421
    if method == "POST":
        assert client.post(path, json=asked, headers={"Origin": "http://evil.com"}).status_code == 403
        assert client.get(path).status_code == 404
    assert planted.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "/%2e%2e%2frun.json",
        "/%252e%252e%252frun.json",
        "/..%255crun.json",
        "/%5c..%5crun.json",
        "/..\\run.json",
        "/index.html%00.js",
        "/%00",
        "/./index.html",
        "/%2frun.json",
        "//run.json",
        "/..;/run.json",
        "/%c0%ae%c0%ae/run.json",
        "/%ff",
        "/%ef%bc%8e%ef%bc%8e/run.json",
        "/index.html/../../run.json",
        "/index.html%0d%0aX:y",
    ],
)
def test_no_path_leads_out_of_the_report(client: TestClient, path: str) -> None:
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode("latin-1")}
    scope |= {"root_path": "", "query_string": b"", "headers": [(b"host", f"127.0.0.1:{PORT}".encode())]}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    portal = client.portal
    assert portal is not None
    portal.call(client.app, scope, receive, send)  # as it is: an HTTP client would tidy the path up
    assert sent[0]["status"] == 404
    assert b"secret" not in sent[1]["body"]


def connected(address: str) -> Client:
    """A client of a server, by as many connections as there are questions."""
    return Client(base_url=address, timeout=60, trust_env=False, limits=Limits(max_connections=None))


def test_a_hundred_at_every_endpoint_are_served_or_told_to_wait(tmp_path: Path, planted: Planted) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("index")
    with (
        served(open_place(tmp_path), planted, explorer=planted) as address,
        connected(address) as client,
        ThreadPoolExecutor(100) as crowd,
    ):
        for path, asked in QUESTIONS.items():
            planted.go.clear()
            answers = [crowd.submit(client.post, f"/api/{path}", json=asked) for _ in range(100)]
            while sum(one.done() for one in answers) < 91:  # one is at work and eight wait
                assert client.get("/").text == "index"
            planted.go.set()
            found = [one.result() for one in answers]
            assert sorted(one.status_code for one in found) == [200] * 9 + [503] * 91
            assert {error_of(one) for one in found if one.status_code == 503} == {
                "The server is busy: as many questions wait as may; ask again in a while."
            }
        assert list(crowd.map(lambda _: client.get("/").status_code, range(100))) == [200] * 100


@pytest.mark.parametrize("path", QUESTIONS)
def test_a_browser_that_leaves_takes_its_question_back(tmp_path: Path, planted: Planted, path: str) -> None:
    planted.go.clear()
    content = json.dumps(QUESTIONS[path])
    with served(open_place(tmp_path), planted, explorer=planted) as address:
        host, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as browser:
            head = f"POST /api/{path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            browser.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())
            assert planted.begun.wait(60)
            assert not planted.stopped.is_set()
        assert planted.stopped.wait(60)
        planted.go.set()
        with connected(address) as client:
            assert client.post(f"/api/{path}", json=QUESTIONS[path]).status_code == 200
