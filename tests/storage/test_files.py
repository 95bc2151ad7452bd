"""Small files: the old content or the new, whatever goes wrong in between."""

from __future__ import annotations

import json
import os
import stat
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microtome.storage import files

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_bytes_are_written_into_new_folders_readable_to_all(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    files.write_bytes(path, b"\0\1\2")
    assert path.read_bytes() == b"\0\1\2"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == ["file.bin"]


@pytest.mark.parametrize("broken", ["fsync", "chmod", "replace"])
def test_a_failing_write_leaves_the_old_content_and_no_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "file.json"
    files.write_bytes(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="No space"):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.json"]


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.json_bytes({"bad": float("nan")})
    with pytest.raises(TypeError):
        files.json_bytes({"bad": object()})


@given(JSON)
def test_json_comes_back_as_it_went(value: object) -> None:
    assert json.loads(files.json_bytes(value)) == value


def test_keys_keep_their_order() -> None:
    assert list(json.loads(files.json_bytes({"z": 1, "a": 2}))) == ["z", "a"]


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3 * (1 << 20) + 7])
def test_checksum_is_size_and_crc_of_the_whole_file(tmp_path: Path, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    (tmp_path / "f").write_bytes(data[:size])
    assert files.checksum(tmp_path / "f") == (size, zlib.crc32(data[:size]))


def test_leftovers_are_removed_everywhere_and_nothing_else(tmp_path: Path) -> None:
    kept = ["run.json", "partial", "a/x.partial.json", "a/b/c.zarr/c/0"]
    left = [".run.json.abc.partial", "a/.x.partial", "a/b/c.zarr/c/0.1f.partial"]
    for name in kept + left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.partial").mkdir()
    assert files.remove_leftovers(tmp_path) == len(left)
    remaining = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert remaining == set(kept)
    assert files.remove_leftovers(tmp_path) == 0


def test_fsync_of_a_missing_file_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.fsync_file(tmp_path / "missing")
