"""A run's folder: made, opened, refused, and layers whose names no file system would like."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from microtome.storage.arrays import ACTIVATIONS, layer_array
from microtome.storage.errors import MicrotomeError, RunDamagedError, UnknownNameError, UsageError
from microtome.storage.places import open_place
from microtome.storage.run import Run, folder_name
from microtome.storage.schema import LATER_PARTS, SCHEMA_VERSION, STAGES, RunInfo

HOSTILE = [
    "",
    ".",
    "..",
    "...",
    "/",
    "a/b",
    "a%2Fb",
    "a:b",
    "a\\b",
    "\0",
    "a\nb",
    "x*",
    "x?",
    "layer4.1.conv2",
    "ü",
    "%",
]


def info_of(layers: tuple[str, ...] = ("conv1", "block.1:heads")) -> RunInfo:
    info: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "microtome": "0.1.0",
        "config": {"model": "m", "tau": [0.005]},
        "model": {"spec": "m", "fingerprint": "f"},
        "data": {"spec": "d", "fingerprint": "g", "samples": 10},
        "layers": [
            {"name": name, "folder": folder_name(name), "kind": "Conv2d", "units": 3, "grid": [2, 2], "scale": 4.0}
            for name in layers
        ],
        "label_size": [4, 4],
        "shards": {"samples": 4, "chunk": 2, "count": 3},
        "estimate": {"bytes_per_sample": 1.0, "bytes_per_sample_streamed": 0.5, "seconds_per_sample": 0.1},
        "stages": {stage: {"state": "pending", "seconds": 0.0} for stage in STAGES},
        "versions": {},
    }
    return cast("RunInfo", info)


@given(st.lists(st.text(max_size=8) | st.sampled_from(HOSTILE), min_size=2, max_size=2, unique=True))
@example(["a/b", "a%2Fb"])
@example([".", "%2E"])
@example(["..", "%2E."])
def test_different_layers_never_share_a_folder(names: list[str]) -> None:
    assert folder_name(names[0]) != folder_name(names[1])


@given(st.text(min_size=1, max_size=12) | st.sampled_from(HOSTILE[1:]))
def test_a_folder_name_is_one_step_down_and_nothing_else(name: str) -> None:
    folder = folder_name(name)
    assert folder not in ("", ".", "..")
    assert not set(folder) & set('/\\:*?"<>|\0\n')
    assert not folder.startswith(".")
    assert not folder.endswith(".")
    assert Path("layers", folder).parent == Path("layers")


@pytest.mark.parametrize("name", ["conv1", "layer4.1.conv2", "blocks_3", "ünit", "a b"])
def test_an_ordinary_name_is_its_own_folder(name: str) -> None:
    assert folder_name(name) == name


def test_a_run_is_created_and_opened(tmp_path: Path) -> None:
    made = Run.create(tmp_path / "deep" / "run", info_of())
    assert Run.exists(made.path)
    opened = Run.open(made.path)
    assert opened.info == info_of()
    assert opened.plan.count == 3
    assert opened.layer_names == ["conv1", "block.1:heads"]
    assert opened.index_page == str(made.path / "report" / "index.html")
    assert "ü" in Run.create(tmp_path / "other", info_of(("ü",))).path.joinpath("run.json").read_text("utf-8")


def test_a_lock_that_is_half_written_is_nothing_foreign(tmp_path: Path) -> None:
    (tmp_path / ".lock.json.abcd.partial").touch()
    Run.create(tmp_path, info_of())
    Run.sweep_up(open_place(tmp_path / "none"))
    left = tmp_path / "left"
    left.mkdir()
    (left / ".lock.json.efgh.partial").touch()
    Run.sweep_up(open_place(left))
    assert not left.exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/.thesis.partial").touch()
    with pytest.raises(UsageError, match="is not empty"):
        Run.create(tmp_path / "mine", info_of())


def test_an_empty_folder_or_a_failed_start_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".run.json.1234.partial").write_text("{")
    Run.create(tmp_path, info_of())
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="not empty and holds no run"):
        Run.create(tmp_path, info_of())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="is a file"):
        Run.create(tmp_path / "thesis.tex", info_of())


def test_a_run_is_not_made_over_another(tmp_path: Path) -> None:
    Run.create(tmp_path, info_of())
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UsageError):
        Run.create(tmp_path, info_of(("other",)))
    assert (tmp_path / "run.json").read_bytes() == before


def test_no_run_is_told_from_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no run\.json"):
        Run.open(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        Run.open(tmp_path / "nowhere")


@pytest.mark.parametrize("version", [0, 2, 99, "1", None])
def test_another_schema_version_is_refused_by_name(tmp_path: Path, version: object) -> None:
    Run.create(tmp_path, info_of())
    (tmp_path / "run.json").write_text(json.dumps({**info_of(), "schema_version": version}))
    with pytest.raises(RunDamagedError, match=f"schema version {version}; this Microtome reads version 1") as caught:
        Run.open(tmp_path)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"x"', "{}", "\udcff\udcfe"])
def test_garbage_is_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunDamagedError, match=r"run\.json"):
        Run.open(tmp_path)


def test_a_run_of_before_a_part_was_added_opens(tmp_path: Path) -> None:
    earlier = {name: part for name, part in info_of().items() if name not in LATER_PARTS}
    (tmp_path / "run.json").write_text(json.dumps(earlier))
    assert Run.open(tmp_path).info == {**earlier, **LATER_PARTS}


@pytest.mark.parametrize(
    "key",
    sorted(
        RunInfo.__required_keys__
        - {
            "schema_version",
            "segmenter",
            "importance",
            "causal",
            "map",
            "more_arrays",
            "maps_left_out",
            "explanations",
            "rules",
            *LATER_PARTS,
        }
    ),
)
@pytest.mark.parametrize("how", ["absent", "null"])
def test_a_missing_part_is_damage_and_named(tmp_path: Path, key: str, how: str) -> None:
    info = dict(info_of())
    if how == "absent":
        del info[key]
    else:
        info[key] = None
    (tmp_path / "run.json").write_text(json.dumps(info))
    with pytest.raises(RunDamagedError, match=key):
        Run.open(tmp_path)


@pytest.mark.parametrize("shards", [{"samples": 0, "chunk": 2}, {"samples": 5, "chunk": 2}, {"samples": "4"}])
def test_an_impossible_plan_is_damage(tmp_path: Path, shards: dict[str, object]) -> None:
    (tmp_path / "run.json").write_text(json.dumps({**info_of(), "shards": shards}))
    with pytest.raises(RunDamagedError, match=r"run\.json"):
        Run.open(tmp_path)


def test_stages_add_up_their_seconds(tmp_path: Path) -> None:
    run = Run.create(tmp_path, info_of())
    run.set_stage("capture", "running", 0.0)
    run.set_stage("capture", "pending", 1.5)
    run.set_stage("capture", "done", 2.0004)
    assert Run.open(tmp_path).info["stages"]["capture"] == {"state": "done", "seconds": 3.5}
    run.set_stage("later", "done", 1.0)
    assert Run.open(tmp_path).info["stages"]["later"] == {"state": "done", "seconds": 1.0}


def test_a_key_from_a_later_version_is_kept(tmp_path: Path) -> None:
    Run.create(tmp_path, info_of())
    (tmp_path / "run.json").write_text(json.dumps({**info_of(), "notes": "kept"}))
    Run.open(tmp_path).set_stage("index", "done", 0.0)
    assert json.loads((tmp_path / "run.json").read_text())["notes"] == "kept"


def test_a_layer_that_is_not_there_is_named_with_its_neighbours(tmp_path: Path) -> None:
    run = Run.create(tmp_path, info_of())
    assert run.layer("conv1")["units"] == 3
    with pytest.raises(UnknownNameError, match="did you mean conv1"):
        run.layer("conv2")


def test_tables_lie_where_the_design_says(tmp_path: Path) -> None:
    run = Run.create(tmp_path, info_of())
    frame = pd.DataFrame({"unit": [0, 1]})
    run.write_table("samples", frame)
    run.write_layer_table("block.1:heads", "units", frame)
    assert (tmp_path / "samples.parquet").is_file()
    assert (tmp_path / "layers" / "block.1%3Aheads" / "units.parquet").is_file()
    pd.testing.assert_frame_equal(run.table("samples"), frame)
    pd.testing.assert_frame_equal(run.layer_table("block.1:heads", "units"), frame)
    with pytest.raises(RunDamagedError, match="missing"):
        run.layer_table("conv1", "units")


def test_activations_are_true_values(tmp_path: Path) -> None:
    run = Run.create(tmp_path, info_of())
    name = layer_array("conv1", ACTIVATIONS)
    run.arrays.create(name, (3, 2, 2), "float16", channels=True)
    stored = np.arange(48, dtype=np.float16).reshape(4, 3, 2, 2)
    run.arrays.write_shard(name, 0, stored)
    maps = run.activations("conv1", 2)
    assert maps.dtype == np.float32
    np.testing.assert_array_equal(maps, stored[2].astype(np.float32) * 4)
    assert np.isnan(run.activation_range("conv1", 4, 6)).all()
    samples, units = np.array([3, 1, 3]), np.array([0, 2, 1])
    paired = run.activation_maps("conv1", samples, units)
    np.testing.assert_array_equal(paired, stored[samples, units].astype(np.float32) * 4)
    assert run.activation_maps("conv1", samples[:0], units[:0]).shape[0] == 0


def test_a_value_beyond_float16_comes_back(tmp_path: Path) -> None:
    info = info_of()
    info["layers"][0]["scale"] = 65536.0
    run = Run.create(tmp_path, info)
    name = layer_array("conv1", ACTIVATIONS)
    run.arrays.create(name, (3, 2, 2), "float16")
    run.arrays.write_shard(name, 0, np.full((4, 3, 2, 2), 60000, np.float16))
    assert run.activations("conv1", 0).max() == 60000.0 * 65536.0


def test_leftovers_are_cleaned(tmp_path: Path) -> None:
    run = Run.create(tmp_path, info_of())
    (tmp_path / "commits").mkdir()
    (tmp_path / "commits" / ".0.json.x.partial").write_text("{")
    assert run.clean() == 1


def test_commits_are_of_this_run(tmp_path: Path) -> None:
    run = Run.create(tmp_path, info_of())
    run.commits("capture", "k").commit(1, {"a": np.ones(1)})
    assert Run.open(tmp_path).commits("capture", "k").done(run.plan.count) == {1}
    assert run.commits("capture", "other").done(run.plan.count) == set()


def test_every_refusal_is_one_of_ours(tmp_path: Path) -> None:
    with pytest.raises(MicrotomeError):
        Run.open(tmp_path / "x")


def test_a_run_needs_no_disk(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    made = Run.create(url, info_of())
    assert (made.url, made.index_page) == (url, f"{url}/report/index.html")
    with pytest.raises(UsageError, match=f"{url} is no local folder"):
        _ = made.path
    with pytest.raises(UsageError, match="not empty"):
        Run.create(url, info_of())
    made.write_table("samples", pd.DataFrame({"index": [0, 1]}))
    name = layer_array("conv1", ACTIVATIONS)
    made.arrays.create(name, (3, 2, 2), "float16", channels=True)
    stored = np.arange(48, dtype=np.float16).reshape(4, 3, 2, 2)
    made.commits("capture", "k").commit(0, {}, made.arrays.write_shard(name, 0, stored))
    for again in (Run.open(url), pickle.loads(pickle.dumps(made))):
        np.testing.assert_array_equal(again.activations("conv1", 2), stored[2].astype(np.float32) * 4)
        assert len(again.table("samples")) == 2
        assert again.commits("capture", "k").done(3) == {0}
        assert again.arrays.describe() == {name: (made.plan.samples, 3, 2, 2)}
    with made.report_folder() as folder:
        (folder / "index.html").write_text("page")
        made.publish_report(folder)
    assert not folder.exists()
    assert made.place.read("report/index.html") == b"page"


def test_a_run_on_disk_arrives_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    packed = pickle.dumps(Run.create(Path("run"), info_of()))
    monkeypatch.chdir("/")
    assert pickle.loads(packed).path == tmp_path / "run"
    assert pickle.loads(packed).url == str(tmp_path / "run")


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    run = Run.create(tmp_path, info_of())
    with run.report_folder() as folder:
        (folder / "index.html").write_text("old")
        run.publish_report(folder)
    with pytest.raises(ZeroDivisionError), run.report_folder() as folder:
        (folder / "index.html").write_text(f"{1 // 0}")
    assert (tmp_path / "report" / "index.html").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "run.json"]
