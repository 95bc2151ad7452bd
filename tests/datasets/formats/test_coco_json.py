"""Lists of a JSON file read through a window: as `json` reads them, wherever the window's edges fall."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.odd_files import pipe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from microtome.datasets.formats.coco import json_lists
from microtome.datasets.formats.coco.json_lists import JsonLists
from microtome.storage.errors import UsageError

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner))
DOCUMENTS = st.fixed_dictionaries(
    {"a": st.lists(VALUES, max_size=5), "b": st.lists(VALUES, max_size=5), "info": VALUES}
)
LAYOUTS: list[dict[str, Any]] = [{}, {"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": False}]
SLOW_FIXTURE = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def lists(path: Path) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {"a": [], "b": []}
    data = path.read_bytes() if path.is_file() else b""
    for name, value, start, end in JsonLists(path, ("a", "b")):
        assert json.loads(data[start:end]) == value
        found[name].append(value)
    return found


@SLOW_FIXTURE
@given(document=DOCUMENTS, layout=st.sampled_from(LAYOUTS), block=st.integers(1, 40))
def test_elements_are_those_of_json(
    tmp_path: Path, document: dict[str, Any], layout: dict[str, Any], block: int
) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(document, **layout), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lists, "_BLOCK", block)
        assert lists(path) == {"a": document["a"], "b": document["b"]}


@SLOW_FIXTURE
@given(document=DOCUMENTS, block=st.integers(1, 40), at=st.floats(0, 1), byte=st.integers(0, 255), cut=st.booleans())
def test_damage_is_a_usage_error_or_other_json(
    tmp_path: Path, document: dict[str, Any], block: int, at: float, byte: int, cut: bool
) -> None:
    path = tmp_path / "file.json"
    data = bytearray(json.dumps(document).encode())
    place = int(at * (len(data) - 1))
    data[place:] = b"" if cut else bytes([byte]) + data[place + 1 :]
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lists, "_BLOCK", block)
        try:
            json.loads(data)
        except ValueError:
            with pytest.raises(UsageError, match=r"file\.json, byte"):
                lists(path)
        else:
            with suppress(UsageError):  # another form: a list that is none any more
                lists(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"file\.json cannot be read: not a regular file"):
        lists(pipe(tmp_path / "file.json"))


@pytest.mark.parametrize("number", ["10.0", "-1.5e+10", "2E-3", "-0", "123456789"])
def test_a_number_may_lie_across_an_edge(tmp_path: Path, number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    path.write_text(f'{{"a": [{number}, {number}], "b": [], "info": {number}}}')
    for block in range(1, 30):
        monkeypatch.setattr(json_lists, "_BLOCK", block)
        assert lists(path)["a"] == [json.loads(number)] * 2
