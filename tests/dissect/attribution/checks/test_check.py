"""All checks together: planted truths get the verdicts that they deserve, on the built-in classifier too."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.models import as_model
from torch import Tensor, nn

from microtome.datasets.specs import open_dataset
from microtome.dissect.attribution.checks.candidates import Candidate
from microtome.dissect.attribution.checks.check import Checks, Settings, check_methods
from microtome.dissect.attribution.checks.labelled import read_labelled
from microtome.dissect.attribution.checks.table import charts_of, rows_of, sentences, to_dict
from microtome.dissect.attribution.checks.verdicts import BLIND, FAITHFUL, INSENSITIVE, UNSUPPORTED
from microtome.dissect.models import load_model
from microtome.dissect.models.model import Model
from microtome.reports.explanations.charts import draw_charts
from microtome.storage.errors import UnknownNameError, UsageError

SIDE = 16
HALF = SIDE // 2


class Corner(nn.Module):
    """The mean over the first quarter of the picture, weighted by what is learned of each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Linear(SIDE * SIDE, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        total = self.weigh(x.mean(1).flatten(1))
        return torch.cat([total, torch.zeros_like(total)], 1)


def corner_model() -> Model:
    model = as_model(Corner(), SIDE)
    weight = torch.zeros(SIDE, SIDE)
    weight[:HALF, :HALF] = 0.05
    with torch.no_grad():
        model.module.weigh.weight.copy_(weight.flatten()[None])
    return model


def by_parameters(model: Model, images: Tensor, _classes: Tensor) -> Tensor:
    """What each pixel adds to the score."""
    return images.mean(1) * model.module.weigh.weight.detach().reshape(SIDE, SIDE)


def edges(_model: Model, images: Tensor, _classes: Tensor) -> Tensor:
    grey = images.mean(1)
    return (grey - grey.roll(1, 2)).abs()


def one_for_all(model: Model, images: Tensor, _classes: Tensor) -> Tensor:
    weight = model.module.weigh.weight.detach().abs().reshape(SIDE, SIDE)
    return weight.expand(len(images), -1, -1)


def turned(model: Model, images: Tensor, classes: Tensor) -> Tensor:
    """The right map, in the wrong place."""
    return by_parameters(model, images, classes).flip(1, 2)


@pytest.fixture(scope="module")
def checks() -> Checks:
    images = 1 + torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    masks = np.zeros((6, SIDE, SIDE), bool)
    masks[:, :HALF, :HALF] = True
    methods = [
        Candidate("by parameters", by_parameters),
        Candidate("edges", edges),
        Candidate("one for all", one_for_all),
        Candidate("turned", turned),
        "guided-backprop",
    ]
    settings = Settings(steps=8, tolerance=0, batch=4)
    return check_methods(corner_model(), images, methods, target=0, masks=masks, settings=settings)


def test_verdicts(checks: Checks) -> None:
    found = {check.method: check.verdict.name for check in checks.methods}
    assert found == {"by parameters": FAITHFUL, "edges": INSENSITIVE, "one for all": BLIND, "turned": UNSUPPORTED}
    assert set(checks.refused) == {"guided-backprop"}
    assert "no ReLU" in checks.refused["guided-backprop"]


def test_the_right_map_has_the_best_figures(checks: Checks) -> None:
    found = {check.method: check for check in checks.methods}
    right = found["by parameters"]
    assert right.pointing is not None
    assert right.pointing.mean == 1
    for other in ("edges", "turned"):
        assert right.deletion.mean < found[other].deletion.mean
        assert right.insertion.mean >= found[other].insertion.mean
    assert right.deletion.mean < checks.baselines.deletion.mean
    assert right.deletion_gain.above_zero
    assert checks.baselines.chance is not None
    assert checks.baselines.chance.mean == pytest.approx(0.25)


def test_table_sentences_and_json(checks: Checks) -> None:
    header, rows, _ = rows_of(checks)
    assert all(len(row) == len(header) for row in rows)
    assert [row[0] for row in rows][-3:] == ["(centre outwards)", "(chance)", "guided-backprop"]
    assert sentences(checks)[0] == "Faithful for this model: by parameters."
    told = json.loads(json.dumps(to_dict(checks), allow_nan=False))
    assert told["methods"]["edges"]["verdict"] == INSENSITIVE
    assert told["methods"]["edges"]["randomised"]["mean"] == pytest.approx(1)
    assert len(told["methods"]["edges"]["deletion_curve"]) == 9


def test_charts(checks: Checks) -> None:
    charts = charts_of(checks)
    assert len(charts) == 8
    picture = draw_charts(charts, "checks", sentences(checks))
    pixels = np.asarray(picture)
    assert picture.mode == "RGB"
    assert (pixels != 255).any(2).mean() > 0.01


def test_the_same_seed_gives_the_same_figures(checks: Checks) -> None:
    images = 1 + torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    settings = Settings(steps=8, tolerance=0, batch=2)  # nor does the batch matter
    again = check_methods(
        corner_model(), images, [Candidate("by parameters", by_parameters)], target=0, settings=settings
    )
    first, other = checks.methods[0], again.methods[0]
    np.testing.assert_array_equal(first.randomisation.correlation, other.randomisation.correlation)
    np.testing.assert_allclose(first.curves.deletion, other.curves.deletion, atol=1e-6)
    assert other.pointing is None


def test_what_cannot_be_checked_is_refused() -> None:
    model, images = corner_model(), torch.rand(2, 3, SIDE, SIDE)
    with pytest.raises(UsageError, match="2 or more"):
        check_methods(model, images[:1], ["saliency"])
    with pytest.raises(UnknownNameError):
        check_methods(model, images, ["salience"])
    with pytest.raises(UsageError, match="do not fit"):
        check_methods(model, images, ["saliency"], masks=np.zeros((2, 3, 3), bool))
    with pytest.raises(UsageError, match="1 images"):
        Settings(probed=1)


def test_on_the_builtin_classifier_guided_backprop_is_insensitive_and_gradient_and_grad_cam_are_not() -> None:
    model = load_model("builtin:scenes-cnn")
    images = read_labelled(open_dataset("scenes:3"), model).images
    settings = Settings(shares=(0.25,), steps=2)
    found = check_methods(model, images, ["saliency", "grad-cam", "guided-backprop"], settings=settings)
    gradient, cam, guided = found.methods
    assert guided.verdict.name == INSENSITIVE
    assert guided.upper.mean > 0.85
    assert INSENSITIVE not in (gradient.verdict.name, cam.verdict.name)
    assert gradient.upper.mean < 0.7
    assert cam.upper.mean < 0.5
