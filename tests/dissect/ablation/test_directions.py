"""A classifier without directions of a layer: against axes, against numpy, and against whole passes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from helpers.models import as_model
from numpy.typing import NDArray
from torch import Tensor, nn

from microtome.dissect import AuditConfig, ablate, importance, run_audit
from microtome.dissect.ablation.directions import DirectionNetwork, Directions, open_directions
from microtome.dissect.ablation.network import Network, WholeNetwork, open_network
from microtome.dissect.audit.job import Division
from microtome.dissect.cli.app import app
from microtome.dissect.models import Model, load_model
from microtome.dissect.models.readouts import Readout
from microtome.dissect.models.readouts.bases import random_rotation
from microtome.dissect.models.readouts.readout import directions
from microtome.dissect.models.sites import site_of
from microtome.storage.errors import UsageError
from microtome.storage.run import Run

ONE_CORE = Division(device=torch.device("cpu"), workers=1, lanes=1, passes=1, torch_threads=1, channels_last=False)
BATCH = 4
ENCODER = "import torch\n\n\ndef encoder():\n    return torch.relu\n"


class Small(nn.Module):
    """Maps, channels last in the middle, and in the end nothing but linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, stride=4)
        self.wide = nn.Linear(6, 8)
        self.last = nn.Conv2d(8, 7, 1)
        self.head = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        x = F.gelu(self.wide(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        out: Tensor = self.head(self.last(x).mean((2, 3)))
        return out


class Windows(Small):
    """The same, its channels-last layer in four windows an image, each in the place of an image."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).permute(0, 2, 3, 1)
        parts = x.reshape(len(x), 2, 4, 2, 4, 6).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 6)
        wide = F.gelu(self.wide(parts)).reshape(len(x), 2, 2, 4, 4, 8).permute(0, 1, 3, 2, 4, 5).reshape(-1, 8, 8, 8)
        out: Tensor = self.head(self.last(wide.permute(0, 3, 1, 2)).mean((2, 3)))
        return out


class Branching(Small):
    """Goes one way or another by what it sees."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 0 if float(x.mean()) > 100 else x)


def readout_of(base: str, weight: NDArray[np.floating], bias: NDArray[np.floating] | None = None) -> Readout:
    matrices = {"weight": weight.astype(np.float32)}
    if bias is not None:
        matrices["bias"] = bias.astype(np.float32)
    return directions(base, "matrix", "some.npy", "0", matrices)


def random_readout(base: str, inputs: int, units: int) -> Readout:
    """Directions of all lengths, oblique, with biases."""
    dice = np.random.default_rng(3)
    return readout_of(base, dice.normal(size=(inputs, units)) * dice.uniform(0.1, 9, units), dice.normal(size=units))


def images_of(model: Model, count: int = BATCH) -> list[NDArray[np.uint8]]:
    dice = np.random.default_rng(7)
    return [dice.integers(0, 255, (*model.preprocess.size, 3), dtype=np.uint8) for _ in range(count)]


def every(
    network: Network, images: list[NDArray[np.uint8]], sets: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], ...]:
    """Logits without every unit (images, U, K), and without every set (images, S, K)."""
    held, count = network.hold(images), len(images)
    singles = network.without_units(
        held, np.repeat(np.arange(count), network.units), np.tile(np.arange(network.units), count)
    )
    together = network.without_sets(held, np.repeat(np.arange(count), len(sets)), np.tile(sets, (count, 1)))
    return singles.reshape(count, network.units, -1), together.reshape(count, len(sets), -1)


def random_sets(units: int, count: int = 3) -> NDArray[np.bool_]:
    return np.random.default_rng(0).random((count, units)) < 0.4


@pytest.mark.parametrize("layer", ["conv", "wide", "last"])
def test_the_identity_is_the_axes(layer: str) -> None:
    model = as_model(Small())
    units = site_of(model, layer).units
    fill = np.linspace(-0.5, 1.0, units, dtype=np.float32)
    mine = open_directions(model, readout_of(layer, np.eye(units)), ONE_CORE, fill, BATCH)
    assert isinstance(mine, DirectionNetwork)
    axes, images, sets = open_network(model, layer, ONE_CORE, fill, BATCH), images_of(model), random_sets(units)
    for found, expected in zip(every(mine, images, sets), every(axes, images, sets), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_queries_head_by_head() -> None:
    """Features that lie along two axes of what is changed."""
    model, layer = load_model("builtin:scenes-vit"), "blocks.4.attn:q"
    units, images = site_of(model, layer).units, images_of(model, 2)
    fill = np.full(units, 0.5, np.float32)
    chosen, rows, sets = np.array([3, 100, 77]), np.array([1, 0, 1]), random_sets(units)
    logits = []
    for network in (
        open_network(model, layer, ONE_CORE, fill, 2),
        open_directions(model, readout_of(layer, np.eye(units)), ONE_CORE, fill, 2),
    ):
        held = network.hold(images)
        logits.append([network.without_units(held, rows, chosen), network.without_sets(held, rows, sets)])
    for found, expected in zip(logits[1], logits[0], strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    assert np.abs(logits[0][0] - logits[0][1]).max() > 0.01


def test_without_a_whole_rotation_nothing_is_left() -> None:
    model = as_model(Small())
    zeros = np.zeros(8, np.float32)
    rotated = open_directions(model, readout_of("wide", random_rotation(8)), ONE_CORE, zeros, BATCH)
    axes = open_network(model, "wide", ONE_CORE, zeros, BATCH)
    everything = np.ones((1, 8), np.bool_)
    found, expected = (every(network, images_of(model), everything)[1] for network in (rotated, axes))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_direction_by_numpy() -> None:
    """After the layer all is linear: the logits tell the mean of its vectors, and these are moved by hand."""
    model = as_model(Small())
    readout = random_readout("last", 7, 9)
    fill = np.linspace(-1, 2, 9, dtype=np.float32)
    network = open_directions(model, readout, ONE_CORE, fill, BATCH)
    assert isinstance(network, DirectionNetwork)
    images = images_of(model)
    found, _ = every(network, images, random_sets(9))
    maps = []
    last = model.module.get_submodule("last")
    handle = last.register_forward_hook(lambda module, inputs, output: maps.append(output.numpy()))
    with torch.no_grad():
        model.module(network.passes.normalised(images))
    handle.remove()
    head = model.module.get_submodule("head")
    assert isinstance(head, nn.Linear)
    x = maps[0].astype(np.float64).transpose(0, 2, 3, 1)
    for unit in range(9):
        w, b = readout.matrices["weight"][:, unit].astype(np.float64), float(readout.matrices["bias"][unit])
        moved = x - ((x @ w + b - fill[unit]) / (w @ w))[..., None] * w
        np.testing.assert_allclose(moved @ w + b, fill[unit], atol=1e-9)
        logits = moved.mean((1, 2)) @ head.weight.detach().numpy().T + head.bias.detach().numpy()
        np.testing.assert_allclose(found[:, unit], logits, atol=1e-5 * np.abs(logits).max())


@pytest.mark.parametrize("units", [4, 7, 20])
def test_a_set_of_oblique_directions_reads_its_fill_by_the_smallest_change(units: int) -> None:
    readout = random_readout("any", 7, units)
    weight, bias = (readout.matrices[name].astype(np.float64) for name in ("weight", "bias"))
    dice = np.random.default_rng(1)
    fill = (bias + dice.normal(size=7) @ weight).astype(np.float32)  # what some vector reads: all can be had at once
    vectors = dice.normal(size=(3, 7, 5)).astype(np.float32)
    removed = np.zeros((3, units), np.bool_)
    removed[0, :3] = removed[1, ::2] = True
    removed[2] = removed[0]
    moved = Directions(readout, fill, torch.device("cpu")).without_sets(torch.from_numpy(vectors), removed).numpy()
    for row, marks in enumerate(removed):
        w, b, f = weight[:, marks], bias[marks], fill[marks].astype(np.float64)
        x = vectors[row].T.astype(np.float64)
        np.testing.assert_allclose(moved[row].T @ w + b, np.broadcast_to(f, (5, len(f))), rtol=1e-4, atol=1e-4)
        expected = x - (x @ w + b - f) @ np.linalg.pinv(w)
        np.testing.assert_allclose(moved[row].T, expected, atol=2e-5)


def test_dependent_and_empty_directions() -> None:
    weight = np.array([[1.0, 2, 0], [0, 0, 0], [1, 2, 0]])  # one direction twice, and one that reads nothing
    readout = readout_of("any", weight)
    mover = Directions(readout, np.zeros(3, np.float32), torch.device("cpu"))
    vectors = torch.tensor([[[3.0], [5.0], [1.0]]])
    once = mover.without_units(vectors, torch.tensor([0]))
    np.testing.assert_allclose(once[0, :, 0], [1, 5, -1], atol=1e-6)
    for marks in ([True, True, False], [True, True, True], [False, True, False]):
        np.testing.assert_allclose(mover.without_sets(vectors, np.array([marks])), once, atol=1e-6)
    for marks in ([False, False, True], [False, False, False]):
        np.testing.assert_array_equal(mover.without_sets(vectors, np.array([marks])), vectors)
    np.testing.assert_array_equal(mover.without_units(vectors, torch.tensor([2])), vectors)


@pytest.mark.parametrize(
    ("made", "layer", "precision"),
    [
        (Small, "conv", "float32"),
        (Small, "wide", "float32"),
        (Small, "head", "float32"),
        (Windows, "wide", "float32"),
        (Small, "wide", "bfloat16"),
    ],
)
def test_the_rest_alone_gives_what_whole_passes_give(made: type[nn.Module], layer: str, precision: str) -> None:
    model = as_model(made())
    readout = random_readout(layer, site_of(model, layer).units, 9)
    division, fill = replace(ONE_CORE, precision=precision), np.linspace(-1, 1, 9, dtype=np.float32)
    quick = open_directions(model, readout, division, fill, BATCH)
    slow = open_directions(model, readout, division, fill, BATCH, whole=True)
    assert isinstance(quick, DirectionNetwork)
    assert isinstance(slow, WholeNetwork)
    images, sets = images_of(model, 3), random_sets(9)
    share = 1e-5 if precision == "float32" else 0.03
    for found, expected in zip(every(quick, images, sets), every(slow, images, sets), strict=True):
        assert np.ptp(expected, axis=1).max() > 0.01
        np.testing.assert_allclose(found, expected, atol=share * np.abs(expected).max())


def test_a_network_that_cannot_be_traced(capsys: pytest.CaptureFixture[str]) -> None:
    model = as_model(Branching())
    readout, fill = random_readout("wide", 8, 9), np.zeros(9, np.float32)
    network = open_directions(model, readout, ONE_CORE, fill, BATCH)
    assert isinstance(network, WholeNetwork)
    assert "directions of wide: the rest of the network cannot be run alone" in capsys.readouterr().err
    plain = open_directions(as_model(Small()), readout, ONE_CORE, fill, BATCH)
    images, sets = images_of(model), random_sets(9)
    for found, expected in zip(every(network, images, sets), every(plain, images, sets), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_tokens_of_the_builtin_transformer() -> None:
    """Every token moves, the class token included: against a plain hook."""
    model = load_model("builtin:scenes-vit")
    units = site_of(model, "blocks.4").units
    readout = random_readout("blocks.4", units, 12)
    network = open_directions(model, readout, ONE_CORE, np.full(12, 0.3, np.float32), 2)
    assert isinstance(network, DirectionNetwork)
    images, sets = images_of(model, 2), random_sets(12, 2)
    found = every(network, images, sets)
    normal = network.passes.normalised(images)
    chosen = [np.arange(12) == unit for unit in range(12)] + list(sets)
    for number, marks in enumerate(chosen):
        w, b = readout.matrices["weight"][:, marks].astype(np.float64), readout.matrices["bias"][marks]

        def hook(module: nn.Module, inputs: object, x: Tensor, w: NDArray[np.float64] = w, b: object = b) -> Tensor:
            assert x.shape[1:] == (197, units)
            values = x.numpy().astype(np.float64)
            return torch.from_numpy(values - (values @ w + b - 0.3) @ np.linalg.pinv(w)).float()

        handle = model.module.get_submodule("blocks.4").register_forward_hook(hook)
        with torch.no_grad():
            expected = model.module(normal).numpy()
        handle.remove()
        mine = found[0][:, number] if number < 12 else found[1][:, number - 12]
        np.testing.assert_allclose(mine, expected, atol=1e-4)


def test_a_read_out_for_another_layer_is_refused() -> None:
    with pytest.raises(UsageError, match="reads 7 units, but layer wide has 8"):
        open_directions(as_model(Small()), random_readout("wide", 7, 3), ONE_CORE, np.zeros(3, np.float32), BATCH)


@pytest.fixture(scope="module")
def read_out(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with directions of its layer, only to be read."""
    folder = tmp_path_factory.mktemp("directions")
    np.save(folder / "eye.npy", np.eye(4, dtype=np.float32))
    (folder / "sae.py").write_text(ENCODER)
    units = ("axes", "pca", "rotated", str(folder / "eye.npy"), f"{folder / 'sae.py'}:encoder")
    run_audit(
        AuditConfig(
            model=f"{colours}:model",
            dataset=f"{colours}:images",
            layers=("relu",),
            units=units,
            out=folder / "run",
            tau=(0.1,),
            top=2,
            batch=4,
        )
    )
    return folder / "run"


@pytest.fixture
def run(read_out: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(read_out, tmp_path / "run")


@pytest.mark.parametrize("value", ["zero", "mean"])
def test_the_table_of_the_identity_is_that_of_the_axes(run: Path, value: str) -> None:
    tables = [importance(run, layer, value=value, report=False).table for layer in ("relu", "relu:eye.npy")]
    pd.testing.assert_frame_equal(tables[0], tables[1], rtol=1e-5, atol=1e-5)
    assert tables[0]["probability_fall"].max() > 0.05
    ablations = [ablate(run, layer, units=["0-2"], draws=3, value=value).result for layer in ("relu", "relu:eye.npy")]
    assert ablations[0]["rows"] == ablations[1]["rows"]


def test_the_mean_component_is_zero_already(run: Path) -> None:
    """A centred component at 0 is at its mean over the images that it was fitted to, here all that can be read."""
    zero, mean = (importance(run, "relu:pca", value=value, report=False).table for value in ("zero", "mean"))
    np.testing.assert_allclose(zero["probability_fall"], mean["probability_fall"], atol=2e-3)
    assert Run.open(run).layer_table("relu:pca", "units")["mean"].abs().max() < 1e-3


def test_the_whole_rotation_in_the_command_line(run: Path) -> None:
    def command(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    rows = [
        json.loads(command("ablate", str(run), "--layer", layer, "--units", "0-3", "--draws", "2", "--json"))["rows"]
        for layer in ("relu", "relu:rotated")
    ]
    assert rows[0] == rows[1]
    out = command("ablate", str(run), "--layer", "relu:pca", "--units", "0-1", "--draws", "2")
    assert "each removed by the smallest change of relu that brings its read-out to 0, the mean of the 39 images" in out
    assert (
        "brings its read-out to 0, the mean of"
        in json.loads((run / "ablations/relu%3Apca-units-0-1-draws-2.json").read_text())["removal"]
    )
    out = command("importance", str(run), "--layer", "relu:pca")
    assert "relu:pca: 4 units, each removed by the smallest change of relu" in out
    assert "each removed by the smallest change of relu" in (run / "report/ablations.html").read_text()
    out = command("ablate", str(run), "--layer", "relu:pca", "--class", "red", "--top", "1", "--draws", "0")
    assert "the 1 units that Red needs most" in out
    out = command("ablate", str(run), "--layer", "relu:rotated", "--units", "0", "--draws", "0", "--value", "mean")
    assert "brings its read-out to its mean" in out


def test_features_of_an_encoder_are_refused(run: Path) -> None:
    layer = "relu:sae.py:encoder"
    for asked in (lambda: importance(run, layer), lambda: ablate(run, layer, units=["0"])):
        with pytest.raises(UsageError, match=r"relu:sae.py:encoder holds features of an encoder.*or ablate relu"):
            asked()


def test_directions_among_maps_of_attention_are_refused(run: Path) -> None:
    """What a head adds is its attention times its values; its map is no vector of that."""
    text = json.loads((run / "run.json").read_text())
    (entry,) = (layer for layer in text["layers"] if layer["name"] == "relu:pca")
    entry["kind"] = "heads"
    (run / "run.json").write_text(json.dumps(text))
    with pytest.raises(UsageError, match="relu:pca holds directions among maps of attention"):
        ablate(run, "relu:pca", units=["0"])
