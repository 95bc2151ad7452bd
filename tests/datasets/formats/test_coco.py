"""`coco:PATH`: panoptic PNGs, polygons and run-length codes to labels, and what is said of damage."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.formats.coco import (
    Planted,
    annotation,
    compressed,
    edit,
    expected,
    image_name,
    uncompressed,
    write_instances,
    write_panoptic,
    write_stuff,
)
from helpers.images import photo, save
from helpers.readers import check_reader
from PIL import Image
from pycocotools.coco import COCO

from microtome.datasets.base import Concept, Entry
from microtome.datasets.formats.coco import index as coco_index
from microtome.datasets.formats.coco.reader import CocoDataset
from microtome.datasets.specs import open_dataset
from microtome.dissect import AuditConfig, run_audit

Write = Callable[..., Planted]
FIRST, SECOND = image_name(0), image_name(1)


def check_planted(dataset: CocoDataset, *planted: Planted) -> None:
    """Every plane of every sample is what was planted."""
    assert {dataset.entry(index).key for index in range(len(dataset))} == set().union(*planted)
    for index in range(len(dataset)):
        planes = dataset.read(index).planes
        assert len(planes) == len(planted)
        for plane, keys in zip(planes, planted, strict=True):
            np.testing.assert_array_equal(plane, expected(dataset, keys[dataset.entry(index).key]))


def examples(dataset: CocoDataset) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {remark.text: (remark.count, remark.examples) for remark in dataset.remarks()}


class TestReading:
    @pytest.mark.parametrize("write", [write_panoptic, write_instances, write_stuff])
    @pytest.mark.parametrize("names", [("val2017",), ("train2014", "val2014"), ("default",)])
    def test_each_kind_by_itself(self, tmp_path: Path, write: Write, names: tuple[str, ...]) -> None:
        planted: Planted = {}
        for name in names:
            planted.update(write(tmp_path, name))
        dataset = CocoDataset(tmp_path)
        check_reader(dataset, same=CocoDataset(tmp_path))
        check_planted(dataset, planted)
        assert dataset.remarks() == ()
        assert dataset.unknown_ids() == {}

    def test_things_and_stuff_are_two_planes(self, tmp_path: Path) -> None:
        things, stuff = write_instances(tmp_path), write_stuff(tmp_path)
        dataset = open_dataset(f"coco:{tmp_path}")
        assert isinstance(dataset, CocoDataset)
        check_reader(dataset, same=CocoDataset(tmp_path))
        assert dataset.plane_names == ("objects", "stuff")
        assert [concept.name for concept in dataset.concepts] == ["person", "dog", "chair", "banner", "river"]
        check_planted(dataset, things, stuff)

    def test_panoptic_annotations_stand_alone(self, tmp_path: Path) -> None:
        write_instances(tmp_path)
        write_stuff(tmp_path)
        planted = write_panoptic(tmp_path)
        dataset = CocoDataset(tmp_path)
        assert dataset.plane_names == ("panoptic",)
        assert dataset.concepts[-1] == Concept(5, "tree-merged", "object")
        assert dataset.entry(0) == Entry(f"val2017/{FIRST}", "val")
        check_planted(dataset, planted)

    def test_a_concept_of_both_planes_is_counted_once(self, tmp_path: Path) -> None:
        write_instances(tmp_path)
        write_stuff(tmp_path)
        edit(tmp_path, "stuff_val2017", lambda file: file["categories"][1].update(name="person"))
        dataset = CocoDataset(tmp_path)
        assert [concept.name for concept in dataset.concepts] == ["person", "dog", "chair", "banner"]
        check_reader(dataset)
        planes = dataset.read(1).planes
        assert (planes[0] == 1).any()
        assert (planes[1] == 1).any()
        assert not (planes == 1).all(0).any()

    def test_only_what_every_part_has_is_read(self, tmp_path: Path) -> None:
        things = {**write_instances(tmp_path, "train2017"), **write_instances(tmp_path, "val2017")}
        write_panoptic(tmp_path, "val2017")
        write_stuff(tmp_path, "val2017")
        dataset = CocoDataset(tmp_path)
        assert dataset.plane_names == ("objects",)
        check_planted(dataset, things)
        assert examples(dataset) == {
            "annotation files left aside, since not every part has their kind": (
                2,
                ("panoptic_val2017.json", "stuff_val2017.json"),
            )
        }
        shutil.rmtree(tmp_path / "train2017")
        dataset = CocoDataset(tmp_path)
        assert dataset.plane_names == ("panoptic",)
        assert examples(dataset) == {
            "annotation files left aside, since the folder of their images is missing": (
                1,
                ("instances_train2017.json",),
            )
        }

    @pytest.mark.parametrize("where", ["images/val2017", "images"])
    def test_images_may_lie_in_a_folder_images(self, tmp_path: Path, where: str) -> None:
        planted = write_instances(tmp_path)
        (tmp_path / where).parent.mkdir(exist_ok=True)
        (tmp_path / "val2017").rename(tmp_path / where)
        check_planted(CocoDataset(tmp_path), planted)

    def test_pngs_may_lie_beside_the_annotations(self, tmp_path: Path) -> None:
        planted = write_panoptic(tmp_path)
        (tmp_path / "annotations/panoptic_val2017").rename(tmp_path / "panoptic_val2017")
        check_planted(CocoDataset(tmp_path), planted)

    def test_the_order_in_the_files_does_not_matter(self, tmp_path: Path) -> None:
        write_instances(tmp_path)
        before = [CocoDataset(tmp_path).read(index).planes for index in range(4)]

        def shuffle(file: dict[str, Any]) -> None:
            for name in ("images", "categories"):
                file[name].reverse()
            file["images"] = [dict(reversed(image.items())) for image in file["images"]]

        edit(tmp_path, "instances_val2017", shuffle)
        path = tmp_path / "annotations/instances_val2017.json"
        document = json.loads(path.read_text())
        path.write_text(
            "\ufeff" + json.dumps(dict(reversed(document.items())), indent=1, ensure_ascii=False), encoding="utf-8"
        )
        dataset = CocoDataset(tmp_path)
        assert [concept.name for concept in dataset.concepts] == ["person", "dog", "chair"]
        for index in range(4):
            np.testing.assert_array_equal(dataset.read(index).planes, before[index])

    def test_names_beyond_ascii_and_folders_in_file_names(self, tmp_path: Path) -> None:
        write_instances(tmp_path)

        def rename(file: dict[str, Any]) -> None:
            file["images"][0]["file_name"] = "./Köln/b\u00e4r 1.jpg"
            file["categories"][0]["name"] = " 人 "

        edit(tmp_path, "instances_val2017", rename)
        path = tmp_path / "annotations/instances_val2017.json"
        path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding="utf-8")
        save(tmp_path / "val2017/Köln/bär 1.jpg", photo())
        (tmp_path / "val2017" / image_name(3)).unlink()
        dataset = CocoDataset(tmp_path)
        assert dataset.concepts[0].name == "人"
        assert dataset.entry(3).key == "val2017/Köln/bär 1.jpg"
        assert dataset.read(3).planes.any()
        assert dataset.remarks() == ()

    def test_images_without_annotations_are_unlabelled(self, tmp_path: Path) -> None:
        write_panoptic(tmp_path)
        edit(tmp_path, "panoptic_val2017", lambda file: file["annotations"].pop(1))
        dataset = CocoDataset(tmp_path)
        check_reader(dataset)
        assert not dataset.read(1).planes.any()
        assert dataset.read(0).planes.any()
        assert examples(dataset) == {"images without an annotation in plane panoptic": (1, (f"val2017/{SECOND}",))}

    def test_files_of_a_part_may_list_different_images(self, tmp_path: Path) -> None:
        things = write_instances(tmp_path, images=5)
        stuff = write_stuff(tmp_path, images=3)
        dataset = CocoDataset(tmp_path)
        empty = np.zeros((24, 32), np.int64)
        check_planted(dataset, things, {key: stuff.get(key, empty) for key in things})
        assert examples(dataset)["images without an annotation in plane stuff"][0] == 2

    def test_masks_of_another_resolution(self, tmp_path: Path) -> None:
        planted = write_panoptic(tmp_path)
        file = tmp_path / "annotations/panoptic_val2017" / FIRST.replace("jpg", "png")
        save(file, np.array(Image.open(file))[::2, ::2])
        dataset = CocoDataset(tmp_path)
        found = dataset.read(0).planes
        np.testing.assert_array_equal(found[0], expected(dataset, planted[f"val2017/{FIRST}"])[::2, ::2])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
class TestPycocotools:
    """The public tools, used as their documentation shows, give the same pixels."""

    def test_random_polygons_and_run_lengths(self, tmp_path: Path) -> None:
        write_instances(tmp_path)
        rng = np.random.default_rng(3)

        def scatter(file: dict[str, Any]) -> None:
            file["annotations"] = []
            for number in range(40):
                points = rng.uniform(-3, 35, 2 * int(rng.integers(3, 9))).round(2).tolist()
                mask = rng.random((24, 32)) < rng.random()
                form = [[points, points[::-1]], uncompressed(mask), compressed(mask)][number % 3]
                found = annotation(number % 4, int(rng.choice([1, 18, 62])), number % 5 == 0, mask, form)
                file["annotations"].append({**found, "id": number})

        edit(tmp_path, "instances_val2017", scatter)
        theirs = COCO(str(tmp_path / "annotations/instances_val2017.json"))
        dataset = CocoDataset(tmp_path)
        for index in range(4):
            (image,) = theirs.loadImgs(theirs.getImgIds()[3 - index])
            assert dataset.entry(index).key == f"val2017/{image['file_name']}"
            categories = np.zeros((24, 32), np.int64)
            annotations = [
                (one["iscrowd"], theirs.annToMask(one), one["category_id"])
                for one in theirs.loadAnns(theirs.getAnnIds(imgIds=image["id"]))
            ]
            for _, mask, category in sorted(annotations, key=lambda one: (not one[0], -int(one[1].sum()))):
                categories[mask > 0] = category
            assert categories.any()
            np.testing.assert_array_equal(dataset.read(index).planes[0], expected(dataset, categories))

    def test_stuff(self, tmp_path: Path) -> None:
        write_stuff(tmp_path)
        theirs = COCO(str(tmp_path / "annotations/stuff_val2017.json"))
        dataset = CocoDataset(tmp_path)
        for index, image in enumerate(sorted(theirs.getImgIds())):
            categories = np.zeros((24, 32), np.int64)
            for one in theirs.loadAnns(theirs.getAnnIds(imgIds=image)):
                if theirs.loadCats(one["category_id"])[0]["name"] != "other":
                    categories[theirs.annToMask(one) > 0] = one["category_id"]
            np.testing.assert_array_equal(dataset.read(index).planes[0], expected(dataset, categories))

    def test_panoptic(self, tmp_path: Path) -> None:
        write_panoptic(tmp_path)
        document = json.loads((tmp_path / "annotations/panoptic_val2017.json").read_text())
        dataset = CocoDataset(tmp_path)
        for index, one in enumerate(sorted(document["annotations"], key=lambda one: str(one["file_name"]))):
            image = Image.open(tmp_path / "annotations/panoptic_val2017" / one["file_name"])
            category_of = {segment["id"]: segment["category_id"] for segment in one["segments_info"]}
            categories = np.zeros((24, 32), np.int64)
            for x in range(32):
                for y in range(24):
                    red, green, blue = image.getpixel((x, y))  # type: ignore[misc]
                    categories[y, x] = category_of.get(red + 256 * green + 256**2 * blue, 0)
            np.testing.assert_array_equal(dataset.read(index).planes[0], expected(dataset, categories))


class TestUnknown:
    def test_categories_and_segments_that_nothing_lists(self, tmp_path: Path) -> None:
        planted = write_panoptic(tmp_path)
        gone = max({*np.unique(planted[f"val2017/{FIRST}"]).tolist()} - {149})

        def forget(file: dict[str, Any]) -> None:
            file["categories"] = [one for one in file["categories"] if one["id"] != 149]
            segments = file["annotations"][0]["segments_info"]
            segments[:] = [one for one in segments if one["category_id"] != gone]

        edit(tmp_path, "panoptic_val2017", forget)
        dataset = CocoDataset(tmp_path)
        for index, (_, categories) in enumerate(planted.items()):
            kept = np.where((categories == 149) | ((categories == gone) & (index == 0)), 0, categories)
            np.testing.assert_array_equal(dataset.read(index).planes[0], expected(dataset, kept))
        with_river = sum(149 in categories for categories in planted.values())
        assert dataset.unknown_ids() == {"panoptic": {-1: 1, 149: with_river}}

    def test_an_unknown_instance_hides_what_lies_below(self, tmp_path: Path) -> None:
        planted = write_instances(tmp_path)
        edit(tmp_path, "instances_val2017", lambda file: file["categories"].pop())
        dataset = CocoDataset(tmp_path)
        for index, (key, categories) in enumerate(planted.items()):
            assert dataset.entry(index).key == key
            kept = np.where(categories == 62, 0, categories)
            np.testing.assert_array_equal(dataset.read(index).planes[0], expected(dataset, kept))
        assert dataset.unknown_ids() == {"objects": {62: 4}}

    def test_remarks(self, tmp_path: Path) -> None:
        write_instances(tmp_path)

        def spoil(file: dict[str, Any]) -> None:
            file["annotations"][0]["image_id"] = 5
            file["annotations"][1]["segmentation"] = []
            del file["annotations"][2]["segmentation"]
            file["categories"].append({"id": 90, "name": "toothbrush"})

        edit(tmp_path, "instances_val2017", spoil)
        (tmp_path / "val2017" / SECOND).rename(tmp_path / "val2017/extra.jpg")
        dataset = CocoDataset(tmp_path)
        assert examples(dataset) == {
            "images in annotation files whose file is missing": (1, (f"val2017/{SECOND}",)),
            "images that no annotation file lists": (1, ("val2017/extra.jpg",)),
            "annotations in instances_val2017.json of image ids that it does not list": (1, ("5",)),
            "annotations in instances_val2017.json without a segmentation (by image id)": (2, ("139", "146")),
            "categories in instances_val2017.json that no annotation has": (1, ("toothbrush",)),
        }
        assert dataset.read(0).planes.any()


class TestFingerprints:
    @pytest.mark.parametrize("write", [write_panoptic, write_instances])
    def test_change_with_what_a_sample_shows(self, tmp_path: Path, write: Write) -> None:
        write(tmp_path)
        file = next(path.stem for path in (tmp_path / "annotations").glob("*.json"))

        def state() -> tuple[str, list[int]]:
            dataset = CocoDataset(tmp_path)
            return dataset.fingerprint(), [dataset.sample_fingerprint(index) for index in range(4)]

        def changed() -> list[bool]:
            nonlocal whole, samples
            before, (whole, now) = (whole, samples), state()
            assert whole != before[0]
            samples = now
            return [one != other for one, other in zip(before[1], now, strict=True)]

        whole, samples = state()
        assert state() == (whole, samples)
        os.utime(tmp_path / "val2017" / SECOND, ns=(1, 1))
        assert changed() == [False, True, False, False]
        edit(tmp_path, file, lambda document: document["annotations"][0].update(note="looked at again"))
        assert changed() == [True, False, False, False]
        if write is write_panoptic:
            os.utime(tmp_path / "annotations/panoptic_val2017" / SECOND.replace("jpg", "png"), ns=(1, 1))
            assert changed() == [False, True, False, False]
        edit(tmp_path, file, lambda document: document["images"][3].update(height=48, width=64))
        assert changed() == [True, False, False, False]
        edit(tmp_path, file, lambda document: document["categories"][0].update(name="people"))
        assert changed() == [True] * 4

    def test_are_the_same_from_a_kept_index(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        planted = write_instances(tmp_path)
        edit(tmp_path, "instances_val2017", lambda file: file["annotations"][0].update(image_id=5))
        plain = CocoDataset(tmp_path)
        cache = tmp_path / "cache"
        monkeypatch.setenv("MICROTOME_CACHE", str(cache))
        monkeypatch.setattr(coco_index, "_WORTH_CACHING", 0)
        for _ in range(2):
            check_reader(CocoDataset(tmp_path), same=plain)
        (kept,) = cache.iterdir()
        with monkeypatch.context() as patch:
            patch.setattr(coco_index, "_Indexer", None)  # so that it has to be the kept one
            assert CocoDataset(tmp_path).remarks() == plain.remarks()
        kept.write_bytes(kept.read_bytes()[:200])
        check_reader(CocoDataset(tmp_path), same=plain)
        edit(tmp_path, "instances_val2017", lambda file: file["annotations"][0].update(image_id=139))
        check_planted(CocoDataset(tmp_path), planted)


class TestAudit:
    @pytest.mark.parametrize("write", [write_panoptic, write_instances, write_stuff])
    def test_concepts_are_counted_as_planted(self, tmp_path: Path, write: Write) -> None:
        root, size = tmp_path / "coco", (112, 112)
        planted = {**write(root, "train2017", size=size), **write(root, "val2017", images=3, size=size)}
        save(root / "train2017" / FIRST, b"broken")
        audited = run_audit(
            AuditConfig(model="builtin:scenes-cnn", dataset=f"coco:{root}", layers=("block2",), out=tmp_path / "run")
        )
        samples = audited.run.table("samples")
        assert samples["key"].tolist() == sorted(planted)
        assert samples["status"].tolist() == ["error"] + ["ok"] * 6
        assert samples["split"].tolist() == ["train"] * 4 + ["val"] * 3
        del planted[f"train2017/{FIRST}"]
        dataset = CocoDataset(root)
        labels = np.stack([expected(dataset, grid)[::2, ::2] for grid in planted.values()])  # regions are of even size
        concepts = audited.run.table("concepts")
        assert concepts["name"].tolist() == [concept.name for concept in dataset.concepts]
        for number in concepts["id"]:
            (row,) = concepts[concepts["id"] == number].to_dict("records")
            assert row["pixels"] == (labels == number).sum() > 0
            assert row["images"] == (labels == number).any((1, 2)).sum()
        units = audited.run.layer_table("block2", "units")
        assert units["threshold"].notna().all()
        assert units["concept"].notna().any()
