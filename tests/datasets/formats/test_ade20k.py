"""`ade20k:PATH`: which release lies there, and the scene parsing benchmark of 2016."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.formats.ade20k import CLASSES, full, parsing, parsing_masks
from helpers.images import PALETTE, encode, photo, save
from helpers.odd_files import link_to_itself, pipe
from helpers.readers import check_reader
from PIL import Image

from microtome.datasets.base import Concept, Entry, Remark, Sample
from microtome.datasets.formats.ade20k.full import Ade20kFullDataset
from microtome.datasets.formats.ade20k.parsing import Ade20kParsingDataset
from microtome.datasets.formats.ade20k.reader import Ade20k, open_ade20k
from microtome.datasets.specs import open_dataset
from microtome.dissect import AuditConfig, run_audit
from microtome.storage.errors import SampleError, UsageError

FIRST = "training/ADE_train_00000001"
SCENES = ["airport terminal", "street", "airport terminal", "art gallery", "street", "misc"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICROTOME_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    return parsing(tmp_path / "ADEChallengeData2016")


def first_mask(root: Path) -> Path:
    return root / "annotations" / f"{FIRST}.png"


def state(root: Path) -> tuple[str, list[int]]:
    dataset = open_ade20k(root)
    return dataset.fingerprint(), [dataset.sample_fingerprint(index) for index in range(len(dataset))]


def scene_of(dataset: Ade20k, sample: Sample) -> str:
    (label,) = sample.image_labels.tolist()
    return dataset.concepts[label - 1].name if label else ""


class TestRelease:
    def test_it_is_told_by_its_layout(self, tmp_path: Path) -> None:
        assert isinstance(open_ade20k(parsing(tmp_path / "a")), Ade20kParsingDataset)
        assert isinstance(open_ade20k(full(tmp_path / "b")), Ade20kFullDataset)
        assert open_dataset(f"ade20k:{tmp_path / 'a'}").spec == f"ade20k:{tmp_path / 'a'}"

    def test_the_folder_that_holds_the_release_will_do(self, tmp_path: Path, bench: Path) -> None:
        save(tmp_path / "photos" / "a.jpg", photo())
        link_to_itself(tmp_path / "lost")
        above = open_dataset(f"ade20k:{tmp_path}")
        assert above.spec == f"ade20k:{tmp_path}"
        assert above.fingerprint() == open_ade20k(bench).fingerprint()
        check_reader(above, same=open_ade20k(bench))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda root: None, "does not exist; expected ADEChallengeData2016"),
            (lambda root: save(root, b""), "is not a folder; expected ADEChallengeData2016"),
            (lambda root: root.mkdir(), "is no release of ADE20K; expected ADEChallengeData2016"),
            (lambda root: save(root / "index_ade20k.mat", b""), "full release of 2016 .* get the release of 2021"),
            (
                lambda root: (parsing(root / "a"), full(root / "b")),
                "several releases; name one of them: ade20k:.*/a",
            ),
        ],
    )
    def test_what_is_none_is_explained(self, tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
        make(tmp_path / "data")
        with pytest.raises(UsageError, match=message):
            open_ade20k(tmp_path / "data")

    def test_a_folder_inside_names_the_one_above(self, tmp_path: Path, bench: Path) -> None:
        with pytest.raises(UsageError, match=f"name the folder above it: ade20k:{bench}$"):
            open_ade20k(bench / "images" / "training")
        with pytest.raises(UsageError, match=f"name the folder above it: ade20k:{tmp_path / 'full'}$"):
            open_ade20k(full(tmp_path / "full") / "images" / "ADE" / "training")


class TestParsing:
    def test_it_keeps_the_contract(self, bench: Path) -> None:
        check_reader(open_ade20k(bench), same=open_ade20k(bench))
        (bench / "sceneCategories.txt").unlink()
        save(bench / "images/testing/ADE_test_00000001.jpg", photo())
        check_reader(open_ade20k(bench), same=open_ade20k(bench))

    def test_entries_concepts_and_planes(self, bench: Path) -> None:
        dataset = open_ade20k(bench)
        assert [dataset.entry(index) for index in (0, 3, 4)] == [
            Entry("training/ADE_train_00000001", "train"),
            Entry("training/ADE_train_00000004", "train"),
            Entry("validation/ADE_val_00000005", "val"),
        ]
        assert [concept.name for concept in dataset.concepts] == [
            *("wall", "building", "sky", "bed", "road", "screen"),
            *("airport terminal", "art gallery", "misc", "street"),
        ]
        assert dataset.concepts[-1] == Concept(10, "street", "scene")
        assert {concept.category for concept in dataset.concepts[:6]} == {"object"}
        assert (dataset.plane_names, dataset.image_label_slots, dataset.class_names) == (("objects",), 1, ())
        assert list(dataset.remarks()) == []

    def test_every_pixel_and_scene_is_what_was_planted(self, bench: Path) -> None:
        dataset = open_ade20k(bench)
        for number in range(6):
            sample = dataset.read(number)
            np.testing.assert_array_equal(sample.planes, parsing_masks(number)[None])
            assert scene_of(dataset, sample) == SCENES[number]
        assert dataset.unknown_ids() == {}

    def test_the_tables_as_they_are_published(self, bench: Path) -> None:
        lines = "".join(f"{n} \t0.1\t1\t2\t{name}\r\n" for n, name in enumerate(CLASSES, 1))
        (bench / "objectInfo150.txt").write_bytes(f"Idx\tRatio\tTrain\tVal\tName\r\n{lines}".encode())
        scenes = (bench / "sceneCategories.txt").read_text().replace("\n", " \r\n")
        (bench / "sceneCategories.txt").write_bytes(f"{scenes}\r\n".encode())
        dataset = open_ade20k(bench)
        assert [concept.name for concept in dataset.concepts][:5] == ["wall", "building", "sky", "bed", "road"]
        assert scene_of(dataset, dataset.read(5)) == "misc"

    def test_names_that_begin_alike_stay_apart(self, bench: Path) -> None:
        table = "1\tscreen, silver screen\n2\tscreen\n3\tscreen, CRT screen\n4\tsky\n5\tsky\n6\twall\n"
        (bench / "objectInfo150.txt").write_text(f"Idx\tName\n{table}")
        dataset = open_ade20k(bench)
        names = [concept.name for concept in dataset.concepts if concept.category == "object"]
        assert names == ["screen (silver screen)", "screen", "screen (CRT screen)", "sky", "wall"]
        np.testing.assert_array_equal(dataset.read(0).planes[0], np.array([0, 1, 2, 3, 4, 4, 5])[parsing_masks(0)])

    def test_numbers_that_are_not_listed_count_as_unlabelled(self, bench: Path) -> None:
        mask = parsing_masks(0).astype(np.uint8)
        mask[:3] = 151
        mask[3] = 255
        save(first_mask(bench), mask)
        dataset = open_ade20k(bench)
        planted = np.where(mask > 150, 0, mask)
        np.testing.assert_array_equal(dataset.read_labels(0).planes[0], planted)
        dataset.read(0)
        assert dataset.unknown_ids() == {"objects": {151: 1, 255: 1}}

    def test_indexed_and_smaller_masks_are_read(self, bench: Path) -> None:
        indexed = Image.fromarray(parsing_masks(0).astype(np.uint8), "P")
        indexed.putpalette(bytes(PALETTE.ravel()))
        save(first_mask(bench), indexed)
        save(bench / "annotations/training/ADE_train_00000002.png", parsing_masks(1)[::2, ::2].astype(np.uint8))
        dataset = open_ade20k(bench)
        np.testing.assert_array_equal(dataset.read(0).planes[0], parsing_masks(0))
        np.testing.assert_array_equal(dataset.read(1).planes[0], parsing_masks(1)[::2, ::2])

    def test_what_is_odd_is_remarked(self, bench: Path) -> None:
        (bench / "images/training/ADE_train_00000001.jpg").unlink()
        (bench / "annotations/training/ADE_train_00000002.png").unlink()
        lines = (bench / "sceneCategories.txt").read_text().splitlines()
        (bench / "sceneCategories.txt").write_text("\n".join([*lines[:-1], "../../elsewhere/x street"]))
        save(bench / "images/testing/ADE_test_00000001.jpg", photo())
        save(bench / "images/testing/Thumbs.db", b"")
        dataset = open_ade20k(bench)
        assert list(dataset.remarks()) == [
            Remark("images whose mask is missing: they cannot be read", 1, ("training/ADE_train_00000002",)),
            Remark("images in folders without annotations: they are not annotated", 1, ("testing/ADE_test_00000001",)),
            Remark("masks without an image", 1, ("training/ADE_train_00000001",)),
            Remark(
                "images without a scene: sceneCategories.txt does not list them",
                2,
                ("testing/ADE_test_00000001", "validation/ADE_val_00000006"),
            ),
            Remark(
                "images that sceneCategories.txt lists and that are not there",
                2,
                ("ADE_train_00000001", "../../elsewhere/x"),
            ),
        ]
        assert dataset.entry(0) == Entry("testing/ADE_test_00000001", "test")
        assert not dataset.read(0).planes.any()
        assert not dataset.read(0).image_labels.any()

    def test_scenes_may_be_missing(self, bench: Path) -> None:
        (bench / "sceneCategories.txt").unlink()
        dataset = open_ade20k(bench)
        assert list(dataset.remarks()) == [Remark("images without a scene: sceneCategories.txt is missing", 6)]
        assert dataset.image_label_slots == 0
        assert dataset.read(0).image_labels.shape == (0,)

    def test_a_change_shows_in_the_fingerprints(self, bench: Path) -> None:
        whole, samples = state(bench)
        assert state(bench) == (whole, samples)
        os.utime(first_mask(bench), ns=(1, 1))
        changed, of_mask = state(bench)
        assert changed != whole
        assert [one == other for one, other in zip(samples, of_mask, strict=True)] == [False] + [True] * 5
        text = (bench / "sceneCategories.txt").read_text()
        (bench / "sceneCategories.txt").write_text(text.replace("005 street", "005 misc"))
        moved, of_scene = state(bench)
        assert moved != changed
        assert [one == other for one, other in zip(of_mask, of_scene, strict=True)] == [True] * 4 + [False, True]
        table = (bench / "objectInfo150.txt").read_text()
        (bench / "objectInfo150.txt").write_text(table.replace("sky", "heaven"))
        renamed, of_name = state(bench)
        assert renamed != moved
        assert not any(one == other for one, other in zip(of_scene, of_name, strict=True))


def write(name: str, text: str | bytes) -> Callable[[Path], object]:
    raw = text if isinstance(text, bytes) else text.encode()
    return lambda root: (root / name).write_bytes(raw)


def twin(root: Path) -> None:
    save(root / "images" / f"{FIRST}.png", photo())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "objectInfo150.txt").unlink(), r"objectInfo150.txt is missing: the table that says what"),
        (write("objectInfo150.txt", ""), "objectInfo150.txt is empty"),
        (write("objectInfo150.txt", "Idx\tName\n"), "objectInfo150.txt lists no classes"),
        (
            write("objectInfo150.txt", "Idx\tRatio\n1\t2\n"),
            "line 1: no column Name; .* found Idx,Ratio",
        ),
        (write("objectInfo150.txt", "Idx,Name\n1,wall\n"), "line 1: no column Idx, Name"),
        (write("objectInfo150.txt", "Idx\tName\n1\twall\tx\n"), "objectInfo150.txt cannot be read"),
        (write("objectInfo150.txt", b"Idx\tName\n1\tcaf\xe9\n"), "objectInfo150.txt cannot be read: .*UTF8"),
        (write("objectInfo150.txt", "Idx\tName\none\twall\n"), "line 2: Idx is 'one'; expected a whole number, 1 to"),
        (write("objectInfo150.txt", "Idx\tName\n0\twall\n"), "line 2: Idx is '0'; expected a whole number, 1 to 65535"),
        (write("objectInfo150.txt", "Idx\tName\n1\twall\n2\t \n"), "line 3: the Name of Idx 2 is empty"),
        (write("objectInfo150.txt", "Idx\tName\n1\twall\n1\tsky\n"), "line 3: Idx 1 is sky, but wall in an earlier"),
        (write("sceneCategories.txt", ""), "sceneCategories.txt is empty; expected one line an image"),
        (write("sceneCategories.txt", "a street\nb\n"), r"line 2: 'b'; expected NAME SCENE, such as 'ADE_train"),
        (write("sceneCategories.txt", b"a street\nb caf\xe9\n"), "sceneCategories.txt, line 2: not UTF-8 text"),
        (write("sceneCategories.txt", "a street\na mall\n"), "line 2: a is mall, but street in an earlier line"),
        (
            lambda root: pipe(root / "sceneCategories.txt"),
            "sceneCategories.txt (cannot be read: not a regular file|is no plain file)",
        ),
        (twin, "ADE_train_00000001.jpg and ADE_train_00000001.png, which would be one sample"),
        (lambda root: shutil.rmtree(root / "images"), "has no folder images/; expected ADE_"),
        (lambda root: shutil.rmtree(root / "annotations"), "has no folder annotations/; expected a mask for each"),
        (
            lambda root: (shutil.rmtree(root / "images"), (root / "images/training").mkdir(parents=True)),
            "images holds no images; expected ADE_",
        ),
        (
            lambda root: (
                (root / "annotations/training").rename(root / "annotations/train")
                and shutil.rmtree(root / "annotations/validation")
            ),
            "no mask in .*annotations belongs to an image: .* would have training/ADE_train_00000001.png there",
        ),
    ],
)
def test_a_data_set_that_cannot_be_used_is_explained(
    bench: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(bench)
    with pytest.raises(UsageError, match=message) as caught:
        open_ade20k(bench)
    assert "\n" not in str(caught.value)


TRUNCATED = encode(Image.fromarray(np.random.default_rng(0).integers(0, 7, (24, 32), dtype=np.uint8)))[:90]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda root: first_mask(root).unlink(), "mask of plane objects: the file is missing"),
        (lambda root: save(first_mask(root), b""), r"mask of plane objects: empty file \(0 bytes\)"),
        (lambda root: link_to_itself(first_mask(root)), "mask of plane objects: the file cannot be read .Too many"),
        (lambda root: pipe(first_mask(root)), "mask of plane objects: not a regular file"),
        (lambda root: link_to_itself(root / "images" / f"{FIRST}.jpg"), "^the file cannot be read .Too many levels"),
        (lambda root: save(first_mask(root), b"GIF no"), "mask of plane objects: not an image in a format"),
        (lambda root: save(first_mask(root), TRUNCATED), "mask of plane objects: (truncated|damaged) image"),
        (lambda root: save(first_mask(root), photo()), "mask of plane objects: a mask in colours; expected label ids"),
        (
            lambda root: save(first_mask(root), np.zeros((32, 24), np.uint8)),
            "mask of plane objects: 24x32 pixels, the upright image 32x24; not the same aspect ratio",
        ),
        (lambda root: save(root / "images" / f"{FIRST}.jpg", b"\xff\xd8 broken"), "^not an image in a format"),
        (lambda root: save(root / "images" / f"{FIRST}.jpg", encode(Image.fromarray(photo()), "JPEG")[:300]), "trunc"),
    ],
)
def test_a_sample_that_cannot_be_read_is_named_and_the_others_are_read(
    bench: Path, damage: Callable[[Path], object], reason: str
) -> None:
    damage(bench)
    dataset = open_ade20k(bench)
    with pytest.raises(SampleError) as caught:
        dataset.read(0)
    assert caught.value.key == FIRST
    assert str(bench) not in caught.value.reason
    assert re.search(reason, caught.value.reason), caught.value.reason
    check_reader(dataset)
    for number in range(1, 6):
        np.testing.assert_array_equal(dataset.read(number).planes[0], parsing_masks(number))


def test_an_image_that_goes_after_opening_is_named(bench: Path) -> None:
    dataset = open_ade20k(bench)
    (bench / "images" / f"{FIRST}.jpg").unlink()
    for read in (dataset.read, dataset.read_labels):
        with pytest.raises(SampleError, match="the file is missing"):
            read(0)


def test_it_is_audited_to_the_pixel(tmp_path: Path) -> None:
    size = (128, 128)
    root = parsing(tmp_path / "bench", size=size)
    save(root / "annotations/training/ADE_train_00000003.png", b"broken")
    found = run_audit(
        AuditConfig(
            model="builtin:scenes-cnn",
            dataset=f"ade20k:{root}",
            layers=("block2",),
            out=tmp_path / "run",
            label_size=size,
        )
    )
    samples = found.run.table("samples")
    assert samples["status"].tolist() == ["ok", "ok", "error", "ok", "ok", "ok"]
    assert samples["split"].tolist() == ["train"] * 4 + ["val"] * 2
    concepts = found.run.table("concepts").set_index("name")
    masks = [parsing_masks(number, size) for number in (0, 1, 3, 4, 5)]
    for number, name in enumerate(("wall", "building", "sky", "bed", "road", "screen"), 1):
        assert concepts.loc[name, "pixels"] == sum(int((mask == number).sum()) for mask in masks)
        assert concepts.loc[name, "images"] == sum(bool((mask == number).any()) for mask in masks)
    assert concepts.loc["street", ["category", "images", "pixels"]].tolist() == ["scene", 2, 2 * 128 * 128]
    assert concepts.loc["airport terminal", "images"] == 1
    units = found.run.layer_table("block2", "units")
    assert units["threshold"].notna().all()
    assert units["concept"].notna().any()
