"""Directions in a layer: how they are asked for, read from files, drawn, fitted, and applied."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.models import Reused, as_model
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from microtome.dissect.models import describe_layers
from microtome.dissect.models.readouts import bases as bases_module
from microtome.dissect.models.readouts import describe_planned, plan_layers
from microtome.dissect.models.readouts import readout as readout_module
from microtome.dissect.models.readouts.bases import FeatureMoments, random_rotation
from microtome.dissect.models.readouts.encoders import Encoder, encoder_readout
from microtome.dissect.models.readouts.matrices import as_columns, read_matrix
from microtome.dissect.models.readouts.names import parse_all, parse_units, split_pattern, split_readout
from microtome.dissect.models.readouts.readout import Readout, directions
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.readouts import fingerprint_of

# Names


@pytest.mark.parametrize(
    ("text", "kind", "label"),
    [
        ("axes", "axes", ""),
        ("pca", "pca", "pca"),
        ("pca64", "pca", "pca64"),
        ("rotated", "rotated", "rotated"),
        ("some/sae.npy", "matrix", "sae.npy"),
        ("some/sae.safetensors", "matrix", "sae.safetensors"),
        ("some/sae.safetensors#decoder.weight", "matrix", "sae.safetensors#decoder.weight"),
        ("some/sae.py:encoder", "encoder", "sae.py:encoder"),
        ("package.module:Sparse.encoder", "encoder", "package.module:Sparse.encoder"),
    ],
)
def test_what_units_ask_for(text: str, kind: str, label: str) -> None:
    spec = parse_units(text)
    assert (spec.kind, spec.label) == (kind, label)
    assert spec.name("block5") == (f"block5:{label}" if label else "block5")
    assert parse_units(spec.source) == spec, "what run.json keeps means the same"
    if text.startswith("some/"):
        assert Path(spec.source.partition(":")[0]).is_absolute()


@pytest.mark.parametrize("text", ["pca0", "sae.npz", "sae.pt", "axis", "pcaa", "x y:z", ":encoder", "sae.py:"])
def test_what_has_none_of_the_forms_is_told_the_forms(text: str) -> None:
    with pytest.raises(UsageError, match=r"FILE\.npy|at least 1"):
        parse_units(text)


def test_a_file_whose_name_has_a_hash_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors#b.safetensors"
    file.touch()
    assert parse_units(str(file)).path == file.resolve()


def test_two_files_of_one_base_name_are_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"both be called 'sae\.npy'; give one of the files another name"):
        parse_all(["one/sae.npy", "two/sae.npy"])
    assert len(parse_all(["one/sae.npy", "one/sae.npy", "axes", "axes"])) == 2


def test_patterns_and_names_are_taken_apart() -> None:
    mine = parse_units("some/sae.py:encoder")
    assert split_pattern("block*:pca8") == ("block*", parse_units("pca8"))
    assert split_pattern("blocks.3.attn:q:rotated") == ("blocks.3.attn:q", parse_units("rotated"))
    assert split_pattern("blocks.3.attn:q") == ("blocks.3.attn:q", None)
    assert split_pattern("block5:sae.py:encoder", [mine]) == ("block5", mine)
    assert split_pattern("block5:sae.py:encoder") == ("block5:sae.py:encoder", None)
    known = ["block5", "attn", "attn:q"]
    assert split_readout("block5", known) == ("block5", None)
    assert split_readout("block5:sae.py:encoder", known) == ("block5", "sae.py:encoder")
    assert split_readout("attn:q:pca", known) == ("attn:q", "pca")
    assert split_readout("other:q:pca64", known) == ("other:q", "pca64")
    assert split_readout("other:q", known) == ("other:q", None)


def test_layers_are_planned_in_the_order_of_the_network() -> None:
    model = as_model(Reused())
    bases = {info.name: info for info in describe_layers(model)}

    def planned(*patterns: str, units: tuple[str, ...] = (), baseline: bool = False) -> list[str]:
        return [layer.name for layer in plan_layers(model, patterns, units, rotation_baseline=baseline)]

    assert planned("second", "first") == ["first", "second"]
    assert planned("first:pca", "second", "first") == ["first", "first:pca", "second"]
    assert planned("first", units=("pca4", "rotated")) == ["first:pca4", "first:rotated"]
    assert planned("first", "second:rotated", units=("pca", "axes")) == ["first", "first:pca", "second:rotated"]
    assert planned("first", "second:pca", baseline=True) == ["first", "first:rotated", "second:pca"]
    assert planned("act@*:pca2") == ["act@1:pca2", "act@2:pca2", "act@3:pca2"]
    assert planned("act:rotated")[0] == "act@1:rotated"
    infos = describe_planned(plan_layers(model, ["second:pca5", "second:pca99", "first:rotated"]), bases)
    assert [(info.name, info.units, info.kind) for info in infos] == [
        ("first:rotated", 6, "conv"),
        ("second:pca5", 5, "conv"),
        ("second:pca99", 12, "conv"),
    ]
    with pytest.raises(UnknownNameError, match="no layer named 'thrid'"):
        planned("thrid:pca")


@pytest.mark.parametrize(
    ("patterns", "units", "baseline", "told"),
    [
        (("first:sae.npy",), (), False, "sae.npy is not among the --units; give the file with --units"),
        (("first", "second:sae.py:encoder"), ("some/sae.npy",), False, "sae.py:encoder is not among"),
        (("first:pca",), ("rotated",), False, "--units rotated: every name in --layers says already"),
        (("first",), ("pca",), True, "--rotation-baseline goes with layers in their own axes"),
        (("first:pca",), (), True, "--rotation-baseline goes with"),
    ],
)
def test_what_no_layer_would_get_is_refused(
    patterns: tuple[str, ...], units: tuple[str, ...], baseline: bool, told: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        plan_layers(as_model(Reused()), patterns, units, rotation_baseline=baseline)


# Files


def test_matrices_are_read_from_npy_and_safetensors(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.save(tmp_path / "double.npy", matrix.astype(np.float64))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(matrix))
    np.save(tmp_path / "probe.npy", matrix[:, 0])
    np.save(tmp_path / "whole.npy", np.array([[1, -2], [3, 4]]))
    save_file({"d": torch.from_numpy(matrix), "b": torch.zeros(3)}, tmp_path / "one.safetensors")
    save_file({"half": torch.from_numpy(matrix).bfloat16(), "e": torch.eye(2)}, tmp_path / "two.safetensors")

    def read(name: str) -> NDArray[np.float32]:
        return read_matrix(parse_units(str(tmp_path / name)))

    for name in ("double.npy", "fortran.npy", "one.safetensors", "one.safetensors#d"):
        assert np.array_equal(read(name), matrix)
    assert np.array_equal(read("probe.npy"), matrix[:, :1])
    assert read("whole.npy").tolist() == [[1, -2], [3, 4]]
    assert np.array_equal(read("two.safetensors#half"), torch.from_numpy(matrix).bfloat16().float().numpy())
    with pytest.raises(UsageError, match=r"holds 2 matrices \(.*half \(5, 3\).*name one: --units two.safetensors#TEN"):
        read("two.safetensors")
    with pytest.raises(UnknownNameError, match=r"no tensor in .*two\.safetensors named 'halff'; did you mean half"):
        read("two.safetensors#halff")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (np.zeros((2, 3, 4)), r"has shape \(2, 3, 4\); expected a matrix \(C, U\)"),
        (np.zeros((0, 3)), r"has shape \(0, 3\)"),
        (np.zeros(()), r"has shape \(\)"),
        (np.array([[1.0, np.nan]]), "column 1 has NaN"),
        (np.array([[np.inf, 1.0]]), "column 0 has NaN, infinity"),
        (np.array([[1e300]]), "more than float32 holds"),
        (np.array([[1j]]), "complex128 values; expected real numbers"),
        (np.array([["a"]]), "values; expected real numbers"),
        (np.array([[{}]], object), "cannot be read as a plain .npy array"),
    ],
)
def test_what_is_no_matrix_is_refused(tmp_path: Path, content: NDArray[np.generic], told: str) -> None:
    np.save(tmp_path / "m.npy", content, allow_pickle=True)
    with pytest.raises(UsageError, match=told):
        read_matrix(parse_units(str(tmp_path / "m.npy")))


@pytest.mark.parametrize("name", ["m.npy", "m.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04 no archive", b"\xff" * 64])
def test_what_is_no_file_of_its_kind_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_matrix(parse_units(str(tmp_path / name)))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read as"):
        read_matrix(parse_units(str(tmp_path / name)))


def test_columns_are_directions_unless_only_rows_fit() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert as_columns(matrix, 3, layer="a", source="m.npy")[1] is False
    turned, transposed = as_columns(matrix, 2, layer="a", source="m.npy")
    assert transposed
    assert np.array_equal(turned, matrix.T)
    square = np.arange(4, dtype=np.float32).reshape(2, 2)
    assert np.array_equal(as_columns(square, 2, layer="a", source="m.npy")[0], square)
    with pytest.raises(UsageError, match=r"m\.npy has shape \(3, 2\), but layer a has 7 units; expected \(7, U\)"):
        as_columns(matrix, 7, layer="a", source="m.npy")


# Bases


def test_the_rotation_is_orthogonal_and_the_same_in_every_process() -> None:
    rotation = random_rotation(64)
    assert np.abs(rotation.T @ rotation - np.eye(64)).max() < 1e-12
    assert np.abs(rotation - np.eye(64)).max() > 0.1
    narrow = rotation.astype(np.float32).astype(np.float64)
    assert np.abs(narrow.T @ narrow - np.eye(64)).max() < 1e-6
    code = (
        "import numpy as np\nfrom microtome.dissect.models.readouts.bases import random_rotation\n"
        "from microtome.storage.readouts import fingerprint_of\n"
        "print(fingerprint_of({'weight': random_rotation(64).astype(np.float32)}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == fingerprint_of({"weight": rotation.astype(np.float32)})


def test_rotations_are_spread_evenly() -> None:
    """Of a Haar-distributed Q the diagonal averages 0; QR's own signs would make all of it one sign."""
    traces = [np.trace(random_rotation(6, seed)) for seed in range(400)]
    assert abs(np.mean(traces)) < 0.2
    assert 0.85 < np.var(traces) < 1.15
    determinants = [np.linalg.det(random_rotation(6, seed)) for seed in range(100)]
    assert 30 < sum(value > 0 for value in determinants) < 70


