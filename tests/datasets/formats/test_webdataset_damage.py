"""Damaged tar shards: what is refused, what is skipped, and in which words."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.formats.webdataset import planted, png, street_members, street_shards, write_tar
from helpers.images import encode, photo
from helpers.readers import check_reader
from PIL import Image

from microtome.datasets.formats.webdataset.reader import WebDataset
from microtome.datasets.formats.webdataset.shards import find_shards
from microtome.storage.errors import SampleError, UsageError

TAR = "train/street-000000.tar"
JPG = encode(Image.fromarray(photo()), "JPEG")

Harm = Callable[[Path], object]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROTOME_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return street_shards(tmp_path / "data")


def swapped(name: str, content: bytes | None) -> Harm:
    """The first tar anew, with another content of a member (None: without it)."""

    def harm(root: Path) -> None:
        members = [(key, content if key == name else old) for key, old in street_members(range(3))]
        write_tar(root / TAR, [(key, new) for key, new in members if new is not None])

    return harm


def at(root: Path, name: str) -> tarfile.TarInfo:
    with tarfile.open(root / TAR) as tar:
        return tar.getmember(name)


def cut(where: Callable[[Path], int]) -> Harm:
    """The first tar ends at byte `where(root)`."""
    return lambda root: os.truncate(root / TAR, where(root))


def overwritten(where: Callable[[Path], int], content: bytes) -> Harm:
    def harm(root: Path) -> None:
        with (root / TAR).open("r+b") as file:
            file.seek(where(root))
            file.write(content)

    return harm


def sparse(root: Path) -> None:
    info = tarfile.TarInfo("9.jpg")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "9.jpg"}
    with tarfile.open(root / TAR, "w") as tar:
        tar.addfile(info)


REFUSED: dict[str, tuple[Harm, str]] = {
    "no folder": (shutil.rmtree, r"data does not exist; expected a folder of \.tar files, one \.tar, or a pattern"),
    "no tars": (
        lambda root: [path.unlink() for path in root.rglob("*.tar")],
        r"data holds no \.tar; expected a folder",
    ),
    "no tar at all": (
        lambda root: (root / TAR).write_bytes(b"<html>not found</html>" * 99),
        r"street-000000\.tar is no tar: it does not begin with a tar header; expected a plain \.tar",
    ),
    "compressed, by name": (
        lambda root: (root / "train/b.tar.gz").write_bytes(gzip.compress((root / TAR).read_bytes())),
        r"train/b\.tar\.gz is compressed \(1 such here\), .*; unpack it to a plain \.tar, or move it away",
    ),
    "compressed, in secret": (
        lambda root: (root / TAR).write_bytes(gzip.compress((root / TAR).read_bytes())),
        r"street-000000\.tar is compressed with gzip, .* unpack it to a plain \.tar",
    ),
    "compressed with zstd": (
        lambda root: (root / TAR).write_bytes(b"\x28\xb5\x2f\xfd" + bytes(600)),
        r"street-000000\.tar is compressed with zstd",
    ),
    "a pipe": (
        lambda root: os.mkfifo(root / "train/b.tar"),
        r"train/b\.tar is not a regular file; samples of a tar are read at random",
    ),
    "a link to nothing": (
        lambda root: (root / "train/b.tar").symlink_to("gone.tar"),
        r"data cannot be listed: No such file or directory \(.*train/b\.tar\)",
    ),
    "a sparse member": (sparse, r"street-000000\.tar holds 9\.jpg as a sparse file.*write the tar without --sparse"),
    "a key twice": (
        lambda root: write_tar(root / TAR, [("0.jpg", JPG), ("1.jpg", JPG), ("0.cls", b"1")]),
        r"street-000000\.tar: 0\.cls at byte \d+ is of a sample that was met before, at byte 0; .*tar --sort=name",
    ),
    "a member twice": (
        lambda root: write_tar(root / TAR, [("0.jpg", JPG), ("0.jpg", JPG)]),
        r"street-000000\.tar: 0\.jpg at byte \d+ is of a sample that was met before, at byte 0",
    ),
    "too many planes": (
        lambda root: write_tar(root / TAR, [("0.jpg", JPG), *((f"0.{n}.png", b"") for n in range(80))]),
        r"masks KEY\.PLANE\.png of 82 planes \(0, 1, 10, \.\.\.\); at most 64 are possible: a key may have no dot",
    ),
    "no classes.csv": (
        lambda root: (root / "classes.csv").unlink(),
        r"(?s)classes\.csv is missing, so the numbers in the masks \(parts, seg\) have no names.*\n +1,NAME,object",
    ),
    "classes.csv with other columns": (
        lambda root: (root / "classes.csv").write_text("id,label\n1,car\n"),
        r"classes\.csv, line 1: no column index, name, category",
    ),
    "a plane that is not there": (
        lambda root: (root / "classes.csv").write_text("index,name,category,plane\n1,car,object,masks\n"),
        r"classes\.csv, line 2: there is no mask plane 'masks'",
    ),
    "classes.txt of another encoding": (
        lambda root: (root / "classes.txt").write_bytes("Straße\n".encode("latin-1")),
        r"classes\.txt cannot be read as UTF-8 text: .*; expected a name a line",
    ),
    "classes.txt that is a pipe": (
        lambda root: (root / "classes.txt").unlink() or os.mkfifo(root / "classes.txt"),
        r"classes\.txt cannot be read as UTF-8 text: .*not a regular file",
    ),
    "classes.csv that is a pipe": (
        lambda root: (root / "classes.csv").unlink() or os.mkfifo(root / "classes.csv"),
        r"classes\.csv cannot be read: not a regular file",
    ),
    "classes.txt with an empty line": (
        lambda root: (root / "classes.txt").write_text("a\n\nb\n"),
        r"classes\.txt, line 2: empty; expected a name a line",
    ),
}


@pytest.mark.parametrize("harm", REFUSED)
def test_what_cannot_be_used_at_all_is_refused(data: Path, harm: str) -> None:
    REFUSED[harm][0](data)
    with pytest.raises(UsageError, match=REFUSED[harm][1]) as caught:
        WebDataset(data)
    assert "\n" not in str(caught.value) or harm == "no classes.csv"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], r"a\.tar holds no samples; expected members KEY\.jpg .* and KEY\.cls for classes"),
        ([("0.json", b"{}")], r"holds no samples; .*; found keys without an image; left out: a\.tar/0$"),
        ([(".jpg", JPG), ("jpg", JPG)], "holds no samples"),
    ],
)
def test_tars_without_a_sample(tmp_path: Path, members: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WebDataset(write_tar(tmp_path / "a.tar", members))


@pytest.mark.parametrize("content", [b"", b"short"])
def test_a_tar_that_ends_before_it_began(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(
        UsageError, match=rf"a\.tar holds no samples; .*a\.tar is cut short at byte {len(content)}, where a"
    ):
        WebDataset(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("street-{000000..000003}.tar", r"there is no .*street-000002\.tar and 1 more of the pattern; name only tars"),
        ("lake-*.tar", r"there is no .*lake-\*\.tar; name only tars that exist"),
        ("street-{1}.tar", r"\{1\} is neither a range such as \{000\.\.099\} nor alternatives \{a,b\}"),
        ("street-{a,{b,c}}.tar", "braces within braces"),
        ("street-{0..1", "one without its other"),
        ("{0..9999999}.tar", "stands for 10,000,000 tars; at most 1,000,000 are possible"),
        ("{a..b}.tar", "neither a range"),
        ("*/../../cache/x.tar", r"x\.tar lies outside of .*; write the pattern without '\.\.'"),
        ("*.txt", r"holds no \.tar"),
    ],
)
def test_patterns_that_name_nothing(data: Path, pattern: str, message: str) -> None:
    (data / "train/notes.txt").touch()
    (data / "train/inner").mkdir()
    (data / "cache").mkdir()
    (data / "cache/x.tar").touch()
    with pytest.raises(UsageError, match=message):
        find_shards(f"{data}/train/{pattern}")


@pytest.mark.parametrize("address", ["https://host/{000..099}.tar", "s3://bucket/a.tar", "pipe:cat a.tar"])
def test_addresses_are_no_paths(address: str) -> None:
    with pytest.raises(UsageError, match=r"is not a path; tars are read at random and have to be files"):
        WebDataset(address)


def inside(name: str, extra: int) -> Callable[[Path], int]:
    return lambda root: at(root, name).offset_data + extra


def before(name: str, extra: int = 0) -> Callable[[Path], int]:
    return lambda root: at(root, name).offset + extra


SKIPPED: dict[str, tuple[Harm, str]] = {
    "not an image": (swapped("000001.png", b"GIF89a?"), "damaged image|not an image in a format that can be read"),
    "an empty image": (swapped("000001.png", b""), r"empty file \(0 bytes\)"),
    "half an image": (swapped("000001.png", png(planted(1)["image"])[:-300]), "truncated|damaged"),
    "not a mask": (swapped("000001.seg.png", b"nothing"), "mask of plane seg: not an image"),
    "a mask in colours": (
        swapped("000001.seg.png", png(photo())),
        "mask of plane seg: a mask in colours; expected label ids in a grey or indexed PNG",
    ),
    "a mask of another size": (
        swapped("000001.parts.png", png(np.zeros((32, 24), np.uint8))),
        "mask of plane parts: 24x32 pixels, the upright image 32x24; not the same aspect ratio",
    ),
}


@pytest.mark.parametrize("harm", SKIPPED)
def test_one_sample_that_cannot_be_used_is_skipped(data: Path, harm: str) -> None:
    SKIPPED[harm][0](data)
    dataset = WebDataset(data)
    for read in (dataset.read, dataset.read_labels) if "mask" in harm else (dataset.read,):
        with pytest.raises(SampleError, match=SKIPPED[harm][1]) as caught:
            read(1)
        assert caught.value.key == f"{TAR}/000001"
        assert str(data) not in caught.value.reason
    for index in (0, *range(2, 9)):
        np.testing.assert_array_equal(dataset.read(index).image, planted(index)["image"])
    check_reader(dataset, samples=9, same=WebDataset(data))


NO_END = r"is cut short at byte [\d,]+, where a header or the two blocks of zeros that end a tar should be"
NO_HEADER = r"is damaged at byte [\d,]+, where a header should be"
SIZE = r"is damaged at byte [\d,]+: the size of a member is "


def sized(field: bytes, **pax: str) -> Harm:
    """The first tar with these 12 bytes (or this pax record) as the size of sample 2's image."""

    def harm(root: Path) -> None:
        info = tarfile.TarInfo("000002.png")
        info.pax_headers = pax
        header = bytearray(info.tobuf(tarfile.PAX_FORMAT))
        if field:
            header[-388:-376] = field
            header[-364:-356] = b"%06o\0 " % (sum(header[-512:-364]) + 8 * ord(" ") + sum(header[-356:]))
        cut(before("000002.png"))(root)
        with (root / TAR).open("ab") as file:
            file.write(header + bytes(1024))

    return harm


