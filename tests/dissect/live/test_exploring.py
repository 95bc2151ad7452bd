"""What a served run answers beside explanations is what the commands answer: queries, neighbours, ablations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from microtome.dissect import ablate, neighbors
from microtome.dissect.cli import main
from microtome.dissect.live.on_demand import ExplorerOnDemand, OnDemand
from microtome.reports.server.actions import AbandonedError
from microtome.reports.server.app import create_app
from microtome.reports.server.exploring import Removal
from microtome.storage.errors import DoesNotApplyError, RunMismatchError, UnknownNameError, UsageError
from microtome.storage.run import Run


@pytest.fixture(scope="module")
def explorer(actions: OnDemand) -> ExplorerOnDemand:
    return ExplorerOnDemand(actions)


def never() -> bool:
    return False


def silent(done: int, of: int) -> None:
    pass


def after(times: int) -> Any:
    """A `stop` that says so once it was asked so many times."""
    left = [times]

    def stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    return stop


@pytest.mark.parametrize("expression", ["iou>0.01 layer=second", "second:1", "tau=0.05 unit<3", ""])
def test_queries_answer_what_the_command_answers(
    run: Path, explorer: ExplorerOnDemand, expression: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["query", str(run), expression, "--json"])
    told = json.loads(capsys.readouterr().out)
    found = explorer.query(expression, 2, never)
    kind = found["kind"]
    assert found["total"] == len(told[kind])
    assert found[kind] == told[kind][:2]
    assert all(list(row) == found["columns"] for row in found[kind])
    json.dumps(found, allow_nan=False)


def test_queries_see_a_run_that_has_changed(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    explorer = ExplorerOnDemand(OnDemand(Run.open(copy)))
    before = explorer.query("detector=yes", 100, never)["total"]
    content = json.loads((copy / "run.json").read_text())
    content["config"]["min_iou"] = -1.0
    (copy / "run.json").write_text(json.dumps(content))
    assert explorer.query("concept=sky detector=yes", 100, never)["total"] == 6 > before


def test_mistakes_are_named_as_on_the_command_line(explorer: ExplorerOnDemand) -> None:
    with pytest.raises(UnknownNameError, match="did you mean sky"):
        explorer.query("concept=skyy", 10, never)
    with pytest.raises(UsageError, match="cannot read"):
        explorer.query("which units are best", 10, never)
    with pytest.raises(UnknownNameError, match="did you mean second"):
        explorer.neighbors(0, "secnd", 3, "euclidean", never)
    with pytest.raises(UnknownNameError, match="did you mean cosine"):
        explorer.neighbors(0, "second", 3, "cosin", never)
    with pytest.raises(UsageError, match="no sample 24"):
        explorer.neighbors(24, "second", 3, "euclidean", never)
    with pytest.raises(UsageError, match="units 0 to 5, not 9"):
        explorer.ablate(Removal("second", [1, 9]), never, silent)
    with pytest.raises(UnknownNameError, match="did you mean sky"):
        explorer.ablate(Removal("second", concept="skyy"), never, silent)


def test_neighbours_are_those_of_the_command(run: Path, explorer: ExplorerOnDemand) -> None:
    near = explorer.neighbors(5, "second", 4, "cosine", never)
    expected = neighbors(run, layer="second", sample=5, k=4, metric="cosine").frame
    assert [row["sample"] for row, _ in near.rows] == expected["sample"].tolist()
    assert [row["distance"] for row, _ in near.rows] == pytest.approx(expected["distance"].tolist())
    assert near.asked is not None
    assert all(pixels is not None and pixels.shape == (32, 32, 3) for _, pixels in near.rows)
    assert near.about["query"]["sample"] == 5


def test_an_image_of_ones_own_has_the_neighbours_of_the_command(run: Path, explorer: ExplorerOnDemand) -> None:
    image = np.random.default_rng(3).integers(0, 255, (60, 44, 3), np.uint8)
    near = explorer.neighbors(image, "second", 5, "euclidean", never)
    expected = neighbors(run, layer="second", image=image, k=5).frame
    assert [row["sample"] for row, _ in near.rows] == expected["sample"].tolist()
    assert [row["distance"] for row, _ in near.rows] == expected["distance"].tolist()
    mine = Run.open(run)
    mine.info["model"]["fingerprint"] = "0" * 64
    with pytest.raises(RunMismatchError, match="another model"):
        ExplorerOnDemand(OnDemand(mine)).neighbors(image, "second", 5, "euclidean", never)


def test_ablation_of_all_images_is_that_of_the_command(run: Path, explorer: ExplorerOnDemand) -> None:
    steps: list[tuple[int, int]] = []
    found = explorer.ablate(Removal("second", [0, 2], images=2000, draws=3), never, lambda *step: steps.append(step))
    expected = ablate(run, "second", units=("0,2",), draws=3).result
    same = set(expected) - {"schema_version", "name", "data", "seed"}
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}
    assert "the untouched model's own answers are the truth" in found["why"]
    assert found["of"] == 24
    assert steps[0] == (0, 24)
    assert steps[-1] == (24, 24)
    assert [key.name for key in (run / "ablations").glob("*")] == ["second-units-0+2-draws-3.json"]  # the command's
    json.dumps(found, allow_nan=False)


def test_fewer_images_are_always_the_same_ones(explorer: ExplorerOnDemand) -> None:
    asked = Removal("second", concept="sky", top=99, images=10, draws=0)
    once, again = (explorer.ablate(asked, never, silent) for _ in range(2))
    assert once["images"] == 10
    assert once["rows"] == again["rows"]
    assert all(row["random"] is None for row in once["rows"])


@pytest.mark.parametrize("times", [0, 1, 2, 4])
def test_whoever_left_is_not_worked_for(explorer: ExplorerOnDemand, times: int) -> None:
    steps: list[int] = []
    with pytest.raises(AbandonedError):
        explorer.ablate(Removal("second", [0], draws=20), after(times), lambda done, of: steps.append(done))
    assert max(steps, default=0) < 24
    with pytest.raises(AbandonedError):
        explorer.neighbors(1, "second", 20, "euclidean", after(times))


def test_what_a_run_cannot_answer_is_said_before_it_is_asked(run: Path, explorer: ExplorerOnDemand) -> None:
    about = explorer.about()
    assert about["neighbors"] == {"why": "", "uploads": "", "layers": ["second"]}
    assert about["ablate"] == {"why": "", "layers": [{"name": "second", "units": 6}]}
    opened: Any = Run.open(run)
    opened.info["model"]["generator"] = {"size": [32, 32]}
    generating = ExplorerOnDemand(OnDemand(opened))
    about = generating.about()
    assert "it has no classes" in about["ablate"]["why"]
    assert "no images of yours" in about["neighbors"]["uploads"]
    with pytest.raises(DoesNotApplyError):
        generating.ablate(Removal("second", [0]), never, silent)
    with pytest.raises(DoesNotApplyError):
        generating.neighbors(np.zeros((9, 9, 3), np.uint8), "second", 3, "euclidean", never)


def test_over_http(run: Path, actions: OnDemand, explorer: ExplorerOnDemand) -> None:
    app = create_app(Run.open(run).place, actions, host="127.0.0.1", port=8600, explorer=explorer)
    with TestClient(app, base_url="http://127.0.0.1:8600") as client:
        hello = client.get("/api/hello").json()
        assert hello["limits"]["images"] == [300, 2000]
        assert hello["samples"] == 24
        found = client.post("/api/query", json={"expression": "second:0"}).json()
        assert found["concepts"][0]["layer"] == "second"
        near = client.post("/api/neighbors", json={"layer": "second", "sample": 2, "count": 3}).json()
        assert [one["src"].partition(",")[0] for one in near["neighbors"]] == ["data:image/png;base64"] * 3
        lines = client.post("/api/ablate", json={"layer": "second", "units": [1], "images": 9}).text.splitlines()
        assert json.loads(lines[0]) == {"done": 0, "of": 9}
        assert json.loads(lines[-1])["rows"][0]["images"] == 9
