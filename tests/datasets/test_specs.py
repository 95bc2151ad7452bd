"""Dataset specs: what opens what, and what is said of specs that open nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.images import street

from microtome.datasets.specs import open_dataset, parse_options, register, schemes
from microtome.storage.errors import UnknownNameError, UsageError

FACTORY = """
from neighbour import PATH
from microtome.datasets.formats.folder import FolderDataset

def streets(): return FolderDataset(PATH)
def broken(): raise KeyError("nothing here")
def other(): return [1, 2]
def the_class(): return FolderDataset
number = 7
class Half:
    spec = "half"
    concepts = ()
    def read(self, index): ...
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(tmp_path))
    path = street(tmp_path / "data")
    (tmp_path / "neighbour.py").write_text(f"PATH = {str(path)!r}\n")
    (tmp_path / "own_readers.py").write_text(FACTORY)
    return str(tmp_path / "own_readers.py")


def test_folder(tmp_path: Path) -> None:
    path = street(tmp_path / "with: colon?")
    dataset = open_dataset(f"folder:{path}")
    assert dataset.spec == f"folder:{path}"
    assert len(dataset) == 6


def test_scenes() -> None:
    assert len(open_dataset("scenes:30")) == 30
    image = open_dataset("scenes:2?size=64&seed=5").read(0).image
    assert image.shape == (64, 64, 3)


@pytest.mark.parametrize(
    "spec",
    [
        *("scenes:", "scenes:many", "scenes:-3", "scenes:0", "scenes:1.5", "scenes:9?size=x", "scenes:9?colour=3"),
        *("scenes:9?size", "scenes:9?size=64&size=64", "scenes:9?seed="),
    ],
)
def test_bad_scenes_show_an_example(spec: str) -> None:
    with pytest.raises(UsageError, match=r"such as|An example") as caught:
        open_dataset(spec)
    assert "scenes:2000?size=128&seed=0" in str(caught.value)


def test_factory_in_a_file_finds_its_neighbours(factory: str) -> None:
    assert len(open_dataset(f"{factory}:streets")) == 6


def test_factory_in_a_module(factory: str) -> None:
    assert len(open_dataset("own_readers:streets")) == 6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("streetz", "did you mean streets"),
        ("broken", "failed: KeyError"),
        ("other", "list without .*concepts"),
        ("the_class", "class FolderDataset; expected an instance"),
        ("number", "is a int; expected a function"),
        ("Half", "Half without __len__, class_names, entry, fingerprint, image_label_slots, plane_names;"),
    ],
)
def test_unusable_factories(factory: str, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_dataset(f"{factory}:{name}")


def test_missing_files_and_modules(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        open_dataset(f"{tmp_path}/gone.py:make")
    with pytest.raises(UsageError, match=r"no Python module 'no_such.readers'"):
        open_dataset("no_such.readers:make")
    (tmp_path / "wrong.py").write_text("import no_such_thing\n")
    with pytest.raises(UsageError, match=r"wrong.py cannot be imported: ModuleNotFoundError"):
        open_dataset(f"{tmp_path}/wrong.py:make")


def test_unknown_schemes() -> None:
    with pytest.raises(UnknownNameError, match="did you mean folder"):
        open_dataset("foldr:/data")
    with pytest.raises(UnknownNameError, match=r"path/file.py:factory"):
        open_dataset("nonsense:make")
    with pytest.raises(UsageError, match="folder:/data/street for a folder"):
        open_dataset("/data/street")
    with pytest.raises(UsageError, match="write scenes:2000"):
        open_dataset("scenes")
    with pytest.raises(UsageError, match="needs a path"):
        open_dataset("folder:")


def test_schemes_are_registered_once() -> None:
    opener = schemes()["folder"]
    with pytest.raises(ValueError, match="registered already"):
        register("folder", opener)
    with pytest.raises(ValueError, match="not an identifier"):
        register("a b", opener)
    assert {"scenes", "folder"} <= set(schemes())


def test_options() -> None:
    assert parse_options("", "x:1", "x:1?a=1", ["a"]) == {}
    assert parse_options("b=2&a=1", "x:1", "x:1?a=1", ["a", "b"]) == {"a": 1, "b": 2}
