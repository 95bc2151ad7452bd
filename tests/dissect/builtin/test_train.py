"""The training script: deterministic batches, honest preprocessing, a log that keeps the other model's section."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from microtome.datasets.scenes import ScenesDataset
from microtome.dissect.builtin import train as training
from microtome.dissect.builtin.cnn import MEAN, STD
from microtome.dissect.builtin.rendering import PIXELS, render
from microtome.dissect.builtin.train import RECIPES, Outcome, Recipe, batches, record, to_input
from microtome.dissect.builtin.training import cosine


def test_painted_scenes_are_the_datasets(tmp_path: Path) -> None:
    images, classes = render(5, 6, tmp_path, workers=1)
    dataset = ScenesDataset(6, PIXELS, 5)
    for index in range(6):
        np.testing.assert_array_equal(images[index], dataset.read(index).image)
        assert classes[index] == dataset.entry(index).label
    written = list(tmp_path.iterdir())
    again, _ = render(5, 6, tmp_path, workers=1)
    np.testing.assert_array_equal(again, images)
    assert list(tmp_path.iterdir()) == written


def test_input_is_what_pillow_would_resize() -> None:
    image = ScenesDataset(1).read(0).image
    x = to_input(torch.from_numpy(image).permute(2, 0, 1)[None])
    resized = np.asarray(Image.fromarray(image).resize((112, 112), Image.Resampling.BILINEAR), np.float32)
    restored = x[0].permute(1, 2, 0).numpy() * np.array(STD) + np.array(MEAN)
    np.testing.assert_allclose(restored * 255, resized, atol=1.5)


def test_batches_repeat_and_cover_an_epoch() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, PIXELS, PIXELS, 3)).astype(np.uint8)
    recipe = Recipe(nn.Identity, epochs=2, samples=20, batch=6, sizes=(48, 112))
    first, second = list(batches(images, recipe)), list(batches(images, recipe))
    assert len(first) == 6
    for (x, chosen), (y, same) in zip(first, second, strict=True):
        assert torch.equal(x, y)
        np.testing.assert_array_equal(chosen, same)
    assert [x.shape[-1] for x, _ in first] == [48, 48, 48, 112, 112, 112]
    seen = np.concatenate([chosen for _, chosen in first[:3]])
    assert len(set(seen.tolist())) == 18


def test_rate_warms_up_and_dies_away() -> None:
    recipe = RECIPES["cnn"]
    rates = [cosine(step, 200, recipe.rate) for step in range(200)]
    assert max(rates) == pytest.approx(recipe.rate)
    assert rates[0] == pytest.approx(recipe.rate / 10)
    assert rates[-1] < recipe.rate * 1e-3


def test_record_keeps_the_other_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "HERE", tmp_path)
    record("vit", RECIPES["vit"], Outcome(0.5, 3.0, 1000))
    record("cnn", RECIPES["cnn"], Outcome(0.9, 3.0, 2000))
    record("vit", RECIPES["vit"], Outcome(0.7, 3.0, 1000))
    text = (tmp_path / "TRAINING.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## scenes-cnn", "## scenes-vit"]
    assert "90.0%" in text
    assert "70.0%" in text
    assert "50.0%" not in text
