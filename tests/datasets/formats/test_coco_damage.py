"""`coco:PATH` when it is damaged: what is refused, what is the error of one sample, and what goes on."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.formats.coco import (
    box,
    compressed,
    edit,
    expected,
    image_name,
    write_instances,
    write_panoptic,
    write_stuff,
)
from helpers.images import encode, photo, save
from helpers.odd_files import link_to_itself, pipe
from helpers.readers import check_reader
from PIL import Image

from microtome.datasets.formats.coco.masks import MaskError, paint
from microtome.datasets.formats.coco.reader import CocoDataset
from microtome.storage.errors import SampleError, UsageError

FIRST, SECOND = image_name(0), image_name(1)


def first_annotation(**changes: object) -> Callable[[Path], None]:
    """Spoil the first annotation of the first image."""

    def spoil(root: Path) -> None:
        edit(root, "instances_val2017", lambda file: file["annotations"][0].update(changes))

    return spoil


def spoil_list(name: str, number: int, /, **changes: object) -> Callable[[Path], None]:
    return lambda root: edit(root, "instances_val2017", lambda file: file[name][number].update(changes))


def raw(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        path = root / "annotations/instances_val2017.json"
        path.write_bytes(change(path.read_bytes()))

    return spoil


def become(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Make something else of the annotation file."""
    return lambda root: [act(root / "annotations/instances_val2017.json") for act in (Path.unlink, make)]


