"""The page of a generator's experiments: what is kept is shown, what was altered is named, names stay text."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from microtome.reports.experiments import PAGE, experiments_context, has_experiments
from microtome.reports.pages import environment

HOSTILE = "<script>alert(1)</script>"
SEEDS: dict[str, Any] = {"data": "generated:16?seed=9", "fresh": True, "samples": 16, "draws": 1}
MEAN = {"mean": 0.25, "interval": [0.2, 0.3]}
POINT = {"units": 1, "removed": 0.125, "interval": [0.1, 0.2]}
RANKING: dict[str, Any] = {
    "file": "layer-tree.json",
    "layer": "layer",
    "concept": HOSTILE,
    **SEEDS,
    "doses": [1, 2],
    "curves": {"alpha": [POINT, {**POINT, "removed": None}], "random": [POINT, POINT]},
    "half": {"alpha": 2, "random": None},
}
INSERTION: dict[str, Any] = {
    "file": "tree.json",
    "name": "tree",
    "layer": "layer",
    "concept": "tree",
    "units": [3, 17],
    "chosen_by": "the best 2",
    "level": "own 0.995 quantiles",
    "took_from": 0.125,
    **SEEDS,
    "contexts": [{"context": HOSTILE, "places": 4, "new": MEAN, "random": MEAN, "changed": MEAN, "verdict": "takes"}],
    "all": {"context": "all places", "places": 9, "new": MEAN, "random": None, "changed": MEAN, "verdict": ""},
}
CHANGE = {"images": 16, "before": 2.0, "after": 1.5, "change": -0.5, "interval": [-0.75, -0.25], "verdict": "better"}
DEFECTS: dict[str, Any] = {
    "file": "far.json",
    "name": "far",
    "score": "distance to real images",
    "note": "",
    "worse": "higher",
    "images": 64,
    "worst": 6,
    "layer": "layer",
    "units": [{"unit": 5, "auc": 0.875, "interval": [0.8, 0.9], "p": 0.001, "patches_in_worst": None}],
    "repair": {**SEEDS, "score": {"all": CHANGE, "worst": CHANGE}, "frechet": {**CHANGE, "few": True}},
}


class Kept:
    """A run that keeps these experiments, and pictures of these names."""

    def __init__(self, kept: Mapping[str, list[dict[str, Any]]], pictures: Mapping[str, bytes] = {}) -> None:
        self._kept, self._pictures = kept, pictures

    def experiments(self, kind: str) -> list[dict[str, Any]]:
        return self._kept.get(kind, [])

    def experiment_picture(self, kind: str, file: str) -> bytes | None:
        return self._pictures.get(f"{kind}/{file}")


def shown(kept: Kept, folder: Path) -> dict[str, Any]:
    run: Any = kept
    return experiments_context(run, folder)


def test_what_is_kept_is_shown_with_its_pictures(tmp_path: Path) -> None:
    png = b"\x89PNG\r\n\x1a\n and more"
    pictures = {"insertions/tree.png": png, "insertions/tree-pairs.png": png, "defects/far.png": b"<svg onload=x>"}
    found = shown(Kept({"rankings": [RANKING], "insertions": [INSERTION], "defects": [DEFECTS]}, pictures), tmp_path)
    assert found["damaged"] == []
    (ranking,), (insertion,), (defects,) = found["rankings"], found["insertions"], found["defects"]
    assert ranking["rows"][0]["points"][0] == {"removed": 0.125, "low": 0.1, "high": 0.2}
    assert ranking["rows"][1]["points"][0] is None
    assert ranking["half"] == [("alpha", 2), ("random", None)]
    drawn = (tmp_path / ranking["pictures"][0]).read_text(encoding="utf-8")
    assert drawn.startswith("<svg")
    assert "<script" not in drawn
    assert insertion["pictures"] == ["experiments/insertions-1.png", "experiments/insertions-1-pairs.png"]
    assert [(tmp_path / address).read_bytes() for address in insertion["pictures"]] == [png, png]
    assert [row["verdict"] for row in insertion["rows"]] == ["takes", ""]
    assert defects["pictures"] == []  # what lies there is no PNG
    assert [row["of"] for row in defects["repair"]["rows"]] == [
        "score, all images",
        "score, those worst before",
        "Fréchet distance",
    ]
    assert defects["repair"]["rows"][2]["change"] == -0.5


@pytest.mark.parametrize(("kind", "one"), [("rankings", RANKING), ("insertions", INSERTION), ("defects", DEFECTS)])
def test_what_lacks_a_part_or_has_another_kind_of_it_is_named(kind: str, one: dict[str, Any], tmp_path: Path) -> None:
    altered = []
    for part in set(one) - {"file"}:
        altered += [{**copy.deepcopy(one), part: value} for value in (None, "x", [float("nan")], {"a": 1})]
        without = copy.deepcopy(one)
        del without[part]
        altered.append(without)
    altered.append({"file": "b.json", "error": "it cannot be read as JSON"})
    found = shown(Kept({kind: altered}), tmp_path)
    assert len(found[kind]) + len(found["damaged"]) == len(altered)
    assert found["damaged"][-1] == {"file": f"{kind}/b.json", "why": "it cannot be read as JSON"}
    assert all(one["file"].startswith(f"{kind}/") for one in found["damaged"])


def test_names_stay_text_on_the_page(tmp_path: Path) -> None:
    run: Any = Kept({"rankings": [RANKING], "insertions": [INSERTION], "defects": [DEFECTS]})
    assert has_experiments(run)
    assert not has_experiments(Kept({}))  # type: ignore[arg-type]
    context = shown(run, tmp_path)
    info = {"microtome": "0", "model": {"spec": "m"}, "data": {"spec": "d"}}
    page = environment().get_template(PAGE).render(root="", page=PAGE, info=info, layers=[], **context)
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert 'href="unit.html#layer=layer&amp;unit=5"' in page
    assert "more than were tried by random" in page
