"""`broden:PATH` when it is damaged: which tables are refused, which samples cannot be read, and what goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.formats.broden import CATEGORIES, drawn, encode_rg, pictures, write_broden
from helpers.images import encode, photo, save, with_chunk
from helpers.odd_files import link_to_itself, pipe
from helpers.readers import check_reader
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.formats.broden.maps import read_map
from microtome.datasets.formats.broden.reader import BrodenDataset
from microtome.storage.errors import SampleError, UsageError

OBJECT = "images/ade20k/00000_object.png"


@pytest.fixture
def broden(tmp_path: Path) -> Path:
    return write_broden(tmp_path / "broden", pictures())


def test_a_damaged_map_is_refused_or_read_as_it_was(broden: Path) -> None:
    """Also where Pillow would not look at a checksum, and decode other numbers."""
    numbers = drawn(56, 1, (4, 6, 7, 9))
    whole = (broden / OBJECT).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        at = int(rng.integers(8, len(data)))
        if rng.integers(2):
            data[at] ^= 1 << int(rng.integers(8))
        else:
            del data[at : at + int(rng.integers(1, 200))]
        (broden / OBJECT).write_bytes(data)
        try:
            np.testing.assert_array_equal(read_map(str(broden / OBJECT), "key", "map"), numbers)
        except SampleError:
            refused += 1
    assert refused > 140
    (broden / OBJECT).write_bytes(whole + b"left over")
    np.testing.assert_array_equal(read_map(str(broden / OBJECT), "key", "map"), numbers)


@pytest.mark.parametrize(
    ("kind", "content"),
    [(b"tRNS", bytes([0, 4, 0, 0, 0, 0])), (b"gAMA", (10_000).to_bytes(4)), (b"cHRM", bytes(32)), (b"sRGB", b"\0")],
)
def test_chunks_that_change_how_colours_look_change_no_number(broden: Path, kind: bytes, content: bytes) -> None:
    """A transparent colour, here the one of number 4, above all."""
    before = BrodenDataset(broden).read(0).planes
    (broden / OBJECT).write_bytes(with_chunk((broden / OBJECT).read_bytes(), kind, content))
    dataset = BrodenDataset(broden)
    np.testing.assert_array_equal(dataset.read(0).planes, before)
    assert dataset.unknown_ids() == {}


def replace(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def harm(root: Path) -> None:
        content = (root / name).read_bytes()
        assert old in content
        (root / name).write_bytes(content.replace(old, new, 1))

    return harm


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def write(name: str, content: NDArray[np.generic] | Image.Image | bytes) -> Callable[[Path], object]:
    return lambda root: save(root / name, content)


def become_folder(name: str) -> Callable[[Path], object]:
    return lambda root: ((root / name).unlink(), (root / name).mkdir())


def become_loop(name: str) -> Callable[[Path], object]:
    return lambda root: ((root / name).unlink(), (root / name).symlink_to(name))


def cut(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-40])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (remove("."), "does not exist; expected PATH/index.csv, PATH/label.csv and PATH/images/"),
        (remove("index.csv"), "index.csv is missing; expected PATH/index.csv"),
        (remove("images"), "images is missing; expected"),
        (write("index.csv", b""), "index.csv is empty; expected a table with the columns image,split"),
        (write("index.csv", b"image,split,ih,iw,sh,sw," + ",".join(CATEGORIES).encode()), "index.csv lists no images"),
        (replace("index.csv", b",sh,sw,", b",h,w,"), "index.csv, line 1: no column sh, sw; expected image,split,ih"),
        (replace("index.csv", b",texture", b",textures"), "index.csv, line 1: no column texture, a category that"),
        (replace("index.csv", b",texture", b",scene"), "index.csv, line 1: two columns are called scene"),
        (write("index.csv", b"image,split,ih,iw,sh,sw\r\na,b,1,1,1,1\r\n"), "line 1: no column"),
        (
            replace("index.csv", b"pascal/00003.jpg", b"ade20k/00000.jpg"),
            "line 5: ade20k/00000.jpg is listed twice, first in line 2",
        ),
        (replace("index.csv", b"pascal/00003.jpg", b"../other/00003.jpg"), "line 5: image is '../other/00003.jpg'"),
        (replace("index.csv", b"pascal/00003.jpg", b""), "line 5: image is ''; expected a path below images/"),
        (replace("index.csv", b",dtd/00001_c", b",/dtd/00001_c"), "line 3: color is '/dtd/00001_color.png'"),
        (replace("index.csv", b";pascal/", b";pascal/../../"), "line 5: part is 'pascal/../../00003_part_2.png'"),
        (replace("index.csv", b"dtd/00001.jpg", b"dtd/\xff.jpg"), "index.csv cannot be read: .*invalid UTF8"),
        (replace("index.csv", b"\r\npascal/00003", b"\r\n\r\n\r\n../pascal/00003"), "line 7: image is"),
        (replace("index.csv", b",train,", b",train,1,"), "index.csv cannot be read: .*Expected 12 columns, got 13"),
        (remove("label.csv"), "label.csv is missing; expected a table with the columns number,name,category"),
        (replace("label.csv", b"number,", b"id,"), "label.csv, line 1: no column number"),
        (replace("label.csv", b"\r\n2,", b"\r\n1,"), "label.csv, line 3: the number 1 stands there twice"),
        (replace("label.csv", b"\r\n2,", b"\r\n2.5,"), "label.csv, line 3: the number is '2.5'; expected a whole"),
        (replace("label.csv", b"\r\n2,", b"\r\n65536,"), "label.csv, line 3: the number is '65536'"),
        (replace("label.csv", b"red-c", b""), "label.csv, line 3: label 2 has no name"),
        (replace("label.csv", b"color(12)", b""), "label.csv, line 3: no category; expected such as object"),
        (replace("label.csv", b"color(12)", b"color(12"), "label.csv, line 3: the category is 'color.12'; expected"),
        (write("label.csv", b"number,name,category\n"), "label.csv lists no labels"),
        (write("c_object.csv", b"number,coverage\nfour,1\n"), "c_object.csv, line 2: the number is 'four'"),
        (
            replace("index.csv", b"pascal/00003.jpg", b"./ade20k/00000.jpg"),
            "line 5: image is './ade20k/00000.jpg'; exp",
        ),
        (replace("index.csv", b"pascal/00003.jpg", b"ade20k//00000.jpg"), "its normal form, 'ade20k/00000.jpg'"),
        (replace("index.csv", b"pascal/00003.jpg", b"ade20k/./00000.jpg"), "its normal form, 'ade20k/00000.jpg'"),
        (replace("index.csv", b"pascal/00003.jpg", b"ade20k/00000.jpg/"), "its normal form, 'ade20k/00000.jpg'"),
        (replace("label.csv", b"color(12)", b"color(%s)" % (b"9" * 5000)), "label.csv, line 3: the category is 'color"),
        (replace("label.csv", b"color(12)", b"c" * 5000), "label.csv, line 3: the category is 'ccc"),
        (
            write("c_object.csv", b"number,coverage\n4,1\n6,1\n4,2\n"),
            "c_object.csv, line 4: the number 4 stands there twice",
        ),
        (become_folder("category.csv"), "category.csv is a folder; expected a file that can be read, or nothing"),
        (become_folder("c_object.csv"), "c_object.csv is a folder; expected a file that can be read, or nothing"),
        (become_loop("category.csv"), "category.csv is a link to no file; expected a file that can be read"),
        (become_loop("c_object.csv"), "c_object.csv is a link to no file; expected a file that can be read"),
        (write("c_object.csv", b"number,coverage\n4,much\n"), "c_object.csv, line 2: the coverage is 'much'"),
    ],
)
def test_tables_that_cannot_be_used_are_explained(broden: Path, harm: Callable[[Path], object], message: str) -> None:
    harm(broden)
    with pytest.raises(UsageError, match=message) as caught:
        BrodenDataset(broden)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_folder_below_is_named(broden: Path) -> None:
    with pytest.raises(UsageError, match=f"name the folder below it: broden:{broden}$"):
        BrodenDataset(broden.parent)
    with pytest.raises(UsageError, match=r"index\.csv is not a folder"):
        BrodenDataset(broden / "index.csv")


GREY = (drawn(56, 1, (4, 6)) % 256).astype(np.uint8)
INDEXED = Image.fromarray(GREY, "P")
INDEXED.putpalette(bytes(range(256)) * 3)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (remove("images/ade20k/00000.jpg"), "the file is missing"),
        (cut("images/ade20k/00000.jpg"), "truncated image file"),
        (remove(OBJECT), "object map ade20k/00000_object.png: the file is missing"),
        (replace("index.csv", b"00000_object.png", b"folder.png"), "object map ade20k/folder.png: a folder"),
        (write(OBJECT, b""), r"object map .*: empty file \(0 bytes\)"),
        (write(OBJECT, b"\x89PNG\r\n\x1a\n\0\0"), "object map .*: truncated image file"),
        (cut(OBJECT), "object map .*: truncated image file"),
        (write(OBJECT, encode(Image.fromarray(photo(56, 56)), "JPEG")), "object map .*: not a PNG"),
        (write(OBJECT, GREY), "object map .*: a PNG of kind grey, 8 bits; expected RGB, 8 bits"),
        (write(OBJECT, INDEXED), "object map .*: a PNG of kind indexed, 8 bits; expected RGB"),
        (write(OBJECT, drawn(56, 1, (4, 300))), "object map .*: a PNG of kind grey, 16 bits"),
        (write(OBJECT, np.dstack([encode_rg(drawn(56, 1, (4,))), GREY])), "object map .*: a PNG of kind RGB with tr"),
        (
            write(OBJECT, encode_rg(drawn(56, 1, (4,)))[:40]),
            "object map .*: 56x40 pixels, the upright image 112x112",
        ),
        (replace("index.csv", b"112,112,56,56", b"112,112,56,40"), "56x56 pixels, 40x56 in index.csv; not the same"),
        (
            replace("index.csv", b"112,112,56,56", b"112,112,56,?"),
            "sh and sw are '56' and '[?]' in index.csv",
        ),
        (replace("index.csv", b",778", b",-778"), "scene is '-778' in index.csv; expected a label's number or a map"),
        (replace("index.csv", b",778", b"," + b"9" * 5000), "scene is '9{40}' in index.csv; expected a label's number"),
        (replace("index.csv", b"112,112,56,56", b"112,112,%s,56" % (b"9" * 5000)), "sh and sw are '9{20}' and '56' in"),
        (replace("index.csv", b"00000_object.png", b"0" * 300 + b".png"), "object map .*: File name too long"),
        (replace("index.csv", b"778,", b"7.78,"), "scene is '7.78' in index.csv; expected a label's number or a map"),
    ],
)
def test_a_sample_that_cannot_be_used_is_named(broden: Path, harm: Callable[[Path], object], reason: str) -> None:
    before = [BrodenDataset(broden).read(index) for index in range(1, 4)]
    (broden / "images/ade20k/folder.png").mkdir()
    harm(broden)
    dataset = BrodenDataset(broden)
    with pytest.raises(SampleError, match=reason) as caught:
        dataset.read(0)
    assert caught.value.key == "ade20k/00000.jpg"
    assert str(broden) not in caught.value.reason
    for index, sample in enumerate(before, 1):
        found = dataset.read(index)
        np.testing.assert_array_equal(found.image, sample.image)
        np.testing.assert_array_equal(found.planes, sample.planes)
    check_reader(dataset, samples=4)


def test_links_to_themselves_and_pipes_cost_a_sample(broden: Path) -> None:
    whole = BrodenDataset(broden).read(2).planes
    link_to_itself(broden / "images/ade20k/lost")
    link_to_itself(broden / "images/dtd/00001.jpg")
    pipe(broden / OBJECT)
    dataset = BrodenDataset(broden)
    assert dataset.fingerprint() == BrodenDataset(broden).fingerprint()
    with pytest.raises(SampleError, match=r"object map ade20k/00000_object\.png: not a regular file"):
        dataset.read(0)
    with pytest.raises(SampleError, match=r"dtd/00001\.jpg: the file cannot be read .Too many levels of symbolic"):
        dataset.read(1)
    np.testing.assert_array_equal(dataset.read(2).planes, whole)
    link_to_itself(broden / OBJECT)
    with pytest.raises(SampleError, match=r"object map ade20k/00000_object\.png: Too many levels of symbolic links"):
        dataset.read(0)
