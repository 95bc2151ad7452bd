"""`hf:PLACE`: damaged rows, datasets that cannot be used and specs of nothing, and what is said of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.formats.hf import (
    CLASSES,
    HEIGHT,
    WIDTH,
    cell,
    dataset,
    mask_of,
    offline,
    planted,
    rows,
    save_one,
    save_splits,
)
from helpers.images import encode, photo, save
from helpers.odd_files import link_to_itself, pipe
from helpers.readers import check_reader
from PIL import Image

from microtome.datasets.formats.hf import load as hf_load
from microtome.datasets.formats.hf.reader import HfDataset
from microtome.datasets.specs import open_dataset
from microtome.storage.errors import SampleError, UsageError


@pytest.fixture(autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(tmp_path_factory.mktemp("hf"), monkeypatch)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    return save(tmp_path / "classes.csv", CLASSES.encode())


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_one(tmp_path / "one")

    def missing(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(hf_load, "import_module", missing)
    with pytest.raises(UsageError, match=r"cannot be imported .*; pip install 'microtome\[hf\]'"):
        HfDataset(str(path))
    monkeypatch.setattr(hf_load, "import_module", lambda name: import_module("microtome.datasets"))
    with pytest.raises(UsageError, match=r"is what Python imports by that name; .*pip install 'microtome\[hf\]'"):
        HfDataset(str(path))


def garbled(row: int, column: str, value: object) -> Callable[[], dict[str, list[Any]]]:
    def make() -> dict[str, list[Any]]:
        columns = rows(4)
        columns[column][row] = value
        return columns

    return make


PNG = encode(Image.fromarray(mask_of(1).astype(np.uint8)))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (garbled(1, "image", cell(b"no image at all")), "not an image in a format that can be read"),
        (garbled(1, "image", cell(encode(Image.fromarray(photo()))[:200])), "truncated image"),
        (garbled(1, "image", None), "the row has no image in the column image"),
        (garbled(1, "image", {"bytes": b"", "path": "a.png"}), "its bytes are not in the dataset"),
        (garbled(1, "mask", cell(PNG[:-30])), "mask of plane mask: truncated image"),
        (garbled(1, "mask", cell(b"\x89PNG")), "mask of plane mask: not an image"),
        (garbled(1, "mask", cell(photo(HEIGHT, WIDTH))), "mask of plane mask: a mask in colours; expected label ids"),
        (
            garbled(1, "mask", cell(np.ones((9, 9), np.uint8))),
            "mask of plane mask: 9x9 pixels, the upright image 32x24",
        ),
        (garbled(1, "seg_parts", cell(np.ones((9, 9), np.float32), form="TIFF")), "mask of plane seg_parts: a mask of"),
    ],
)
def test_a_damaged_row_is_named_and_the_others_are_read(
    tmp_path: Path, classes: Path, make: Callable[[], dict[str, list[Any]]], reason: str
) -> None:
    found = HfDataset(f"{save_one(tmp_path / 'one', make())}?classes={classes}")
    with pytest.raises(SampleError, match=reason) as error:
        found.read(1)
    assert error.value.key == "000001"
    assert str(tmp_path) not in error.value.reason
    for row in (0, 2, 3):
        np.testing.assert_array_equal(found.read(row).planes, planted(row))
    check_reader(found)


def test_numbers_that_classes_does_not_list_are_counted(tmp_path: Path, classes: Path) -> None:
    columns = rows(4)
    for row in (1, 2):
        columns["mask"][row] = cell(np.full((HEIGHT, WIDTH), 200, np.uint8))
    found = HfDataset(f"{save_one(tmp_path / 'one', columns)}?classes={classes}")
    for row in (0, 1, 2, 1):
        found.read_labels(row)
    assert found.unknown_ids() == {"mask": {200: 2}}
    assert not found.read(1).planes[0].any()


def rewrite(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def truncate(path: Path) -> None:
    file = max(path.glob("*.arrow"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def renamed(path: Path, **names: str) -> None:
    shutil.rmtree(path)
    save_one(path, {names.get(name, name): cells for name, cells in rows(3).items() if name != "label"})


@pytest.mark.parametrize(
    ("damage", "options", "message"),
    [
        (lambda p: shutil.rmtree(p), "", r"one does not exist; expected a folder made by save_to_disk"),
        (lambda p: (shutil.rmtree(p), save(p, b"")), "", "one is not a folder; expected a folder made by"),
        (
            lambda p: (p / "state.json").unlink(),
            "",
            r"holds no saved dataset \(state.json, dataset_dict.json\); expected",
        ),
        (
            lambda p: (p / "state.json").write_text("{"),
            "",
            r"state.json cannot be read as JSON .*; save the",
        ),
        (
            lambda p: pipe(p / "dataset_info.json"),
            "",
            r"dataset_info.json is no regular file; expected what",
        ),
        (lambda p: pipe(max(p.glob("*.arrow"))), "", r"data-00.*arrow is no regular file"),
        (lambda p: link_to_itself(p / "state.json"), "", r"state.json is no regular file"),
        (lambda p: (p / "dataset_info.json").unlink(), "", r"cannot be loaded \("),
        (lambda p: rewrite(p / "state.json", "data-0", "../data-0"), "", r"state.json: '../data-00.* leads out of the"),
        (truncate, "", r"(cannot be loaded \(|cannot be read as a file of Arrow)"),
        (lambda p: max(p.glob("*.arrow")).unlink(), "", r"cannot be loaded \(FileNotFoundError"),
        (lambda p: None, "image=picture", r"no column named 'picture'; known: image, label, mask, name, seg_parts"),
        (lambda p: None, "mask=masks", r"no column named 'masks'; did you mean mask\?"),
        (lambda p: None, "mask=name", r"the column name is not of the kind an image; those that are: image, mask"),
        (lambda p: None, "label=name", r"the column name is not of the kind a class label; those that are: label"),
        (lambda p: None, "image=mask&mask=mask", r"mask is named as image and as mask; expected two columns"),
        (
            lambda p: renamed(p, image="left", seg_parts="right"),
            "",
            r"cannot be told; say image=COLUMN \(columns of ima",
        ),
        (lambda p: None, "split=train", r"no split named 'train'; there is no split at all"),
        (lambda p: None, "config=small", r"config= is for datasets of the hub; a folder has one"),
        (lambda p: None, "colour=red", r"'colour' is no option; there are image, mask, label, split, config, classes"),
        (lambda p: None, "image=image&image=mask", r"'image' is given twice. An example: hf:"),
        (lambda p: None, "mask", r"options are key=value, joined by '&', such as hf:"),
        (lambda p: None, "mask=mask,mask", r"a column is twice in mask=mask,mask; name each of them once"),
        (lambda p: None, "image=", r"image is empty; write image=... or leave it out"),
        (lambda p: None, "streaming=true", r"streaming datasets are not supported"),
        (lambda p: None, "classes=none.csv", r"none.csv does not exist; expected a CSV file that names the numbers"),
        (
            lambda p: (shutil.rmtree(p), save_one(p, {"image": [], "mask": []})),
            "",
            r"has no rows in it; expected images",
        ),
    ],
)
def test_a_dataset_that_cannot_be_used_is_explained(
    tmp_path: Path, classes: Path, damage: Callable[[Path], object], options: str, message: str
) -> None:
    path = save_one(tmp_path / "one")
    damage(path)
    given = options if "classes=" in options else f"classes={classes}" + f"&{options}" * bool(options)
    with pytest.raises(UsageError, match=message) as error:
        HfDataset(f"{path}?{given}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            None,
            r"(?s)numbers in mask, seg_parts have no names.*classes=FILE.*index,name,category\n +0,NAME.*\n +4,NAME",
        ),
        ("number,name\n", r"classes.csv, line 1: no column index, category; expected"),
        ("index,name,category\nx,car,object\n", r"classes.csv, line 2: the index is 'x'; expected a whole number"),
        (
            "index,name,category,plane\n1,car,object,boat\n",
            r"line 2: there is no mask plane 'boat'; the masks are mask",
        ),
    ],
)
def test_names_of_numbers_that_cannot_be_used(tmp_path: Path, classes: Path, table: str | None, message: str) -> None:
    path = save_one(tmp_path / "one")
    classes.write_text(table or "")
    with pytest.raises(UsageError, match=message):
        HfDataset(f"{path}?classes={classes}" if table else str(path))
    with pytest.raises(UsageError, match=r"has no column of masks for .*classes.csv; name it with mask=COLUMN"):
        HfDataset(f"{path}?classes={classes}&mask=")


def test_splits_have_to_agree(tmp_path: Path) -> None:
    library = import_module("datasets")
    path = tmp_path / "many"
    columns = {"image": rows(2)["image"], "label": [0, 1]}
    library.DatasetDict({"a": dataset(columns), "b": dataset(columns, names=("x", "y"))}).save_to_disk(str(path))
    with pytest.raises(UsageError, match="a and b name the classes of label differently; say split=NAME"):
        HfDataset(str(path))
    assert HfDataset(f"{path}?split=b").class_names == ("x", "y")
    with pytest.raises(UsageError, match=r"no split named 'c'; known: a, b\. The dataset is"):
        HfDataset(f"{path}?split=c")


def test_splits_of_a_saved_dataset_that_are_odd(tmp_path: Path) -> None:
    path = save_splits(tmp_path / "many")
    rewrite(path / "dataset_dict.json", '"val"', '"../val"')
    with pytest.raises(UsageError, match=r"dataset_dict.json: the split '../val' leads out of the folder; save the"):
        HfDataset(f"{path}?mask=")
    rewrite(path / "dataset_dict.json", '"../val"', '"val"')
    shutil.rmtree(path / "val")
    save_one(path / "val", {"image": [], "mask": []})
    assert len(HfDataset(f"{path}?mask=")) == 4


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:", "hf: needs a path, such as"),
        ("hf:?mask=mask", "names no dataset; expected a folder or a name on the hub"),
        ("hf:nobody/nothing", r"cannot be loaded \(ConnectionError: .*'nobody/nothing'.*; expected a folder made by"),
        ("hf:a/b/c", r"a/b/c does not exist; expected a folder made by save_to_disk, one that holds Parquet files"),
    ],
)
def test_names_of_nothing(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_dataset(spec)
