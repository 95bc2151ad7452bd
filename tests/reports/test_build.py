"""A whole report: files, escaping, determinism, replacement, unreadable images, odd runs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pandas as pd
import pytest
from helpers.runs import HOSTILE, LAYERS, LayerShape, read_image, write_run
from numpy.typing import NDArray

from microtome.reports import Together, build_report
from microtome.reports.thumbnails import SIZE
from microtome.storage.errors import SampleError, UsageError
from microtome.storage.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = write_run(tmp_path_factory.mktemp("build") / "run", taus=(0.005, 0.05), splits=True)
    build_report(run, read_image)
    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files_of_a_report(run: Run) -> None:
    files = set(contents(run.path / "report"))
    second = "layer4.0%3Aconv%2F2"
    assert {"index.html", "layers/layer1.html", f"layers/{second}.html", f"data/layers/{second}.js"} <= files
    assert {"static/report.css", "static/pages.js", "unit.html", "concept.html", "data/index.js"} <= files
    units = run.layer_table("layer1", "units")
    drawn = units["unit"][~units["state"].isin(["dead", "constant"])]
    assert {name for name in files if name.startswith("patches/layer1/")} == {f"patches/layer1/{u}.jpg" for u in drawn}
    assert not any(path.name.startswith("report.") for path in run.path.iterdir())


def test_every_address_in_a_page_leads_to_a_file(run: Run) -> None:
    for page in [run.path / "report" / "index.html", *(run.path / "report" / "layers").iterdir()]:
        text = page.read_text(encoding="utf-8")
        for address in re.findall(r'(?:href|src)="([^"#:]+)["#]', text) + re.findall(r"url\(([^)]+)\)", text):
            assert (page.parent / unquote(address)).is_file(), address


def test_nothing_hostile_reaches_the_markup(run: Run) -> None:
    for name, text in contents(run.path / "report").items():
        if name.endswith((".html", ".js")):
            assert HOSTILE.encode() not in text, name
            assert b"onerror=alert(2)>" not in text, name
    assert "&lt;script&gt;alert(1)" in (run.path / "report" / "index.html").read_text(encoding="utf-8")


def test_no_page_asks_the_network(run: Run) -> None:
    for name, text in contents(run.path / "report").items():
        if name.endswith((".html", ".css", ".js")):
            found = set(re.findall(rb"(?:https?:)?//[a-z][\w.]+", text)) - {b"http://www.w3.org"}
            assert not found, name


def test_the_same_run_gives_the_same_bytes(run: Run) -> None:
    before = contents(run.path / "report")
    build_report(run, read_image, workers=1)
    assert contents(run.path / "report") == before


def test_strips_hold_the_patches_by_rank(run: Run) -> None:
    patches = run.layer_table("layer1", "patches")
    strip = cv2.imread(str(run.path / "report" / "patches" / "layer1" / "0.jpg"))
    assert strip is not None
    assert strip.shape == (SIZE, SIZE * len(patches[patches["unit"] == 0]), 3)
    chosen = patches[(patches["unit"] == 0) & (patches["rank"] == 2)]
    sample, top, left, bottom, right = chosen[["sample", "top", "left", "bottom", "right"]].to_numpy(int)[0].tolist()
    crop = read_image(sample)[top:bottom, left:right]
    longer = max(crop.shape[:2])
    rows, columns = round(SIZE * crop.shape[0] / longer), round(SIZE * crop.shape[1] / longer)
    drawn = strip[:rows, 2 * SIZE : 2 * SIZE + columns, ::-1].astype(float)
    plain = cv2.resize(crop, (columns, rows), interpolation=cv2.INTER_LINEAR).astype(float)
    inside = np.abs(drawn - plain).mean(axis=2) < 12
    assert 0.02 < inside.mean() < 0.9
    outside = np.abs(drawn - plain * 0.6).mean(axis=2) < 12
    assert (inside | outside).mean() > 0.8


def test_each_image_is_decoded_once_and_only_where_needed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=40, top=2)
    seen: list[int] = []
    steps: list[tuple[int, int]] = []

    def read(sample: int) -> NDArray[np.uint8]:
        seen.append(sample)
        return read_image(sample)

    build_report(run, read, patches_per_unit=1, progress=lambda done, total: steps.append((done, total)))
    needed: set[int] = set()
    for layer in LAYERS:
        patches = run.layer_table(layer, "patches")
        units = run.layer_table(layer, "units")
        active = set(units["unit"][~units["state"].isin(["dead", "constant"])])
        needed |= set(patches["sample"][(patches["rank"] == 0) & patches["unit"].isin(active)])
    assert sorted(seen) == sorted(needed)
    assert steps == [(n + 1, len(needed)) for n in range(len(needed))]


def test_images_that_are_cheaper_together_are_read_so_and_drawn_the_same(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=40, top=2)
    gone = int(run.layer_table(next(iter(LAYERS)), "patches")["sample"].iloc[0])
    opened: list[set[int]] = []
    inside = threading.local()
    steps: list[int] = []

    @contextmanager
    def together(samples: Sequence[int]) -> Iterator[None]:
        opened.append(set(samples))
        inside.samples = set(samples)
        yield
        inside.samples = set()

    def read(sample: int) -> NDArray[np.uint8]:
        assert sample in inside.samples
        return alone(sample)

    def alone(sample: int) -> NDArray[np.uint8]:
        if sample == gone:
            raise SampleError(str(sample), "gone")
        return read_image(sample)

    build_report(run, alone)
    before = contents(run.path / "report")
    build_report(run, read, Together(together, 3), progress=lambda done, total: steps.append(done))
    assert contents(run.path / "report") == before
    assert max(map(len, opened)) == 3
    assert steps[-1] == sum(map(len, opened)) == len(set().union(*opened))


def test_an_image_that_went_missing_turns_grey(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})

    def read(sample: int) -> NDArray[np.uint8]:
        raise SampleError(str(sample), "gone")

    build_report(run, read)
    strip = cv2.imread(str(run.path / "report" / "patches" / "a" / "0.jpg"))
    assert strip is not None
    assert int(strip.min()) == int(strip.max()) == 128


def test_a_failure_leaves_the_old_report(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})
    build_report(run, read_image)
    before = contents(run.path / "report")

    def read(sample: int) -> NDArray[np.uint8]:
        raise RuntimeError("the disk is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        build_report(run, read)
    assert contents(run.path / "report") == before
    assert [path.name for path in run.path.iterdir() if path.name.startswith("report")] == ["report"]


def test_an_older_report_is_replaced_whole(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})
    (run.path / "report" / "layers").mkdir(parents=True)
    (run.path / "report" / "layers" / "gone.html").write_text("old")
    (run.path / "report.partial").mkdir()
    build_report(run, read_image)
    assert "layers/gone.html" not in contents(run.path / "report")


def test_a_run_without_concepts(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)}, unreadable=0)
    run.write_table("concepts", run.table("concepts")[:0])
    run.write_layer_table("a", "iou", run.layer_table("a", "iou")[:0])
    units = run.layer_table("a", "units").assign(concept=None, concept_id=0, category=None, iou=0.0, is_detector=False)
    run.write_layer_table("a", "units", units.astype({"concept": "str", "category": "str"}))
    text = Path(build_report(run, read_image)).read_text(encoding="utf-8")
    assert "The data of this run annotate no concept, so no unit has a label." in text
    assert "Unreadable samples" not in text


def test_remarks_and_the_segmenter_stand_in_the_pages(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", layers={"a": LayerShape(4, 7, 60)})
    index = Path(build_report(run, read_image))
    assert "Remarks on the data" not in index.read_text(encoding="utf-8")
    assert "labels by a model" not in index.read_text(encoding="utf-8")
    run.info["data"]["remarks"] = [{"text": f"images of {HOSTILE}", "count": 1234, "examples": [HOSTILE, "b.png"]}]
    run.info["segmenter"] = {
        "spec": HOSTILE,
        "fingerprint": "abc123",
        "labels": ["sky", HOSTILE],
        "categories": ["object", "object"],
        "planes": 1,
        "confidence": 0.5,
        "size": [224, 320],
    }
    text = Path(build_report(run, read_image)).read_text(encoding="utf-8")
    findings = (index.parent / "data.html").read_text(encoding="utf-8")
    assert HOSTILE not in text + findings
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert f"Remarks on the data: 1\u202f234 images of {escaped}." in text
    assert f"images of {escaped}: <code>{escaped}, b.png</code>" in findings
    assert f"<code>{escaped}</code>, 2 labels, confidence from 0.5, seen at 224 × 320" in text
    assert "abc123" in text


def test_an_untrained_network_is_called_so_on_every_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", trained=False, layers={"a": LayerShape(4, 7, 60)})
    index = Path(build_report(run, read_image))
    for page in (index, index.parent / "layers" / "a.html"):
        assert "Untrained network." in page.read_text(encoding="utf-8")


def test_unreadable_samples_stand_in_the_findings(run: Run) -> None:
    index = (run.path / "report" / "index.html").read_text(encoding="utf-8")
    text = (run.path / "report" / "data.html").read_text(encoding="utf-8")
    samples: pd.DataFrame = run.table("samples")
    bad = samples["key"][samples["status"] == "error"]
    assert f"{len(bad)} of {len(samples)} were skipped" in index
    for key in bad:
        assert key in text


def test_a_report_shows_at_least_one_patch(run: Run) -> None:
    with pytest.raises(UsageError, match="at least 1 patch"):
        build_report(run, read_image, patches_per_unit=0)


def test_a_report_in_several_passes_is_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(run.path / "report")
    monkeypatch.setattr("microtome.reports.strips._HELD_BYTES", 300_000)
    build_report(run, read_image, workers=3)
    assert contents(run.path / "report") == before