@pytest.mark.parametrize("at_once", [1, 2000, 2**27])
def test_merged_moments_give_the_components_of_all_positions_at_once(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(bases_module, "BYTES_AT_ONCE", at_once)
    rng = np.random.default_rng(3)
    mixing = rng.normal(size=(7, 7)) * np.array([8, 5, 3, 2, 1, 0.5, 0.2])
    maps = (rng.normal(size=(20, 4, 5, 7)) @ mixing.T + 1000.0).astype(np.float32)
    moments = FeatureMoments(7)
    for part in np.split(maps, [3, 4, 11]):
        moments.update(torch.from_numpy(part).permute(0, 3, 1, 2))
    found = moments.components()
    rows = maps.reshape(-1, 7).astype(np.float64)
    _, values, vectors = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    assert np.allclose(found.variance, values**2 / len(rows), rtol=1e-9)
    assert np.allclose(np.abs(vectors @ found.weight), np.eye(7), atol=1e-6)
    assert (found.weight[np.abs(found.weight).argmax(0), np.arange(7)] > 0).all()
    assert np.allclose(found.bias, -(rows.mean(0) @ found.weight))
    assert found.first(2).weight.shape == (7, 2)
    assert found.first(99).weight.shape == (7, 7)


def test_positions_that_are_not_finite_are_left_out() -> None:
    maps = torch.randn(2, 3, 4, 4)
    broken = maps.clone()
    broken[0, 1, 2, 3], broken[1, 0, 0, 0] = torch.nan, torch.inf
    moments, expected = FeatureMoments(3), FeatureMoments(3)
    moments.update(broken)
    keep = torch.isfinite(broken).all(1)
    for image, mask in zip(maps, keep, strict=True):
        expected.update(image[:, mask].unsqueeze(0).unsqueeze(-1))
    assert moments.count == 30
    assert np.allclose(moments.components().weight, expected.components().weight)
    silent = FeatureMoments(3)
    silent.update(torch.full((1, 3, 2, 2), torch.nan))
    assert silent.count == 0


# Applying them


def linear(weight: NDArray[np.floating], bias: NDArray[np.floating] | None = None) -> Readout:
    matrices = {"weight": weight.astype(np.float32)} | ({} if bias is None else {"bias": bias.astype(np.float32)})
    return directions("layer", "matrix", "m.npy", "mark", matrices)


def test_every_position_is_read_by_itself() -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(6, 4)), rng.normal(size=4)
    maps = torch.randn(3, 6, 5, 2)
    expected = np.einsum("bchw,cu->buhw", maps.numpy().astype(np.float64), weight) + bias[:, None, None]
    for given in (maps, maps.contiguous(memory_format=torch.channels_last), maps.double(), maps[:, :, :, :]):
        found = linear(weight, bias)(given)
        assert found.shape == (3, 4, 5, 2)
        assert found.dtype == torch.float32
        assert np.allclose(found.numpy(), expected, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.allclose(linear(weight, bias)(maps).numpy(), expected, atol=1e-5)
    single = linear(weight)(torch.randn(2, 6, 1, 1))
    assert single.shape == (2, 4, 1, 1)


def test_in_parts_it_is_the_same_and_gradients_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.randn(3, 6, 5, 2, requires_grad=True)
    readout = linear(np.random.default_rng(0).normal(size=(6, 4)))
    whole = readout(maps)
    monkeypatch.setattr(readout_module, "BYTES_AT_ONCE", 7 * 4 * 10)
    parts = readout(maps)
    assert torch.allclose(whole, parts, atol=1e-6)
    parts.sum().backward()
    assert maps.grad is not None
    assert bool((maps.grad != 0).any())


def test_a_layer_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match=r"m\.npy reads 6 units, but layer layer has 5"):
        linear(np.eye(6))(torch.zeros(1, 5, 2, 2))


