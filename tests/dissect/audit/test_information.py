"""Stage information: its table against full counts, kept and streamed, resumed, mended and grown."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.compare import differences
from helpers.growing import write_growing
from helpers.planted import write_planted
from numpy.typing import NDArray

from microtome.dissect import AuditConfig, extend_run, resume_audit, run_audit
from microtome.dissect.audit import config as settings
from microtome.dissect.audit.repair import repair_run
from microtome.dissect.audit.stages import information
from microtome.dissect.audit.verify import verify_run
from microtome.dissect.maths.information import (
    Population,
    candidates,
    count_information,
    halves_of,
    most_informative,
)
from microtome.dissect.maths.thresholds import CoarseHistogram
from microtome.dissect.query import open_run
from microtome.storage.arrays import ACTIVATIONS, IMAGE_LABELS, LABELS, layer_array
from microtome.storage.errors import RunMismatchError
from microtome.storage.run import Run

TABLE = "layers/units/information.parquet"


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
        "map": False,
        "information": True,
    }
    return settings.config_from_mapping({**values, **changes}, source="test")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def audited(source: Path) -> Path:
    out = source.parent / "audited"
    run_audit(config_of(source, out, dataset=f"{source}:half_broken"))
    return out


def at_once(run: Run) -> pd.DataFrame:
    """The table from all samples together, by one call on arrays."""
    folder, scale = run.layer("units")["folder"], run.layer("units")["scale"]
    readable = run.table("samples")["status"].to_numpy() == "ok"
    concepts = run.table("concepts")
    categories = run.info["data"]["categories"]
    category_of = np.array([-1, *(categories.index(name) for name in concepts["category"])])

    def read(name: str) -> NDArray[np.generic]:
        return np.ascontiguousarray(run.arrays.read(name, 0, run.plan.samples)[readable])

    acts = read(layer_array(folder, ACTIVATIONS)).astype(np.float16)
    labels, whole = read(LABELS).astype(np.uint16), read(IMAGE_LABELS).astype(np.uint16)
    annotated = np.ones((len(acts), len(categories)), np.bool_)
    halves = halves_of(np.flatnonzero(readable))
    coarse = CoarseHistogram.empty(acts.shape[1])
    coarse.update(acts)
    states = run.layer_table("units", "units")["state"]
    fixed = (run.layer_table("units", "thresholds")["threshold"].to_numpy() / scale).astype(np.float16)
    fixed[states.isin(["dead", "constant"])] = np.nan
    edges = candidates(coarse, also=fixed[:, None])
    population = Population.empty(len(concepts), len(categories))
    population.update(labels, whole, category_of, annotated, halves)
    counts = count_information(acts, edges, labels, whole, category_of, annotated, halves)
    table = pd.DataFrame(most_informative(counts, population, edges, category_of))
    table["threshold"] *= scale
    return table


def test_the_table_is_that_of_all_samples_at_once(audited: Path) -> None:
    run = Run.open(audited)
    assert run.info["data"]["unreadable"] == 5
    assert run.info["stages"]["information"]["state"] == "done"
    pd.testing.assert_frame_equal(run.layer_table("units", "information"), at_once(run))


def test_units_are_found_at_the_size_of_their_concept(audited: Path) -> None:
    run = Run.open(audited)
    table = run.layer_table("units", "information")
    best = open_run(audited).query("tau=information").set_index("unit")
    fixed = run.layer_table("units", "units").set_index("unit")
    assert [best["concept"][unit] for unit in (0, 2, 6)] == ["car", "car", "car"]  # and not red, which is the same
    assert all(best["iou"][unit] > fixed["iou"][unit] for unit in (0, 2, 6))
    assert not {1, 4} & set(table["unit"])  # dead and constant
    assert (table["information"] >= 0.001).all()
    recomputed = table["intersection"] / (table["unit_pixels"] + table["concept_pixels"] - table["intersection"])
    assert np.allclose(table["iou"], recomputed, atol=1e-12)


@pytest.mark.parametrize("convention", ["mask", "all"])
def test_streamed_and_kept_runs_agree_under_every_convention(source: Path, tmp_path: Path, convention: str) -> None:
    run_audit(config_of(source, tmp_path / "kept", iou=convention))
    run_audit(config_of(source, tmp_path / "streamed", iou=convention, keep_activations=False, shard_samples=8))
    one, two = ((tmp_path / name / TABLE).read_bytes() for name in ("kept", "streamed"))
    assert one == two


def test_a_streamed_run_counts_in_the_pass_of_the_tally(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No third pass; a shard that is lost afterwards is made again through the model."""
    opened = []
    original = information.second_pass

    def counted(*arguments: object) -> object:
        opened.append(arguments)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(information, "second_pass", counted)
    run_audit(config_of(source, tmp_path / "run", keep_activations=False))
    assert opened == []
    before = (tmp_path / "run" / TABLE).read_bytes()
    (tmp_path / "run/commits/information/000002.safetensors.zst").unlink()
    (tmp_path / "run" / TABLE).write_bytes(b"harmed")
    assert {damage.stages for damage in verify_run(tmp_path / "run").damages} == {("information",)}
    assert repair_run(tmp_path / "run").fine
    assert len(opened) == 1
    assert (tmp_path / "run" / TABLE).read_bytes() == before


