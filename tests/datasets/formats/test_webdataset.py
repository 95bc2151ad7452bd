"""`webdataset:PATH`: which members form a sample, what the labels are, and where everything lies."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from helpers.formats.webdataset import planted, png, street_members, street_shards, write_tar
from helpers.images import encode, photo
from helpers.readers import check_reader
from PIL import Image

from microtome.datasets.base import Concept, Entry
from microtome.datasets.formats.webdataset import index as webdataset_index
from microtome.datasets.formats.webdataset import reading as webdataset_reading
from microtome.datasets.formats.webdataset.reader import WebDataset
from microtome.datasets.formats.webdataset.samples import Survey
from microtome.datasets.specs import open_dataset
from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.audit.pipeline import Outcome
from microtome.storage.errors import SampleError

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
LOOKUP = {"seg": np.array([0, 1, 2, 3, 0, 0, 0]), "parts": np.array([0, 4, 2, 0])}
"""What the numbers of each plane mean in the classes.csv of street_shards."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROTOME_CACHE", str(tmp_path / "cache"))


def keys(dataset: WebDataset) -> list[str]:
    return [dataset.entry(index).key for index in range(len(dataset))]


def one(root: Path, *members: tuple[str, bytes]) -> WebDataset:
    """The dataset of one tar with these members."""
    write_tar(root / "data/a.tar", members)
    return WebDataset(root / "data")


def said(dataset: WebDataset) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {remark.text: (remark.count, remark.examples) for remark in dataset.remarks()}


JPG = encode(Image.fromarray(photo()), "JPEG")


class TestLayout:
    @pytest.mark.parametrize("form", FORMS)
    def test_it_keeps_the_contract(self, tmp_path: Path, form: str) -> None:
        path = street_shards(tmp_path / "data", form=FORMS[form])
        check_reader(open_dataset(f"webdataset:{path}"), samples=20, same=WebDataset(path))

    def test_splits_classes_and_concepts(self, tmp_path: Path) -> None:
        dataset = WebDataset(street_shards(tmp_path / "data"))
        assert dataset.plane_names == ("parts", "seg")
        assert dataset.concepts == (
            Concept(1, "car", "object"),
            Concept(2, "tree", "object"),
            Concept(3, "house", "object"),
            Concept(4, "wheel", "part"),
        )
        assert dataset.class_names == ("town", "village", "country road")
        assert [dataset.entry(index) for index in (0, 5, 8)] == [
            Entry("train/street-000000.tar/000000", "train", 0),
            Entry("train/street-000001.tar/000005", "train", 2),
            Entry("val/street-000000.tar/000008", "val", 2),
        ]
        assert len(dataset) == 9

    def test_labels_are_those_that_were_planted(self, tmp_path: Path) -> None:
        dataset = WebDataset(street_shards(tmp_path / "data"))
        unknown: dict[str, dict[int, int]] = {"parts": {}, "seg": {}}
        for number in range(9):
            content, sample = planted(number), dataset.read(number)
            np.testing.assert_array_equal(sample.image, content["image"])
            parts = LOOKUP["parts"][content["parts"]] if "parts" in content else np.zeros((24, 32), int)
            seg = LOOKUP["seg"][content["seg"]]
            np.testing.assert_array_equal(sample.planes[0], parts)
            np.testing.assert_array_equal(sample.planes[1], np.where(seg == parts, 0, seg))
            for plane, listed in (("seg", 3), ("parts", 2)):
                for found in np.unique(content[plane]) if plane in content else ():
                    if found > listed:
                        unknown[plane][int(found)] = unknown[plane].get(int(found), 0) + 1
        expected = {plane: dict(sorted(numbers.items())) for plane, numbers in unknown.items()}
        assert dataset.unknown_ids() == expected

    def test_one_tar_patterns_and_folders_agree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = street_shards(tmp_path / "data")
        whole = keys(WebDataset(path))
        for pattern in ("{train,val}/street-{000000..000001}.tar", "{val,train}/*.tar", "**/*.tar", "*/street-*.tar"):
            if "{train,val}" in pattern:
                write_tar(path / "val/street-000001.tar", [])
            assert keys(WebDataset(f"{path}/{pattern}")) == whole
        for split in ("train", "val"):
            shutil.copy(path / "classes.csv", path / split)
        single = WebDataset(path / "val" / "street-000000.tar")
        assert keys(single) == ["street-000000.tar/000006", "street-000000.tar/000007", "street-000000.tar/000008"]
        ranged = WebDataset(f"{path}/train/street-{{000001..000000}}.tar")
        assert [ranged.entry(index).split for index in range(6)] == [""] * 6
        monkeypatch.setenv("HOME", str(tmp_path))
        assert keys(WebDataset("~/data")) == whole

    def test_splits_are_told_by_patterns_too(self, tmp_path: Path) -> None:
        dataset = WebDataset(f"{street_shards(tmp_path / 'data')}/{{train,val}}/*.tar")
        assert [dataset.entry(index).split for index in (0, 8)] == ["train", "val"]

    def test_a_folder_may_be_called_like_a_pattern(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "x{0..1}[a]" / "a.tar", [("0.jpg", JPG)])
        assert keys(WebDataset(tmp_path / "x{0..1}[a]")) == ["a.tar/0"]


