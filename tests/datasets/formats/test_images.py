"""`images:PATH`: every image below a folder, what is left out, and what is said of mistakes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.images import encode, photo, save
from helpers.odd_files import link_to_itself, pipe
from helpers.readers import check_reader
from PIL import Image

from microtome.datasets.base import Entry, Remark
from microtome.datasets.formats.images import ImagesDataset
from microtome.datasets.specs import open_dataset
from microtome.dissect import AuditConfig, run_audit
from microtome.storage.errors import SampleError, UsageError

NAMES = ("2023/may/a.jpg", "2023/may/b.PNG", "2023/a.webp", "a.tiff", "z.bmp", "é/ü.gif")


def album(root: Path) -> Path:
    """Six images at several depths, in several formats."""
    for number, name in enumerate(NAMES):
        save(root / name, photo(seed=number))
    return root


def keys(dataset: ImagesDataset) -> list[str]:
    return [dataset.entry(index).key for index in range(len(dataset))]


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    path = album(tmp_path)
    check_reader(open_dataset(f"images:{path}"), same=ImagesDataset(path))


def test_every_image_by_its_path_and_nothing_else(tmp_path: Path) -> None:
    dataset = ImagesDataset(album(tmp_path))
    assert keys(dataset) == sorted(NAMES)
    assert dataset.entry(0) == Entry("2023/a.webp")
    assert (dataset.concepts, dataset.plane_names, dataset.class_names) == ((), (), ())
    assert dataset.read(3).image.shape == (24, 32, 3)
    assert dataset.read(3).planes.shape[0] == 0
    assert dataset.unknown_ids() == {}
    assert dataset.remarks() == []


def test_other_files_are_left_out_and_counted(tmp_path: Path) -> None:
    path = album(tmp_path)
    fingerprint = ImagesDataset(path).fingerprint()
    for name in ("notes.txt", "2023/movie.mp4", "2023/may/a.xmp", "é/README"):
        save(path / name, b"not an image")
    for name in (".DS_Store", "2023/Thumbs.db", ".hidden/x.jpg", "__MACOSX/x.jpg", "2023/._a.jpg"):
        save(path / name, b"junk")
    dataset = ImagesDataset(path)
    assert keys(dataset) == sorted(NAMES)
    examples = ("2023/may/a.xmp", "2023/movie.mp4", "notes.txt", "é/README")
    assert dataset.remarks() == [Remark("files that are no images by their names; left out", 4, examples)]
    assert dataset.fingerprint() == fingerprint


def test_home_links_and_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = album(tmp_path / "photos")
    os.symlink(path, path / "2023" / "round")
    os.symlink(path / "2023/may", path / "linked")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert keys(ImagesDataset("~/photos")) == sorted([*NAMES, "linked/a.jpg", "linked/b.PNG"])
    monkeypatch.chdir(tmp_path)
    dataset = ImagesDataset("photos")
    monkeypatch.chdir("/")
    assert dataset.spec == "images:photos"
    assert dataset.read(0).image.shape == (24, 32, 3)


def test_fingerprints_follow_the_images(tmp_path: Path) -> None:
    path = album(tmp_path)

    def state() -> tuple[str, list[int]]:
        dataset = ImagesDataset(path)
        return dataset.fingerprint(), [dataset.sample_fingerprint(index) for index in range(len(dataset))]

    whole, samples = state()
    assert state() == (whole, samples)
    os.utime(path / "z.bmp", ns=(5, 5))
    touched, changed = state()
    assert [one == other for one, other in zip(samples, changed, strict=True)] == [True] * 4 + [False, True]
    (path / "z.bmp").rename(path / "y.bmp")
    renamed, same = state()
    assert len({whole, touched, renamed}) == 3
    assert same == changed


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda root: None, "images .*data does not exist; expected a folder with images in it, at any depth"),
    "a file": (lambda root: save(root, b""), "images .*data is not a folder; expected"),
    "an empty folder": (lambda root: root.mkdir(), r"data holds no images; .*names that end in \.jpg, \.jpeg, \.png"),
    "other files": (lambda root: save(root / "notes.txt", b"text"), "data holds no images"),
    "junk alone": (lambda root: save(root / ".trash/a.jpg", b"junk"), "data holds no images"),
}


@pytest.mark.parametrize("harm", REFUSED)
def test_what_cannot_be_used_at_all_is_refused(tmp_path: Path, harm: str) -> None:
    REFUSED[harm][0](tmp_path / "data")
    with pytest.raises(UsageError, match=REFUSED[harm][1]):
        ImagesDataset(tmp_path / "data")


def replaced(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def gone_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("gone.bmp"))


WHOLE = encode(Image.fromarray(photo(200, 200)), "JPEG")
SKIPPED: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty file": (replaced(b""), r"empty file \(0 bytes\)"),
    "a text": (replaced(b"<html>403</html>"), "not an image in a format that can be read"),
    "cut short": (replaced(WHOLE[: len(WHOLE) // 2]), "truncated image file"),
    "cut within its head": (replaced(WHOLE[:30]), "not an image|truncated|damaged"),
    "noise within": (replaced(encode(Image.fromarray(photo()))[:60] + bytes(200)), "damaged|truncated"),
    "a link to nothing": (gone_link, "the file is missing"),
    "gone after opening": (Path.unlink, "the file is missing"),
    "a pipe": (pipe, "not a regular file"),
    "a link to itself": (link_to_itself, r"the file cannot be read \(Too many levels of symbolic links\)"),
    "larger than memory": (
        replaced(b"P6 70000 70000 255\n"),
        "too large",
    ),
}


@pytest.mark.parametrize("harm", SKIPPED)
def test_one_image_that_cannot_be_used_is_skipped(tmp_path: Path, harm: str) -> None:
    path = album(tmp_path)
    dataset = ImagesDataset(path)
    SKIPPED[harm][0](path / "z.bmp")
    dataset = dataset if harm == "gone after opening" else ImagesDataset(path)
    with pytest.raises(SampleError, match=SKIPPED[harm][1]) as caught:
        dataset.read(4)
    assert caught.value.key == "z.bmp"
    assert str(tmp_path) not in caught.value.reason
    for index in (0, 1, 2, 3, 5):
        assert dataset.read(index).image.shape == (24, 32, 3)
    check_reader(dataset, same=dataset)


def test_a_link_to_itself_that_is_no_image_is_left_out(tmp_path: Path) -> None:
    path = album(tmp_path)
    whole = keys(ImagesDataset(path))
    link_to_itself(path / "2023/lost")
    dataset = ImagesDataset(path)
    assert keys(dataset) == whole
    assert "2023/lost" in dataset.remarks()[0].examples


def test_names_that_are_not_text(tmp_path: Path) -> None:
    path = album(tmp_path)
    with open(os.fsencode(path) + b"/\xff\n.png", "wb") as stream:
        stream.write(encode(Image.fromarray(photo())))
    dataset = ImagesDataset(path)
    assert "\\xff\n.png" in keys(dataset)
    check_reader(dataset, same=ImagesDataset(path))


def test_the_spec_needs_a_path() -> None:
    with pytest.raises(UsageError, match="images: needs a path, such as images:~/photos"):
        open_dataset("images:")


def test_it_is_audited_without_concepts(tmp_path: Path) -> None:
    path = album(tmp_path / "photos")
    save(path / "a.tiff", b"broken")
    found = run_audit(
        AuditConfig(model="builtin:scenes-cnn", dataset=f"images:{path}", layers=("block2",), out=tmp_path / "run")
    )
    assert found.run.table("samples")["status"].tolist() == ["ok"] * 3 + ["error"] + ["ok"] * 2
    assert len(found.run.table("concepts")) == 0
    assert found.run.layer_table("block2", "units")["threshold"].notna().all()
