"""Attention laid over images: against an obvious reference, and only where units are attention."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.runs import LayerShape, read_image, write_run
from numpy.typing import NDArray

from microtome.reports import build_report
from microtome.reports.heat import COLOURS, KINDS, draw_heat_strip, is_heat
from microtome.reports.thumbnails import SIZE
from microtome.storage.run import Run

PLACE = np.array([[0.5 / SIZE, 1 / SIZE, 0.5 / SIZE, 1 / SIZE]])


def laid(activation: NDArray[np.float32], plain: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The second of two thumbnails of a strip, with `activation` over it."""
    strip = np.concatenate([np.zeros_like(plain), plain], axis=1).reshape(SIZE, -1)
    flags, shapes = np.array([True]), np.array([[SIZE, SIZE]])
    zero, one = np.array([0]), np.array([1])
    draw_heat_strip(zero, one, zero, flags, activation[None], shapes, PLACE, COLOURS, strip)
    assert (strip[:, : 3 * SIZE] == 0).all()
    return strip[:, 3 * SIZE :].reshape(SIZE, SIZE, 3)


def reference(activation: NDArray[np.float32], plain: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The same with OpenCV's bilinear enlargement."""
    value = cv2.resize(activation.astype(np.float64), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    value = np.clip(value / max(activation.max(), 1e-30), 0, 1)[..., None]
    alpha = 0.35 + 0.55 * value
    return np.asarray((1 - alpha) * plain + alpha * COLOURS[np.rint(255 * value[..., 0]).astype(int)])


@pytest.mark.parametrize("side", [1, 2, 7, 14])
def test_the_map_is_laid_over_the_image(side: int) -> None:
    rng = np.random.default_rng(side)
    activation = rng.random((side, side), dtype=np.float32) * np.float32(0.01)
    plain = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    np.testing.assert_allclose(laid(activation, plain), reference(activation, plain), atol=3.5)


def test_a_map_is_scaled_by_its_own_maximum() -> None:
    activation = np.zeros((4, 4), np.float32)
    activation[1, 2] = 1
    plain = np.full((SIZE, SIZE, 3), 100, np.uint8)
    drawn = laid(activation, plain)
    np.testing.assert_array_equal(drawn, laid(activation * np.float32(1 / 64), plain))
    bright = np.unravel_index(drawn.sum(axis=2).argmax(), (SIZE, SIZE))
    assert (bright[0] * 4 // SIZE, bright[1] * 4 // SIZE) == (1, 2)
    assert int(drawn[0, 0].max()) < 70
    assert (laid(np.zeros((4, 4), np.float32), plain) == drawn[0, 0]).all()


def attention_run(path: Path, kind: str) -> Run:
    run = write_run(path, layers={"blocks.1.attn:heads": LayerShape(8, 14, 448), "b": LayerShape(8, 14, 448)})
    run.info["layers"][0]["kind"] = kind
    return run


@pytest.mark.parametrize("kind", [*KINDS, "q"])
def test_attention_is_shown_as_maps_and_all_else_outlined(tmp_path: Path, kind: str) -> None:
    run = attention_run(tmp_path / "run", kind)
    report = Path(build_report(run, read_image)).parent
    page = (report / "layers" / "blocks.1.attn%3Aheads.html").read_text(encoding="utf-8")
    other = (report / "layers" / "b.html").read_text(encoding="utf-8")
    assert ("most in that image" in page) == is_heat(run.info["layers"][0]) == (kind != "q")
    assert "most in that image" not in other
    assert ("the map is laid over the image" in (report / "index.html").read_text(encoding="utf-8")) == (kind != "q")
    strip = cv2.imread(str(report / "patches" / "blocks.1.attn%3Aheads" / "0.jpg"))
    assert strip is not None
    row = run.layer_table("blocks.1.attn:heads", "patches").query("unit == 0 and rank == 0").iloc[0]
    sample, top, left, bottom, right = (int(row[name]) for name in ("sample", "top", "left", "bottom", "right"))
    crop = cv2.resize(read_image(sample)[top:bottom, left:right, ::-1], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    (activation,) = run.activation_maps("blocks.1.attn:heads", np.array([sample]), np.array([0]))
    away = np.abs(strip[:, :SIZE].astype(float) - reference(activation, crop)).mean()
    assert (away < 8) == (kind != "q")


def test_other_directions_among_heads_are_outlined(tmp_path: Path) -> None:
    run = attention_run(tmp_path / "run", "heads")
    layer = run.info["layers"][0]
    layer["readout"] = {
        "base": "x",
        "kind": "pca",
        "source": "pca",
        "fingerprint": "0",
        "inputs": 8,
        "images": 0,
    }
    assert not is_heat(layer)
