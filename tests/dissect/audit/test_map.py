"""Stage map: what a direct computation gives, whoever computes it and however often it was killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.compare import differences
from helpers.planted import write_planted
from numpy.typing import NDArray

from microtome.dissect import AuditConfig, make_maps, run_audit
from microtome.dissect.audit import config as settings
from microtome.dissect.audit import extend_run, mapped, repair_run, resume_audit, verify_run
from microtome.dissect.audit.budget import Budget
from microtome.dissect.audit.stages import map as stage
from microtome.dissect.audit.stopping import Stopped, StopSignal
from microtome.dissect.embedding import maps
from microtome.dissect.embedding.quality import map_quality
from microtome.dissect.embedding.tsne import optimise
from microtome.dissect.embedding.tsne.layout import MapSettings, align, lay_out
from microtome.dissect.embedding.vectors import ArrayVectors
from microtome.storage.arrays import MEANS, layer_array
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.layer_arrays import Checkpoint
from microtome.storage.run import Run

LAYERS = ("units", "head")
"""Of `units` a third of the images are NaN; the 2 units of `head` are finite everywhere."""
FED = {"size": 32, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
FEATURES = """
def blind():
    import torch
    from torch import nn
    model = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(3, 4, 1)).eval()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.fill_(0.7)
    return model


def all_broken():
    return Images(broken=range(COUNT))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_planted(tmp_path_factory.mktemp("source"))
    path.write_text(path.read_text() + FEATURES)
    return path


@pytest.fixture(scope="module")
def audited(source: Path) -> Path:
    run_audit(config_of(source, source.parent / "audited"))
    return source.parent / "audited"


@pytest.fixture
def run(audited: Path, tmp_path: Path) -> Path:
    shutil.copytree(audited, tmp_path / "run")
    return tmp_path / "run"


def config_of(source: Path, out: Path, **changes: object) -> AuditConfig:
    values = {
        "model": f"{source}:model",
        "dataset": f"{source}:half_broken",
        "layers": LAYERS,
        "out": out,
        "tau": (0.05,),
        "batch": 4,
        "shard_samples": 8,
        "top": 3,
    }
    return settings.config_from_mapping({**values, **changes}, source="test")


def finite_means(run: Run, layer: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    means = run.arrays.read(layer_array(run.layer(layer)["folder"], MEANS), 0, run.plan.samples).astype(np.float32)
    samples = np.flatnonzero(np.isfinite(means).all(axis=1))
    return means[samples], samples


def quality_of(run: Path, layer: str) -> list[str]:
    return Run.open(run).info["map"][layer]["quality"]["warnings"]


def test_the_tables_are_what_a_direct_computation_gives(audited: Path) -> None:
    run = Run.open(audited)
    before: pd.DataFrame | None = None
    for layer in LAYERS:
        means, samples = finite_means(run, layer)
        table = run.layer_table(layer, "map")
        assert table["sample"].tolist() == list(range(48))
        assert np.flatnonzero(table["x"].notna()).tolist() == samples.tolist()
        centred = means.astype(np.float64) - means.mean(axis=0, dtype=np.float64)
        values = np.linalg.svd(centred, compute_uv=False) ** 2 / (len(means) - 1)
        components = run.layer_table(layer, "components")
        np.testing.assert_allclose(components["variance"], values, rtol=1e-6, atol=1e-12 * values[0])
        np.testing.assert_allclose(components["ratio"], values / values.sum(), rtol=1e-6, atol=1e-12)
        stored = run.layer_arrays(layer, "pca")
        along = centred @ stored["components"][:2].T
        flat = table[["pca_x", "pca_y"]].to_numpy()[samples]
        np.testing.assert_allclose(flat, along, rtol=1e-4, atol=1e-4 * np.abs(along).max())
        initial = flat if before is None else before[["x", "y"]].to_numpy()[samples]
        off = np.isnan(initial).any(axis=1)
        initial[off] = initial[~off].mean(axis=0)
        positions = lay_out(ArrayVectors(means), MapSettings(), initial=initial).positions
        positions = positions if before is None else align(positions, initial)
        np.testing.assert_array_equal(table[["x", "y"]].to_numpy()[samples], positions)
        info = run.info["map"][layer]
        assert info["aligned_to"] == ("" if before is None else "units")
        quality = map_quality(ArrayVectors(means), positions, table["sample"].to_numpy()[samples] % 2)
        assert info["quality"]["trustworthiness"] == quality.trustworthiness
        assert (info["quality"]["recall"], info["quality"]["purity"]) == (quality.recall, quality.purity)
        before = table
    assert any("14 images" in warning and "not finite" in warning for warning in quality_of(audited, "units"))


def test_threads_do_not_change_a_byte(source: Path, audited: Path, tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "run", workers=3))
    assert differences(audited, tmp_path / "run") == []


