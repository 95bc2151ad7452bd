"""`imagefolder:PATH`: classes from folders, splits, and what people have lying between them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.images import encode, photo, save
from helpers.odd_files import link_to_itself
from helpers.readers import check_reader
from PIL import Image
from torchvision.datasets import ImageFolder

from microtome.datasets.base import Remark
from microtome.datasets.formats.imagefolder import ImageFolderDataset
from microtome.datasets.specs import open_dataset
from microtome.dissect import AuditConfig, run_audit
from microtome.storage.errors import SampleError, UsageError


def birds(root: Path, *splits: str) -> Path:
    """Three classes (one of them nested) of two images each in every split."""
    for split in splits or ("",):
        for number, name in enumerate(("wren", "owl/barn", "crow")):
            for image in range(2):
                save(root / split / name / f"{image}.{'jpg' if image else 'png'}", photo(seed=10 * number + image))
    return root


def labelled(dataset: ImageFolderDataset) -> list[tuple[str, str, str]]:
    entries = [dataset.entry(index) for index in range(len(dataset))]
    return [(entry.key, entry.split, dataset.class_names[entry.label or 0]) for entry in entries]


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    path = birds(tmp_path)
    check_reader(ImageFolderDataset(path), same=ImageFolderDataset(path))
    check_reader(open_dataset(f"imagefolder:{birds(tmp_path / 'both', 'train', 'val')}"), samples=20)


def test_classes_are_folders_by_name(tmp_path: Path) -> None:
    dataset = ImageFolderDataset(birds(tmp_path))
    assert dataset.class_names == ("crow", "owl", "wren")
    assert labelled(dataset) == [
        ("crow/0.png", "", "crow"),
        ("crow/1.jpg", "", "crow"),
        ("owl/barn/0.png", "", "owl"),
        ("owl/barn/1.jpg", "", "owl"),
        ("wren/0.png", "", "wren"),
        ("wren/1.jpg", "", "wren"),
    ]


def test_numbers_are_those_of_torchvision(tmp_path: Path) -> None:
    path = birds(tmp_path)
    save(path / "Zebra finch" / "a.webp", photo())
    theirs = ImageFolder(str(path))
    ours = ImageFolderDataset(path)
    assert list(ours.class_names) == theirs.classes
    expected = {os.path.relpath(name, path): label for name, label in theirs.samples}
    assert {ours.entry(index).key: ours.entry(index).label for index in range(len(ours))} == expected


def test_splits_share_their_classes(tmp_path: Path) -> None:
    path = birds(tmp_path, "train", "val")
    shutil.rmtree(path / "val" / "crow")
    (path / "train" / "empty").mkdir()
    dataset = ImageFolderDataset(path)
    assert dataset.class_names == ("crow", "empty", "owl", "wren")
    assert [entry for entry in labelled(dataset) if entry[1] == "val"] == [
        ("val/owl/barn/0.png", "val", "owl"),
        ("val/owl/barn/1.jpg", "val", "owl"),
        ("val/wren/0.png", "val", "wren"),
        ("val/wren/1.jpg", "val", "wren"),
    ]
    assert len(dataset) == 10


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    path = birds(tmp_path)
    save(path / "train" / "steam.png", photo())
    assert ImageFolderDataset(path).class_names == ("crow", "owl", "train", "wren")
    only = tmp_path / "only"
    save(only / "train" / "steam.png", photo())
    save(only / "test" / "tube.png", photo())
    assert ImageFolderDataset(only).class_names == ("test", "train")


def test_what_is_no_image_or_in_no_class_is_left_out(tmp_path: Path) -> None:
    path = birds(tmp_path)
    before = labelled(ImageFolderDataset(path))
    assert ImageFolderDataset(path).remarks() == []
    assert ImageFolderDataset(path).unknown_ids() == {}
    fingerprint = ImageFolderDataset(path).fingerprint()
    save(path / "wren" / "notes.txt", b"seen twice")
    save(path / "wren" / ".DS_Store", b"")
    save(path / "overview.png", photo())
    (path / "auk" / "young").mkdir(parents=True)
    save(path / "auk" / "young" / "list.csv", b"none yet")
    assert [key for key, *_ in labelled(ImageFolderDataset(path))] == [key for key, *_ in before]
    assert ImageFolderDataset(path).remarks() == [
        Remark("files that are no images by their names; left out", 2, ("auk/young/list.csv", "wren/notes.txt")),
        Remark("images that lie in no class; left out", 1, ("overview.png",)),
        Remark("classes without an image", 1, ("auk",)),
    ]
    shutil.rmtree(path / "auk")
    assert labelled(ImageFolderDataset(path)) == before
    save(path / "wren" / "2.png", photo())
    assert len(ImageFolderDataset(path)) == len(before) + 1
    assert ImageFolderDataset(path).fingerprint() != fingerprint


def test_a_changed_image_and_a_renumbered_class_change_its_fingerprint(tmp_path: Path) -> None:
    path = birds(tmp_path)

    def state() -> tuple[str, list[int]]:
        dataset = ImageFolderDataset(path)
        return dataset.fingerprint(), [dataset.sample_fingerprint(index) for index in range(len(dataset))]

    whole, samples = state()
    assert state() == (whole, samples)
    save(path / "wren" / "0.png", photo(30, 30, 5))
    changed_whole, changed = state()
    assert changed_whole != whole
    assert [one == other for one, other in zip(samples, changed, strict=True)] == [True, True, True, True, False, True]
    (path / "auk").mkdir()
    renumbered_whole, renumbered = state()
    assert renumbered_whole != changed_whole
    assert not any(one == other for one, other in zip(changed, renumbered, strict=True))


HALF = encode(Image.fromarray(photo(200, 200)), "JPEG")[:900]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: path.write_bytes(b"\x89PNG broken"), "not an image in a format that can be read"),
        (lambda path: path.write_bytes(b""), r"empty file \(0 bytes\)"),
        (lambda path: path.write_bytes(HALF), "truncated image file"),
        (lambda path: path.unlink(), "the file is missing"),
        (lambda path: path.write_bytes(b"P6 70000 70000 255\n"), "too large"),
        (lambda path: (path.unlink(), path.symlink_to("gone.png")), "the file is missing"),
        (link_to_itself, r"the file cannot be read \(Too many levels of symbolic links\)"),
    ],
)
def test_an_unreadable_image_is_named_and_the_others_are_read(
    tmp_path: Path, harm: Callable[[Path], object], reason: str
) -> None:
    path = birds(tmp_path)
    dataset = ImageFolderDataset(path)
    harm(path / "owl" / "barn" / "0.png")
    with pytest.raises(SampleError, match=reason) as caught:
        dataset.read(2)
    assert caught.value.key == "owl/barn/0.png"
    assert str(tmp_path) not in caught.value.reason
    for index in (0, 1, 3, 4, 5):
        assert dataset.read(index).image.shape == (24, 32, 3)
    check_reader(dataset, same=dataset)


def test_links_to_themselves_are_no_folders(tmp_path: Path) -> None:
    path = birds(tmp_path)
    link_to_itself(path / "lost")
    link_to_itself(path / "owl" / "barn" / "0.png")
    dataset = ImageFolderDataset(path)
    assert "lost" not in dataset.class_names
    assert dataset.entry(2).key == "owl/barn/0.png"
    with pytest.raises(SampleError, match="symbolic links"):
        dataset.read(2)
    check_reader(dataset, same=ImageFolderDataset(path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: save(root, b""), "is not a folder"),
        (lambda root: root.mkdir(), "no folders of classes; expected PATH/CLASS/NAME.EXT"),
        (lambda root: save(root / "a.jpg", photo()), r"images without classes \(a.jpg, ...\) name images:"),
        (lambda root: save(root / "wren" / "notes.txt", b""), "holds no images in folders of classes"),
        (lambda root: (root / "train" / "wren").mkdir(parents=True), "holds no images in folders of classes"),
    ],
)
def test_a_layout_that_cannot_be_used_is_explained(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "data")  # type: ignore[operator]
    with pytest.raises(UsageError, match=message):
        ImageFolderDataset(tmp_path / "data")


def test_the_spec_needs_a_path() -> None:
    with pytest.raises(UsageError, match="imagefolder: needs a path, such as imagefolder:~/data/birds"):
        open_dataset("imagefolder:")


def test_it_is_audited_without_concepts(tmp_path: Path) -> None:
    path = birds(tmp_path / "birds", "train", "val")
    save(path / "train" / "crow" / "0.png", b"broken")
    found = run_audit(
        AuditConfig(model="builtin:scenes-cnn", dataset=f"imagefolder:{path}", layers=("block2",), out=tmp_path / "run")
    )
    samples = found.run.table("samples")
    assert samples["status"].tolist() == ["error"] + ["ok"] * 11
    assert samples["label"].tolist() == [0, 0, 1, 1, 2, 2] * 2
    assert samples["split"].tolist() == ["train"] * 6 + ["val"] * 6
    units = found.run.layer_table("block2", "units")
    assert units["threshold"].notna().all()
