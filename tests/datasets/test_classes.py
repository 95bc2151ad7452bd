"""classes.csv: numbers to concepts, and mistakes named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from microtome.datasets.base import Concept
from microtome.datasets.classes import ClassTable, class_table, read_rows
from microtome.storage.errors import UsageError

HEADER = "index,name,category\n"


def table(tmp_path: Path, text: str | bytes, planes: tuple[str, ...] = ("labels",)) -> ClassTable:
    path = tmp_path / "classes.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return class_table(read_rows(path), planes, path)


def test_ids_follow_the_order_of_the_rows(tmp_path: Path) -> None:
    result = table(tmp_path, HEADER + "7,sky,object\n\n2, red ,COLOR\n5,sky,object\n0,sky,scene\n")
    assert result.concepts == (Concept(1, "sky", "object"), Concept(2, "red", "color"), Concept(3, "sky", "scene"))
    assert [int(result.lookup[0, number]) for number in (7, 2, 5, 0, 1)] == [1, 2, 1, 3, 0]
    assert [bool(result.known[0, number]) for number in (7, 2, 5, 0, 1)] == [True, True, True, True, False]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfindex,name,category\r\n3,car,object\r\n",
        b"Name, Category ,INDEX,note\ncar,object,3,of any make\n",
        b'index,name,category\n3,"car",object',
        b"index,name,category\n3,car,object\n3,car,object\n",
    ],
)
def test_other_ways_to_write_it(tmp_path: Path, text: bytes) -> None:
    assert table(tmp_path, text).concepts == (Concept(1, "car", "object"),)


def test_a_row_for_a_plane_goes_before_one_for_all(tmp_path: Path) -> None:
    rows = "index,name,category,plane\n1,wheel,part,b\n1,car,object,\n2,tree,object,a\n2,leaf,part,b\n3,void,,b\n"
    result = table(tmp_path, rows, planes=("a", "b", "c"))
    assert result.lookup[:, 1].tolist() == [2, 1, 2]
    assert result.lookup[:, 2].tolist() == [3, 4, 0]
    assert result.known[:, 3].tolist() == [False, True, False]
    assert result.shared == ((0, 2),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'index,name,category\n1,"sky,object\n2,car,object\n', "line 3: not comma-separated values"),
        (b"", r"classes.csv, line 1: no column index, name, category"),
        (b"0,sky,object\n", "line 1: no column index, name, category; .* found 0,sky,object"),
        (b"index,name\n1,car\n", "line 1: no column category"),
        (b"index,name,category,name\n", "two columns are called name"),
        (b"index;name;category\n1;car;object\n", "line 1: separated by semicolons"),
        (b"index,name,category\n1;car;object\n", "line 2: separated by semicolons"),
        (b"index,name,category\n1,car,object\nx,tree,object\n", "line 3: the index is 'x'"),
        (b"index,name,category\n-1,car,object\n", "line 2: the index is '-1'"),
        (b"index,name,category\n1.0,car,object\n", "line 2: the index is '1.0'"),
        (b"index,name,category\n65536,car,object\n", "line 2: the index 65536 is above 65535"),
        (b"index,name,category\n" + b"9" * 5000 + b",car,object\n", "line 2: the index 9+ is above"),
        (b"index,name,category\n1, ,object\n", "line 2: the name of index 1 is empty"),
        (b"index,name,category\n1,car\n", "line 2: car has no category"),
        (b"index,name,category\n1,car,object\n\n1,bus,object\n", r"line 4: index 1 is bus .* car \(object\) in line 2"),
        (b"index,name,category,plane\n1,car,object,rats\n", "line 2: there is no mask plane 'rats'; masks/ has labels"),
        (b"index,name,category\n1,caf\xe9,object\n", "line 2: not UTF-8"),
        ("index,name,category\n1,car,object\n".encode("utf-16"), "line 1: not UTF-8"),
        (b"index,name,category\n1,car\0,object\n", "line 2"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, text: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        table(tmp_path, text)
    assert str(tmp_path / "classes.csv") in str(caught.value)
