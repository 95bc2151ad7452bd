"""`ade20k:PATH`: the full release of 2021, with parts and parts of parts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.formats.ade20k import FULL, annotation, coded, full, full_image, full_maps
from helpers.images import encode, photo, save
from helpers.odd_files import link_to_itself
from helpers.readers import check_reader
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.base import Entry, Remark
from microtome.datasets.formats.ade20k.full import Ade20kFullDataset
from microtome.datasets.formats.ade20k.reader import open_ade20k
from microtome.dissect import AuditConfig, run_audit
from microtome.storage.errors import SampleError, UsageError

ORDER = (1, 4, 0, 3, 2, 5)
"""Which of the planted images the samples are: those of cultural/ come before those of urban/."""

NAMES = {number: name.partition(",")[0] for number, name in FULL.items()}
NAMES |= {2212: "screen (silver screen)", 2213: "screen (CRT screen)"}
STREET = "images/ADE/training/urban/street/ADE_train_00000001"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROTOME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return full(tmp_path / "ADE20K_2021_17_01")


def opened(root: Path) -> Ade20kFullDataset:
    dataset = open_ade20k(root)
    assert isinstance(dataset, Ade20kFullDataset)
    return dataset


def planted(dataset: Ade20kFullDataset, number: int) -> NDArray[np.uint16]:
    """The planes of image `number`, pixel by pixel: a concept that was met in a lower level is not given again."""
    ids = {(concept.name, concept.category): concept.id for concept in dataset.concepts}
    maps = full_maps(number)
    planes = np.zeros((3, 24, 32), np.uint16)
    for row in range(24):
        for column in range(32):
            met: set[int] = set()
            for level, numbers in enumerate(maps):
                found = int(numbers[row, column])
                concept = ids[NAMES[found], "part" if level else "object"] if found else 0
                if concept and concept not in met:
                    planes[level, row, column] = concept
                met.add(concept)
    return planes


def rewrite(stem: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Change the annotation in an image's JSON file."""
    path = Path(f"{stem}.json")
    contents = json.loads(path.read_bytes().decode("latin-1"))
    change(contents["annotation"])
    path.write_text(json.dumps(contents))