class TestDamagedDataset:
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda root: shutil.rmtree(root), "does not exist; expected PATH/annotations/panoptic_NAME.json"),
            (lambda root: shutil.rmtree(root / "annotations"), "has no folder annotations/; expected PATH/annotations"),
            (
                lambda root: (root / "annotations/instances_val2017.json").unlink(),
                r"annotations holds no panoptic_\*.json, instances_\*.json or stuff_\*.json",
            ),
            (
                lambda root: (root / "val2017").rename(root / "train2017"),
                "holds annotations of val2017, but no folder of their images",
            ),
            (
                lambda root: [path.unlink() for path in (root / "val2017").iterdir()],
                "val2017 holds none of the images of val2017, such as 0+139.jpg; expected",
            ),
            (raw(lambda text: b""), r"instances_val2017.json, byte 0: not an .* in JSON \(the file ends early\)"),
            (raw(lambda text: b"\x00" * 100), r"byte 0: not an .* in JSON \(expected {\); download"),
            (raw(lambda text: b"[" + text + b"]"), r"byte 0: not an .* in JSON \(expected {\)"),
            (raw(lambda text: text[:2000]), r"byte 2,000: .*\(the file ends early\)"),
            (raw(lambda text: text + b"}"), r"\(something follows the end of the object\)"),
            (raw(lambda text: text.replace(b'"id"', b'"id', 1)), r"instances_val2017.json, byte [\d,]+: not an .*JSON"),
            (raw(lambda text: text.replace(b"person", b"pers\xff\xfen")), r"byte [\d,]+: .*not UTF-8 text"),
            (raw(lambda text: text.replace(b"139", b"1" * 5000)), "too long or too deep"),
            (raw(lambda text: text.replace(b'"id": 1,', b'"id": ' + b"[" * 99_999)), "too long or too deep"),
            (raw(lambda text: text.replace(b'"images":', b'"pictures":')), "no list images; expected images, annot"),
            (raw(lambda text: text.replace(b'"annotations":', b'"a":')), "no list annotations; expected images"),
            (raw(lambda text: b'{"images": {}}'), "byte 11: .*'images' is not a list"),
            (lambda root: edit(root, "instances_val2017", lambda f: f.update(images=[])), "the list images is empty"),
            (
                lambda root: edit(root, "instances_val2017", lambda f: f.update(categories=[])),
                "the list categories is empty",
            ),
            (
                lambda root: edit(root, "instances_val2017", lambda f: f["images"].append(7)),
                r"images\[4\] is not an",
            ),
            (spoil_list("images", 0, id="139"), r"images\[0\]: id is '139'; expected id, file_name, height, width"),
            (spoil_list("images", 1, id=139), r"images\[3\]: the image id 139 occurs twice, for 0+153.jpg and 0+139"),
            (spoil_list("images", 0, file_name=f"./{FIRST}"), f"two images have the file_name {FIRST}"),
            (spoil_list("images", 0, file_name="../secret.jpg"), "'../secret.jpg' leads out of its folder; expected"),
            (spoil_list("images", 0, file_name="/etc/passwd"), "'/etc/passwd' leads out of its folder"),
            (spoil_list("images", 0, file_name="a\0.jpg"), "leads out of its folder"),
            (spoil_list("images", 0, file_name="a/.."), "leads out of its folder"),
            (
                spoil_list("images", 0, file_name="\ud800.jpg"),
                r"images\[0\]: file_name is .*expected the name",
            ),
            (spoil_list("images", 0, file_name=None), r"images\[0\]: file_name is 'None'"),
            (spoil_list("images", 2, height=0), r"images\[2\] \(0+146.jpg\): height and width are 0 and 32"),
            (spoil_list("images", 2, width="32"), "expected whole numbers from 1"),
            (
                spoil_list("annotations", 5, image_id=1.5),
                r"annotations\[5\]: image_id is '1.5'; expected image_id, category",
            ),
            (
                lambda root: edit(root, "instances_val2017", lambda f: f["annotations"][1].pop("category_id")),
                r"annotations\[1\]: category_id is missing; expected image_id, category_id, segmentation",
            ),
            (spoil_list("categories", 1, id=1), r"categories\[1\]: the category id 1 is 'person' and 'dog'"),
            (spoil_list("categories", 1, name="a\ud800"), "the name of category 18 is .*; expected text"),
            (become(Path.mkdir), "instances_val2017.json is a folder; expected a file that can be read, or nothing"),
            (become(lambda path: path.symlink_to(path.name)), "instances_val2017.json is a link to no file; expected"),
            (become(lambda path: path.symlink_to("gone")), "instances_val2017.json is a link to no file; expected"),
            (spoil_list("categories", 1, name=" "), "the name of category 18 is ' '; expected text"),
        ],
    )
    def test_is_refused_with_what_to_do(self, tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
        root = tmp_path / "coco"
        write_instances(root)
        spoil(root)
        with pytest.raises(UsageError, match=message):
            CocoDataset(root)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda file: file["annotations"][0].update(file_name="../../a.png"),
                "'../../a.png' leads out of",
            ),
            (
                lambda file: file["annotations"][0].pop("segments_info"),
                "no list segments_info; expected image_id",
            ),
            (
                lambda file: file["annotations"].append(file["annotations"][2]),
                "0+153.jpg has 2 annotations; expect",
            ),
        ],
    )
    def test_panoptic_files(self, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
        write_panoptic(tmp_path)
        edit(tmp_path, "panoptic_val2017", change)
        with pytest.raises(UsageError, match=message):
            CocoDataset(tmp_path)

    def test_missing_folder_of_pngs(self, tmp_path: Path) -> None:
        write_panoptic(tmp_path)
        shutil.rmtree(tmp_path / "annotations/panoptic_val2017")
        with pytest.raises(UsageError, match=r"panoptic_val2017 is missing, .*; unpack panoptic_val2017.zip there"):
            CocoDataset(tmp_path)

    def test_parts_without_a_common_kind_or_with_other_categories(self, tmp_path: Path) -> None:
        write_instances(tmp_path, "train2017")
        write_stuff(tmp_path, "val2017")
        with pytest.raises(UsageError, match=r"in common \(train2017: instances; val2017: stuff\); add the missing"):
            CocoDataset(tmp_path)
        write_instances(tmp_path, "val2017")
        edit(tmp_path, "instances_val2017", lambda file: file["categories"][0].update(name="people"))
        with pytest.raises(UsageError, match=r"category 1 is 'people', but 'person' in instances_train2017.json"):
            CocoDataset(tmp_path)

    def test_a_folder_too_deep(self, tmp_path: Path) -> None:
        write_instances(tmp_path)
        with pytest.raises(UsageError, match=f"name the folder above it: coco:{tmp_path}$"):
            CocoDataset(tmp_path / "annotations")


SIZE = (24, 32)
WHOLE = compressed(box(SIZE, 0, 0, 9, 9))["counts"]
BAD_SEGMENTATIONS: list[tuple[object, str]] = [
    ({"size": [32, 24], "counts": WHOLE}, r"run lengths of size \[32, 24\]; expected \[24, 32\], height and width"),
    ({"counts": WHOLE}, "run lengths of size None"),
    ({"size": [24, 32]}, "counts are neither text nor a list"),
    ({"size": [24, 32], "counts": WHOLE[:-1]}, "do not add up to the 768 pixels|ends within a number"),
    ({"size": [24, 32], "counts": WHOLE + "1"}, "do not add up to the 768 pixels"),
    ({"size": [24, 32], "counts": "o" * 6}, "ends within a number"),
    ({"size": [24, 32], "counts": "o" * 600 + "0"}, "a number that is too large"),
    ({"size": [24, 32], "counts": "ooooooO"}, "do not add up"),
    ({"size": [24, 32], "counts": "ä" + WHOLE}, "not ASCII text"),
    ({"size": [24, 32], "counts": ""}, "not ASCII text"),
    ({"size": [24, 32], "counts": "~" + WHOLE}, "characters that do not belong in one"),
    ({"size": [24, 32], "counts": "\0" + WHOLE}, "characters that do not belong in one"),
    ({"size": [24, 32], "counts": [1, 2, 3]}, "do not add up to the 768 pixels"),
    ({"size": [24, 32], "counts": [1000, -232]}, "do not add up"),
    ({"size": [24, 32], "counts": [10**30]}, "not whole numbers"),
    ({"size": [24, 32], "counts": [2**63, 2**63, 768]}, "do not add up|not whole numbers"),
    ({"size": [24, 32], "counts": [767.5, 0.5]}, "not whole numbers"),
    ({"size": [24, 32], "counts": ["768"]}, "not whole numbers"),
    ({"size": [24, 32], "counts": [[768]]}, "not whole numbers"),
    ({"size": [24, 32], "counts": []}, "do not add up"),
    ([[1, 2, 3, 4]], "three or more pairs of coordinates"),
    ([[1, 2, 3, 4, 5, 6, 7]], "three or more pairs of coordinates"),
    ([1, 2, 3, 4, 5, 6], "three or more pairs of coordinates"),
    ([[1, 2, 3, 4, 5, 1e9]], "coordinates far outside of the image"),
    ([[1, 2, 3, 4, 5, -(2**63)]], "coordinates far outside of the image"),
    ([[1, 2, 3, 4, 5, float("nan")]], "coordinates far outside of the image"),
    ([[1, 2, 3, 4, 5, float("-inf")]], "coordinates far outside of the image"),
    ([[1, 2, 3, 4, 5, "6"]], "coordinates that are not numbers"),
    ([[1, 2, 3, 4, 5, None]], "coordinates that are not numbers"),
    ([[1, 2, 3, 4, 5, [6]]], "coordinates that are not numbers"),
    ([[1, 2, 3, 4, 5, 10**400]], "coordinates that are not numbers"),
    ("person.png", "neither polygons nor run lengths"),
    (7, "neither polygons nor run lengths"),
]


class TestDamagedSamples:
    @pytest.mark.parametrize(("segmentation", "reason"), BAD_SEGMENTATIONS)
    def test_bad_segmentations(self, tmp_path: Path, segmentation: object, reason: str) -> None:
        planted = write_instances(tmp_path)
        first_annotation(segmentation=segmentation)(tmp_path)
        dataset = CocoDataset(tmp_path)
        for read in (dataset.read, dataset.read_labels):
            with pytest.raises(SampleError, match=f"annotations of plane objects: .*({reason})") as caught:
                read(0)
            assert caught.value.key == f"val2017/{FIRST}"
        found = dataset.read(1).planes[0]
        np.testing.assert_array_equal(found, expected(dataset, planted[f"val2017/{SECOND}"]))

    @pytest.mark.parametrize(
        ("file", "content", "reason"),
        [
            (f"val2017/{FIRST}", None, "the file is missing"),
            (f"val2017/{FIRST}", b"\xff\xd8\xff broken", "not an image in a format"),
            ("mask", None, "panoptic PNG: the file is missing"),
            ("mask", b"", "panoptic PNG: empty file"),
            ("mask", encode(Image.fromarray(photo(24, 32)))[:-300], "panoptic PNG: (truncated|damaged) image"),
            ("mask", encode(Image.fromarray(photo(24, 40))), "panoptic PNG: 40x24 pixels, the upright image 32x24"),
            ("mask", encode(Image.fromarray(photo()).convert("L")), "panoptic PNG: a mask of kind L; expected RGB"),
            ("mask", encode(Image.fromarray(photo()).convert("P")), "panoptic PNG: a mask of kind P; expected RGB"),
            ("mask", encode(Image.fromarray(photo()).convert("RGBA")), "panoptic PNG: a mask of kind RGBA"),
        ],
    )
    def test_bad_images(self, tmp_path: Path, file: str, content: bytes | None, reason: str) -> None:
        planted = write_panoptic(tmp_path)
        path = tmp_path / file.replace("mask", f"annotations/panoptic_val2017/{FIRST.replace('jpg', 'png')}")
        path.unlink()
        if content is not None:
            save(path, content)
        dataset = CocoDataset(tmp_path)
        with pytest.raises(SampleError, match=reason) as caught:
            dataset.read(0)
        assert caught.value.key == f"val2017/{FIRST}"
        found = dataset.read(1).planes[0]
        np.testing.assert_array_equal(found, expected(dataset, planted[f"val2017/{SECOND}"]))
        check_reader(dataset)

    def test_names_that_no_file_can_have(self, tmp_path: Path) -> None:
        planted = write_instances(tmp_path)
        path = tmp_path / "annotations/instances_val2017.json"
        path.write_bytes(path.read_bytes().replace(FIRST.encode(), b"0" * 300 + b".jpg"))
        dataset = CocoDataset(tmp_path)
        assert ("images in annotation files whose file is missing", 1) in [
            (remark.text, remark.count) for remark in dataset.remarks()
        ]
        for read in (dataset.read, dataset.read_labels):
            with pytest.raises(SampleError, match=r"the file cannot be read \(File name too long\)$"):
                read(0)
        found = dataset.read(1).planes[0]
        np.testing.assert_array_equal(found, expected(dataset, planted[f"val2017/{SECOND}"]))
        check_reader(dataset)

    @pytest.mark.parametrize(
        ("segments", "reason"),
        [
            ([7], "not a list of objects with the whole numbers"),
            ([{"id": "1", "category_id": 1}], "not a list of objects"),
            ([{"id": 1}], "not a list of objects"),
            ([{"id": 1, "category_id": 1}, {"id": 1, "category_id": 18}], "gives segment 1 two categories"),
        ],
    )
    def test_bad_segments(self, tmp_path: Path, segments: object, reason: str) -> None:
        write_panoptic(tmp_path)
        edit(tmp_path, "panoptic_val2017", lambda file: file["annotations"][0].update(segments_info=segments))
        dataset = CocoDataset(tmp_path)
        with pytest.raises(SampleError, match=reason):
            dataset.read(0)
        assert dataset.read(1).planes.any()

    def test_files_that_are_no_files(self, tmp_path: Path) -> None:
        write_panoptic(tmp_path)
        masks = tmp_path / "annotations/panoptic_val2017"
        link_to_itself(masks / "lost")
        link_to_itself(masks / FIRST.replace("jpg", "png"))
        pipe(masks / SECOND.replace("jpg", "png"))
        link_to_itself(tmp_path / "val2017" / image_name(2))
        dataset = CocoDataset(tmp_path)
        assert dataset.fingerprint() == CocoDataset(tmp_path).fingerprint()
        reasons = ("panoptic PNG: the file cannot be read .Too many levels", "panoptic PNG: not a regular file", "^the")
        for index, reason in enumerate(reasons):
            with pytest.raises(SampleError) as caught:
                dataset.read(index)
            assert re.search(reason, caught.value.reason)
            assert str(tmp_path) not in caught.value.reason

    def test_sizes_that_the_image_does_not_have(self, tmp_path: Path) -> None:
        write_instances(tmp_path)
        save(tmp_path / "val2017" / FIRST, photo(32, 24))
        edit(tmp_path, "instances_val2017", lambda file: file["images"][2].update(height=60_000, width=80_000))
        dataset = CocoDataset(tmp_path)
        with pytest.raises(SampleError, match="plane objects: 32x24 pixels, the upright image 24x32"):
            dataset.read(0)
        with pytest.raises(SampleError, match="plane objects: too large: 80000x60000"):
            dataset.read(1)
        assert dataset.read(2).planes.any()

    def test_an_annotation_file_that_changes_under_way(self, tmp_path: Path) -> None:
        write_instances(tmp_path)
        dataset = CocoDataset(tmp_path)
        before = dataset.sample_fingerprint(0)
        first_annotation(category_id=18)(tmp_path)
        with pytest.raises(SampleError, match=r"instances_val2017.json has changed since the dataset was opened"):
            dataset.read(0)
        assert dataset.sample_fingerprint(0) != before
        (tmp_path / "annotations/instances_val2017.json").unlink()
        with pytest.raises(SampleError, match=r"instances_val2017.json cannot be read: No such file"):
            dataset.read(0)


def test_garbage_never_gets_further_than_an_error() -> None:
    """Codes of random characters, and true ones with characters changed, are decoded as pycocotools does or refused."""
    rng = np.random.default_rng(5)
    true = compressed(rng.random(SIZE) < 0.2)["counts"]
    outcomes = {True: 0, False: 0}
    for _ in range(600):
        text = list(true)
        for at in rng.integers(0, len(text), int(rng.integers(0, 3))):
            text[at] = chr(int(rng.integers(48, 112)))
        found: dict[str, Any] = {"size": list(SIZE), "counts": "".join(text)}
        try:
            grid, _ = paint([{"segmentation": found, "category_id": 1}], SIZE, {1: 7})
        except MaskError:
            outcomes[False] += 1
            continue
        outcomes[True] += 1
        assert set(np.unique(grid).tolist()) <= {0, 7}
        if text == list(true):
            assert compressed(grid == 7)["counts"] == true
    assert min(outcomes.values()) > 20
    for _ in range(300):
        points = (rng.standard_normal(2 * int(rng.integers(3, 9))) * 10.0 ** rng.integers(-3, 12)).tolist()
        with suppress(MaskError):
            paint([{"segmentation": [points], "category_id": 1}], SIZE, {1: 7})


ODD: list[object] = [
    *(None, True, 0, -1, 1.5, 1e308, float("nan"), 2**70, -(2**63), "", "x", "../x", "\ud800", "0" * 50),
    *([], {}, [[]], [None], [1] * 6, [[1] * 6], {"size": [24, 32]}),
]


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value within a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, element in inner:
        yield (*path, name)
        yield from places(element, (*path, name))


@pytest.mark.parametrize("write", [write_panoptic, write_instances])
def test_odd_values_anywhere_are_an_error_with_words_or_harmless(
    tmp_path: Path, write: Callable[[Path], object]
) -> None:
    write(tmp_path)
    (path,) = (tmp_path / "annotations").glob("*.json")
    text = path.read_text()
    dice = random.Random(11)
    paths = list(places(json.loads(text)))
    read = 0
    for _ in range(150):
        document = json.loads(text)
        *above, last = dice.choice(paths)
        inside = document
        for name in above:
            inside = inside[name]
        inside[last] = dice.choice(ODD)
        path.write_text(json.dumps(document))
        try:
            dataset = CocoDataset(tmp_path)
        except UsageError:
            continue
        for index in range(len(dataset)):
            dataset.sample_fingerprint(index)
            with suppress(SampleError):
                read += dataset.read_labels(index).planes.any()
    assert read > 300
