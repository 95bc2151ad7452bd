"""Lists of many paths: the order, and what a path costs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microtome.datasets.listing import PathList, is_junk, walk

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