class TestFull:
    def test_it_keeps_the_contract(self, release: Path) -> None:
        check_reader(opened(release), same=opened(release))
        full_image(release, 7, "training/urban/plaza", "/plaza")
        save(release / "images/ADE/testing/ADE_test_00000001.jpg", photo())
        check_reader(opened(release), same=opened(release))
        check_reader(open_ade20k(release.parent), same=opened(release))

    def test_entries_concepts_and_planes(self, release: Path) -> None:
        dataset = opened(release)
        assert [dataset.entry(index) for index in (0, 2, 5)] == [
            Entry("training/cultural/apse__indoor/ADE_train_00000002", "train"),
            Entry("training/urban/street/ADE_train_00000001", "train"),
            Entry("validation/urban/street/ADE_val_00000006", "val"),
        ]
        assert [(concept.name, concept.category) for concept in dataset.concepts] == [
            *((name, "object") for name in ("building", "car", "door", "café", "screen (silver screen)")),
            *((name, "object") for name in ("screen (CRT screen)", "sky", "tree")),
            *((name, "part") for name in ("building", "door", "wheel")),
            *((name, "scene") for name in ("apse indoor", "street")),
        ]
        assert dataset.plane_names == ("objects", "parts 1", "parts 2")
        assert (len(dataset), dataset.image_label_slots, dataset.class_names) == (6, 1, ())
        assert list(dataset.remarks()) == []

    def test_every_pixel_and_scene_is_what_was_planted(self, release: Path) -> None:
        dataset = opened(release)
        assert all(full_maps(number)[-1].any() for number in range(6))
        for index, number in enumerate(ORDER):
            sample = dataset.read(index)
            np.testing.assert_array_equal(sample.planes, planted(dataset, number))
            (scene,) = sample.image_labels.tolist()
            assert dataset.concepts[scene - 1].name == ("apse indoor" if number in (1, 4) else "street")
        assert dataset.unknown_ids() == {}

    def test_numbers_that_no_json_names_in_that_role_are_unknown(self, release: Path) -> None:
        parts = full_maps(1)[1].copy()
        parts[:2] = 2420  # the sky is an object alone
        parts[2] = 6655
        save(release / "images/ADE/training/cultural/apse__indoor/ADE_train_00000002_parts_1.png", coded(parts))
        dataset = opened(release)
        assert not dataset.read(0).planes[1, :3].any()
        np.testing.assert_array_equal(dataset.read(0).planes[1, 3:], planted(dataset, 1)[1, 3:])
        assert dataset.unknown_ids() == {"parts 1": {2420: 1, 6655: 1}}

    def test_an_image_whose_json_is_lost_has_the_names_of_the_others(self, release: Path) -> None:
        full_image(release, 6, "training/urban/street", "street")
        before = opened(release)
        expected = [before.read(index) for index in range(7)]
        Path(f"{release / STREET}.json").unlink()
        (release / "images/ADE/training/cultural/apse__indoor/ADE_train_00000005.json").write_text('{"annotation": [')
        dataset = opened(release)
        assert list(dataset.remarks()) == [
            Remark(
                "images without a JSON file: their labels have the names that other images give", 1, (f"{STREET}.json",)
            ),
            Remark(
                "JSON files that cannot be read: their labels have the names that other images give",
                1,
                ("images/ADE/training/cultural/apse__indoor/ADE_train_00000005.json",),
            ),
        ]
        for index in range(7):
            np.testing.assert_array_equal(dataset.read(index).planes, expected[index].planes)
            np.testing.assert_array_equal(dataset.read(index).image_labels, expected[index].image_labels)

    def test_where_files_disagree_on_a_name_the_first_holds(self, release: Path) -> None:
        def rename(found: dict[str, object]) -> None:
            for item in found["object"]:  # type: ignore[attr-defined]
                item["name"] = "heaven" if item["name_ndx"] == 2420 else item["name"]

        last = release / "images/ADE/validation/urban/street/ADE_val_00000006"
        assert 2420 in full_maps(5)[0]
        rewrite(last, rename)
        dataset = opened(release)
        assert list(dataset.remarks()) == [
            Remark("numbers that JSON files give several names: the first one holds", 1, ("2420: sky / heaven",))
        ]
        np.testing.assert_array_equal(dataset.read(5).planes, planted(dataset, 5))

    def test_a_single_object_and_odd_entries_are_understood(self, release: Path) -> None:
        root = release.parent / "odd"
        for number, place in enumerate(("training/a/hall", "training/b/hut")):
            full_image(root, number * 3, place, "")
        one = annotation(full_maps(0), "x")["annotation"]["object"]  # type: ignore[index]
        odd = [
            7,
            {"name": "cloud"},
            {"name_ndx": 9},
            {"name_ndx": [1], "name": "x"},
            {"name_ndx": 99999, "name": "far"},
        ]
        stem = root / "images/ADE/training/a/hall/ADE_train_00000001"
        rewrite(stem, lambda found: found.update(object=one[0], scene=["outdoor", "castle", "exterior"]))
        other = root / "images/ADE/training/b/hut/ADE_train_00000004"
        rewrite(other, lambda found: found.update(object=[*odd, {"name_ndx": "12", "name": " hut , cabin"}], scene={}))
        dataset = opened(root)
        number = one[0]["name_ndx"]
        assert [(concept.name, concept.category) for concept in dataset.concepts] == [
            ("hut", "object"),
            (NAMES[number].partition(" (")[0], "object"),
            ("castle exterior", "scene"),
            ("hut", "scene"),
        ]
        np.testing.assert_array_equal(dataset.read(0).planes[0], np.where(full_maps(0)[0] == number, 2, 0))

    def test_json_files_are_read_once(self, release: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = opened(release)
        (kept,) = cache.iterdir()
        with monkeypatch.context() as patched:
            patched.setattr("microtome.datasets.formats.ade20k.index._annotation", None)
            check_reader(first, same=opened(release))
            os.utime(f"{release / STREET}.json", ns=(1, 1))
            with pytest.raises(TypeError):
                opened(release)
        check_reader(first, same=opened(release))
        assert len(list(cache.iterdir())) == 2
        assert kept.exists()

    @pytest.mark.parametrize("contents", [b"", b"{", b"[]", b'{"names": 3}', b"\xff"])
    def test_a_damaged_cache_is_no_harm(self, release: Path, cache: Path, contents: bytes) -> None:
        first = opened(release)
        for kept in cache.iterdir():
            kept.write_bytes(contents)
        check_reader(first, same=opened(release), samples=1)

    def test_a_change_shows_in_the_fingerprints(self, release: Path) -> None:
        def state() -> tuple[str, list[int]]:
            dataset = opened(release)
            return dataset.fingerprint(), [dataset.sample_fingerprint(index) for index in range(len(dataset))]

        whole, samples = state()
        os.utime(f"{release}/images/ADE/validation/urban/street/ADE_val_00000006_parts_2.png", ns=(1, 1))
        changed, of_mask = state()
        assert changed != whole
        assert [one == other for one, other in zip(samples, of_mask, strict=True)] == [True] * 5 + [False]
        rewrite(release / STREET, lambda found: found.update(scene="/beach"))
        moved, of_scene = state()
        assert moved != changed
        assert not any(one == other for one, other in zip(of_mask, of_scene, strict=True))  # ids moved

    def test_links_are_followed_but_not_round_and_round(self, release: Path) -> None:
        keys = [opened(release).entry(index).key for index in range(6)]
        (release / "images/ADE/training/urban/loop").symlink_to(release / "images/ADE")
        elsewhere = release.parent / "elsewhere"
        (release / "images/ADE/validation").rename(elsewhere)
        (release / "images/ADE/validation").symlink_to(elsewhere)
        dataset = opened(release)
        assert [dataset.entry(index).key for index in range(len(dataset))] == keys

    def test_what_is_odd_is_remarked(self, release: Path) -> None:
        Path(f"{release / STREET}.jpg").unlink()
        Path(f"{release / STREET.replace('0001', '0004')}_seg.png").unlink()
        save(release / "images/ADE/testing/ADE_test_00000001.jpg", photo())
        dataset = opened(release)
        street = "training/urban/street/ADE_train_0000000"
        test = "testing/ADE_test_00000001"
        assert list(dataset.remarks()) == [
            Remark("masks without an image", 1, (f"{street}1",)),
            Remark("images whose *_seg.png is missing: they cannot be read", 1, (f"{street}4",)),
            Remark("images in splits without annotations: they are not annotated", 1, (test,)),
            Remark(
                "images without a JSON file: their labels have the names that other images give",
                1,
                (f"images/ADE/{test}.json",),
            ),
            Remark("images without a scene", 1, (f"images/ADE/{test}.jpg",)),
        ]
        assert dataset.entry(0) == Entry(test, "test")
        assert not dataset.read(0).planes.any()
        assert not dataset.read(0).image_labels.any()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: [path.unlink() for path in root.rglob("ADE_*.jpg")], "images/ADE holds no images; expected"),
        (lambda root: [path.unlink() for path in root.rglob("*_seg.png")], "holds no mask of an image: .*seg.png"),
        (lambda root: save(root / f"{STREET}.jpeg", photo()), "00001.jpeg and .*00001.jpg, which would be one sample"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_explained(
    release: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(release)
    with pytest.raises(UsageError, match=message):
        open_ade20k(release)


def masked(part: str, contents: object) -> Callable[[Path], object]:
    path = f"images/ADE/training/cultural/apse__indoor/ADE_train_00000002{part}"
    return lambda root: save(root / path, contents)  # type: ignore[arg-type]


def linked(part: str) -> Callable[[Path], object]:
    path = f"images/ADE/training/cultural/apse__indoor/ADE_train_00000002{part}"
    return lambda root: link_to_itself(root / path)


WHOLE = encode(Image.fromarray(photo()))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            lambda root: (root / "images/ADE/training/cultural/apse__indoor/ADE_train_00000002_seg.png").unlink(),
            "mask of plane objects: the file is missing",
        ),
        (masked("_seg.png", b""), "mask of plane objects: empty file"),
        (linked("_seg.png"), "mask of plane objects: the file cannot be read .Too many levels of symbolic links"),
        (linked("_parts_1.png"), "mask of plane parts 1: the file cannot be read .Too many levels of symbolic links"),
        (linked(".jpg"), "^the file cannot be read .Too many levels of symbolic links"),
        (masked("_seg.png", WHOLE[:200]), "mask of plane objects: (truncated|damaged) image"),
        (masked("_seg.png", np.zeros((24, 32), np.uint8)), "mask of plane objects: a mask of kind L; expected RGB"),
        (
            masked("_seg.png", Image.fromarray(photo()).convert("P")),
            "mask of plane objects: a mask of kind P; expected RGB",
        ),
        (masked("_seg.png", np.zeros((24, 32, 4), np.uint8)), "mask of plane objects: a mask of kind RGBA"),
        (masked("_seg.png", np.zeros((32, 24, 3), np.uint8)), "mask of plane objects: 24x32 pixels, the upright image"),
        (masked("_parts_1.png", b"no image at all"), "mask of plane parts 1: not an image in a format"),
        (masked("_parts_1.png", np.zeros((24, 48, 3), np.uint8)), "mask of plane parts 1: 48x24 pixels"),
        (masked(".jpg", b"\xff\xd8 broken"), "^not an image in a format"),
    ],
)
def test_a_sample_that_cannot_be_read_is_named_and_the_others_are_read(
    release: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(release)
    dataset = opened(release)
    with pytest.raises(SampleError) as caught:
        dataset.read(0)
    assert caught.value.key == "training/cultural/apse__indoor/ADE_train_00000002"
    assert re.search(reason, caught.value.reason), caught.value.reason
    assert str(release) not in caught.value.reason
    check_reader(dataset)
    for index, number in list(enumerate(ORDER))[1:]:
        np.testing.assert_array_equal(dataset.read(index).planes, planted(dataset, number))


@pytest.mark.parametrize(
    "contents", [b"", b"{", b"[]", b'{"annotation": 3}', b"\xff\xfe\x00", b"[" * 200_000, b'{"annotation": {}}']
)
def test_a_broken_json_file_costs_no_sample(release: Path, contents: bytes) -> None:
    full_image(release, 6, "training/urban/street", "street")
    expected = opened(release).read(2)
    save(Path(f"{release / STREET}.json"), contents)
    dataset = opened(release)
    np.testing.assert_array_equal(dataset.read(2).planes, expected.planes)
    assert bool(dataset.remarks()) == (contents != b'{"annotation": {}}')
    check_reader(dataset, same=opened(release))


def test_it_is_audited_to_the_pixel(tmp_path: Path) -> None:
    size = (128, 128)
    root = full(tmp_path / "full", size=size)
    save(root / f"{STREET}_seg.png", b"broken")
    run = tmp_path / "run"
    found = run_audit(
        AuditConfig(model="builtin:scenes-cnn", dataset=f"ade20k:{root}", layers=("block2",), out=run, label_size=size)
    )
    assert found.run.table("samples")["status"].tolist() == ["ok", "ok", "error", "ok", "ok", "ok"]
    concepts = found.run.table("concepts").set_index(["name", "category"])
    images = [full_maps(number, size) for number in (1, 2, 3, 4, 5)]
    for number, name in NAMES.items():
        if (name, "object") in concepts.index:
            counts = [int((maps[0] == number).sum()) for maps in images]
            expected = [sum(count > 0 for count in counts), sum(counts)]
            assert concepts.loc[(name, "object"), ["images", "pixels"]].tolist() == expected
        if (name, "part") in concepts.index:
            counts = [int(np.any([level == number for level in maps[1:]], axis=0).sum()) for maps in images]
            expected = [sum(count > 0 for count in counts), sum(counts)]
            assert concepts.loc[(name, "part"), ["images", "pixels"]].tolist() == expected
    assert concepts.loc[("apse indoor", "scene"), ["images", "pixels"]].tolist() == [2, 2 * 128 * 128]
    units = found.run.layer_table("block2", "units")
    assert units["threshold"].notna().all()
    assert units["concept"].notna().any()


def test_names_of_objects_that_are_no_text_are_written_out(release: Path) -> None:
    """In concepts, and in the remark on the files that disagree on a name."""

    def rename(found: dict[str, object]) -> None:
        for item in found["object"]:  # type: ignore[attr-defined]
            item["name"] += "\ud800"

    rewrite(release / STREET, rename)
    for dataset in (opened(release), opened(release)):
        for concept in dataset.concepts:
            concept.name.encode()
        (remark,) = dataset.remarks()
        assert remark.examples[0].endswith("\\ud800")


def test_names_that_are_no_text_are_written_out(release: Path) -> None:
    rewrite(release / STREET, lambda found: found.update(scene=["urban", "caf\ud800"]))
    dataset = opened(release)
    assert "caf\\ud800" in [concept.name for concept in dataset.concepts]
    check_reader(dataset, same=opened(release))