# Encoders

SAE = """
import torch
from torch import nn

class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(6, 9)
        self.drop = nn.Dropout(0.9)

    def forward(self, rows):
        return torch.relu(self.drop(self.encode(rows)))

def encoder():
    return Sparse()

def plain():
    return lambda rows: rows[:, :2] * {factor}

def integers():
    return lambda rows: rows.long()

def fewer():
    return lambda rows: rows[1:]

def pairs():
    return lambda rows: (rows, rows)

def maps():
    return lambda rows: rows[:, :, None]

def nothing():
    return 3
"""


@pytest.fixture
def sae(tmp_path: Path) -> Path:
    path = tmp_path / "sae.py"
    path.write_text(SAE.replace("{factor}", "2"))
    return path


def test_an_encoder_is_applied_to_every_position(sae: Path) -> None:
    encoder = Encoder(f"{sae}:encoder")
    readout = encoder_readout("layer", 6, encoder)
    maps = torch.randn(2, 6, 3, 4)
    layer = encoder.made.encode
    expected = torch.relu(torch.einsum("bchw,uc->buhw", maps, layer.weight) + layer.bias[:, None, None])
    assert readout.units == 9
    assert readout.kind == "encoder"
    assert not readout.matrices
    assert torch.allclose(readout(maps), expected, atol=1e-6)
    assert Encoder(f"{sae}:encoder").fingerprint == encoder.fingerprint, "random weights come from a seed"


