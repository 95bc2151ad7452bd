"""Audits of directions: what is planted along them is found, and a run keeps the ones that it was begun with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.boxes import FILES, ORDER, SAE, SIDE, UNITS, config_of, rotation, write_source
from helpers.compare import differences, results
from numpy.typing import NDArray

from microtome.dissect import AuditConfig, open_run, resume_audit, run_audit
from microtome.dissect.audit import extend_run, fitting, verify_run
from microtome.dissect.audit.prepare import prepare
from microtome.dissect.audit.readouts import open_readouts
from microtome.dissect.audit.schedule import ThreadExecutor
from microtome.dissect.cli.app import app
from microtome.dissect.query import Dissection
from microtome.storage.arrays import ACTIVATIONS, layer_array
from microtome.storage.errors import RunDamagedError, RunMismatchError, UsageError
from microtome.storage.run import Run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("boxes"))


@pytest.fixture(scope="module")
def whole(source: Path) -> Path:
    """A run with every kind of read-out."""
    run_audit(config_of(source, source.parent / "whole"))
    return source.parent / "whole"


def stored(run: Run, layer: str) -> NDArray[np.float16]:
    maps: NDArray[np.float16] = run.arrays.read(layer_array(run.layer(layer)["folder"], ACTIVATIONS), 0, 40)
    return maps


def test_layers_are_named_and_described(source: Path, whole: Path) -> None:
    run = Run.open(whole)
    labels = ["", ":pca", ":pca3", ":rotated", *(f":{file}" for file in FILES)]
    assert run.layer_names == [f"mixed{label}" for label in labels]
    assert [layer["units"] for layer in run.info["layers"]] == [8, 8, 3, 8, 8, 8, 3, 12]
    entry = run.layer("mixed:unmixed.npy")
    base = run.layer("mixed")
    assert (entry["kind"], entry["grid"], entry["receptive_field"]) == tuple(
        base[key]
        for key in ("kind", "grid", "receptive_field")  # type: ignore[literal-required]
    )
    assert entry["readout"]["source"] == str(source.parent / "unmixed.npy")
    assert entry["readout"]["inputs"] == 8
    kinds = [layer["readout"]["kind"] for layer in run.info["layers"] if "readout" in layer]
    assert kinds == ["pca", "pca", "rotated", "matrix", "matrix", "matrix", "encoder"]
    assert [layer["readout"]["images"] for layer in run.info["layers"] if "readout" in layer] == [40, 40, *[0] * 5]
    assert "readout" not in base


def test_the_identity_is_the_axes_to_the_byte_and_a_permutation_permutes(whole: Path) -> None:
    run = Run.open(whole)
    axes, same, permuted = (stored(run, f"mixed{label}") for label in ("", ":identity.npy", ":permuted.npy"))
    assert axes.tobytes() == same.tobytes()
    assert axes[:, ORDER].tobytes() == permuted.tobytes()
    for table in ("units", "iou", "patches", "thresholds", "histogram"):
        assert run.layer_table("mixed", table).equals(run.layer_table("mixed:identity.npy", table)), table
    columns = ["threshold", "concept", "iou", "mean", "std"]
    expected = run.layer_table("mixed", "units").iloc[ORDER][columns].reset_index(drop=True)
    assert expected.equals(run.layer_table("mixed:permuted.npy", "units")[columns])


def test_a_planted_direction_is_found_where_the_axes_show_nothing(whole: Path) -> None:
    run = Run.open(whole)
    found = run.layer_table("mixed:unmixed.npy", "units")
    assert found["concept"].tolist()[:2] == ["car", "tree"]
    assert found["iou"].tolist()[:2] == [1.0, 1.0]
    assert run.layer_table("mixed", "units")["iou"].max() < 0.35
    assert run.layer_table("mixed:rotated", "units")["iou"].max() < 0.35
    rows = Dissection(run).query("concept=car iou>0.9").to_dict("records")
    assert [(row["layer"], row["unit"]) for row in rows] == [("mixed:unmixed.npy", 0)]


def test_every_kind_is_what_it_says_of_the_same_pass(source: Path, whole: Path) -> None:
    run = Run.open(whole)
    axes = run.activation_range("mixed", 0, 40).astype(np.float64)
    readouts = open_readouts(run)
    rows = axes.transpose(0, 2, 3, 1).reshape(-1, UNITS)
    for label in (":pca", ":pca3", ":rotated", ":unmixed.npy"):
        matrices = readouts[f"mixed{label}"].matrices
        expected = rows @ matrices["weight"] + matrices.get("bias", np.zeros(1))
        maps = run.activation_range(f"mixed{label}", 0, 40)
        assert np.allclose(maps.transpose(0, 2, 3, 1).reshape(len(rows), -1), expected, atol=5e-3)
    centred = rows - rows.mean(0)
    _, _, vectors = np.linalg.svd(centred, full_matrices=False)
    weight = readouts["mixed:pca"].matrices["weight"]
    assert np.allclose(np.abs(np.diag(vectors @ weight)), 1, atol=1e-4)
    assert np.array_equal(readouts["mixed:pca3"].matrices["weight"], weight[:, :3])
    features = run.activation_range("mixed:sae.py:encoder", 0, 40)
    linear = readouts["mixed:sae.py:encoder"].rows.made.linear  # type: ignore[attr-defined]
    expected = np.maximum(rows @ linear.weight.numpy().T + linear.bias.numpy(), 0)
    assert np.allclose(features.transpose(0, 2, 3, 1).reshape(len(rows), -1), expected, atol=5e-3)


def test_pages_status_and_verify_know_them(whole: Path) -> None:
    pages = {path.name for path in (whole / "report/layers").glob("*.html")}
    assert {f"{layer['folder']}.html" for layer in Run.open(whole).info["layers"]} <= pages
    assert verify_run(whole).fine
    for command in (["status", str(whole)], ["query", str(whole), "layer=mixed:pca*"], ["report", str(whole)]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output


def test_no_activations_give_the_same_tables(source: Path, whole: Path, tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "run", keep_activations=False))
    tables = {key: content for key, content in results(whole).items() if key.endswith(".parquet")}
    assert {key: content for key, content in results(tmp_path / "run").items() if key.endswith(".parquet")} == tables


@pytest.mark.slow
def test_processes_give_the_same_bytes(source: Path, whole: Path, tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "run", cluster="processes", workers=1))
    assert differences(whole, tmp_path / "run") == []


def test_a_run_goes_on_with_the_directions_it_was_begun_with(
    source: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(config_of(source, tmp_path / "run"), ThreadExecutor())

    def refit(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(fitting, "FeatureMoments", refit)
    monkeypatch.setattr(fitting, "random_rotation", refit)
    resume_audit(tmp_path / "run")
    assert differences(whole, tmp_path / "run") == []


def test_what_has_changed_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_source(tmp_path)
    config = config_of(source, tmp_path / "run")
    prepare(config, ThreadExecutor())
    prepare(config, ThreadExecutor())
    np.save(tmp_path / "unmixed.npy", rotation()[:, :3])
    with pytest.raises(RunMismatchError, match=r"made with another matrix in .*unmixed\.npy"):
        prepare(config, ThreadExecutor())
    (tmp_path / "unmixed.npy").unlink()
    capsys.readouterr()
    prepare(config, ThreadExecutor())
    assert "unmixed.npy is gone; the run has what it held" in capsys.readouterr().err
    with pytest.raises(RunMismatchError, match=r"another units \(the run has \[.*'pca3'.*asked for \['axes', 'pca'\]"):
        prepare(config_of(source, tmp_path / "run", units=["axes", "pca"]), ThreadExecutor())
    with pytest.raises(RunMismatchError, match="another rotation_baseline"):
        prepare(config_of(source, tmp_path / "run", rotation_baseline=True), ThreadExecutor())
    (tmp_path / "sae.py").write_text(SAE.replace("relu", "abs"))
    with pytest.raises(RunMismatchError, match=r"encoder .*sae\.py:encoder is another one"):
        resume_audit(tmp_path / "run")


def test_the_same_matrix_elsewhere_is_the_same(tmp_path: Path) -> None:
    source = write_source(tmp_path)
    prepare(config_of(source, tmp_path / "run", units=[str(tmp_path / "unmixed.npy")]), ThreadExecutor())
    (tmp_path / "other").mkdir()
    (tmp_path / "unmixed.npy").rename(tmp_path / "other/unmixed.npy")
    prepare(config_of(source, tmp_path / "run", units=[str(tmp_path / "other/unmixed.npy")]), ThreadExecutor())


@pytest.mark.parametrize("harm", ["altered", "garbled", "missing"])
def test_damaged_directions_are_noticed(source: Path, tmp_path: Path, harm: str) -> None:
    out = tmp_path / "run"
    prepare(config_of(source, out, units=["rotated"]), ThreadExecutor())
    file = out / "layers/mixed%3Arotated/readout.safetensors"
    if harm == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[-1 if harm == "altered" else 9] ^= 1
        file.write_bytes(content)
    with pytest.raises(RunDamagedError, match=r"readout\.safetensors is (altered|missing).*bring it back from a copy"):
        resume_audit(out)
    damages = verify_run(out).damages
    assert [(damage.key, damage.stages) for damage in damages] == [("layers/mixed%3Arotated/readout.safetensors", ())]


def test_a_run_that_grows_keeps_its_directions(source: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_audit(config_of(source, out, units=["pca", "sae.py:encoder".replace("sae", str(source.parent / "sae"))]))
    before = {name: readout.fingerprint for name, readout in open_readouts(Run.open(out)).items()}
    extended = extend_run(out, f"{source}:more")
    assert extended.added == 10
    assert {name: readout.fingerprint for name, readout in open_readouts(Run.open(out)).items()} == before
    assert Run.open(out).activation_range("mixed:pca", 0, 50).shape == (50, UNITS, SIDE, SIDE)
    assert verify_run(out).fine


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "sae.py").write_text(SAE.replace("relu", "abs")),
            r"encoder .*sae\.py:encoder is anoth",
        ),
        (lambda folder: np.save(folder / "unmixed.npy", rotation()[:, :3]), r"the matrix in .*unmixed\.npy is another"),
    ],
)
def test_a_refused_extension_leaves_the_run_as_it_was(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    source, out = write_source(tmp_path), tmp_path / "run"
    units = [str(tmp_path / "unmixed.npy"), f"{tmp_path / 'sae.py'}:encoder"]
    run_audit(config_of(source, out, units=units))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    change(tmp_path)
    with pytest.raises(RunMismatchError, match=message):
        extend_run(out, f"{source}:more")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_start_that_failed_is_no_obstacle_but_files_of_others_are(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    folder = out / "layers/mixed%3Arotated"
    folder.mkdir(parents=True)
    (folder / "readout.safetensors").write_bytes(b"half a sta")
    prepare(config_of(source, out, units=["rotated"]), ThreadExecutor())
    assert open_readouts(Run.open(out))["mixed:rotated"].units == UNITS
    other = tmp_path / "other"
    (other / "layers").mkdir(parents=True)
    (other / "layers/mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        prepare(config_of(source, other, units=["rotated"]), ThreadExecutor())


def test_it_may_lie_in_a_bucket(source: Path, whole: Path) -> None:
    url = "memory://readouts/run"
    config = config_of(source, url)
    prepare(config, ThreadExecutor())
    run_audit(config)
    assert differences(whole, url) == []
    assert verify_run(url).fine


@pytest.mark.parametrize(
    ("units", "shape", "told"),
    [
        ("m.npy", (7, 3), r"m\.npy has shape \(7, 3\), but layer mixed has 8 units; expected \(8, U\)"),
        ("m.npy", None, r"m\.npy: no such file"),
        ("pca0", None, "at least 1"),
        ("ica", None, "no kind of units named 'ica'; did you mean pca"),
        ("nowhere.py:encoder", None, r"there is no file .*nowhere\.py"),
    ],
)
def test_mistakes_are_told_plainly(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, units: str, shape: tuple[int, ...] | None, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if shape is not None:
        np.save("m.npy", np.ones(shape))
    with pytest.raises(UsageError, match=told):
        prepare(config_of(source, tmp_path / "run", units=units), ThreadExecutor())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("rows - rows.mean(0)", "mixes positions: each row must be read on its own"),
        ("rows.roll(1, 0)", "mixes positions"),
        ("rows * float('nan')", "gave only NaN"),
    ],
)
def test_encoders_that_no_map_can_be_read_by_are_refused(tmp_path: Path, code: str, message: str) -> None:
    source = write_source(tmp_path)
    (tmp_path / "bad.py").write_text(f"def encoder():\n    return lambda rows: {code}\n")
    with pytest.raises(UsageError, match=message):
        prepare(config_of(source, tmp_path / "run", units=[f"{tmp_path / 'bad.py'}:encoder"]), ThreadExecutor())
    assert not Run.exists(tmp_path / "run")


def test_more_components_than_units_are_noted(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(config_of(source, tmp_path / "run", units=["pca999"]), ThreadExecutor())
    err = capsys.readouterr().err
    assert err.count("layer mixed has 8 units, so that mixed:pca999 holds 8 components") == 1
    assert Run.open(tmp_path / "run").layer("mixed:pca999")["units"] == UNITS


def test_a_transposed_matrix_is_taken_and_told(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "rows.npy", rotation()[:3])
    prepare(config_of(source, tmp_path / "run", units=str(tmp_path / "rows.npy")), ThreadExecutor())
    assert "is (U, C) for layer mixed of 8 units; its rows are taken as directions" in capsys.readouterr().err
    readout = open_readouts(Run.open(tmp_path / "run"))["mixed:rows.npy"]
    assert np.array_equal(readout.matrices["weight"], rotation()[:3].T)


def test_the_command_line_takes_them(source: Path, tmp_path: Path) -> None:
    arguments = ["audit", f"{source}:model", f"{source}:images", "--layers", "mixed,mixed:pca2", "--rotation-baseline"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run"), "--json", "--top", "1"])
    assert done.exit_code == 0, done.output
    assert Run.open(tmp_path / "run").layer_names == ["mixed", "mixed:rotated", "mixed:pca2"]
    shown = CliRunner().invoke(
        app, ["inspect", f"{source}:model", "--layers", "mixed:pca2,mixed:rotated", "--no-timing", "--json"]
    )
    layers = json.loads(shown.stdout)["layers"]
    assert [(layer["name"], layer["units"]) for layer in layers] == [("mixed:pca2", 2), ("mixed:rotated", 8)]
    wrong = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "more"), "--grid", "0x4"])
    assert isinstance(wrong.exception, UsageError)
    assert "--grid 0x4: HEIGHTxWIDTH" in str(wrong.exception)


def test_settings_of_token_streams_belong_to_the_run(source: Path, tmp_path: Path) -> None:
    job = prepare(config_of(source, tmp_path / "run", units=(), grid=[4, 6], prefix=0), ThreadExecutor())
    assert (job.model.tokens.grid, job.model.tokens.prefix) == ((4, 6), 0)
    assert Run.open(tmp_path / "run").info["config"]["grid"] == [4, 6]
    with pytest.raises(RunMismatchError, match=r"another grid \(the run has \[4, 6\], asked for None\)"):
        prepare(config_of(source, tmp_path / "run", units=(), prefix=0), ThreadExecutor())
    for changes, told in (({"grid": [4, 0]}, "--grid"), ({"prefix": -1}, "--prefix -1")):
        with pytest.raises(UsageError, match=told):
            config_of(source, tmp_path / "run", **changes)


def test_an_older_run_goes_on(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = config_of(source, out, units=())
    prepare(config, ThreadExecutor())
    info = json.loads((out / "run.json").read_text())
    for name in ("units", "rotation_baseline", "grid", "prefix"):
        del info["config"][name]
    (out / "run.json").write_text(json.dumps(info))
    prepare(config, ThreadExecutor())
    resume_audit(out)


@pytest.mark.slow
def test_a_rotation_of_the_built_in_classifier_has_fewer_detectors(tmp_path: Path) -> None:
    """As in the paper: the axes are not just any basis. (At higher taus nearly every direction passes 0.04.)"""
    run_audit(
        AuditConfig(
            model="builtin:scenes-cnn",
            dataset="scenes:400",
            layers=("block3", "block4"),
            rotation_baseline=True,
            out=tmp_path / "run",
            top=1,
            map=False,
        )
    )
    summary = open_run(tmp_path / "run").summary()
    whole = summary[summary["category"] == "all"].set_index("layer")
    for layer in ("block3", "block4"):
        for column in ("detectors", "unique_detectors"):
            assert whole.loc[f"{layer}:rotated", column] < 0.85 * whole.loc[layer, column]
