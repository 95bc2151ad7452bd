"""`voc:PATH`: class masks, Pascal-Context and Pascal-Part, and what is said of damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.formats.voc import (
    HEIGHT,
    TRAIN,
    VAL,
    WIDTH,
    add_context,
    add_parts,
    anno,
    context_numbers,
    indexed,
    object_numbers,
    palette,
    planted_parts,
    voc,
    write_list,
    write_mat,
)
from helpers.images import photo, save
from helpers.odd_files import link_to_itself, pipe
from helpers.readers import check_reader
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.base import Concept, Entry, Remark
from microtome.datasets.formats.voc.layout import CLASSES
from microtome.datasets.formats.voc.masks import voc_palette
from microtome.datasets.formats.voc.reader import VocDataset
from microtome.datasets.specs import open_dataset
from microtome.dissect import AuditConfig, run_audit
from microtome.storage.errors import SampleError, UsageError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MICROTOME_CACHE", str(folder))
    return folder


def full(root: Path) -> Path:
    """A year with everything; Context lacks the first image, Part has the last two."""
    year = voc(root)
    add_context(year, (*TRAIN[1:], *VAL))
    add_parts(year, {VAL[0]: planted_parts(), VAL[1]: [("bird", ())]})
    return year


def names_at(dataset: VocDataset, plane: NDArray[np.uint16]) -> NDArray[np.str_]:
    return np.array(["", *(concept.name for concept in dataset.concepts)])[plane]


def entries(dataset: VocDataset) -> list[Entry]:
    return [dataset.entry(index) for index in range(len(dataset))]


class TestLayout:
    def test_it_keeps_the_contract(self, tmp_path: Path) -> None:
        path = full(tmp_path)
        check_reader(VocDataset(path), same=VocDataset(path))
        check_reader(open_dataset(f"voc:{voc(tmp_path / 'plain')}"))

    def test_splits_come_from_the_lists(self, tmp_path: Path) -> None:
        dataset = VocDataset(voc(tmp_path))
        assert entries(dataset) == [Entry(n, "train") for n in TRAIN] + [Entry(n, "val") for n in VAL]
        assert (dataset.plane_names, dataset.class_names, dataset.image_label_slots) == (("objects",), (), 0)
        assert dataset.concepts == tuple(Concept(i, name, "object") for i, name in enumerate(CLASSES, start=1))
        assert list(dataset.remarks()) == []

    def test_a_folder_above_will_do(self, tmp_path: Path) -> None:
        path = voc(tmp_path)
        expected = VocDataset(path)
        for above in (tmp_path, tmp_path / "VOCdevkit"):
            dataset = VocDataset(above)
            assert entries(dataset) == entries(expected)
            assert dataset.fingerprint() == expected.fingerprint()

    def test_several_years_are_read_together(self, tmp_path: Path) -> None:
        kit = full(tmp_path).parent
        shutil.copytree(voc(tmp_path / "old", train=TRAIN[:1], val=VAL[:1]), kit / "VOC2007")
        dataset = VocDataset(kit)
        check_reader(dataset, same=VocDataset(kit))
        assert [entry.key for entry in entries(dataset)[:3]] == [
            f"VOC2007/{TRAIN[0]}",
            f"VOC2007/{VAL[0]}",
            f"VOC2012/{TRAIN[0]}",
        ]
        twice = (f"VOC2012/{TRAIN[0]}", f"VOC2012/{VAL[0]}")
        assert Remark("images that an earlier year has too", 2, twice) in dataset.remarks()
        assert not dataset.read(0).planes[1:].any()
        assert dataset.read(5).planes[1:].any()

    def test_without_train_and_val(self, tmp_path: Path) -> None:
        path = voc(tmp_path)
        for split in ("train", "val"):
            (path / "ImageSets/Segmentation" / f"{split}.txt").unlink()
        assert entries(VocDataset(path)) == [Entry(name) for name in sorted((*TRAIN, *VAL))]
        (path / "ImageSets/Segmentation/trainval.txt").rename(path / "ImageSets/Segmentation/test.txt")
        (path / "SegmentationClass" / f"{VAL[0]}.png").unlink()
        dataset = VocDataset(path)
        assert {entry.split for entry in entries(dataset)} == {"test"}
        labelled = {entry.key: bool(dataset.read(i).planes.any()) for i, entry in enumerate(entries(dataset))}
        assert labelled == {name: name != VAL[0] for name in (*TRAIN, *VAL)}

    def test_images_that_only_context_or_part_label(self, tmp_path: Path) -> None:
        path = full(tmp_path)
        for number, name in enumerate(("2010_000001", "2010_000002", "2010_000003")):
            save(path / "JPEGImages" / f"{name}.jpg", photo(HEIGHT, WIDTH, number))
        add_context(path, ("2010_000002", "2010_000009"))
        add_parts(path, {"2010_000001": planted_parts()})
        write_list(path, "val", ["2010_000002", VAL[0]], task="SegmentationContext")
        write_list(path, "train", ["2010_000001", "2010_000002"], task="Main")
        dataset = VocDataset(path)
        assert entries(dataset)[5:] == [Entry("2010_000001", "train"), Entry("2010_000002", "val")]
        assert dataset.read(5).planes.any((1, 2)).tolist() == [False, False, True]
        assert dataset.read(6).planes.any((1, 2)).tolist() == [False, True, False]
        assert [(r.text, r.count) for r in dataset.remarks()] == [
            ("images without labels in plane objects", 2),
            ("images without labels in plane context", 2),
            ("images without labels in plane parts", 4),
        ]

    def test_remarks(self, tmp_path: Path) -> None:
        path = voc(tmp_path)
        (path / "JPEGImages" / f"{TRAIN[1]}.jpg").unlink()
        write_list(path, "test", ["2008_000001", "2008_000003"])
        assert [(r.text, r.count, r.examples) for r in VocDataset(path).remarks()] == [
            ("images of the lists that JPEGImages/ has not", 1, (TRAIN[1],)),
            (
                "images of test.txt, left out because train.txt or val.txt is there",
                2,
                ("2008_000001", "2008_000003"),
            ),
        ]

    @pytest.mark.parametrize(("split", "other"), [("train", VAL), ("val", TRAIN)])
    def test_a_list_that_is_missing_is_remarked(self, tmp_path: Path, split: str, other: Sequence[str]) -> None:
        path = voc(tmp_path)
        (path / "ImageSets/Segmentation" / f"{split}.txt").unlink()
        dataset = VocDataset(path)
        assert [entry.key for entry in entries(dataset)] == list(other)
        assert list(dataset.remarks()) == [
            Remark("lists that ImageSets/Segmentation/ lacks: their images are left out", 1, (f"{split}.txt",))
        ]


class TestValues:
    def test_objects(self, tmp_path: Path) -> None:
        dataset = VocDataset(voc(tmp_path))
        for index, name in enumerate((*TRAIN, *VAL)):
            numbers = object_numbers(name)
            expected = [[CLASSES[n - 1] if 1 <= n <= 20 else "" for n in row] for row in numbers.tolist()]
            assert names_at(dataset, dataset.read(index).planes[0]).tolist() == expected
        assert dataset.unknown_ids() == {}

    def test_grey_masks_are_read_by_their_numbers(self, tmp_path: Path) -> None:
        path = voc(tmp_path)
        expected = VocDataset(path).read(0).planes
        numbers = object_numbers(TRAIN[0]).astype(np.uint8)
        for mask in (Image.fromarray(numbers), indexed(numbers, bytes(range(256)) * 3)):
            save(path / "SegmentationClass" / f"{TRAIN[0]}.png", mask)
            np.testing.assert_array_equal(VocDataset(path).read(0).planes, expected)

    def test_context_and_the_same_concept_in_both(self, tmp_path: Path) -> None:
        dataset = VocDataset(full(tmp_path))
        assert dataset.plane_names == ("objects", "context", "parts")
        assert [(c.name, c.category) for c in dataset.concepts[20:22]] == [("accordion", "object"), ("sky", "object")]
        text = {1: "accordion", 2: "aeroplane", 44: "bird", 360: "sky"}
        both = 0
        for index, name in enumerate((*TRAIN, *VAL)):
            planes = names_at(dataset, dataset.read(index).planes)
            for row in range(HEIGHT):
                for column in range(WIDTH):
                    wanted = text.get(int(context_numbers(name)[row, column]), "") if index else ""
                    both += wanted == planes[0, row, column] != ""
                    assert planes[1, row, column] == ("" if wanted == planes[0, row, column] else wanted)
        assert both

    def test_parts_with_the_smaller_on_top(self, tmp_path: Path) -> None:
        dataset = VocDataset(full(tmp_path))
        names = ["car frontside", "car wheel", "person head", "person lear"]
        assert [(c.name, c.category) for c in dataset.concepts[22:]] == [(name, "part") for name in names]
        masks = [(f"{o} {p.split('_')[0]}", mask) for o, parts in planted_parts() for p, mask in parts]
        plane = names_at(dataset, dataset.read(3).planes[2])
        for row in range(HEIGHT):
            for column in range(WIDTH):
                here = [(int(mask.sum()), name) for name, mask in masks if mask[row, column]]
                assert plane[row, column] == (min(here)[1] if here else "")
        assert not dataset.read(4).planes[2].any()

    def test_context_in_59_classes(self, tmp_path: Path) -> None:
        path = voc(tmp_path)
        numbers = np.arange(60).repeat(HEIGHT * WIDTH // 60 + 1)[: HEIGHT * WIDTH].reshape(HEIGHT, WIDTH)
        save(path / "SegmentationClassContext" / f"{TRAIN[0]}.png", numbers.astype(np.uint8))
        dataset = VocDataset(path)
        planes = names_at(dataset, dataset.read(0).planes)
        assert len(dataset.concepts) == 20 + 59 - 19  # all of VOC's but diningtable, which is a table there
        sky, bag = numbers == 47, numbers == 2
        assert set(planes[1][sky].tolist()) == {"sky"}
        assert set(planes[1][bag].tolist()) == {"bag"}
        save(path / "59_context_labels" / f"{TRAIN[0]}.png", np.full((HEIGHT, WIDTH), 2, np.uint8))
        (path / "59_labels.txt").write_text("1: aeroplane\n2: rug\n")
        again = VocDataset(path)
        assert set(names_at(again, again.read(0).planes[1]).ravel().tolist()) == {"rug"}

    def test_the_names_of_parts_are_cached(self, tmp_path: Path, own_cache: Path) -> None:
        path = full(tmp_path)
        first = VocDataset(path)
        (cached,) = own_cache.glob("voc-parts-*.json")
        before = cached.stat().st_mtime_ns
        assert VocDataset(path).concepts == first.concepts
        assert cached.stat().st_mtime_ns == before
        add_parts(path, {VAL[1]: [("bird", (("beak", np.ones((HEIGHT, WIDTH), np.bool_)),))]})
        assert "bird beak" in {concept.name for concept in VocDataset(path).concepts}

    @pytest.mark.parametrize("contents", [b"", b"{", b"{}", b"[3]", b"\xff"])
    def test_a_damaged_cache_is_made_again(self, tmp_path: Path, own_cache: Path, contents: bytes) -> None:
        path = full(tmp_path)
        first = VocDataset(path)
        (cached,) = own_cache.glob("voc-parts-*.json")
        whole = cached.read_bytes()
        cached.write_bytes(contents)
        assert VocDataset(path).concepts == first.concepts
        assert cached.read_bytes() == whole

    def test_the_palette_is_the_published_one(self) -> None:
        assert voc_palette().tobytes() == palette()
        assert voc_palette()[[1, 15, 20, 255]].tolist() == [[128, 0, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192]]


def test_what_changes_fingerprints(tmp_path: Path) -> None:
    path = full(tmp_path)

    def state() -> tuple[str, list[int]]:
        dataset = VocDataset(path)
        return dataset.fingerprint(), [dataset.sample_fingerprint(index) for index in range(len(dataset))]

    def changed(act: Callable[[], object]) -> tuple[bool, list[bool]]:
        whole, samples = state()
        act()
        now, after = state()
        return whole != now, [one != other for one, other in zip(samples, after, strict=True)]

    assert state() == state()
    jpeg, mask = path / "JPEGImages" / f"{TRAIN[1]}.jpg", path / "SegmentationClass" / f"{VAL[0]}.png"
    assert changed(lambda: save(jpeg, photo(HEIGHT, WIDTH, 99))) == (True, [False, True, False, False, False])
    assert changed(lambda: save(mask, indexed(object_numbers("1")))) == (True, [False, False, False, True, False])
    assert changed(lambda: add_context(path, TRAIN[2:])) == (True, [False, False, True, False, False])
    assert changed(lambda: add_parts(path, {VAL[1]: ()})) == (True, [False, False, False, False, True])
    labels = path / "labels.txt"
    assert changed(lambda: labels.write_text(labels.read_text() + "9: box\n")) == (True, [True] * 5)
    swapped = lambda: (write_list(path, "train", TRAIN[:2]), write_list(path, "val", (TRAIN[2], *VAL)))  # noqa: E731
    assert changed(swapped)[0]


def rgb_mask() -> NDArray[np.uint8]:
    return voc_palette()[object_numbers(VAL[0])]


def permuted() -> Image.Image:
    """A mask in colours that a program saved with a palette of its own making: 0, 1, 2, ... by first use."""
    numbers = object_numbers(VAL[0])
    used = np.unique(numbers)
    return indexed(np.searchsorted(used, numbers), voc_palette()[used].tobytes())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


IMAGE, MASK = f"JPEGImages/{VAL[0]}.jpg", f"SegmentationClass/{VAL[0]}.png"
MAP, PART = f"trainval/{VAL[0]}.mat", f"Annotations_Part/{VAL[0]}.mat"


def ragged() -> NDArray[np.void]:
    small = np.ones((3, 4), np.bool_)
    return anno(VAL[0], [("car", (("wheel_1", small), ("wheel_2", np.ones((HEIGHT, WIDTH), np.bool_))))])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda y: (y / IMAGE).unlink(), "the file is missing"),
        (lambda y: truncate(y / IMAGE), "truncated image file"),
        (lambda y: (y / MASK).unlink(), "labels of plane objects: the file is missing"),
        (lambda y: save(y / MASK, b"\x89PNG\r\n\x1a\n broken"), "labels of plane objects: "),
        (
            lambda y: save(y / MASK, rgb_mask()),
            r"in colours \(VOC's palette has them for background, car, person, tvmonitor, border",
        ),
        (lambda y: save(y / MASK, photo(HEIGHT, WIDTH, 3)), r"in colours \(none of them of VOC's palette\)"),
        (lambda y: save(y / MASK, permuted()), "its palette has the colour of car at number 1; expected VOC's own"),
        (lambda y: save(y / MASK, indexed(np.ones((HEIGHT, 20)))), "objects: 20x24 pixels, the upright image 32x24"),
        (lambda y: truncate(y / MAP), "labels of plane context: the MATLAB file cannot be read"),
        (lambda y: pipe(y / MAP), r"labels of plane context: the MATLAB file cannot be read \(not a regular file\)"),
        (lambda y: pipe(y / PART), r"labels of plane parts: the MATLAB file cannot be read \(not a regular file\)"),
        (lambda y: link_to_itself(y / PART), r"parts: the MATLAB file cannot be read \(Too many levels of symbolic"),
        (lambda y: link_to_itself(y / IMAGE), r"the file cannot be read \(Too many levels of symbolic links\)"),
        (lambda y: save(y / MAP, b""), "labels of plane context: the MATLAB file cannot be read"),
        (
            lambda y: write_mat(y / MAP, {"Map": np.ones((2, 2))}),
            "context: a MATLAB file without the variable LabelMap",
        ),
        (lambda y: write_mat(y / MAP, {"LabelMap": np.ones((HEIGHT, 9))}), "context: 9x24 pixels, the upright image"),
        (lambda y: write_mat(y / MAP, {"LabelMap": np.full((24, 32), 1.5)}), "values that are no whole number"),
        (lambda y: write_mat(y / MAP, {"LabelMap": np.array(["x"])}), "LabelMap: no array of numbers; expected"),
        (lambda y: truncate(y / PART), "labels of plane parts: the MATLAB file cannot be read"),
        (
            lambda y: save(y / PART, b"MATLAB 7.3 MAT-file" + bytes(600)),
            "cannot be read .version 7.3; expected one",
        ),
        (lambda y: write_mat(y / PART, {"anno": np.ones((2, 2))}), "parts: not an annotation of Pascal-Part"),
        (
            lambda y: write_mat(y / PART, {"anno": ragged()}),
            r"not an annotation of Pascal-Part \(masks of several sizes",
        ),
    ],
)
def test_a_damaged_sample_is_named_and_the_others_are_read(
    tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    year = full(tmp_path)
    damage(year)
    dataset = VocDataset(year)
    with pytest.raises(SampleError, match=reason) as error:
        dataset.read(3)
    assert error.value.key == VAL[0]
    assert str(tmp_path) not in error.value.reason
    for index in (0, 1, 2, 4):
        assert dataset.read(index).planes[0].any()
    check_reader(dataset)


def test_numbers_that_no_list_knows_are_counted(tmp_path: Path) -> None:
    year = full(tmp_path)
    for name in VAL:
        numbers = object_numbers(name)
        numbers[:2] = 77
        save(year / "SegmentationClass" / f"{name}.png", indexed(numbers))
    write_mat(year / "trainval" / f"{VAL[0]}.mat", {"LabelMap": np.full((HEIGHT, WIDTH), 460, np.uint16)})
    dataset = VocDataset(year)
    for index in (*range(5), 3, 4):
        dataset.read_labels(index)
    assert dataset.unknown_ids() == {"objects": {77: 2}, "context": {460: 1}}
    assert not dataset.read(3).planes[0, :2].any()
    assert not dataset.read(3).planes[1].any()


def become(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Make something else of train.txt."""
    return lambda year: [act(year / "ImageSets/Segmentation/train.txt") for act in (Path.unlink, make)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda y: shutil.rmtree(y), r"VOC2012 does not exist; expected PATH/JPEGImages/NAME.jpg"),
        (lambda y: (shutil.rmtree(y), save(y, b"")), "is not a folder"),
        (lambda y: shutil.rmtree(y / "JPEGImages"), r"has no folder JPEGImages/, and no VOC20xx with one; expected"),
        (lambda y: shutil.rmtree(y / "ImageSets"), r"Segmentation has no train.txt or val.txt, nor trainval.txt"),
        (lambda y: write_list(y, "train", []), r"train.txt holds no names; expected the name of an image"),
        (lambda y: write_list(y, "val", ["\n", " "]), r"val.txt holds no names"),
        (lambda y: write_list(y, "train", [TRAIN[0], "", TRAIN[0]]), rf"train.txt, line 3: {TRAIN[0]} is in line 1"),
        (lambda y: write_list(y, "val", [TRAIN[0]]), rf"{TRAIN[0]} is in train.txt and in .*val.txt too; keep it"),
        (lambda y: write_list(y, "train", ["a", "../../secret"]), r"train.txt, line 2: '../../secret' leads out of"),
        (lambda y: write_list(y, "train", ["/etc/x"]), r"train.txt, line 1: '/etc/x' leads out of the folder"),
        (lambda y: write_list(y, "train", [TRAIN[0], "a\0b"]), r"train.txt, line 2: 'a\\x00b' is no name of a file"),
        (become(Path.mkdir), r"train.txt is a folder; expected a file that can be read, or nothing"),
        (become(lambda path: path.symlink_to("train.txt")), r"train.txt is a link to no file; expected a file"),
        (lambda y: save(y / "ImageSets/Segmentation/val.txt", b"a\n\xff\n"), r"val.txt, line 2: not UTF-8 text"),
        (
            lambda y: [write_list(y, split, [f"{split}.jpg"]) for split in ("train", "val")],
            r"JPEGImages holds none of the 2 images that the lists name, such as train.jpg.jpg; expected names without",
        ),
        (lambda y: (y / "labels.txt").unlink(), r"labels.txt is missing, so the numbers in .*trainval have no names"),
        (lambda y: save(y / "labels.txt", b""), r"labels.txt is empty; expected lines of NUMBER: NAME"),
        (lambda y: save(y / "labels.txt", b"1: a\n2 b\n"), r"labels.txt, line 2: '2 b'; expected NUMBER: NAME"),
        (lambda y: save(y / "labels.txt", b"1: a\n1: b\n"), r"labels.txt, line 2: the number 1 is there twice"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_explained(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    year = full(tmp_path)
    damage(year)
    with pytest.raises(UsageError, match=message) as error:
        VocDataset(year)
    assert "\n" not in str(error.value)


def quarters(top_left: int, top_right: int, below: int) -> NDArray[np.uint16]:
    """A square of the model's own size: two quarters of 64x64 pixels, and the lower half."""
    numbers = np.full((128, 128), below, np.uint16)
    numbers[:64, :64], numbers[:64, 64:] = top_left, top_right
    return numbers


def test_it_is_audited(tmp_path: Path) -> None:
    year = voc(tmp_path, train=TRAIN, val=VAL[:1])
    for name in (*TRAIN, VAL[0]):
        save(year / "JPEGImages" / f"{name}.jpg", photo(128, 128, int(name[-2:])))
        save(year / "SegmentationClass" / f"{name}.png", indexed(quarters(7, 255, 0)))
    save(year / "SegmentationClass" / f"{TRAIN[2]}.png", indexed(quarters(7, 15, 99)))
    truncate(year / "SegmentationClass" / f"{VAL[0]}.png")
    add_context(year, ())
    write_mat(year / "trainval" / f"{TRAIN[1]}.mat", {"LabelMap": quarters(360, 360, 31)})
    wheel = quarters(0, 1, 0) > 0
    write_mat(year / "trainval" / f"{TRAIN[2]}.mat", {"LabelMap": quarters(44, 2, 2)})
    add_parts(year, {TRAIN[0]: [("car", (("wheel_1", wheel),))]}, shape=(128, 128))
    config = AuditConfig(
        model="builtin:scenes-cnn",
        dataset=f"voc:{year}",
        layers=("block2",),
        out=tmp_path / "run",
        label_size=(128, 128),
    )
    run = run_audit(config).run
    samples = run.table("samples")
    assert samples["status"].tolist() == ["ok", "ok", "ok", "error"]
    assert samples["split"].tolist() == ["train"] * 3 + ["val"]
    concepts = run.table("concepts").set_index("name")
    found = {name: (row["images"], row["pixels"]) for name, row in concepts.iterrows() if row["images"]}
    assert found == {
        "car": (3, 3 * 4096),
        "person": (1, 4096),
        "sky": (1, 8192),
        "bird": (1, 4096),
        "aeroplane": (1, 4096 + 8192),
        "car wheel": (1, 4096),
    }
    assert concepts.loc["car wheel", "category"] == "part"
    assert run.layer_table("block2", "units")["threshold"].notna().all()
