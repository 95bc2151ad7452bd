"""folder:PATH: which files belong together, what the numbers mean, and what is said of mistakes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.images import encode, photo, regions, save, street
from helpers.odd_files import link_to_itself, pipe
from helpers.readers import check_reader
from PIL import Image

from microtome.datasets.base import Concept, Entry, Remark
from microtome.datasets.formats.folder import FolderDataset
from microtome.datasets.planes import same_field_of_view
from microtome.dissect import AuditConfig, run_audit
from microtome.storage.errors import SampleError, UsageError


def keys(dataset: FolderDataset) -> list[str]:
    return [dataset.entry(index).key for index in range(len(dataset))]


def classes(root: Path, text: str) -> None:
    (root / "classes.csv").write_text(text)


def flat(
    root: Path, mask: np.ndarray | bytes | Image.Image, table: str = "index,name,category\n1,car,object\n"
) -> Path:
    """One image without a split, and its mask."""
    save(root / "images/a.png", photo(6, 8))
    save(root / "masks/a.png", mask)
    classes(root, table)
    return root


class TestLayout:
    def test_planes_splits_and_concepts(self, tmp_path: Path) -> None:
        dataset = FolderDataset(street(tmp_path))
        assert dataset.plane_names == ("object", "parts")
        assert dataset.entry(0) == Entry("train/000.png", "train")
        assert keys(dataset) == [f"train/00{n}.png" for n in (0, 1, 3, 4)] + ["val/002.png", "val/005.png"]
        assert dataset.concepts[3:] == (
            Concept(4, "wheel", "part"),
            Concept(5, "roof", "part"),
            Concept(6, "road", "object"),
            Concept(7, "Lane", "surface"),
        )
        assert (dataset.class_names, dataset.image_label_slots) == ((), 0)

    def test_numbers_become_concepts_by_plane(self, tmp_path: Path) -> None:
        dataset = FolderDataset(street(tmp_path))
        sample = dataset.read(1)  # train/001: both planes
        objects, parts = regions(24, 32, 1), regions(24, 32, 100, ids=4)
        expected = np.array([0, 1, 2, 3, 6, 7, 0])[objects]
        np.testing.assert_array_equal(sample.planes[0], expected)
        doubled = np.array([0, 4, 2, 5])[parts]
        doubled[doubled == expected] = 0
        np.testing.assert_array_equal(sample.planes[1], doubled)
        np.testing.assert_array_equal(sample.image, photo(24, 32, 1))
        assert not dataset.read(0).planes[1].any()  # no mask: not annotated

    def test_default_plane_stands_beside_named_ones(self, tmp_path: Path) -> None:
        save(tmp_path / "images/train/a.jpg", photo(6, 8))
        save(tmp_path / "masks/train/a.png", np.full((6, 8), 1, np.uint8))
        save(tmp_path / "masks/parts/train/a.png", np.full((6, 8), 2, np.uint8))
        classes(tmp_path, "index,name,category\n1,car,object\n2,wheel,part\n")
        dataset = FolderDataset(tmp_path)
        assert dataset.plane_names == ("labels", "parts")
        assert dataset.read(0).planes[:, 0, 0].tolist() == [1, 2]
        save(tmp_path / "masks/labels/train/a.png", np.full((6, 8), 2, np.uint8))
        with pytest.raises(UsageError, match="rename"):
            FolderDataset(tmp_path)

    def test_same_stem_nested_folders_junk_and_order(self, tmp_path: Path) -> None:
        for name in ("a.png", "a.jpg", "b/c.png", "b/d/e.png", "b.c.png", "b-x/f.png", "b/z.txt"):
            save(tmp_path / "images" / name, photo(6, 8) if not name.endswith("txt") else b"text")
        for junk in (".DS_Store", "Thumbs.db", "b/.hidden/x.png", "__MACOSX/y.png"):
            save(tmp_path / "images" / junk, b"junk" if not junk.endswith("png") else photo())
        save(tmp_path / "masks/a.png", np.full((6, 8), 1, np.uint8))
        save(tmp_path / "masks/b.c.PNG", np.full((6, 8), 1, np.uint8))
        save(tmp_path / "masks/b/d/e.png", np.full((6, 8), 1, np.uint8))
        classes(tmp_path, "index,name,category\n1,car,object\n")
        dataset = FolderDataset(tmp_path)
        assert keys(dataset) == sorted(keys(dataset))
        assert keys(dataset) == ["a.jpg", "a.png", "b-x/f.png", "b.c.png", "b/c.png", "b/d/e.png", "b/z.txt"]
        assert [dataset.entry(i).split for i in range(7)] == ["", "", "b-x", "", "b", "b", "b"]
        labelled = [bool(dataset.read(index).planes.any()) for index in range(6)]
        assert labelled == [True, True, False, True, False, True]
        with pytest.raises(SampleError, match="not an image") as caught:
            dataset.read(6)
        assert caught.value.key == "b/z.txt"

    def test_images_without_masks(self, tmp_path: Path) -> None:
        save(tmp_path / "images/a.png", photo(6, 8))
        dataset = FolderDataset(tmp_path)
        assert dataset.read(0).planes.shape[0] == 0
        assert (dataset.concepts, dataset.plane_names) == ((), ())
        classes(tmp_path, "index,name,category,plane\n1,car,object,\n2,wheel,part,parts\n")
        assert len(FolderDataset(tmp_path).concepts) == 2

    def test_names_that_are_not_text_and_links_in_circles(self, tmp_path: Path) -> None:
        save(tmp_path / "images/a.png", photo(6, 8))
        os.symlink(tmp_path / "images", tmp_path / "images/again")
        os.symlink(tmp_path / "gone.png", tmp_path / "images/gone.png")
        odd = os.fsencode(tmp_path / "images") + b"/\xff\n.png"
        with open(odd, "wb") as stream:
            stream.write((tmp_path / "images/a.png").read_bytes())
        dataset = FolderDataset(tmp_path)
        assert keys(dataset) == ["a.png", "gone.png", "\\xff\n.png"]
        assert dataset.read(2).image.shape == (6, 8, 3)
        with pytest.raises(SampleError, match="missing"):
            dataset.read(1)

    def test_spec_home_and_working_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        street(tmp_path / "data")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert len(FolderDataset("~/data")) == 6
        monkeypatch.chdir(tmp_path)
        dataset = FolderDataset("data")
        assert dataset.spec == "folder:data"
        monkeypatch.chdir("/")
        assert dataset.read(0).image.shape == (24, 32, 3)


class TestMasks:
    def test_zero_is_a_concept_only_where_it_is_listed(self, tmp_path: Path) -> None:
        mask = np.array([[0, 1, 2], [0, 1, 9]], np.uint8).repeat(3, 0).repeat(3, 1)[:, :8]
        path = flat(tmp_path, mask)
        dataset = FolderDataset(path)
        assert set(np.unique(dataset.read(0).planes)) == {0, 1}
        assert dataset.unknown_ids() == {"labels": {2: 1, 9: 1}}
        dataset.read(0)
        assert dataset.unknown_ids() == {"labels": {2: 1, 9: 1}}
        classes(path, "index,name,category\n0,sky,object\n9,void,\n2,car,Object \n1,car,object\n")
        dataset = FolderDataset(path)
        assert dataset.concepts == (Concept(1, "sky", "object"), Concept(2, "car", "object"))
        np.testing.assert_array_equal(dataset.read(0).planes[0], np.array([1, 2, 2, 0, 0, 0, 0, 0, 0, 0])[mask])
        assert dataset.unknown_ids() == {}

    def test_listed_void_with_a_category_is_a_concept(self, tmp_path: Path) -> None:
        path = flat(tmp_path, np.ones((6, 8), np.uint8), "index,name,category\n1,void,object\n")
        assert FolderDataset(path).read(0).planes.max() == 1

    def test_sixteen_bit_numbers(self, tmp_path: Path) -> None:
        mask = np.full((6, 8), 40_000, np.uint16)
        path = flat(tmp_path, mask, "index,name,category\n40000,car,object\n")
        assert (FolderDataset(path).read(0).planes == 1).all()

    @pytest.mark.parametrize("shape", [(3, 4), (12, 16), (60, 80)])
    def test_other_resolutions_of_the_same_view(self, tmp_path: Path, shape: tuple[int, int]) -> None:
        path = flat(tmp_path, np.ones(shape, np.uint8))
        assert FolderDataset(path).read(0).planes.shape == (1, *shape)

    def test_planes_of_different_resolutions_share_the_larger_grid(self, tmp_path: Path) -> None:
        path = street(tmp_path)
        small = regions(12, 16, 5, ids=4)
        save(path / "masks/parts/train/001.png", small.astype(np.uint8))
        planes = FolderDataset(path).read(1).planes
        assert planes.shape == (2, 24, 32)
        doubled = np.array([0, 4, 2, 5])[small].repeat(2, 0).repeat(2, 1)
        doubled[doubled == planes[0]] = 0
        np.testing.assert_array_equal(planes[1], doubled)

    def test_another_aspect_ratio_names_both_sizes(self, tmp_path: Path) -> None:
        with pytest.raises(SampleError, match=r"plane labels: 6x8 pixels.*8x6") as caught:
            FolderDataset(flat(tmp_path, np.ones((8, 6), np.uint8))).read(0)
        assert caught.value.key == "a.png"

    def test_unusable_masks_name_the_plane(self, tmp_path: Path) -> None:
        with pytest.raises(SampleError, match="mask of plane labels: a mask in colours"):
            FolderDataset(flat(tmp_path, photo(6, 8))).read(0)
        save(tmp_path / "masks/a.png", b"")
        with pytest.raises(SampleError, match="mask of plane labels: empty file"):
            FolderDataset(tmp_path).read(0)

    def test_a_concept_of_three_planes_is_counted_once(self, tmp_path: Path) -> None:
        save(tmp_path / "images/a.png", photo(6, 8))
        for plane in "xyz":
            save(tmp_path / f"masks/{plane}/a.png", np.ones((6, 8), np.uint8))
        classes(tmp_path, "index,name,category\n1,car,object\n")
        planes = FolderDataset(tmp_path).read(0).planes
        assert planes.any((1, 2)).tolist() == [True, False, False]

    def test_mask_follows_the_upright_image(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        path = flat(tmp_path, np.ones((8, 6), np.uint8))
        Image.fromarray(photo(6, 8)).save(path / "images/a.png", exif=exif.tobytes())
        sample = FolderDataset(path).read(0)
        assert sample.image.shape == (8, 6, 3)
        assert sample.planes.shape == (1, 8, 6)


@pytest.mark.parametrize(
    ("mask", "image", "same"),
    [
        ((112, 112), (500, 500), True),
        ((187, 250), (375, 500), True),
        ((188, 250), (375, 500), True),
        ((1000, 666), (100, 67), True),
        ((500, 375), (375, 500), False),
        ((224, 224), (240, 320), False),
        ((375, 480), (375, 500), False),
    ],
)
def test_same_field_of_view(mask: tuple[int, int], image: tuple[int, int], same: bool) -> None:
    assert same_field_of_view(mask, image) is same


class TestMistakes:
    def test_folders(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="does not exist"):
            FolderDataset(tmp_path / "gone")
        with pytest.raises(UsageError, match="no folder images/; expected"):
            FolderDataset(tmp_path)
        save(tmp_path / "a.JPEG", b"x")
        with pytest.raises(UsageError, match=r"move the images \(a.JPEG"):
            FolderDataset(tmp_path)
        with pytest.raises(UsageError, match="is not a folder"):
            FolderDataset(tmp_path / "a.JPEG")
        (tmp_path / "images").mkdir()
        with pytest.raises(UsageError, match="holds no images"):
            FolderDataset(tmp_path)
        with pytest.raises(UsageError, match=f"folder:{tmp_path}$"):
            FolderDataset(tmp_path / "images")

    def test_masks_without_names(self, tmp_path: Path) -> None:
        path = flat(tmp_path, np.array([[3, 7], [7, 12]], np.uint8).repeat(3, 0).repeat(4, 1))
        (path / "classes.csv").unlink()
        with pytest.raises(UsageError, match=r"(?s)classes.csv is missing.*index,name,category\n +3,NAME.*\n +12,NAME"):
            FolderDataset(path)

    def test_masks_that_belong_to_nothing(self, tmp_path: Path) -> None:
        path = street(tmp_path)
        save(path / "masks/test/000.png", np.ones((24, 32), np.uint8))
        with pytest.raises(UsageError, match=r"no mask in .*test belongs to an image"):
            FolderDataset(path)

    def test_masks_of_another_format(self, tmp_path: Path) -> None:
        save(tmp_path / "images/a.png", photo())
        save(tmp_path / "masks/a.tif", photo())
        with pytest.raises(UsageError, match=r"holds no PNG \(a.tif"):
            FolderDataset(tmp_path)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "other columns": (lambda root: classes(root, "id,label\n1,car\n"), r"classes.csv, line 1: no column index, name"),
    "empty classes.csv": (lambda root: classes(root, ""), r"classes.csv, line 1: no column .* found nothing"),
    "not UTF-8": (
        lambda root: (root / "classes.csv").write_bytes(b"index,name,category\n1,caf\xe9,object\n"),
        "classes.csv, line 2: not UTF-8 text",
    ),
    "an index twice": (
        lambda root: classes(root, "index,name,category\n1,car,object\n1,bus,object\n"),
        r"line 3: index 1 is bus \(object\), but car \(object\) in line 2",
    ),
    "an index above all": (lambda root: classes(root, "index,name,category\n65536,car,object\n"), "is above 65535"),
    "a plane that is not there": (
        lambda root: classes(root, "index,name,category,plane\n1,car,object,rats\n"),
        "line 2: there is no mask plane 'rats'",
    ),
    "no images": (lambda root: shutil.rmtree(root / "images"), "no folder images/; expected PATH/images/"),
    "images that are a file": (
        lambda root: (shutil.rmtree(root / "images"), (root / "images").touch()),
        "no folder images/",
    ),
}


@pytest.mark.parametrize("harm", REFUSED)
def test_what_cannot_be_used_at_all_is_refused(tmp_path: Path, harm: str) -> None:
    path = street(tmp_path)
    REFUSED[harm][0](path)
    with pytest.raises(UsageError, match=REFUSED[harm][1]):
        FolderDataset(path)


HALF = encode(Image.fromarray(photo(240, 320)), "JPEG")[:900]
MASK = "masks/parts/train/001.png"
IMAGE = "images/train/001.png"
SKIPPED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "image of text": (IMAGE, lambda path: path.write_bytes(b"<html>"), "not an image in a format that can be read"),
    "image empty": (IMAGE, lambda path: path.write_bytes(b""), r"empty file \(0 bytes\)"),
    "image cut short": (IMAGE, lambda path: path.write_bytes(HALF), "truncated image file"),
    "image missing": (IMAGE, Path.unlink, "the file is missing"),
    "image is a link to itself": (IMAGE, link_to_itself, "the file cannot be read .Too many levels of symbolic links"),
    "mask is a link to itself": (MASK, link_to_itself, "mask of plane parts: the file cannot be read .Too many levels"),
    "mask is a pipe": (MASK, pipe, "mask of plane parts: not a regular file"),
    "mask missing": (MASK, Path.unlink, "mask of plane parts: the file is missing"),
    "mask cut short": (
        MASK,
        lambda path: path.write_bytes(path.read_bytes()[:-60]),
        "mask of plane parts: (truncated|damaged) image",
    ),
    "mask in colours": (
        MASK,
        lambda path: save(path, photo()),
        "mask of plane parts: a mask in colours; expected",
    ),
    "mask of another shape": (
        MASK,
        lambda path: save(path, np.ones((32, 24), np.uint8)),
        "mask of plane parts: 24x32 pixels, the upright image 32x24; not the same aspect ratio",
    ),
    "mask partly transparent": (
        MASK,
        lambda path: save(path, np.zeros((24, 32, 4), np.uint8)),
        "mask of plane parts: a mask with transparent pixels",
    ),
    "mask a folder": (MASK, lambda path: (path.unlink(), path.mkdir()), "mask of plane parts: a folder, not an image"),
}


@pytest.mark.parametrize("harm", SKIPPED)
def test_one_sample_that_cannot_be_used_is_skipped(tmp_path: Path, harm: str) -> None:
    path = street(tmp_path)
    whole = [FolderDataset(path).read(index) for index in range(6)]
    dataset = FolderDataset(path)
    name, do, reason = SKIPPED[harm]
    do(path / name)
    for read in (dataset.read, dataset.read_labels) if harm.startswith("mask") else (dataset.read,):
        with pytest.raises(SampleError, match=reason) as caught:
            read(1)
        assert caught.value.key == "train/001.png"
        assert str(tmp_path) not in caught.value.reason
    for index in (0, 2, 3, 4, 5):
        np.testing.assert_array_equal(dataset.read(index).image, whole[index].image)
        np.testing.assert_array_equal(dataset.read(index).planes, whole[index].planes)
    check_reader(dataset, same=dataset)


def test_links_to_themselves_are_files(tmp_path: Path) -> None:
    path = street(tmp_path)
    for name in ("images/lost", "masks/lost", IMAGE):
        link_to_itself(path / name)
    dataset = FolderDataset(path)
    with pytest.raises(SampleError, match="symbolic links"):  # as any other file below images/ that is no image
        dataset.read(0)
    assert dataset.entry(0).key == "lost"
    assert dataset.read(1).planes.any()
    check_reader(dataset, same=FolderDataset(path))


class TestRemarks:
    def test_what_is_out_of_place(self, tmp_path: Path) -> None:
        path = street(tmp_path)
        bare = Remark("images without a mask in plane parts", 3, ("train/000.png", "train/004.png", "val/002.png"))
        assert FolderDataset(path).remarks() == [bare]
        mask = np.ones((24, 32), np.uint8)
        save(path / "images/train/list.txt", b"000 to 005")
        save(path / "masks/object/train/009.png", mask)
        save(path / "masks/object/test/000.png", mask)
        save(path / "masks/parts/000.PNG", mask)
        save(path / "masks/parts/train/readme.md", b"about them")
        without_object = Remark("images without a mask in plane object", 1, ("train/list.txt",))
        examples = ("object/test/000.png", "object/train/009.png", "parts/000.PNG")
        assert FolderDataset(path).remarks() == [
            Remark(
                "files in images/ that are no images by their names; each is a sample all the same",
                1,
                ("train/list.txt",),
            ),
            Remark("masks that belong to no image", 3, examples),
            Remark("files in masks/ that are no PNG; left out", 1, ("parts/train/readme.md",)),
            without_object,
            Remark(bare.text, 4, ("train/000.png", "train/004.png", "train/list.txt", "val/002.png")),
        ]

    def test_masks_without_planes(self, tmp_path: Path) -> None:
        path = flat(tmp_path, np.ones((6, 8), np.uint8))
        save(path / "masks/b.png", np.ones((6, 8), np.uint8))
        assert FolderDataset(path).remarks() == [Remark("masks that belong to no image", 1, ("b.png",))]

    def test_images_alone(self, tmp_path: Path) -> None:
        save(tmp_path / "images/a.png", photo())
        assert FolderDataset(tmp_path).remarks() == []


def test_it_is_audited_to_the_pixel(tmp_path: Path) -> None:
    path = street(tmp_path / "data", height=128, width=128)
    save(path / "masks/parts/val/005.png", b"broken")
    found = run_audit(
        AuditConfig(
            model="builtin:scenes-cnn",
            dataset=f"folder:{path}",
            layers=("block2",),
            out=tmp_path / "run",
            label_size=(128, 128),
        )
    )
    assert found.run.table("samples")["status"].tolist() == ["ok"] * 5 + ["error"]
    concepts = found.run.table("concepts").set_index("name")
    named = {"car": 1, "tree": 2, "house": 3, "road": 4, "Lane": 5}
    for name, number in named.items():
        held = [regions(128, 128, image) == number for image in range(5)]
        for image in (1, 3):  # tree holds for every plane
            held[image] |= (regions(128, 128, image + 99, ids=4) == number) & (name == "tree")
        expected = [sum(map(bool, map(np.any, held))), sum(map(np.sum, held))]
        assert concepts.loc[name, ["images", "pixels"]].tolist() == expected
    assert found.run.layer_table("block2", "units")["threshold"].notna().all()


class TestFingerprint:
    def test_changes_with_images_masks_and_classes(self, tmp_path: Path) -> None:
        path = street(tmp_path)
        seen = {FolderDataset(path).fingerprint()}
        os.utime(path / "images/train/000.png", ns=(1, 1))
        seen.add(FolderDataset(path).fingerprint())
        save(path / "masks/parts/val/002.png", np.ones((24, 32), np.uint8))
        seen.add(FolderDataset(path).fingerprint())
        with (path / "classes.csv").open("a") as table:
            table.write("9,pond,object\n")
        seen.add(FolderDataset(path).fingerprint())
        (path / "images/train/001.png").rename(path / "images/train/009.png")
        seen.add(FolderDataset(path).fingerprint())
        assert len(seen) == 5

    def test_is_stable_and_blind_to_junk(self, tmp_path: Path) -> None:
        path = street(tmp_path)
        first = FolderDataset(path).fingerprint()
        save(path / "images/.DS_Store", b"x")
        assert FolderDataset(path).fingerprint() == first