class TestSamples:
    def test_the_key_ends_at_the_first_dot_of_the_base_name(self, tmp_path: Path) -> None:
        dataset = one(
            tmp_path,
            ("./a.b/c.jpg", JPG),
            ("./a.b/c.cls", b" 7\n"),
            ("a.b/d.JPEG", JPG),
            ("/etc/passwd.jpg", JPG),
            ("../../up.jpg", JPG),
            ("._e.jpg", b"junk"),
            ("noextension", b""),
            ("\udcff\n.jpg", JPG),
        )
        found = ["a.b/c", "a.b/d", "/etc/passwd", "../../up", "\\xff\n"]
        assert keys(dataset) == [f"a.tar/{key}" for key in found]
        assert [dataset.entry(index).label for index in range(5)] == [7, None, None, None, None]
        assert dataset.class_names == tuple("01234567")
        assert dataset.remarks() == []
        assert dataset.read(4).image.shape == (24, 32, 3)

    def test_which_member_is_the_image(self, tmp_path: Path) -> None:
        red, blue = (png(np.full((8, 8, 3), colour, np.uint8)) for colour in ((255, 0, 0), (0, 0, 255)))
        dataset = one(
            tmp_path,
            ("a.png", red),
            ("b.png", blue),
            ("b.webp", red),
            ("c.ppm", red),
            ("c.bmp", blue),
            ("d.left.jpg", JPG),
            ("d.TIFF", red),
            ("e.json", b"{}"),
            ("e.txt", b"no image"),
        )
        assert keys(dataset) == [f"a.tar/{key}" for key in "abcd"]
        assert [dataset.read(index).image[0, 0].tolist() for index in range(4)] == [[255, 0, 0]] * 4
        assert said(dataset) == {
            "samples with a second image, which is left out (a mask is KEY.PLANE.png)": (2, ("a.tar/b", "a.tar/c")),
            "images KEY.PART.EXT, which are neither image nor mask; left out": (1, ("a.tar/d.left.jpg",)),
            "keys without an image; left out": (1, ("a.tar/e",)),
        }

    def test_classes_that_are_no_number_or_have_no_name(self, tmp_path: Path) -> None:
        texts = (b"2", b"wren", b"-1", b"", b"1" * 100, b"1000000", b"3")
        members = [part for n, text in enumerate(texts) for part in ((f"{n}.jpg", JPG), (f"{n}.cls", text))]
        (tmp_path / "data").mkdir()
        (tmp_path / "data/classes.txt").write_text("owl\ncrane\ncrane\n\n")
        dataset = one(tmp_path, *members)
        assert dataset.class_names == ("owl", "crane", "crane")
        assert [dataset.entry(index).label for index in range(7)] == [2] + [None] * 6
        found = said(dataset)
        assert found["class labels that are no whole number from 0 to 999999; taken as none"][0] == 5
        assert found["class labels that classes.txt does not name; taken as none"] == (1, ("a.tar/6",))

    def test_planes_that_are_not_listed_are_left_out(self, tmp_path: Path) -> None:
        path = street_shards(tmp_path / "data")
        (path / "classes.csv").write_text("index,name,category,plane\n1,car,object,seg\n")
        dataset = WebDataset(path)
        assert dataset.plane_names == ("seg",)
        assert said(dataset) == {"mask planes that classes.csv does not list; left out": (1, ("parts",))}
        check_reader(dataset, same=WebDataset(path))
        (path / "classes.csv").write_text("index,name,category\n")
        assert WebDataset(path).plane_names == ()
        check_reader(WebDataset(path))

    def test_images_without_a_mask_are_remarked(self, tmp_path: Path) -> None:
        found = said(WebDataset(street_shards(tmp_path / "data")))
        assert list(found) == ["images without a mask in plane parts"]
        assert found["images without a mask in plane parts"][0] == 5

    def test_keys_may_come_again_in_another_tar(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            write_tar(tmp_path / f"data/{name}.tar", [("0.jpg", JPG)])
        assert keys(WebDataset(tmp_path / "data")) == ["a.tar/0", "b.tar/0"]


class TestTars:
    """Every kind of header that tarfile writes is followed to the same members."""

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("length", [40, 99, 100, 101, 140, 250])
    def test_long_names(self, tmp_path: Path, form: str, length: int) -> None:
        name = "/".join(["d" * 30] * 8)[: length - 6].rstrip("/") + "/a.jpg"
        path = write_tar(tmp_path / "data/a.tar", [(name, JPG), ("b.jpg", JPG)], form=FORMS[form])
        dataset = WebDataset(path)
        assert keys(dataset) == [f"a.tar/{name[:-4]}", "a.tar/b"]
        assert dataset.read(0).image.shape == (24, 32, 3)

    @pytest.mark.parametrize("form", ["gnu", "pax"])
    def test_names_that_are_not_ascii(self, tmp_path: Path, form: str) -> None:
        dataset = WebDataset(write_tar(tmp_path / "a.tar", [("Straße/löwe.jpg", JPG)], form=FORMS[form]))
        assert keys(dataset) == ["a.tar/Straße/löwe"]

    def test_offsets_are_those_of_tarfile(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "a.tar", street_members(range(30)), form=tarfile.PAX_FORMAT)
        dataset = WebDatasetWithoutMasks(path)
        with tarfile.open(path) as tar:
            images = [member for member in tar if member.name.count(".") == 1 and member.name.endswith(".png")]
        expected = [[member.offset_data, member.size] for member in images]
        assert dataset._index.places[0].tolist() == expected

    def test_folders_links_and_other_things_are_no_samples(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w", pax_headers={"comment": "all of it"}) as tar:
            for kind, name in ((tarfile.DIRTYPE, "d.jpg"), (tarfile.SYMTYPE, "l.jpg"), (tarfile.FIFOTYPE, "f.jpg")):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "0.jpg"
                tar.addfile(info)
            info = tarfile.TarInfo("0.jpg")
            info.size, info.pax_headers = len(JPG), {"mtime": "1.5", "comment": "ü\nx=1"}
            tar.addfile(info, io.BytesIO(JPG))
        dataset = WebDataset(path)
        assert keys(dataset) == ["a.tar/0"]
        assert said(dataset) == {
            "links in tars, which have no content of their own; left out": (1, ("a.tar/l.jpg",)),
        }

    def test_headers_without_magic_and_sizes_in_base_256(self, tmp_path: Path) -> None:
        header = bytearray(tarfile.TarInfo("0.jpg").tobuf(tarfile.USTAR_FORMAT))
        header[124:136] = b"\x80" + len(JPG).to_bytes(11)
        header[257:265] = bytes(8)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        (tmp_path / "a.tar").write_bytes(bytes(header) + JPG + bytes(-len(JPG) % 512 + 1024))
        dataset = WebDataset(tmp_path / "a.tar")
        assert dataset.read(0).image.shape == (24, 32, 3)
        assert dataset.remarks() == []

    def test_what_lies_behind_the_end_is_remarked(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "a.tar", [("0.jpg", JPG)])
        path.write_bytes(path.read_bytes() * 2)
        dataset = WebDataset(path)
        assert len(dataset) == 1
        assert said(dataset) == {
            "tars with something behind their end mark, as from cat; it is left out": (1, ("a.tar",)),
        }


class WebDatasetWithoutMasks(WebDataset):
    """Opens shards with masks that no classes.csv names."""

    def _rows(self) -> list[object]:  # type: ignore[override]
        return []


class TestReading:
    def test_many_threads_and_few_open_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(webdataset_reading, "MOST_OPEN", 2)
        for number in range(8):
            write_tar(tmp_path / f"data/{number}.tar", street_members([number]))
        (tmp_path / "data/classes.csv").write_text("index,name,category\n1,car,object\n")
        dataset = WebDataset(tmp_path / "data")
        with ThreadPoolExecutor(8) as pool:
            images = list(pool.map(lambda index: dataset.read(index % 8).image, range(200)))
        for index, image in enumerate(images):
            np.testing.assert_array_equal(image, planted(index % 8)["image"])
        opened = [file.path for file in psutil.Process().open_files()]
        assert 1 <= sum(path.startswith(str(tmp_path / "data")) for path in opened) <= 2

    def test_it_is_pickled_without_its_index(self, tmp_path: Path) -> None:
        dataset = WebDataset(street_shards(tmp_path / "data"))
        (tmp_path / "data/classes.csv").unlink()
        before = dataset.read(1)
        for cached in (tmp_path / "cache").iterdir():
            cached.unlink()
        again = pickle.loads(pickle.dumps(dataset))
        np.testing.assert_array_equal(again.read(1).planes, before.planes)
        assert again.fingerprint() == dataset.fingerprint()


def test_a_million_samples_open_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = 1_000_000
    path = write_tar(tmp_path / "a.tar", [("0.jpg", JPG)])
    (tmp_path / "classes.csv").write_text("index,name,category\n1,car,object\n")
    names = b"".join(b"n%010d" % number for number in range(samples))
    places = np.full((samples, 2), 512, np.int64)
    numbers = np.arange(samples, dtype=np.int64)
    found = Survey(("seg",), (), {}, names, np.arange(samples + 1) * 11, numbers * 0, numbers % 1000, (places, places))
    monkeypatch.setattr(webdataset_index, "survey", lambda _: found)
    WebDataset(path)
    code = (
        "import time\n"
        "from microtome.datasets.formats.webdataset.reader import WebDataset\n"
        f"dataset = WebDataset({str(path)!r})\n"
        "print(len(dataset), dataset.entry(999_999).key, dataset.entry(999_999).label, time.process_time())\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    length, key, label, seconds, kilobytes = ran.stdout.split()
    assert (length, key, label) == ("1000000", "a.tar/n0000999999", "999")
    assert float(seconds) < 10
    assert int(kilobytes) < 500_000


class TestFingerprints:
    def test_of_the_dataset_and_of_samples(self, tmp_path: Path) -> None:
        path = street_shards(tmp_path / "data")

        def state() -> tuple[str, list[int]]:
            dataset = WebDataset(path)
            return dataset.fingerprint(), [dataset.sample_fingerprint(index) for index in range(9)]

        whole, samples = state()
        assert state() == (whole, samples)
        assert len(set(samples)) == 9
        os.utime(path / "train/street-000001.tar", ns=(5, 5))
        changed_whole, changed = state()
        assert changed_whole != whole
        assert [one == other for one, other in zip(samples, changed, strict=True)] == [True] * 3 + [False] * 3 + [
            True
        ] * 3
        (path / "classes.txt").write_text("town\nvillage\nlane\n")
        renamed_whole, renamed = state()
        assert renamed_whole != changed_whole
        assert not set(renamed) & set(changed)


def audit(path: Path, out: Path, **options: Any) -> Outcome:
    return run_audit(
        AuditConfig(model="builtin:scenes-cnn", dataset=f"webdataset:{path}", layers=("block2",), out=out, **options)
    )


def test_it_is_audited_and_counts_what_was_planted(tmp_path: Path) -> None:
    path = street_shards(tmp_path / "data", size=(128, 128))
    found = audit(path, tmp_path / "run", label_size=(128, 128))
    samples, concepts = found.run.table("samples"), found.run.table("concepts")
    assert samples["status"].tolist() == ["ok"] * 9
    assert samples["split"].tolist() == ["train"] * 6 + ["val"] * 3
    assert samples["label"].tolist() == [0, 1, 2] * 3
    concepts = concepts.set_index("name")
    for concept, name in enumerate(("car", "tree", "house", "wheel"), start=1):
        counts = [
            np.any([LOOKUP[plane][content[plane]] == concept for plane in LOOKUP if plane in content], axis=0).sum()
            for content in (planted(number, 128, 128) for number in range(9))
        ]
        assert concepts.loc[name, ["images", "pixels"]].tolist() == [np.count_nonzero(counts), sum(counts)]
    assert found.run.layer_table("block2", "units")["threshold"].notna().all()


def test_an_audit_goes_through_a_cut_tar(tmp_path: Path) -> None:
    path = street_shards(tmp_path / "data")
    tar = path / "val/street-000000.tar"
    with tarfile.open(tar) as opened:
        cut = opened.getmember("000008.png").offset_data + 100
    tar.write_bytes(tar.read_bytes()[:cut])
    found = audit(path, tmp_path / "run")
    assert found.run.table("samples")["status"].tolist() == ["ok"] * 8 + ["error"]
    with pytest.raises(
        SampleError, match=r"is cut short at byte [\d,]+, before the end of 000008\.png .*; what follows is lost"
    ):
        WebDataset(path).read(8)
