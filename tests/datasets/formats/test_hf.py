"""`hf:PLACE`: columns of HuggingFace datasets as images, planes and classes, and what is said of damage."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
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
    image_of,
    mask_of,
    part_of,
    rows,
    save_one,
    save_parquet,
    save_splits,
)
from helpers.images import encode, photo, save
from helpers.readers import check_reader
from PIL import Image

from microtome.datasets.base import Concept, Entry, Remark
from microtome.datasets.formats import hf_load
from microtome.datasets.formats.hf import HfDataset
from microtome.datasets.specs import open_dataset
from microtome.dissect import AuditConfig, run_audit
from microtome.storage.errors import SampleError, UsageError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path_factory.mktemp("hf")
    library, config = import_module("datasets"), import_module("datasets.config")
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", cache)
    assert config.HF_HUB_OFFLINE
    assert library.__version__


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "classes.csv"
    path.write_text(CLASSES)
    return path


def labelled(path: Path, classes: Path, more: str = "") -> HfDataset:
    return HfDataset(f"{path}?classes={classes}{more}")


def planted(row: int) -> np.ndarray:
    """The planes of a row as concept ids: car 1, tree 2, house 3, wheel 4."""
    objects = np.array([0, 1, 2, 3])[mask_of(row)]
    parts = np.array([0, 0, 2, 0, 4])[part_of(row)] if row % 3 else np.zeros_like(objects)
    parts[(parts == objects) & (parts > 0)] = 0
    return np.stack([objects, parts])


class TestForms:
    def test_one_table_without_a_split(self, tmp_path: Path, classes: Path) -> None:
        path = save_one(tmp_path / "one")
        assert len(list(path.glob("*.arrow"))) > 1
        found = labelled(path, classes)
        check_reader(found, same=open_dataset(f"hf:{path}?classes={classes}"))
        assert [found.entry(i) for i in range(5)] == [
            Entry("000000", "", 0),
            Entry("000001", "", 1),
            Entry("000002", "", 0),
            Entry("000003", "", 1),
            Entry("000004", "", None),
        ]
        assert found.class_names == ("street", "garden")
        assert found.plane_names == ("mask", "seg_parts")
        assert found.concepts[3] == Concept(4, "wheel", "part")
        for row in range(5):
            sample = found.read(row)
            np.testing.assert_array_equal(sample.image, image_of(row))
            np.testing.assert_array_equal(sample.planes, planted(row))
        assert found.remarks() == [Remark("images without a mask in plane seg_parts", 2, ("000000", "000003"))]
        assert found.unknown_ids() == {}

    def test_splits_follow_each_other(self, tmp_path: Path, classes: Path) -> None:
        path = save_splits(tmp_path / "many")
        found = labelled(path, classes)
        check_reader(found)
        keys = [f"train/00000{n}" for n in range(4)] + [f"val/00000{n}" for n in range(3)]
        assert [found.entry(i).key for i in range(7)] == keys
        assert [found.entry(i).split for i in range(7)] == ["train"] * 4 + ["val"] * 3
        val = labelled(path, classes, "&split=val")
        check_reader(val)
        assert [val.entry(i).key for i in range(len(val))] == keys[4:]
        for row in range(4, 7):
            np.testing.assert_array_equal(found.read(row).planes, planted(row))
            np.testing.assert_array_equal(val.read(row - 4).planes, planted(row))
            assert val.sample_fingerprint(row - 4) == found.sample_fingerprint(row)

    def test_parquet_as_it_lies_on_the_hub(self, tmp_path: Path, classes: Path) -> None:
        found = labelled(save_parquet(tmp_path / "pq"), classes)
        check_reader(found, same=labelled(tmp_path / "pq", classes))
        assert found.entry(4) == Entry("train/000004", "train")
        np.testing.assert_array_equal(found.read(1).planes, planted(1))

    def test_images_alone(self, tmp_path: Path) -> None:
        found = HfDataset(str(save_one(tmp_path / "one", {"photo": rows(3)["image"]})))
        check_reader(found)
        assert (found.plane_names, found.class_names, found.concepts) == ((), (), ())
        bare = HfDataset(f"{save_one(tmp_path / 'masked')}?mask=")
        assert bare.plane_names == ()
        assert bare.remarks() == [
            Remark("columns of images that are not used; mask=COLUMN makes a plane of one", 2, ("mask", "seg_parts"))
        ]

    def test_columns_that_are_named(self, tmp_path: Path) -> None:
        columns = rows(3)
        renamed = {"left": columns["image"], "right": columns["image"][::-1], "depth": columns["mask"]}
        path = save_one(tmp_path / "one", renamed)
        table = tmp_path / "c.csv"
        table.write_text("index,name,category\n1,car,object\n2,tree,object\n3,house,object\n")
        found = HfDataset(f"{path}?image=right&mask=depth&classes={table}")
        check_reader(found)
        np.testing.assert_array_equal(found.read(0).image, image_of(2))
        np.testing.assert_array_equal(found.read(0).planes[0], mask_of(0))

    def test_files_that_rows_name(self, tmp_path: Path) -> None:
        photo_path = save(tmp_path / "photos/a.png", photo(seed=3))
        rows_of = [{"bytes": None, "path": str(photo_path)}, {"bytes": None, "path": "hf://datasets/x/a.png"}]
        path = unembedded(tmp_path / "one", {"image": [*rows_of, {"bytes": None, "path": "../a.png"}]})
        found = HfDataset(str(path))
        np.testing.assert_array_equal(found.read(0).image, photo(seed=3))
        before = found.sample_fingerprint(0)
        os.utime(photo_path, ns=(1, 1))
        assert found.sample_fingerprint(0) != before
        for row in (1, 2):
            with pytest.raises(SampleError, match="its bytes are not in the dataset, and no path on this machine"):
                found.read(row)


def unembedded(path: Path, columns: Mapping[str, list[Any]]) -> Path:
    """A saved dataset whose rows name files: what save_to_disk would have taken in is taken out again."""
    pa = import_module("pyarrow")
    save_one(path, {"image": [cell(photo()) for _ in columns["image"]]})
    (file, *others) = sorted(path.glob("*.arrow"))
    for other in others:
        other.unlink()
    with pa.ipc.open_stream(pa.memory_map(str(file))) as reader:
        schema = reader.schema
    with pa.ipc.new_stream(str(file), schema) as writer:
        writer.write_table(pa.table({"image": pa.array(columns["image"], schema.field("image").type)}, schema=schema))
    state = path / "state.json"
    names = "".join(state.read_text().split())
    start, end = names.index('"_data_files":['), names.index("]")
    state.write_text(names[:start] + f'"_data_files":[{{"filename":"{file.name}"}}' + names[end:])
    return path


def test_it_is_opened_again_without_the_library(tmp_path: Path, classes: Path) -> None:
    found = labelled(save_splits(tmp_path / "many"), classes)
    held = tmp_path / "held"
    held.write_bytes(pickle.dumps(found))
    assert held.stat().st_size < 600_000
    code = (
        "import pickle, sys\n"
        f"found = pickle.loads(open({str(held)!r}, 'rb').read())\n"
        "print(found.entry(5).key, found.read(5).planes.sum())\n"
        "assert 'datasets' not in sys.modules and 'huggingface_hub' not in sys.modules\n"
    )
    ran = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.stderr == ""
    assert ran.stdout.split() == ["val/000001", str(found.read(5).planes.sum())]


def test_the_library_is_quiet(tmp_path: Path) -> None:
    path = save_one(tmp_path / "one")
    code = (
        "import sys\nfrom microtome.datasets.formats.hf import HfDataset\n"
        f"HfDataset({str(path)!r} + '?mask=')\n"
        "import huggingface_hub.constants, datasets.config\n"
        "print(huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY, datasets.config.HF_UPDATE_DOWNLOAD_COUNTS)\n"
        "print(datasets.utils.are_progress_bars_disabled(), 'torch' in sys.modules)\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=clean
    )
    assert (ran.stdout, ran.stderr) == ("True False\nTrue False\n", "")


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


def test_what_changes_fingerprints(tmp_path: Path, classes: Path) -> None:
    columns = rows(5)
    path = save_one(tmp_path / "one", columns)

    def state(more: str = "") -> tuple[str, list[int]]:
        found = labelled(path, classes, more)
        return found.fingerprint(), [found.sample_fingerprint(index) for index in range(len(found))]

    whole, samples = state()
    assert state() == (whole, samples)
    columns["mask"][2] = cell(mask_of(77).astype(np.uint8))
    columns["label"][3] = 0
    shutil.rmtree(path)
    save_one(path, columns)
    now, after = state()
    assert now != whole
    assert [one == other for one, other in zip(samples, after, strict=True)] == [True, True, False, False, True]
    assert state("&mask=seg_parts,mask")[0] not in (whole, now)
    classes.write_text(CLASSES.replace("house", "hut"))
    renamed = state()
    assert renamed[0] != now
    assert not set(renamed[1]) & set(after)


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
    found = labelled(save_one(tmp_path / "one", make()), classes)
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
    found = labelled(save_one(tmp_path / "one", columns), classes)
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
        (lambda p: (p / "state.json").write_text("{"), "", r"cannot be loaded \(.*; expected a folder made by save"),
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


def test_it_is_audited(tmp_path: Path) -> None:
    quarter = np.zeros((128, 128), np.uint8)
    quarter[:64, :64] = 1
    columns = {
        "image": [cell(photo(128, 128, n)) for n in range(4)],
        "mask": [cell(quarter), cell(quarter * 2), cell(PNG[:-30]), cell(quarter[:, ::-1].copy())],
        "label": [0, 1, 0, 1],
    }
    path = save_one(tmp_path / "one", columns)
    table = tmp_path / "classes.csv"
    table.write_text("index,name,category\n1,car,object\n2,tree,object\n")
    config = AuditConfig(
        model="builtin:scenes-cnn",
        dataset=f"hf:{path}?classes={table}",
        layers=("block2",),
        out=tmp_path / "run",
        label_size=(128, 128),
    )
    run = run_audit(config).run
    samples = run.table("samples")
    assert samples["status"].tolist() == ["ok", "ok", "error", "ok"]
    assert samples["label"].tolist() == [0, 1, 0, 1]
    concepts = run.table("concepts").set_index("name")
    assert concepts[["images", "pixels"]].to_dict("index") == {
        "car": {"images": 2, "pixels": 8192},
        "tree": {"images": 1, "pixels": 4096},
    }
    assert run.layer_table("block2", "units")["threshold"].notna().all()
