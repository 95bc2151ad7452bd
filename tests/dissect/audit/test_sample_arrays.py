"""Arrays of samples beside the activations: thumbnails, and which concepts occur; runs without them stay without."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.compare import differences
from helpers.planted import write_planted
from numpy.typing import NDArray

from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.audit import config as settings
from microtome.dissect.audit import extend_run, rebuild_report, repair_run, resume_audit, verify_run
from microtome.dissect.audit.images import thumbnail_of
from microtome.storage.arrays import IMAGE_LABELS, LABELS, MORE_ARRAYS, PRESENCE, THUMBNAILS
from microtome.storage.run import Run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def audited(source: Path) -> Path:
    run_audit(config_of(source, source.parent / "audited"))
    return source.parent / "audited"


def config_of(source: Path, out: Path, **changes: object) -> AuditConfig:
    values = {
        "model": f"{source}:model",
        "dataset": f"{source}:images",
        "layers": ("units",),
        "out": out,
        "tau": (0.05,),
        "batch": 2,
        "shard_samples": 4,
        "top": 3,
        "map": False,  # maps are for test_map.py
    }
    return settings.config_from_mapping({**values, **changes}, source="test")


def areas(image: NDArray[np.uint8], side: int) -> NDArray[np.float64]:
    """The mean over the area of each of side x side pixels, by weights of the rows and columns that it covers."""

    def weights(length: int) -> NDArray[np.float64]:
        edges = np.arange(side + 1) * length / side
        low, high = np.maximum(edges[:-1, None], np.arange(length)), np.minimum(edges[1:, None], np.arange(length) + 1)
        return np.maximum(high - low, 0) / (length / side)

    return np.einsum("rh,cw,hwx->rcx", weights(image.shape[0]), weights(image.shape[1]), image.astype(np.float64))


@pytest.mark.parametrize("size", [(224, 224), (100, 90), (33, 64), (32, 32), (299, 40)])
def test_a_thumbnail_is_the_mean_of_areas(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert np.abs(thumbnail_of(image) - areas(image, 32)).max() <= 1.0


def test_presence_is_what_the_labels_say(audited: Path) -> None:
    run = Run.open(audited)
    samples = run.plan.samples
    labels = run.arrays.read(LABELS, 0, samples) if run.arrays.exists(LABELS) else np.zeros((samples, 0), np.uint16)
    of_images = run.arrays.read(IMAGE_LABELS, 0, samples) if run.arrays.exists(IMAGE_LABELS) else labels[:, :0]
    ok = (run.table("samples")["status"] == "ok").to_numpy()
    for concept in run.table("concepts")["id"].tolist():
        there = (labels.reshape(samples, -1) == concept).any(axis=1)
        there |= (of_images.reshape(samples, -1) == concept).any(axis=1)
        np.testing.assert_array_equal(run.arrays.presence(0, samples, concept), there & ok)
    assert not run.arrays.presence(0, samples, 0).any()
    assert run.arrays.read(THUMBNAILS, 0, samples).any(axis=(1, 2, 3)).tolist() == ok.tolist()


def test_a_run_without_activations_has_the_same(source: Path, audited: Path, tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "streamed", keep_activations=False))
    one, other = Run.open(audited), Run.open(tmp_path / "streamed")
    for name in MORE_ARRAYS:
        np.testing.assert_array_equal(one.arrays.read(name, 0, 48), other.arrays.read(name, 0, 48))


@pytest.mark.parametrize("name", MORE_ARRAYS)
def test_damage_is_found_and_mended(audited: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(audited, run)
    (file,) = (path for path in (run / "arrays.zarr" / name / "c" / "1").rglob("*") if path.is_file())
    file.write_bytes(file.read_bytes()[:-5])
    (damage,) = verify_run(run).damages
    assert damage.key.startswith(f"arrays.zarr/{name}/c/1")
    assert repair_run(run).fine
    assert differences(audited, run) == []
    file.unlink()
    (run / "commits" / ("tally" if name == PRESENCE else "capture") / "000001.json").unlink()
    assert repair_run(run).fine
    assert differences(audited, run) == []


def as_an_earlier_version(run: Path) -> None:
    """Make a run what it would be, had a version made it that knew neither of the arrays."""
    for name in MORE_ARRAYS:
        shutil.rmtree(run / "arrays.zarr" / name)
    for stage in ("capture", "tally"):
        for record in (run / "commits" / stage).glob("*.json"):
            content = json.loads(record.read_bytes())
            content["files"] = {key: value for key, value in content["files"].items() if not _is_new(key)}
            record.write_text(json.dumps(content))
    tables = run / "commits" / "index" / "tables.json"
    content = json.loads(tables.read_bytes())
    content["files"] = {key: value for key, value in content["files"].items() if not _is_new(key)}
    tables.write_text(json.dumps(content))
    info = json.loads((run / "run.json").read_bytes())
    del info["more_arrays"]
    (run / "run.json").write_text(json.dumps(info))


def _is_new(key: str) -> bool:
    return any(key.startswith(f"arrays.zarr/{name}/") for name in MORE_ARRAYS)


def test_a_run_of_an_earlier_version_stays_without_them(source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_audit(config_of(source, run, limit=20))
    as_an_earlier_version(run)
    assert verify_run(run).fine
    (run / "commits" / "tally" / "000002.json").unlink()
    resume_audit(run)
    rebuild_report(run)
    (run / "commits" / "index" / "tables.json").unlink()
    assert repair_run(run).fine
    assert extend_run(run).added == 28
    assert verify_run(run).fine
    assert not any(Run.open(run).arrays.exists(name) for name in MORE_ARRAYS)


def test_an_extended_run_has_what_a_new_one_has(source: Path, audited: Path, tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "run", limit=18))
    extend_run(tmp_path / "run")
    assert differences(audited, tmp_path / "run") == []
