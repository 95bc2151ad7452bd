"""Lists of many paths: the order, and what a path costs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from helpers.odd_files import link_to_itself, pipe
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.datasets.base import Remark
from microtome.datasets.listing import (
    LeftOut,
    PathList,
    below,
    file_state,
    hash_files,
    is_junk,
    looks_like_image,
    open_regular,
    printable,
    read_bytes,
    size_and_time,
    walk,
    walk_names,
)

names = st.text("ab.-é", min_size=1, max_size=4).filter(lambda name: not is_junk(name))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "a", "a/b", "z"]), st.lists(names, min_size=1, max_size=5)), max_size=6))
def test_paths_come_back(runs: list[tuple[str, list[str]]]) -> None:
    paths = PathList()
    for folder, files in runs:
        paths.append(folder, files)
    expected = [f"{folder}/{name}".lstrip("/") for folder, files in runs for name in files]
    assert [paths[index] for index in range(len(paths))] == expected
    for outside in (-1, len(expected)):
        with pytest.raises(IndexError):
            paths[outside]


def test_a_walk_is_in_the_order_of_the_paths(tmp_path: Path) -> None:
    files = ["b", "a/x", "a.b/x", "a-b/x", "a/b/c/d", "a/b.c", "a/b-c", "c/x", "B/x"]
    for name in [*files, ".git/x", "a/Thumbs.db", "a/.x"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [f"{folder}/{entry.name}".lstrip("/") for folder, entries in walk(tmp_path) for entry in entries]
    assert found == sorted(files)


def test_a_hundred_thousand_paths_cost_little() -> None:
    paths = PathList()
    for folder in range(100):
        paths.append(f"train/n{folder:08}", [f"n{folder:08}_{number}.JPEG" for number in range(1000)])
    assert len(paths) == 100_000
    assert paths.nbytes() < 40 * len(paths)


def test_names_alone_are_walked_in_the_same_order(tmp_path: Path) -> None:
    for name in ("b", "a/x", "a.b/x", "a/b/c/d", "a/b.c", "c/x", ".git/x", "a/Thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/round").symlink_to(tmp_path)
    (tmp_path / "d").symlink_to(tmp_path / "c")
    with_entries = [(folder, [entry.name for entry in entries]) for folder, entries in walk(tmp_path)]
    assert list(walk_names(tmp_path)) == with_entries
    assert with_entries[-1] == ("d", ["x"])
    assert list(walk_names(tmp_path, "a/b")) == [("a/b/c", ["d"])]


@pytest.mark.parametrize("name", [".hidden", "Thumbs.db", "DESKTOP.INI", "Icon\r", "__MACOSX", "@eaDir"])
def test_what_systems_leave_behind_is_junk(name: str) -> None:
    assert is_junk(name)


def test_images_are_known_by_their_names() -> None:
    assert all(map(looks_like_image, ["a.jpg", "b.JPEG", "c.d.Png", "e.ppm"]))
    assert not any(map(looks_like_image, ["a", "jpg", "b.jpg.txt", "._c.jpg", ".jpg"]))


def test_files_are_hashed_by_name_size_and_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    os.utime(tmp_path / "a", ns=(7, 9))
    digest = hashlib.sha256()
    hash_files(digest, tmp_path, ["a", "gone"])
    assert digest.digest() == hashlib.sha256(b"a\x002 9\ngone\x00missing\n").digest()
    with os.scandir(tmp_path) as listing:
        assert [file_state(entry) for entry in listing] == ["a\x002 9\n"]


def test_links_to_themselves_are_files(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/loop", "a/loop.jpg", "z"):
        link_to_itself(tmp_path / name)
    (tmp_path / "a/b/deep").symlink_to("deeper")
    (tmp_path / "a/b/deeper").symlink_to("deep")
    expected = [("a/b", ["deep", "deeper"]), ("a", ["loop", "loop.jpg"]), ("", ["z"])]
    assert list(walk_names(tmp_path)) == expected
    assert [(folder, [entry.name for entry in entries]) for folder, entries in walk(tmp_path)] == expected
    states = [file_state(entry) for _, entries in walk(tmp_path) for entry in entries]
    assert states[-1] == "z\0missing\n"
    assert size_and_time(tmp_path / "z") == "missing"
    hash_files(hashlib.sha256(), tmp_path, ["z"])


def test_nothing_but_regular_files_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "zero").symlink_to("/dev/zero")
    assert read_bytes(tmp_path / "file") == read_bytes(str(tmp_path / "link")) == b"content"
    opened = len(os.listdir("/proc/self/fd"))
    for path in (pipe(tmp_path / "pipe"), tmp_path / "zero"):
        with pytest.raises(OSError, match="not a regular file"):
            read_bytes(path)
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(str(path))
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)
    with pytest.raises(OSError, match="symbolic links"):
        read_bytes(link_to_itself(tmp_path / "loop"))
    assert len(os.listdir("/proc/self/fd")) == opened


def test_what_is_left_out_is_counted_with_examples() -> None:
    left_out = LeftOut("odd files")
    assert left_out.remarks() == []
    left_out.note("", ["a", "b"])
    left_out.note("c", [f"{number}" for number in range(9)])
    assert left_out.remarks() == [Remark("odd files", 11, ("a", "b", "c/0", "c/1", "c/2"))]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("caf\u00e9", "caf\u00e9"),
        (os.fsdecode(b"a\xff"), r"a\xff"),
        ("a\ud800", r"a\ud800"),
        ("\udfff\ud83d\udcff", r"\udfff\ud83d\udcff"),
    ],
)
def test_any_text_can_be_printed(text: str, written: str) -> None:
    assert printable(text) == written


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "../a", "a/../../b", "a\0b"])
def test_nothing_is_below_by_a_way_out(tmp_path: Path, path: str) -> None:
    assert below(tmp_path, path) is None
    assert below(tmp_path, "a/../b") == tmp_path / "b"