CUT: dict[str, tuple[Harm, int, str]] = {
    "in an image": (
        cut(inside("000001.png", 100)),
        2,
        r"is cut short at byte [\d,]+, before the end of 000001\.png at",
    ),
    "in a mask": (cut(inside("000001.seg.png", 50)), 2, r"before the end of 000001\.seg\.png at byte [\d,]+"),
    "in what is left alone": (cut(inside("000001.json", 1)), 2, r"before the end of 000001\.json at byte [\d,]+"),
    "between image and mask": (cut(before("000001.seg.png")), 2, NO_END),
    "in a header": (cut(before("000002.png", 200)), 2, NO_END),
    "before a header": (cut(before("000002.png")), 2, NO_END),
    "before the end mark": (cut(inside("000002.txt", 512)), 3, NO_END),
    "in the end mark": (cut(inside("000002.txt", 1000)), 3, NO_END),
    "a header of noise": (overwritten(before("000002.png"), b"\x55" * 512), 2, NO_HEADER),
    "a header of zeros": (overwritten(before("000002.png"), bytes(512)), 2, r"is damaged at byte [\d,]+: one block of"),
    "a flipped bit in a header": (overwritten(before("000002.png"), b"9"), 2, NO_HEADER),
    "a size of 88 bits": (sized(b"\x80" + b"\xff" * 11), 2, SIZE),
    "a negative size": (sized(b"\xff" * 12), 2, SIZE),
    "a size of 30 digits": (sized(b"", size="9" * 30), 2, SIZE + "'9{30}'"),
    "a size of 5,000 digits": (sized(b"", size="9" * 5000), 2, SIZE + "'9{30}'"),
}


