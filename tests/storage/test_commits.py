"""Commit records: a shard is done when its record, its state and all its files say so, and only then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from safetensors import SafetensorError

from microtome.storage.commits import StageCommits, pack_state, unpack_state
from microtome.storage.errors import RunDamagedError
from microtome.storage.files import Written, checksum
from microtome.storage.places import LocalPlace

DTYPES = st.sampled_from(["int64", "uint16", "int8", "bool", "float16", "float32", "float64"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
STATE = {"counts": np.arange(5, dtype=np.int64), "0/coarse.nan": np.zeros(3, np.int64)}


def stage(root: Path, key: str = "key") -> StageCommits:
    return StageCommits(LocalPlace(root), "capture", key)


def record_of(root: Path, shard: int) -> Path:
    return root / "commits" / "capture" / f"{shard:06d}.json"


def state_of(root: Path, shard: int) -> Path:
    return root / "commits" / "capture" / f"{shard:06d}.safetensors.zst"


def written(root: Path, file: Path) -> Written:
    return Written(file.relative_to(root).as_posix(), *checksum(file))


def committed(root: Path, shard: int = 0) -> Path:
    """One committed shard that vouches for one file; returns that file."""
    file = root / "arrays.zarr" / "labels" / "c" / str(shard)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"shard of labels")
    stage(root).commit(shard, STATE, [written(root, file)])
    return file


@given(st.dictionaries(st.text("abz/._0", min_size=1, max_size=6), ARRAYS, max_size=4))
@settings(max_examples=50)
def test_a_state_comes_back_as_it_went(state: dict[str, NDArray[np.generic]]) -> None:
    back = unpack_state(pack_state(state))
    assert set(back) == set(state)
    for name, array in state.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


def test_equal_states_give_equal_bytes_in_whatever_order() -> None:
    assert pack_state(STATE) == pack_state(dict(reversed(STATE.items())))


def test_a_state_holds_numbers_only() -> None:
    with pytest.raises((KeyError, ValueError, TypeError, SafetensorError)):
        pack_state({"evil": np.array([{"a": 1}], dtype=object)})


def test_what_is_committed_is_done(tmp_path: Path) -> None:
    assert stage(tmp_path).done(3) == set()
    committed(tmp_path, 0)
    committed(tmp_path, 2)
    assert stage(tmp_path).done(3) == {0, 2}
    assert stage(tmp_path).done(1) == {0}
    for name, array in stage(tmp_path).state(2).items():
        np.testing.assert_array_equal(array, STATE[name])


def test_a_shard_without_files_can_be_committed(tmp_path: Path) -> None:
    stage(tmp_path).commit(1, {})
    assert stage(tmp_path).done(2) == {1}
    assert stage(tmp_path).state(1) == {}


def test_a_record_of_another_key_or_stage_does_not_count(tmp_path: Path) -> None:
    committed(tmp_path)
    assert stage(tmp_path, "another").done(1) == set()
    assert StageCommits(LocalPlace(tmp_path), "tally", "key").done(1) == set()


def test_a_record_under_another_number_does_not_count(tmp_path: Path) -> None:
    committed(tmp_path, 0)
    record_of(tmp_path, 1).write_bytes(record_of(tmp_path, 0).read_bytes())
    state_of(tmp_path, 1).write_bytes(state_of(tmp_path, 0).read_bytes())
    assert stage(tmp_path).done(2) == {0}


@pytest.mark.parametrize("content", [b"", b"shard of label", b"shard of labels!"])
def test_a_file_of_another_size_or_missing_undoes_the_commit(tmp_path: Path, content: bytes) -> None:
    file = committed(tmp_path)
    file.write_bytes(content)
    assert stage(tmp_path).done(1) == set()
    file.unlink()
    assert stage(tmp_path).done(1) == set()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "17",
        '"text"',
        "{}",
        '{"shard": 0, "key": "key"}',
        '{"shard": 0, "key": "key", "files": [], "state": [1, 2]}',
        '{"shard": 0, "key": "key", "files": {"a": 3}, "state": [1, 2]}',
        '{"shard": 0, "key": "key", "files": {"a": []}, "state": [1, 2]}',
        '{"shard": 0, "key": "key", "files": {}, "state": []}',
        '{"shard": 0, "key": "key", "files": {}, "state": 5}',
        '{"shard": 0, "key": "key", "files": {}, "state": {}}',
        '{"shard": 0, "key": "key", "files": null, "state": null}',
        "\udcff",
    ],
)
def test_a_garbled_record_means_not_done(tmp_path: Path, text: str) -> None:
    committed(tmp_path)
    record_of(tmp_path, 0).write_bytes(text.encode(errors="surrogateescape"))
    assert stage(tmp_path).done(1) == set()
    with pytest.raises(RunDamagedError, match=r"capture, shard 0: no readable state|altered"):
        stage(tmp_path).state(0)


def test_a_truncated_state_is_noticed_by_its_size(tmp_path: Path) -> None:
    committed(tmp_path)
    whole = state_of(tmp_path, 0).read_bytes()
    state_of(tmp_path, 0).write_bytes(whole[:-1])
    assert stage(tmp_path).done(1) == set()
    with pytest.raises(RunDamagedError, match="altered"):
        stage(tmp_path).state(0)


def test_an_altered_state_of_the_same_size_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    committed(tmp_path)
    whole = bytearray(state_of(tmp_path, 0).read_bytes())
    whole[len(whole) // 2] ^= 1
    state_of(tmp_path, 0).write_bytes(whole)
    with pytest.raises(
        RunDamagedError, match=r"000000\.safetensors\.zst is altered.*mend the damage with: microtome verify"
    ):
        stage(tmp_path).state(0)


def test_a_state_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunDamagedError, match="stage capture, shard 4: no readable state"):
        stage(tmp_path).state(4)
    committed(tmp_path)
    state_of(tmp_path, 0).unlink()
    assert stage(tmp_path).done(1) == set()


def test_clearing_forgets_one_stage_only(tmp_path: Path) -> None:
    file = committed(tmp_path)
    other = StageCommits(LocalPlace(tmp_path), "tally", "key")
    other.commit(0, STATE)
    stage(tmp_path).clear()
    assert stage(tmp_path).done(1) == set()
    assert other.done(1) == {0}
    assert file.exists()
    StageCommits(LocalPlace(tmp_path), "never", "key").clear()


def test_a_second_commit_replaces_the_first(tmp_path: Path) -> None:
    committed(tmp_path)
    stage(tmp_path).commit(0, {"only": np.ones(2)})
    assert list(stage(tmp_path).state(0)) == ["only"]


def test_a_record_is_plain_json_with_paths_from_the_run(tmp_path: Path) -> None:
    committed(tmp_path)
    record = json.loads(record_of(tmp_path, 0).read_text())
    assert record["shard"] == 0
    assert record["key"] == "key"
    assert list(record["files"]) == ["arrays.zarr/labels/c/0"]


def test_nothing_is_recorded_where_a_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        stage(tmp_path).commit(0, STATE, [Written("missing", 1, 2)])
    assert not record_of(tmp_path, 0).exists()
