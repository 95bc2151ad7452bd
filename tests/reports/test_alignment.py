"""The comparison of a layer's axes with other directions in it, and what read-outs are called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.runs import LayerShape, read_image, write_run

from microtome.reports import build_report
from microtome.reports.alignment import comparison, plain_name
from microtome.storage.run import Run
from microtome.storage.schema import LayerEntry, ReadoutInfo

SHAPE = LayerShape(16, 7, 60)


def readout(base: str, kind: str, source: str = "", inputs: int = 16) -> ReadoutInfo:
    return {"base": base, "kind": kind, "source": source, "fingerprint": "0", "inputs": inputs, "images": 0}


def entry(**readout_of: object) -> LayerEntry:
    made = LayerEntry(name="b:x", folder="b", kind="block", units=16, grid=[7, 7], scale=1.0, receptive_field={})
    return {**made, **readout_of}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (readout("b", "pca"), "b in PCA directions"),
        (readout("b", "pca", inputs=64), "b in its first 16 PCA directions"),
        (readout("b", "rotated"), "b in randomly rotated directions"),
        (readout("b", "matrix", "/home/someone/sae.npy"), "b in the directions of sae.npy"),
        (readout("b", "encoder", "/home/someone/sae.py:encoder"), "b as sae.py:encoder encodes it"),
    ],
)
def test_read_outs_have_plain_names(info: ReadoutInfo, words: str) -> None:
    assert plain_name(entry(readout=info)) == words
    assert plain_name(entry()) == "b:x"


def with_readouts(path: Path) -> Run:
    run = write_run(path, layers={"b": SHAPE, "b:rotated": SHAPE, "b:pca": SHAPE, "c": SHAPE})
    layers = run.info["layers"]
    layers[1]["readout"], layers[2]["readout"] = readout("b", "rotated"), readout("b", "pca")
    rotated = run.layer_table("b:rotated", "units")
    run.write_layer_table("b:rotated", "units", rotated.assign(is_detector=rotated["unit"] < 2))
    return run


def test_the_index_sets_axes_beside_rotated_directions(tmp_path: Path) -> None:
    run = with_readouts(tmp_path / "run")
    html = Path(build_report(run, read_image)).read_text(encoding="utf-8")
    section = html[html.index('id="alignment"') : html.index('id="best"')]
    units = run.layer_table("b", "units")
    unique = units["concept_id"][units["is_detector"]].nunique()
    rotated = run.layer_table("b:rotated", "units")[:2]["concept_id"].nunique()
    assert f"<b>{unique}</b> unique detectors along its own axes, <b>{rotated}</b> along random ones" in section
    assert "Its axes stand for more concepts than random directions do, in this one rotation." in section
    assert "Bau et al. 2017" in section
    assert re.findall(r'<th><a href="[^"]+">([^<]+)</a>', section) == [
        "its own axes",
        "b in randomly rotated directions",
        "b in PCA directions",
    ]
    assert '<a class="bar-name" href="layers/b%253Apca.html">b in PCA directions</a>' in html


def test_a_baseline_is_compared_with_and_counts_for_nothing_else(tmp_path: Path) -> None:
    run = with_readouts(tmp_path / "run")
    table = run.layer_table("b:rotated", "units")
    run.write_layer_table("b:rotated", "units", table.assign(is_detector=True, iou=0.99))
    html = Path(build_report(run, read_image)).read_text(encoding="utf-8")
    assert "<dt>layers</dt><dd>3</dd>" in html
    best = html[html.index('id="best"') : html.index("What was run")]
    assert "b:rotated" not in best
    assert "0.990" not in best


def test_without_a_rotation_there_is_no_comparison(tmp_path: Path) -> None:
    run = with_readouts(tmp_path / "run")
    run.info["layers"][1]["readout"] = readout("elsewhere", "rotated")
    html = Path(build_report(run, read_image)).read_text(encoding="utf-8")
    assert 'id="alignment"' not in html
    assert "b in PCA directions" in (run.path / "report/layers/b%3Apca.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("own", "rotated", "words"),
    [(33, 34, "about as many"), (0, 0, "about as many"), (28, 12, "more"), (12, 28, "fewer"), (1, 0, "more")],
)
def test_small_differences_are_not_made_much_of(own: int, rotated: int, words: str) -> None:
    assert comparison(own, rotated).startswith(words)