class Crash(BaseException):
    """Stands for a kill that python still gets to see."""


def test_a_crash_is_resumed_to_the_same_bytes(
    source: Path, audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, done = information._count, []

    def crash_later(*arguments: object) -> object:
        done.append(arguments)
        if len(done) > 3:
            raise Crash
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(information, "_count", crash_later)
    with pytest.raises(Crash):
        run_audit(config_of(source, tmp_path / "run", dataset=f"{source}:half_broken"))
    monkeypatch.undo()
    assert Run.open(tmp_path / "run").info["stages"]["information"]["state"] == "pending"
    resume_audit(tmp_path / "run")
    assert differences(audited, tmp_path / "run") == []


def test_a_damaged_table_is_made_again(audited: Path, tmp_path: Path) -> None:
    shutil.copytree(audited, tmp_path / "run")
    (tmp_path / "run" / TABLE).unlink()
    verdict = verify_run(tmp_path / "run")
    assert [(damage.key, damage.stages) for damage in verdict.damages] == [(TABLE, ("information",))]
    assert repair_run(tmp_path / "run").fine
    assert differences(audited, tmp_path / "run") == []


def test_a_run_that_grows_is_that_of_all_images(tmp_path: Path) -> None:
    source = write_growing(tmp_path)
    data = {"dataset": f"{source}:n31", "model": f"{source}:model"}
    run_audit(config_of(source, tmp_path / "small", limit=13, **data))
    extend_run(tmp_path / "small", limit=30)
    run_audit(config_of(source, tmp_path / "large", limit=30, **data))
    assert (tmp_path / "small" / TABLE).read_bytes() == (tmp_path / "large" / TABLE).read_bytes()


def test_it_is_there_where_it_was_asked_for(source: Path, tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "run", information=None, limit=8))
    run = Run.open(tmp_path / "run")
    assert "information" not in run.info["stages"]
    assert run.info["config"]["information"] is False
    assert not run.has_layer_table("units", "information")
    run_audit(config_of(source, tmp_path / "run", information=None, limit=8))
    with pytest.raises(RunMismatchError, match="information"):
        run_audit(config_of(source, tmp_path / "run", information=True, limit=8))


def test_an_earlier_run_is_resumed_without_it(source: Path, tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "run", information=False, limit=8))
    run = Run.open(tmp_path / "run")
    del run.info["config"]["information"]
    run.save()
    run_audit(config_of(source, tmp_path / "run", information=None, limit=8))
    assert "information" not in Run.open(tmp_path / "run").info["stages"]


def test_large_runs_have_fewer_candidates_and_then_fewer_concepts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert information._fitting(256, 20, 1) == (8, 20)
    steps, concepts = information._fitting(3904, 700, 1)
    assert (2 <= steps < 8, concepts) == (True, 700) or (steps, concepts < 700) == (2, True)
    monkeypatch.setattr(information, "MOST_COUNTS", 10_000)
    steps, concepts = information._fitting(10, 100, 1)
    assert steps == 2
    assert 2 * 10 * (12 * 2 + 1) * (concepts + 1) <= 10_000


def test_a_shard_in_blocks_of_units_is_the_same(
    source: Path, audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(information, "COUNTS_AT_ONCE", 1)
    run_audit(config_of(source, tmp_path / "run", dataset=f"{source}:half_broken"))
    assert differences(audited, tmp_path / "run") == []
