"""Surveys: counts against a slow reference, findings for everything odd, the same whatever the threads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.images import photo, save, street
from helpers.survey import MemoryDataset, sample
from PIL import Image

from microtome.datasets.base import Concept, ImageDataset, Remark, Sample
from microtome.datasets.scenes import ScenesDataset
from microtome.datasets.specs import open_dataset
from microtome.datasets.survey.findings import Finding
from microtome.datasets.survey.overview import Survey, survey
from microtome.storage.errors import SampleError

ROW = [Concept(1, "car", "object"), Concept(2, "tree", "object"), Concept(3, "kitchen", "scene")]


def counted(found: Survey) -> dict[str, tuple[int, int]]:
    return {f"{c.concept.name}/{c.concept.category}": (c.images, c.pixels) for c in found.concepts}


def reference(dataset: ImageDataset) -> dict[str, tuple[int, int]]:
    """Counted pixel by pixel, and whole images for image labels."""
    counts = {concept.id: [0, 0] for concept in dataset.concepts}
    for index in range(len(dataset)):
        try:
            one = dataset.read(index)
        except SampleError:
            continue
        area = one.planes[0].size if one.planes.any() else one.image[..., 0].size
        for concept, count in counts.items():
            pixels = int((one.planes == concept).sum()) + area * int((one.image_labels == concept).sum())
            count[0] += pixels > 0
            count[1] += pixels
    named = {concept.id: f"{concept.name}/{concept.category}" for concept in dataset.concepts}
    return {named[concept]: (images, pixels) for concept, (images, pixels) in counts.items()}


def of_kind(found: Survey, kind: str) -> Finding:
    (finding,) = [finding for finding in found.findings if finding.kind == kind]
    return finding


@pytest.mark.parametrize("duplicates", [True, False])
def test_counts_of_a_folder(tmp_path: Path, duplicates: bool) -> None:
    dataset = open_dataset(f"folder:{street(tmp_path)}")
    found = survey(dataset, duplicates=duplicates)
    assert counted(found) == reference(dataset)
    assert found.splits == (("train", 4), ("val", 2))
    assert [(c.name, c.concepts) for c in found.categories] == [("object", 4), ("part", 2), ("surface", 1)]
    assert found.planes == ("object", "parts")
    assert found.unreadable == 0
    assert (found.image_sizes is None) is not duplicates


@pytest.mark.parametrize("duplicates", [True, False])
def test_counts_of_scenes_with_image_labels(duplicates: bool) -> None:
    dataset = ScenesDataset(30, size=64)
    found = survey(dataset, duplicates=duplicates, workers=3)
    assert counted(found) == reference(dataset)
    assert sum(count for _, count in found.classes) == 30


def test_the_grid_of_the_labels_counts_not_the_image() -> None:
    planes = np.zeros((1, 4, 6))
    planes[0, 0, :3] = 1
    image = np.zeros((8, 12, 3), np.uint8)
    bare = sample(image, np.zeros((1, 5, 5)), [3])
    found = survey(MemoryDataset([sample(image, planes, [3]), bare], ROW, plane_names=["x"], image_label_slots=1))
    assert counted(found) == {"car/object": (1, 3), "tree/object": (0, 0), "kitchen/scene": (2, 4 * 6 + 8 * 12)}
    assert found.unlabelled == pytest.approx((21 / 24 + 1) / 2)
    assert found.grid_sizes is not None
    assert found.grid_sizes.median == (4, 6)
    assert of_kind(found, "other-grid").count == 1


def test_labels_alone_count_image_labels_by_the_image_where_nothing_else_tells() -> None:
    dataset = MemoryDataset([sample(image_labels=[3]), sample(planes=np.ones((1, 12, 16)))], ROW, plane_names=["x"])
    found = survey(dataset, duplicates=False)
    assert counted(found)["kitchen/scene"] == (1, 12 * 16)
    assert dataset.decoded == 1


def test_the_same_whatever_the_threads(tmp_path: Path) -> None:
    root = street(tmp_path, images=40)
    (root / "images/train/003.png").write_bytes(b"no image")
    whole = survey(open_dataset(f"folder:{root}"), workers=1)
    assert whole.unreadable == 1
    for workers in (2, 7):
        assert survey(open_dataset(f"folder:{root}"), workers=workers) == whole


def test_the_first_samples(tmp_path: Path) -> None:
    steps: list[int] = []
    found = survey(open_dataset(f"folder:{street(tmp_path, images=30)}"), limit=19, progress=steps.append)
    assert (found.samples, found.total) == (19, 30)
    assert sum(steps) == 19
    assert survey(open_dataset(f"folder:{tmp_path}"), limit=99).samples == 30


def test_as_json(tmp_path: Path) -> None:
    values = survey(open_dataset(f"folder:{street(tmp_path)}")).to_dict()
    json.dumps(values, allow_nan=False)
    assert values["samples"] == 6
    assert values["concepts"][0].keys() == {"id", "name", "category", "images", "pixels"}
    assert values["findings"][0].keys() == {"kind", "level", "text", "count", "examples"}


def test_only_a_few_samples_wait_in_memory() -> None:
    """The reader gets ahead of who counts by a bounded number of samples."""
    dataset = MemoryDataset([sample()] * 2000)
    ahead: list[int] = []
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        ahead.append(dataset.decoded - done)

    survey(dataset, workers=2, progress=progress)
    assert done == 2000
    assert max(ahead) <= 2 * 4 * 8


def test_samples_that_cannot_be_read_by_reason() -> None:
    trouble = ["mask: 10x10 pixels, the image 20x30", "the file is missing", "mask: 11x12 pixels, the image 20x30"]
    found = survey(MemoryDataset([*trouble, sample(), "the file is missing", "the file is missing"]))
    assert found.unreadable == 5
    first, second = found.findings[:2]
    assert (first.kind, first.level, first.count) == ("unreadable", "problem", 3)
    assert first.text == "3 samples cannot be used: the file is missing"
    assert first.examples == ("0001", "0004", "0005")
    assert (second.count, second.examples) == (2, ("0000", "0002"))
    assert "10x10" in second.text
    assert "differ in numbers" in second.text


def test_reasons_without_end_are_taken_together() -> None:
    letters = [chr(ord("a") + i // 26) + chr(ord("a") + i % 26) for i in range(300)]
    found = survey(MemoryDataset([f"broken {text}" for text in letters]))
    assert found.unreadable == 300
    assert found.findings[0].text.startswith("200 samples cannot be used: other reasons")
    assert len(found.findings) == 101


def test_a_label_beyond_the_concepts_spoils_its_sample_alone() -> None:
    wrong = sample(planes=np.full((1, 2, 2), 9))
    found = survey(MemoryDataset([wrong, sample(image_labels=[8])], ROW, plane_names=["x"], image_label_slots=1))
    assert found.unreadable == 2
    assert "beyond the 3 concepts" in found.findings[0].text


def test_findings_of_labels() -> None:
    def plane(concept: int) -> Sample:
        return sample(photo(seed=concept), np.full((1, 24, 32), concept))

    dataset = MemoryDataset(
        [plane(1), plane(1), plane(0), plane(2)],
        ROW,
        splits=["train", "val", "train", "val"],
        labels=[0, None, 0, 0],
        class_names=["a", "b"],
        plane_names=["x"],
        unknown={"x": {7: 3, 9: 1}},
        remarked=[Remark("images without a mask in plane x", 2, ("k",))],
    )
    found = survey(dataset)
    assert of_kind(found, "unused-concepts").examples == ("kitchen (scene)",)
    alone = of_kind(found, "one-split-concepts")
    assert (alone.examples, "split val" in alone.text) == (("tree (object)",), True)
    assert of_kind(found, "no-label").examples == ("0002",)
    assert of_kind(found, "no-class").examples == ("0001",)
    assert of_kind(found, "empty-classes").examples == ("b",)
    unknown = of_kind(found, "unknown-labels")
    assert (unknown.count, unknown.examples) == (2, ("7 in 3 images", "9 in 1 image"))
    assert of_kind(found, "remark").text == "2 images without a mask in plane x"
    levels = [finding.level for finding in found.findings]
    assert levels == sorted(levels, key=["problem", "warning", "note"].index)


def test_findings_of_duplicates(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / "images/train" / f"{number}.png", photo(64, 64, number))
    save(tmp_path / "images/val/equal.png", photo(64, 64, 2))
    save(tmp_path / "images/val/near.jpg", Image.fromarray(photo(64, 64, 3)).resize((40, 40)))
    save(tmp_path / "images/val/other.png", photo(64, 64, 77))
    save(tmp_path / "images/val/near-too.png", Image.fromarray(photo(64, 64, 77)).resize((50, 50)))
    for name in "ab":
        save(tmp_path / "images/val" / f"black-{name}.png", np.zeros((8, 8, 3), np.uint8))
    found = survey(open_dataset(f"folder:{tmp_path}"))
    equal = of_kind(found, "duplicates-across-splits")
    assert (equal.level, equal.count) == ("problem", 2)
    assert equal.examples == ("train/2.png = val/equal.png",)
    assert "1 of the 6 of train, 1 of the 6 of val" in equal.text
    near = of_kind(found, "near-duplicates-across-splits")
    assert near.count == 4
    assert near.examples == ("train/3.png ~ val/near.jpg",)
    assert "2 equal ones among them" in near.text
    assert of_kind(found, "duplicates").examples == ("val/black-a.png = val/black-b.png",)
    of_val = of_kind(found, "near-duplicates")
    assert (of_val.count, of_val.examples, of_val.level) == (2, ("val/near-too.png ~ val/other.png",), "note")
    assert "among them" not in of_val.text
    assert of_kind(found, "one-colour").count == 2
    assert not [f for f in survey(open_dataset(f"folder:{tmp_path}"), duplicates=False).findings if "dup" in f.kind]


def test_masks_that_damage_a_folder(tmp_path: Path) -> None:
    root = street(tmp_path)
    save(root / "masks/object/train/000.png", np.zeros((9, 99), np.uint8))
    save(root / "masks/object/train/001.png", np.full((24, 32, 3), [1, 2, 3], np.uint8))
    save(root / "masks/object/val/002.png", b"")
    save(root / "masks/object/train/003.png", np.full((24, 32), 200, np.uint8))
    (root / "images/train/004.png").write_bytes(save(root / "x.png", photo()).read_bytes()[:-200])
    found = survey(open_dataset(f"folder:{root}"))
    texts = "\n".join(finding.text for finding in found.findings)
    assert found.unreadable == 4
    for words in ("not the same aspect ratio", "a mask in colours", "empty file", "truncated", "without a mask"):
        assert words in texts
    assert of_kind(found, "unknown-labels").examples == ("6 in 1 image", "200 in 1 image")


def test_no_samples_left_and_no_labels_at_all() -> None:
    found = survey(MemoryDataset(["broken"] * 3, ROW, plane_names=["x"]))
    assert (found.unreadable, found.examples, found.image_sizes, found.unlabelled) == (3, (), None, None)
    found = survey(MemoryDataset([sample(photo(seed=seed)) for seed in range(9)]), examples=4)
    assert len(found.examples) == 4
    assert found.examples[0] == 0
    assert found.findings == ()
    assert found.unlabelled is None


def test_sizes() -> None:
    shapes = [(10, 20), (30, 30), (5, 8), (10, 20)]
    found = survey(MemoryDataset([sample(np.zeros((*shape, 3), np.uint8)) for shape in shapes]))
    assert found.image_sizes is not None
    assert found.image_sizes.to_dict() == {
        "smallest": [5, 8],
        "median": [10, 20],
        "largest": [30, 30],
        "different": 3,
    }
