"""`cityscapes:PATH`: fine, coarse and train-id masks, what is void, and what is said of damage."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.formats.cityscapes import FRAMES, HELD_BACK, SPARSE, TRAIN_NUMBERS, coarse, fine, frame, mask, numbers
from helpers.images import encode, photo, save
from helpers.odd_files import link_to_itself, pipe
from helpers.readers import check_reader
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.base import Entry, Remark
from microtome.datasets.formats.cityscapes import LABELS, TRAIN_IDS, CityscapesDataset
from microtome.datasets.specs import open_dataset
from microtome.dissect import AuditConfig, run_audit
from microtome.storage.errors import SampleError, UsageError

FIRST = FRAMES[0]


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    return fine(tmp_path / "cityscapes")


def index_of(dataset: CityscapesDataset, key: str) -> int:
    return [dataset.entry(index).key for index in range(len(dataset))].index(key)


def labels_of(dataset: CityscapesDataset, key: str) -> NDArray[np.int64]:
    """What was read of an image, as published label ids; 0 where nothing is labelled."""
    number = {name: label for label, name in LABELS.items()}
    ids = np.array([0, *(number[concept.name] for concept in dataset.concepts)])
    found = dataset.read(index_of(dataset, key))
    np.testing.assert_array_equal(found.planes, dataset.read_labels(index_of(dataset, key)).planes)
    return ids[found.planes[0]]


def without_void(planted: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(planted < 7, 0, planted)


def fine_mask(root: Path, key: str = FIRST) -> Path:
    return root / "gtFine" / f"{key}_gtFine_labelIds.png"


class TestLayouts:
    def test_it_keeps_the_contract(self, streets: Path) -> None:
        check_reader(CityscapesDataset(streets), same=CityscapesDataset(streets))
        coarse(streets)
        check_reader(open_dataset(f"cityscapes:{streets}"), same=CityscapesDataset(streets))

    def test_entries_concepts_and_planes(self, streets: Path) -> None:
        dataset = CityscapesDataset(coarse(streets))
        assert [dataset.entry(index) for index in range(len(dataset))] == [
            Entry(key, key.partition("/")[0]) for key in sorted((*FRAMES, *SPARSE, HELD_BACK))
        ]
        assert [(concept.name, concept.category) for concept in dataset.concepts] == [
            (name, "object") for name in LABELS.values()
        ]
        assert (LABELS[7], LABELS[23], LABELS[33], len(LABELS)) == ("road", "sky", "bicycle", 27)
        assert (dataset.plane_names, dataset.image_label_slots, dataset.class_names) == (("objects",), 0, ())
        assert dataset.spec == f"cityscapes:{streets}"
        assert list(dataset.remarks()) == []

    def test_every_pixel_is_what_was_planted(self, streets: Path) -> None:
        dataset = CityscapesDataset(streets)
        for seed, key in enumerate(FRAMES):
            np.testing.assert_array_equal(labels_of(dataset, key), without_void(numbers(seed)))
        assert not labels_of(dataset, HELD_BACK).any()
        assert dataset.unknown_ids() == {}

    def test_coarse_where_there_is_no_fine_one(self, streets: Path) -> None:
        coarse(streets)
        fine_mask(streets).unlink()
        dataset = CityscapesDataset(streets)
        assert list(dataset.remarks()) == [
            Remark("images without a fine mask in a split that has them: their coarse mask is read", 1, (FIRST,))
        ]
        for seed, key in enumerate((*FRAMES, *SPARSE), 50):
            planted = numbers(seed if key in (FIRST, *SPARSE) else seed - 50)
            np.testing.assert_array_equal(labels_of(dataset, key), without_void(planted))

    def test_coarse_alone(self, streets: Path) -> None:
        coarse(streets)
        shutil.rmtree(streets / "gtFine")
        dataset = CityscapesDataset(streets)
        check_reader(dataset, same=CityscapesDataset(streets))
        np.testing.assert_array_equal(labels_of(dataset, FRAMES[3]), without_void(numbers(53)))
        assert list(dataset.remarks()) == [
            Remark("images without a mask: they are not annotated", 1, (HELD_BACK,)),
        ]

    def test_train_ids_where_there_are_no_label_ids(self, streets: Path) -> None:
        for seed, key in enumerate((*FRAMES, HELD_BACK)):
            fine_mask(streets, key).unlink()
            mask(streets, key, numbers(seed, of=TRAIN_NUMBERS), "gtFine_labelTrainIds")
        dataset = CityscapesDataset(streets)
        check_reader(dataset, same=CityscapesDataset(streets))
        assert [concept.name for concept in dataset.concepts] == [LABELS[label] for label in TRAIN_IDS]
        published = np.array([*TRAIN_IDS, *[0] * 237])
        for seed, key in enumerate((*FRAMES, HELD_BACK)):
            planted = published[numbers(seed, of=TRAIN_NUMBERS)]
            np.testing.assert_array_equal(labels_of(dataset, key), planted)
        assert dataset.unknown_ids() == {}

    def test_both_kinds_of_numbers_side_by_side(self, streets: Path) -> None:
        fine_mask(streets).unlink()
        mask(streets, FIRST, numbers(0, of=TRAIN_NUMBERS), "gtFine_labelTrainIds")
        mask(streets, FRAMES[1], np.zeros((24, 48), np.uint8), "gtFine_labelTrainIds")
        dataset = CityscapesDataset(streets)
        published = np.array([*TRAIN_IDS, *[0] * 237])
        np.testing.assert_array_equal(labels_of(dataset, FIRST), published[numbers(0, of=TRAIN_NUMBERS)])
        np.testing.assert_array_equal(labels_of(dataset, FRAMES[1]), without_void(numbers(1)))
        assert len(dataset.concepts) == 27

    def test_numbers_that_are_not_published_count_as_unlabelled(self, streets: Path) -> None:
        planted = numbers(0)
        planted[0] = 34
        planted[1] = 255  # -1: licence plate
        mask(streets, FIRST, planted)
        dataset = CityscapesDataset(streets)
        np.testing.assert_array_equal(labels_of(dataset, FIRST), np.where(planted > 33, 0, without_void(planted)))
        assert dataset.unknown_ids() == {"objects": {34: 1}}

    def test_smaller_masks_and_other_kinds_of_image(self, streets: Path) -> None:
        mask(streets, FIRST, numbers(0)[::2, ::2].copy())
        (streets / "leftImg8bit" / f"{FRAMES[1]}_leftImg8bit.png").unlink()
        save(streets / "leftImg8bit" / f"{FRAMES[1]}_leftImg8bit.jpg", photo(24, 48))
        dataset = CityscapesDataset(streets)
        np.testing.assert_array_equal(labels_of(dataset, FIRST), without_void(numbers(0))[::2, ::2])
        np.testing.assert_array_equal(labels_of(dataset, FRAMES[1]), without_void(numbers(1)))

    def test_what_is_odd_is_remarked(self, streets: Path) -> None:
        fine_mask(streets).unlink()
        (streets / "leftImg8bit" / f"{FRAMES[2]}_leftImg8bit.png").unlink()
        frame(streets, "demoVideo/stuttgart_00/stuttgart_00_000000_000001", 7)
        save(streets / "leftImg8bit/train/ulm/ulm_000009_000019.png", photo())
        save(streets / "leftImg8bit/train/ulm/._ulm_000000_000019_leftImg8bit.png", b"")
        dataset = CityscapesDataset(streets)
        demo = "demoVideo/stuttgart_00/stuttgart_00_000000_000001"
        assert list(dataset.remarks()) == [
            Remark("images without a mask: they are not annotated", 2, (demo, FIRST)),
            Remark("masks without an image", 1, (FRAMES[2],)),
            Remark(
                "images left out: their names do not end in _leftImg8bit",
                1,
                ("leftImg8bit/train/ulm/ulm_000009_000019.png",),
            ),
        ]
        assert not labels_of(dataset, FIRST).any()
        check_reader(dataset)

    def test_a_change_shows_in_the_fingerprints(self, streets: Path) -> None:
        def state() -> tuple[str, dict[str, int]]:
            dataset = CityscapesDataset(streets)
            return dataset.fingerprint(), {
                dataset.entry(index).key: dataset.sample_fingerprint(index) for index in range(len(dataset))
            }

        def changed(before: dict[str, int], after: dict[str, int]) -> list[str]:
            return [key for key in before if before[key] != after[key]]

        whole, samples = state()
        assert state() == (whole, samples)
        os.utime(fine_mask(streets), ns=(1, 1))
        touched, of_mask = state()
        assert touched != whole
        assert changed(samples, of_mask) == [FIRST]
        save(streets / "leftImg8bit" / f"{FRAMES[3]}_leftImg8bit.png", photo(48, 96))
        other, of_image = state()
        assert other != touched
        assert changed(of_mask, of_image) == [FRAMES[3]]
        coarse(streets)
        fine_mask(streets, FRAMES[1]).unlink()
        assert changed(of_image, state()[1]) == [FRAMES[1]]


def emptied(root: Path) -> None:
    shutil.rmtree(root / "leftImg8bit")
    save(root / "leftImg8bit/train/aachen/a.png", photo())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "does not exist; expected PATH/leftImg8bit/SPLIT/CITY/"),
        (lambda root: shutil.rmtree(root) or save(root, b""), "is not a folder; expected PATH/leftImg8bit"),
        (lambda root: shutil.rmtree(root / "leftImg8bit"), "has no folder leftImg8bit/; expected PATH/leftImg8bit"),
        (
            lambda root: shutil.move(root, root.parent / "x") and shutil.move(root.parent / "x", root / "sets"),
            "has no folder leftImg8bit/; name the folder that has it: cityscapes:.*/cityscapes/sets$",
        ),
        (emptied, "leftImg8bit holds no images called \\*_leftImg8bit.png"),
        (
            lambda root: shutil.rmtree(root / "gtFine"),
            "no mask in .* belongs to an image: leftImg8bit/test/.* would have gtFine/test/.*_gtFine_labelIds.png; for",
        ),
        (
            lambda root: save(root / "leftImg8bit" / f"{FIRST}_leftImg8bit.jpg", photo()),
            "aachen_000000_000019_leftImg8bit.jpg and .*_leftImg8bit.png, which would be one sample with one mask",
        ),
    ],
)
def test_a_data_set_that_cannot_be_used_is_explained(
    streets: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(streets)
    with pytest.raises(UsageError, match=message) as caught:
        CityscapesDataset(streets)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", ["leftImg8bit", "gtFine"])
def test_a_folder_inside_names_the_one_above(streets: Path, folder: str) -> None:
    with pytest.raises(UsageError, match=f"name the folder above it: cityscapes:{streets}$"):
        CityscapesDataset(streets / folder)


TRUNCATED = encode(Image.fromarray(np.random.default_rng(0).integers(0, 34, (24, 48), dtype=np.uint8)))[:200]
PHOTO = f"leftImg8bit/{FIRST}_leftImg8bit.png"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda root: save(fine_mask(root), b""), r"mask of plane objects: empty file \(0 bytes\)"),
        (lambda root: save(fine_mask(root), b"<html>"), "mask of plane objects: not an image in a format"),
        (lambda root: save(fine_mask(root), TRUNCATED), "mask of plane objects: (truncated|damaged) image"),
        (lambda root: save(fine_mask(root), photo(24, 48)), "mask of plane objects: a mask in colours; expected label"),
        (
            lambda root: save(fine_mask(root), np.zeros((24, 32), np.uint8)),
            "32x24 pixels, the upright image 48x24",
        ),
        (
            lambda root: save(fine_mask(root), encode(Image.new("F", (48, 24)), "TIFF")),
            "mask of plane objects: a mask of kind F; expected grey or indexed",
        ),
        (
            lambda root: save(fine_mask(root), Image.new("RGBA", (48, 24), (0, 0, 0, 9))),
            "mask of plane objects: a mask with transparent pixels",
        ),
        (lambda root: fine_mask(root).unlink() or fine_mask(root).mkdir(), "mask of plane objects: a folder, not an"),
        (lambda root: save(root / PHOTO, b"\x89PNG broken"), "^not an image in a format"),
        (lambda root: save(root / PHOTO, (root / PHOTO).read_bytes()[:500]), "^truncated image file"),
        (lambda root: (root / PHOTO).unlink() or (root / PHOTO).symlink_to("gone.png"), "^the file is missing"),
        (lambda root: link_to_itself(root / PHOTO), "^the file cannot be read .Too many levels of symbolic links.$"),
        (lambda root: link_to_itself(fine_mask(root)), "mask of plane objects: the file cannot be read .Too many"),
        (lambda root: pipe(fine_mask(root)), "mask of plane objects: not a regular file"),
    ],
)
def test_a_sample_that_cannot_be_read_is_named_and_the_others_are_read(
    streets: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(streets)
    dataset = CityscapesDataset(streets)
    with pytest.raises(SampleError) as caught:
        dataset.read(index_of(dataset, FIRST))
    assert caught.value.key == FIRST
    assert re.search(reason, caught.value.reason), caught.value.reason
    assert str(streets) not in caught.value.reason
    check_reader(dataset)
    for seed, key in list(enumerate(FRAMES))[1:]:
        np.testing.assert_array_equal(labels_of(dataset, key), without_void(numbers(seed)))


def test_it_is_audited_to_the_pixel(tmp_path: Path) -> None:
    size = (128, 128)
    root = coarse(fine(tmp_path / "streets", size=size), size=size)
    save(fine_mask(root), b"broken")
    run = tmp_path / "run"
    found = run_audit(
        AuditConfig(
            model="builtin:scenes-cnn", dataset=f"cityscapes:{root}", layers=("block2",), out=run, label_size=size
        )
    )
    samples = found.run.table("samples").set_index("key")
    assert samples["status"].value_counts().to_dict() == {"ok": 6, "error": 1}
    assert samples.loc[FIRST, "status"] == "error"
    assert samples.loc[SPARSE[0], "split"] == "train_extra"
    masks = [numbers(seed, size) for seed in (1, 2, 3, 54, 55)]
    concepts = found.run.table("concepts").set_index("name")
    for label, name in LABELS.items():
        counts = [int((planted == label).sum()) for planted in masks]
        assert concepts.loc[name, ["images", "pixels"]].tolist() == [sum(map(bool, counts)), sum(counts)]
    units = found.run.layer_table("block2", "units")
    assert units["threshold"].notna().all()
    assert units["concept"].notna().any()