@pytest.mark.parametrize("harm", CUT)
def test_a_tar_that_is_cut_is_read_up_to_there(data: Path, harm: str) -> None:
    """All samples before the damage but the last, which tells of it."""
    do, held, message = CUT[harm]
    do(data)
    dataset = WebDataset(data)
    assert [entry.key.startswith(TAR) for entry in map(dataset.entry, range(held + 1))] == [True] * held + [False]
    for read in (dataset.read, dataset.read_labels):
        with pytest.raises(SampleError, match=rf"{re.escape(TAR)} .*{message}.*; what follows is lost$") as caught:
            read(held - 1)
        assert str(data) not in caught.value.reason
        assert len(caught.value.reason) < 200
    for number in (*range(held - 1), *range(3, 9)):
        index = number if number < 3 else number - 3 + held
        np.testing.assert_array_equal(dataset.read(index).image, planted(number)["image"])
    told = {remark.text: remark for remark in dataset.remarks()}["tars that are cut short or damaged, read up to there"]
    assert told.count == 1
    assert re.match(rf"{re.escape(TAR)} .*{message}", told.examples[0])
    check_reader(dataset, samples=9, same=WebDataset(data))


def test_one_block_of_zeros_ends_a_tar(data: Path) -> None:
    cut(inside("000002.txt", 1024))(data)
    dataset = WebDataset(data)
    assert dataset.read(2).image.shape == (24, 32, 3)
    assert not [remark for remark in dataset.remarks() if "cut" in remark.text]