def test_an_encoder_is_told_from_others(sae: Path) -> None:
    marks = {Encoder(f"{sae}:{name}").fingerprint for name in ("encoder", "plain")}
    sae.write_text(SAE.replace("{factor}", "3"))
    marks |= {Encoder(f"{sae}:{name}").fingerprint for name in ("encoder", "plain")}
    assert len(marks) == 4


def test_a_function_is_an_encoder_too(sae: Path) -> None:
    readout = encoder_readout("layer", 6, Encoder(f"{sae}:plain"))
    maps = torch.randn(2, 6, 3, 4)
    assert torch.equal(readout(maps), maps[:, :2] * 2)


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        ("integers", r"gave int64 \(3, 6\) for rows \(3, 6\); expected floating-point features \(3, U\)"),
        ("fewer", r"gave float32 \(2, 6\)"),
        ("pairs", "gave a tuple"),
        ("maps", r"gave float32 \(3, 6, 1\)"),
        ("nothing", "returned a int; expected a torch.nn.Module, or a function of rows"),
        ("encodr", "did you mean encoder"),
    ],
)
def test_encoders_that_break_their_contract_are_named(sae: Path, factory: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        encoder_readout("layer", 6, Encoder(f"{sae}:{factory}"))


def test_an_encoder_of_another_layer_says_what_failed(sae: Path) -> None:
    with pytest.raises(UsageError, match=r"sae\.py:encoder failed on rows \(3, 5\): RuntimeError"):
        encoder_readout("layer", 5, Encoder(f"{sae}:encoder"))


def identity(rows: Tensor) -> Tensor:
    return rows


def make_identity() -> object:
    return identity


def test_an_encoder_may_come_from_a_module() -> None:
    readout = encoder_readout("layer", 3, Encoder(f"{__name__}:make_identity"))
    maps = torch.randn(1, 3, 2, 2)
    assert torch.equal(readout(maps), maps)