def test_neither_threads_nor_reading_again_change_a_map(audited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open(audited)
    monkeypatch.setattr(maps, "FEW", 0)
    monkeypatch.setattr(maps, "IN_MEMORY", 0)
    made = maps.make_map(run, "head", maps.Wish(), onto="units", how=maps.How(threads=3))
    for name, table in made.tables.items():
        pd.testing.assert_frame_equal(table, run.layer_table("head", name), check_dtype=False, check_exact=True)


class Crash(BaseException):
    """Stands for a kill that python still gets to see."""


def crash(*_: object, **__: object) -> None:
    raise Crash


@pytest.mark.parametrize("after", [1, 400, 760])
def test_a_map_that_was_killed_goes_on_to_the_same_bytes(
    source: Path, audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    saves = []
    original = Checkpoint.save

    def crash_later(self: Checkpoint, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        original(self, arrays)
        saves.append(arrays["all/state/iteration"].tolist()[0])
        if len(saves) == after:
            raise Crash

    monkeypatch.setattr(optimise, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(Checkpoint, "save", crash_later)
    run = tmp_path / "run"
    with pytest.raises(Crash):
        run_audit(config_of(source, run))
    assert Run.open(run).info["stages"]["map"]["state"] == "pending"
    monkeypatch.setattr(optimise, "SAVE_SECONDS", 60.0)
    begun = []
    monkeypatch.setattr(optimise, "_one_step", told_first(begun, optimise._one_step))
    resume_audit(run)
    assert begun[0] == saves[-1]  # it went on from there
    assert differences(audited, run) == []
    assert list(run.rglob("*checkpoint*")) == []
    assert verify_run(run).fine


def told_first(told: list[int], original: object) -> object:
    """`_one_step` that notes the iteration of its first call."""

    def step(state: optimise.State, *rest: object) -> None:
        told.append(state.iteration)
        original(state, *rest)  # type: ignore[operator]

    return step


def test_a_stop_keeps_what_was_reached(source: Path, audited: Path, run: Path) -> None:
    opened, stop = Run.open(run), StopSignal()
    wish = stage.wish_for(opened, opened.layer("units"), config_of(source, run, map_seed=5))
    other = type(wish)(MapSettings(seed=5))
    stop.set("enough")
    with pytest.raises(Stopped):
        stage.draw_maps(opened, {"units": other}, threads=1, stop=stop)
    assert differences(audited, run) == []


def test_an_extended_run_has_the_maps_of_a_new_one(source: Path, audited: Path, tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "run", limit=20))
    small = Run.open(tmp_path / "run").layer_table("units", "map")
    assert len(small) == 20
    extend_run(tmp_path / "run")
    assert differences(audited, tmp_path / "run") == []
    assert verify_run(tmp_path / "run").fine


def test_an_extended_run_keeps_what_its_maps_were_last_asked_for(source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_audit(config_of(source, run, limit=20, map=False))
    make_maps(run, ["units"], perplexity=4, report=False)
    extend_run(run)
    info = Run.open(run).info
    assert list(info["map"]) == ["units"]
    assert info["map"]["units"]["settings"]["perplexity"] == 4
    assert len(Run.open(run).layer_table("units", "map")) == 48
    assert not Run.open(run).has_layer_table("head", "map")


def test_no_map_leaves_them_out(source: Path, audited: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_audit(config_of(source, run, map=False))
    info = Run.open(run).info
    assert "map" not in info["stages"]
    assert "map" not in info
    assert verify_run(run).fine
    run_audit(config_of(source, run))  # asked for later: the run stays as it is, and is not refused
    assert "map" not in Run.open(run).info
    made = make_maps(run, report=False)
    assert made.made == LAYERS
    assert differences(audited, run) == []
    assert make_maps(run).made == ()
    assert verify_run(run).fine


def test_maps_that_are_still_to_be_made_can_be_left_out(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_draw_map", crash)
    with pytest.raises(Crash):
        run_audit(config_of(source, tmp_path / "run"))
    monkeypatch.undo()
    resume_audit(tmp_path / "run", maps=False)
    info = Run.open(tmp_path / "run").info
    assert "map" not in info["stages"]
    assert {stage["state"] for stage in info["stages"].values()} == {"done"}
    make_maps(tmp_path / "run", ["head"], report=False)
    assert Run.open(tmp_path / "run").info["map"]["head"]["aligned_to"] == ""


@pytest.fixture
def half_mapped(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was killed while the map of its second layer was made."""
    original = Checkpoint.save

    def crash_in_head(self: Checkpoint, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        original(self, arrays)
        if self.folder == "head":
            raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(optimise, "SAVE_SECONDS", -1.0)
        patched.setattr(Checkpoint, "save", crash_in_head)
        with pytest.raises(Crash):
            run_audit(config_of(source, tmp_path / "run"))
    return tmp_path / "run"


def test_maps_that_are_finished_stay_where_others_are_left_out(
    audited: Path, half_mapped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = half_mapped
    resume_audit(run, maps=False)
    assert "the maps of head are left out" in capsys.readouterr().err
    info = Run.open(run).info
    assert list(info["map"]) == ["units"]
    assert {stage["state"] for stage in info["stages"].values()} == {"done"}
    left = [path.name for path in (run / "layers" / "head").iterdir()]
    assert [name for name in left if name.startswith(("map", "pca", "comp", "clus", "dis"))] == []
    assert {name for name in differences(audited, run) if name.startswith("layers/units")} == set()
    assert verify_run(run).fine
    (run / "layers" / "units" / "map.parquet").unlink()
    assert repair_run(run).fine
    assert list(Run.open(run).info["map"]) == ["units"]
    assert make_maps(run, report=False).made == ("head",)
    assert [name for name in differences(audited, run) if name.startswith("layers/")] == []


def test_maps_of_a_smaller_run_are_not_finished_ones(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    run_audit(config_of(source, run, limit=20))
    monkeypatch.setattr(stage, "_draw_map", crash)
    with pytest.raises(Crash):
        extend_run(run)
    assert mapped.leave_out_maps(Run.open(run)) == list(LAYERS)
    info = Run.open(run).info
    assert "map" not in info
    assert "map" not in info["stages"]
    assert list((run / "layers").rglob("map.parquet")) == []


def test_maps_that_began_from_a_former_one_are_named(audited: Path, run: Path) -> None:
    assert make_maps(run, ["units"], report=False).begun_elsewhere == ()
    alone = make_maps(run, ["units"], seed=9, report=False)
    assert (alone.made, alone.begun_elsewhere) == (("units",), ("head",))
    assert "layers/head/map.parquet" not in differences(audited, run)
    both = make_maps(run, report=False)
    assert (both.made, both.begun_elsewhere) == (("head",), ())
    assert "layers/head/map.parquet" in differences(audited, run)


@pytest.mark.parametrize("file", ["map.parquet", "components.parquet", "clusters.parquet", "pca.safetensors"])
@pytest.mark.parametrize("harm", ["altered", "deleted"])
def test_damage_is_found_and_made_anew(audited: Path, run: Path, file: str, harm: str) -> None:
    path = run / "layers" / "units" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.unlink() if harm == "deleted" else path.write_bytes(content)
    (damage,) = verify_run(run).damages
    assert (damage.key, damage.stages) == (f"layers/units/{file}", ("map",))
    assert repair_run(run).fine
    assert differences(audited, run) == []


def test_a_lost_record_is_damage_too(audited: Path, run: Path) -> None:
    (run / "commits" / "map" / "head" / "tables.json").unlink()
    (damage,) = verify_run(run).damages
    assert damage.stages == ("map",)
    assert repair_run(run).fine
    assert differences(audited, run) == []


def test_one_layer_is_made_anew_alone(audited: Path, run: Path) -> None:
    made = make_maps(run, ["head"], perplexity=5, seed=3)
    assert made.made == ("head",)
    info = made.run.info["map"]
    assert info["head"]["settings"]["perplexity"] == 5
    assert info["head"]["neighbors"] == 15
    assert info["units"]["settings"]["perplexity"] is None
    assert set(differences(audited, run)) <= {
        f"layers/head/{name}.parquet" for name in ("map", "clusters", "disagreements")
    }
    assert "layers/head/map.parquet" in differences(audited, run)
    assert verify_run(run).fine
    assert make_maps(run, ["head"]).made == ()
    assert make_maps(run, ["head"], neighbors=15, seed=0).made == ("head",)  # as the audit was asked for, again
    assert differences(audited, run) == []
    with pytest.raises(UsageError, match="layer of this run"):
        make_maps(run, ["tail"])


def test_whitened_components_give_another_map(run: Path, audited: Path) -> None:
    make_maps(run, ["units"], whiten=True, report=False)
    assert Run.open(run).info["map"]["units"]["settings"]["whiten"] is True
    assert "layers/units/map.parquet" in differences(audited, run)
    assert "layers/units/components.parquet" not in differences(audited, run)


@pytest.mark.slow
def test_an_umap_stands_beside_it(run: Path) -> None:
    pytest.importorskip("umap")
    make_maps(run, ["head"], umap=True, report=False)
    table = Run.open(run).layer_table("head", "map")
    assert np.array_equal(table["umap_x"].isna(), table["x"].isna())
    assert verify_run(run).fine


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
def test_very_few_images_are_no_failure(source: Path, tmp_path: Path, count: int) -> None:
    run_audit(config_of(source, tmp_path / "run", dataset=f"{source}:images", limit=count))
    run = Run.open(tmp_path / "run")
    table = run.layer_table("head", "map")
    assert len(table) == count
    assert table[["x", "y", "pca_x", "pca_y"]].notna().all(axis=None)
    drawn = run.info["map"]["head"]
    assert (drawn["engine"] == "principal components") == (count < 5)
    assert drawn["quality"]["warnings"]


def test_no_readable_image_is_no_failure(source: Path, tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "run", dataset=f"{source}:all_broken"))
    run = Run.open(tmp_path / "run")
    assert run.layer_table("head", "map")["x"].isna().all()
    assert run.info["map"]["head"]["samples"] == 0
    assert len(run.layer_table("head", "components")) == 0
    assert verify_run(tmp_path / "run").fine


def test_a_layer_that_answers_every_image_alike_is_said_to(source: Path, tmp_path: Path) -> None:
    run_audit(config_of(source, tmp_path / "run", model=f"{source}:blind", layers=("1",), **FED))
    assert "answers every image alike" in quality_of(tmp_path / "run", "1")[0]
    assert Run.open(tmp_path / "run").layer_table("1", "map")["x"].dropna().abs().max() < 1e-3


def test_more_memory_than_there_may_be_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match=r"the map of 48 images needs about .*--neighbors"):
        make_maps(run, ["units"], seed=1, budget=Budget(memory=2**20))
    with pytest.raises(UsageError, match="--no-map"):
        stage.refuse_memory(Budget(memory=2**20), 2**30, 48)


def test_settings_that_make_no_sense_are_refused(source: Path, run: Path) -> None:
    wrongs = [({"map_perplexity": 0.5}, "--map-perplexity"), ({"map_neighbors": 0}, "--map-neighbors")]
    wrongs += [({"map_seed": seed}, "--map-seed") for seed in (-1, 2**31 - 1, 2**32, "7", True)]
    assert config_of(source, run, map_seed=2**31 - 2).map_seed == MapSettings(seed=2**31 - 2).seed
    with pytest.raises(UsageError, match=r"seed 4294967296: give a whole number from 0 to 2147483646"):
        make_maps(run, seed=2**32)
    for wrong, named in wrongs:
        with pytest.raises(UsageError, match=named):
            config_of(source, run, **wrong)
    assert config_of(source, run, map="no").map is False
    with pytest.raises(RunMismatchError, match="map_neighbors"):
        run_audit(config_of(source, run, map_neighbors=7))


def test_a_run_of_an_earlier_version_gets_maps(source: Path, audited: Path, tmp_path: Path) -> None:
    """Its run.json knows no setting of maps, and no stage."""
    run = tmp_path / "run"
    run_audit(config_of(source, run, map=False))
    info = json.loads((run / "run.json").read_bytes())
    assert verify_run(run).fine
    for name in ("map", "map_perplexity", "map_neighbors", "map_seed"):
        del info["config"][name]
    other = run.parent / "earlier"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns("commits"))
    (other / "run.json").write_text(json.dumps(info))
    made = make_maps(other, report=False)
    assert made.made == LAYERS
    assert [name for name in differences(audited, other) if name.startswith("layers/")] == []