def test_damage_before_any_sample_of_a_tar_is_no_other_tars(data: Path) -> None:
    (data / "train/street-000001.tar").write_bytes((data / TAR).read_bytes()[:512])
    os.truncate(data / "train/street-000001.tar", 100)
    dataset = WebDataset(data)
    assert [dataset.read(index).image.shape for index in range(6)] == [(24, 32, 3)] * 6
    assert "tars that are cut short or damaged, read up to there" in [remark.text for remark in dataset.remarks()]


def test_a_label_that_is_cut_is_none(data: Path) -> None:
    write_tar(data / TAR, [("0.jpg", JPG), ("0.cls", b"1" + b" " * 600)])
    os.truncate(data / TAR, at(data, "0.cls").offset_data + 1)
    assert WebDataset(data).entry(0).label is None


def test_a_size_beyond_everything_is_a_cut(data: Path) -> None:
    info = tarfile.TarInfo("0.jpg")
    info.size = 1 << 60
    (data / TAR).write_bytes(info.tobuf(tarfile.GNU_FORMAT) + JPG)
    dataset = WebDataset(data)
    with pytest.raises(
        SampleError,
        match=r"is cut short at byte [\d,]+, before the end of 0\.jpg at byte 1,152,.*; what follows is lost",
    ):
        dataset.read(0)
    assert dataset.read(1).image.shape == (24, 32, 3)


def test_tars_that_go_or_change_after_opening(data: Path) -> None:
    dataset = WebDataset(data)
    os.utime(data / TAR, ns=(1, 1))
    with pytest.raises(SampleError, match="the tar has changed since the dataset was opened"):
        dataset.read(0)
    (data / TAR).unlink()
    with pytest.raises(SampleError, match="image: the tar is missing"):
        dataset.read(1)
    assert dataset.read(3).image.shape == (24, 32, 3)


def test_every_byte_of_a_header_may_be_wrong(tmp_path: Path) -> None:
    """Whatever a tar holds, it is refused, or read as far as it goes."""
    whole = write_tar(
        tmp_path / "data/a.tar", [("d" * 120 + "/ö.jpg", JPG), ("1.jpg", JPG), ("1.cls", b"1")]
    ).read_bytes()
    dice = np.random.default_rng(3)
    for _ in range(150):
        content = bytearray(whole)
        for place in dice.integers(0, len(content), 3).tolist():
            content[place] = int(dice.integers(0, 256))
        (tmp_path / "data/a.tar").write_bytes(content[: int(dice.integers(1, len(content) + 1))])
        try:
            dataset = WebDataset(tmp_path / "data")
        except UsageError:
            continue
        for index in range(len(dataset)):
            try:
                dataset.read(index)
            except SampleError:
                continue


class TestCache:
    def only(self, tmp_path: Path) -> Path:
        (found,) = (tmp_path / "cache").glob("webdataset-*.arrow")
        return found

    @pytest.mark.parametrize(
        "harm",
        [
            lambda path: path.write_bytes(b""),
            lambda path: path.write_bytes(b"no index"),
            lambda path: os.truncate(path, path.stat().st_size // 2),
            lambda path: os.truncate(path, path.stat().st_size - 20),
            lambda path: path.write_bytes(path.read_bytes().replace(b"000004", b"000005")),
        ],
    )
    def test_a_damaged_index_is_built_anew(self, tmp_path: Path, data: Path, harm: Harm) -> None:
        first = WebDataset(data)
        harm(self.only(tmp_path))
        again = WebDataset(data)
        assert [again.entry(index) for index in range(9)] == [first.entry(index) for index in range(9)]
        check_reader(WebDataset(data), same=first)
        assert self.only(tmp_path).stat().st_size > 1000

    def test_it_is_used_and_belongs_to_the_tars(
        self, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_more(*_: object) -> None:
            raise AssertionError("the tars were read again")

        WebDataset(data)
        with monkeypatch.context() as patched:
            patched.setattr("microtome.datasets.formats.webdataset.index.survey", no_more)
            assert len(WebDataset(data)) == 9
        write_tar(data / TAR, street_members([0]))
        assert len(WebDataset(data)) == 7

    def test_it_can_do_without(self, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("MICROTOME_CACHE", str(tmp_path / "file" / "below"))
        check_reader(WebDataset(data), same=WebDataset(data))
