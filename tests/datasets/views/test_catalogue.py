"""The user's table of synonyms and hierarchies: merged, renamed, kept under a parent, dropped, and refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.images import photo, regions, save, street
from helpers.readers import check_reader

from microtome.datasets.formats.folder import FolderDataset
from microtome.datasets.views.catalogue import Catalogue
from microtome.storage.errors import UsageError

CLASSES = """index,name,category,plane
1,car wheel,part,parts
2,bicycle wheel,part,parts
3,wheel,part,parts
4,dog,object,things
5,cat,object,things
6,wheel,part,things
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two planes, in both of which a wheel may be."""
    root = tmp_path / "data"
    for number in range(4):
        save(root / f"images/{number}.png", photo(24, 32, number))
        save(root / f"masks/parts/{number}.png", regions(24, 32, number, ids=4).astype(np.uint8))
        things = regions(24, 32, number + 50, ids=4) + 3
        save(root / f"masks/things/{number}.png", np.where(things == 3, 0, things).astype(np.uint8))
    (root / "classes.csv").write_text(CLASSES)
    return root


def catalogue(folder: Path, *lines: str, header: str = "name,category,into,into_category,keep") -> Catalogue:
    path = folder.parent / "catalogue.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return Catalogue(FolderDataset(folder), path)


def named(dataset: object) -> list[tuple[str, str]]:
    return [(concept.name, concept.category) for concept in dataset.concepts]  # type: ignore[attr-defined]


def pixels(dataset: object, name: str, index: int) -> np.ndarray:
    """Where a concept of this name is, in any plane."""
    ids = [concept.id for concept in dataset.concepts if concept.name == name]  # type: ignore[attr-defined]
    return np.isin(dataset.read(index).planes, ids).any(axis=0)  # type: ignore[attr-defined]


def test_synonyms_become_one_concept(folder: Path) -> None:
    dataset = catalogue(folder, "car wheel,part,wheel", "bicycle wheel,part,wheel")
    check_reader(dataset, same=catalogue(folder, "car wheel,part,wheel", "bicycle wheel,part,wheel"))
    assert named(dataset) == [("wheel", "part"), ("dog", "object"), ("cat", "object")]
    plain = FolderDataset(folder)
    for index in range(4):
        wheels = np.logical_or.reduce([pixels(plain, name, index) for name in ("car wheel", "bicycle wheel", "wheel")])
        np.testing.assert_array_equal(pixels(dataset, "wheel", index), wheels)
        np.testing.assert_array_equal(pixels(dataset, "dog", index), pixels(plain, "dog", index))
    assert dataset.remarks() == ()


def test_a_hierarchy_keeps_its_leaves(folder: Path) -> None:
    dataset = catalogue(folder, "dog,,animal,,yes", "cat,,animal,,yes", "animal,,thing,thing,yes")
    check_reader(dataset)
    assert set(named(dataset)) >= {("dog", "object"), ("cat", "object"), ("animal", "object"), ("thing", "thing")}
    assert dataset.plane_names == ("parts", "things", "parts above", "things above", "parts above 2", "things above 2")
    plain = FolderDataset(folder)
    for index in range(4):
        animals = pixels(plain, "dog", index) | pixels(plain, "cat", index)
        np.testing.assert_array_equal(pixels(dataset, "animal", index), animals)
        np.testing.assert_array_equal(pixels(dataset, "thing", index), animals)
        np.testing.assert_array_equal(pixels(dataset, "dog", index), pixels(plain, "dog", index))


def test_rules_apply_to_what_others_give(folder: Path) -> None:
    dataset = catalogue(folder, "car wheel,,round", "round,,circle,shape", "wheel,part,")
    assert named(dataset) == [("circle", "shape"), ("bicycle wheel", "part"), ("dog", "object"), ("cat", "object")]
    assert not pixels(dataset, "wheel", 0).any()
    assert dataset.remarks() == ()


def test_what_was_renamed_or_dropped_has_the_parents_of_its_first_name(folder: Path) -> None:
    dataset = catalogue(folder, "dog,,animal,,yes", "dog,,hound", "cat,,animal,,yes", "cat,,")
    assert dataset.remarks() == ()
    assert {("hound", "object"), ("animal", "object")} < set(named(dataset))
    assert not {"dog", "cat"} & {name for name, _ in named(dataset)}
    plain = FolderDataset(folder)
    for index in range(4):
        animals = pixels(plain, "dog", index) | pixels(plain, "cat", index)
        np.testing.assert_array_equal(pixels(dataset, "animal", index), animals)
        np.testing.assert_array_equal(pixels(dataset, "hound", index), pixels(plain, "dog", index))


def test_a_line_about_nothing_is_remarked(folder: Path) -> None:
    dataset = catalogue(folder, "wheeel,part,wheel", "dog,part,wheel", "cat,,feline")
    (remark,) = dataset.remarks()
    assert remark.count == 2
    assert remark.text == "lines of catalogue.csv name no concept of the dataset"
    assert remark.examples == ("line 2: wheeel", "line 3: dog")


def test_the_table_is_part_of_the_fingerprint(folder: Path) -> None:
    one, same = catalogue(folder, "dog,,animal"), catalogue(folder, "dog,,animal")
    assert one.fingerprint() == same.fingerprint()
    assert catalogue(folder, "dog,,beast").fingerprint() != one.fingerprint() != FolderDataset(folder).fingerprint()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["dog,,animal", "dog,,beast"], "line 3: dog becomes beast, but animal in line 2; to be both, say keep=yes"),
        (["dog,,cat", "cat,,dog"], r"dog \(object\) -> cat \(object\) -> dog \(object\) runs in a circle"),
        (["dog,,animal,,yes", "animal,,dog,,yes"], r"line 3: dog \(object\) would lie under itself"),
        (["dog,,,,yes"], "line 2: dog is to be kept, but into is empty"),
        (["dog,,animal,,perhaps"], "line 2: keep is 'perhaps'; expected yes or no"),
        ([",,animal"], "line 2: the name is empty"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(folder: Path, lines: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        catalogue(folder, *lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "catalogue.csv cannot be read: No such file"),
        (b"", "line 1: no column name; expected name,into and perhaps category,into_category,keep"),
        (b"name,category\ndog,object\n", "line 1: no column into"),
        (b"name,into,colour\n", "line 1: a column 'colour' too many"),
        (b'name,into\nred,"warm\nskin,body\n', "line 3: not comma-separated values: unexpected end of data"),
        (b"name,into\ndog,a,b\n", "line 2: 3 cells, the header has 2"),
        (b"name,into\n\xff\xfe,a\n", "line 2: not UTF-8 text; save catalogue.csv as UTF-8"),
    ],
)
def test_a_file_that_is_no_catalogue_is_refused(folder: Path, text: bytes | None, message: str) -> None:
    path = folder.parent / "catalogue.csv"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(UsageError, match=message):
        Catalogue(FolderDataset(folder), path)


def test_planes_of_other_names_are_not_hidden(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.csv"
    path.write_text("name,into,keep\nsky,above,yes\n")
    dataset = Catalogue(FolderDataset(street(tmp_path / "street")), path)
    assert len(set(dataset.plane_names)) == len(dataset.plane_names)
    check_reader(dataset)
