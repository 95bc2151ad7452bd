"""`hf:PLACE`: columns of HuggingFace datasets as images, planes and classes, and what is said of damage."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.formats.hf import (
    CLASSES,
    cell,
    image_of,
    mask_of,
    offline,
    planted,
    rows,
    save_one,
    save_parquet,
    save_splits,
)
from helpers.images import encode, photo, save
from helpers.readers import check_reader
from PIL import Image

from microtome.datasets.base import Concept, Entry, Remark
from microtome.datasets.formats.hf.reader import HfDataset
from microtome.datasets.specs import open_dataset
from microtome.dissect import AuditConfig, run_audit
from microtome.storage.errors import SampleError


@pytest.fixture(autouse=True)
def quiet(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(tmp_path_factory.mktemp("hf"), monkeypatch)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    return save(tmp_path / "classes.csv", CLASSES.encode())


def labelled(path: Path, classes: Path, more: str = "") -> HfDataset:
    return HfDataset(f"{path}?classes={classes}{more}")


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

    def test_rows_without_a_class(self, tmp_path: Path) -> None:
        found = HfDataset(str(save_one(tmp_path / "one", {"image": rows(3)["image"], "label": [1, None, 0]})))
        assert [found.entry(row).label for row in range(3)] == [1, None, 0]

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
        "import sys\nfrom microtome.datasets.formats.hf.reader import HfDataset\n"
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


def test_it_is_audited(tmp_path: Path) -> None:
    quarter = np.zeros((128, 128), np.uint8)
    quarter[:64, :64] = 1
    columns = {
        "image": [cell(photo(128, 128, n)) for n in range(4)],
        "mask": [
            cell(quarter),
            cell(quarter * 2),
            cell(encode(Image.fromarray(quarter))[:-30]),
            cell(quarter[:, ::-1].copy()),
        ],
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
