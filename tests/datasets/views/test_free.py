"""Colours and textures as planes of any dataset."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.images import photo, regions, save, street
from helpers.readers import check_reader
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from microtome.datasets.base import Concept, Entry, Sample
from microtome.datasets.formats.folder import FolderDataset
from microtome.datasets.formats.imagefolder import ImageFolderDataset
from microtome.datasets.free.colours import COLOUR_TERMS, name_colours
from microtome.datasets.free.textures import TEXTURES, name_textures
from microtome.datasets.scenes import ScenesDataset
from microtome.datasets.views.free import FreeConcepts
from microtome.datasets.views.view import sample_fingerprints
from microtome.dissect import AuditConfig, run_audit
from microtome.storage.errors import SampleError, UnknownNameError, UsageError

BOTH = ("colors", "textures")


class Given:
    """A dataset of one sample, from arrays."""

    def __init__(
        self,
        image: NDArray[np.uint8],
        planes: NDArray[np.uint16] | None = None,
        concepts: tuple[tuple[str, str], ...] = (),
        names: tuple[str, ...] = (),
        image_labels: tuple[int, ...] = (),
    ) -> None:
        self._sample = (image, np.zeros((0, 1, 1), np.uint16) if planes is None else planes, image_labels)
        self.spec = "given"
        self.concepts = tuple(Concept(number, *concept) for number, concept in enumerate(concepts, start=1))
        self.plane_names = names
        self.image_label_slots = len(image_labels)
        self.class_names = ()

    def __len__(self) -> int:
        return 1

    def entry(self, index: int) -> Entry:
        return Entry(("only",)[index])

    def read(self, index: int) -> Sample:
        image, planes, image_labels = self._sample
        return Sample(image.copy(), planes.copy(), np.array(image_labels, np.uint16))

    def fingerprint(self) -> str:
        return "0123456789"


def plain(root: Path) -> Path:
    for number in range(4):
        save(root / "images" / f"{number}.png", photo(30 + number, 41, number))
    return root


def classes(root: Path) -> Path:
    for number in range(4):
        save(root / "ab"[number % 2] / f"{number}.png", photo(30, 41 + number, number))
    return root


@pytest.mark.parametrize("kinds", [("colors",), ("textures",), BOTH])
def test_it_keeps_the_contract_over_any_reader(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    street(tmp_path / "street")
    save(tmp_path / "street" / "images" / "train" / "000.png", b"\x89PNG broken")
    for dataset, again in (
        (FolderDataset(tmp_path / "street"), FolderDataset(tmp_path / "street")),
        (FolderDataset(plain(tmp_path / "plain")), FolderDataset(tmp_path / "plain")),
        (ImageFolderDataset(classes(tmp_path / "classes")), ImageFolderDataset(tmp_path / "classes")),
        (ScenesDataset(6, size=64), ScenesDataset(6, size=64)),
    ):
        check_reader(FreeConcepts(dataset, kinds), same=FreeConcepts(again, tuple(reversed(kinds))))
        check_reader(FreeConcepts(FreeConcepts(dataset, kinds), BOTH), samples=2)


def test_planes_and_concepts_follow_the_datasets_own(tmp_path: Path) -> None:
    folder = FolderDataset(street(tmp_path))
    view = FreeConcepts(folder, BOTH)
    own = len(folder.concepts)
    assert list(view.concepts[:own]) == list(folder.concepts)
    added = [(concept.name, concept.category) for concept in view.concepts[own:]]
    assert added == [(term, "color") for term in COLOUR_TERMS] + [(name, "texture") for name in TEXTURES]
    assert view.plane_names == (*folder.plane_names, "colors", "textures")
    for index in range(len(folder)):
        sample, before = view.read(index), folder.read(index)
        np.testing.assert_array_equal(sample.image, before.image)
        np.testing.assert_array_equal(sample.planes[:2], before.planes)
        np.testing.assert_array_equal(sample.planes[2], name_colours(before.image) + np.uint16(own))
        textures = name_textures(before.image).astype(np.uint16)
        np.testing.assert_array_equal(sample.planes[3], np.where(textures, textures + own + len(COLOUR_TERMS), 0))
        assert view.entry(index) == folder.entry(index)


def test_what_the_dataset_already_has_is_the_same_concept() -> None:
    scenes = ScenesDataset(4, size=64)
    view = FreeConcepts(scenes, ("colors",))
    assert list(view.concepts) == list(scenes.concepts)
    red = next(concept.id for concept in scenes.concepts if (concept.name, concept.category) == ("red", "color"))
    for index in range(4):
        before, sample = scenes.read(index), view.read(index)
        np.testing.assert_array_equal(sample.planes[:5], before.planes)
        named = name_colours(before.image) == COLOUR_TERMS.index("red") + 1
        np.testing.assert_array_equal(sample.planes[5] == red, named & (before.planes[4] != red))


def test_another_category_of_the_same_name_is_another_concept() -> None:
    image = np.full((4, 4, 3), (250, 140, 0), np.uint8)
    dataset = Given(image, np.ones((1, 4, 4), np.uint16), (("orange", "object"),), ("object",))
    view = FreeConcepts(dataset, ("colors",))
    assert len(view.concepts) == 12
    assert (view.read(0).planes[1] == 2 + COLOUR_TERMS.index("orange")).all()


def test_a_concept_of_the_whole_image_is_in_no_plane() -> None:
    image = np.full((8, 8, 3), (250, 250, 250), np.uint8)
    image[:, 4:] = 0
    view = FreeConcepts(Given(image, None, (("white", "color"),), (), (1,)), ("colors",))
    sample = view.read(0)
    assert sample.image_labels.tolist() == [1]
    assert not sample.planes[0, :, :4].any()
    assert sample.planes[0, :, 4:].all()


@pytest.mark.parametrize(
    ("taken", "given"),
    [
        ((), "colors"),
        (("color",), "colors"),
        (("colors",), "colors (pixels)"),
        (("colors", "colors (pixels)"), "colors (pixels 2)"),
        (("colors", "colors (pixels)", "colors (pixels 2)"), "colors (pixels 3)"),
    ],
)
def test_planes_have_names_of_their_own(taken: tuple[str, ...], given: str) -> None:
    dataset = Given(photo(), np.zeros((len(taken), 24, 32), np.uint16), (), taken)
    assert FreeConcepts(dataset, ("colors",)).plane_names == (*taken, given)


def test_the_grid_is_that_of_the_labels_where_there_are_any() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    image[:30] = (0, 160, 60)
    labels = regions(15, 20, ids=2)[None]
    sample = FreeConcepts(Given(image, labels, (("car", "object"),), ("object",)), ("colors",)).read(0)
    assert sample.planes.shape == (2, 15, 20)
    np.testing.assert_array_equal(sample.planes[0], labels[0])
    green, black = (2 + COLOUR_TERMS.index(name) for name in ("green", "black"))
    assert (sample.planes[1, :7] == green).all()
    assert (sample.planes[1, 8:] == black).all()


def test_finer_labels_than_the_image_get_no_colour_that_is_not_there() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[:, 0], image[:, 1] = (210, 30, 30), (20, 150, 40)
    labels = np.ones((1, 40, 40), np.uint16)
    sample = FreeConcepts(Given(image, labels, (("car", "object"),), ("object",)), ("colors",)).read(0)
    red, green = (2 + COLOUR_TERMS.index(name) for name in ("red", "green"))
    assert (sample.planes[1] == np.where(np.arange(40) < 20, red, green)).all()


def test_a_block_has_the_colour_of_its_mean() -> None:
    dither = np.zeros((64, 64, 3), np.uint8)
    dither[::2, ::2] = dither[1::2, 1::2] = 255
    coarse = FreeConcepts(Given(dither, np.ones((1, 8, 8), np.uint16), (("car", "object"),), ("o",)), ("colors",))
    assert (coarse.read(0).planes[1] == 2 + COLOUR_TERMS.index("gray")).all()


@pytest.mark.parametrize(
    ("image", "grid"),
    [
        ((24, 32), (24, 32)),
        ((256, 300), (256, 300)),
        ((512, 768), (256, 384)),
        ((1000, 333), (769, 256)),
        ((1, 1), (1, 1)),
        ((1, 900), (1, 900)),
        ((3000, 2), (3000, 2)),
    ],
)
def test_the_grid_of_images_without_labels(image: tuple[int, int], grid: tuple[int, int]) -> None:
    for planes, names in ((None, ()), (np.zeros((1, 1, 1), np.uint16), ("object",))):
        sample = FreeConcepts(Given(np.zeros((*image, 3), np.uint8), planes, (), names), BOTH).read(0)
        assert sample.planes.shape == (2 + len(names), *grid)
        assert (sample.planes[-2] == 1 + COLOUR_TERMS.index("black")).all()
        assert (sample.planes[-1] == 1 + len(COLOUR_TERMS) + TEXTURES.index("smooth")).all()
        assert not sample.planes[:-2].any()


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(0, 3), st.integers(1, 70), st.integers(1, 70)),
    st.integers(0, 2**32 - 1),
)
def test_any_image_with_any_labels(image: tuple[int, int], planes: tuple[int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = tuple("abc"[: planes[0]])
    concepts = (("red", "color"), ("car", "object"), ("smooth", "texture"), ("red", "object"))
    labels = rng.integers(0, 5, planes).astype(np.uint16)
    for second in range(1, len(labels)):
        labels[second][(labels[:second] == labels[second]).any(axis=0)] = 0
    dataset = Given(rng.integers(0, 256, (*image, 3)).astype(np.uint8), labels, concepts, names)
    view = FreeConcepts(dataset, BOTH)
    assert len(view.concepts) == 4 + 10 + 5
    sample, again = view.read(0), view.read_labels(0)
    found = sample.planes
    assert found.dtype == np.uint16
    assert len(found) == planes[0] + 2
    assert found.max() <= len(view.concepts)
    np.testing.assert_array_equal(found, again.planes)
    for second in range(len(found)):
        for first in range(second):
            assert not ((found[first] == found[second]) & (found[first] > 0)).any()
    if planes[0] and planes[1:] != (1, 1):
        assert found.shape[1:] == planes[1:]
        np.testing.assert_array_equal(found[: planes[0]], labels)


@pytest.mark.parametrize("free", [("colors",), BOTH])
def test_a_bare_folder_of_images_has_units_that_detect_colours(tmp_path: Path, free: tuple[str, ...]) -> None:
    """Pages of paint: every pixel's colour is known, and counted."""
    paint = {"red": (200, 20, 30), "green": (30, 140, 40), "blue": (40, 80, 200), "yellow": (240, 220, 40)}
    for number, colour in enumerate(list(paint.values()) * 4):
        page = np.full((64, 64, 3), colour, np.uint8)
        page[:, 32:] = 128
        save(tmp_path / "pages" / "images" / f"{number:02}.png", page)
    save(tmp_path / "pages" / "images" / "99.png", b"\x89PNG broken")
    config = AuditConfig(
        model="builtin:scenes-cnn",
        dataset=f"folder:{tmp_path / 'pages'}",
        layers=("block2",),
        out=tmp_path / "run",
        free=free,
    )
    run = run_audit(config).run
    concepts = run.table("concepts").set_index("name")
    assert concepts.loc[[*paint, "gray"], "category"].eq("color").all()
    pixels = concepts["pixels"]
    assert pixels["gray"] == sum(pixels[name] for name in paint) > 0
    assert len({pixels[name] for name in paint}) == 1
    assert concepts["images"][[*paint, "gray"]].tolist() == [4, 4, 4, 4, 16]
    if len(free) == 2:
        assert concepts["images"]["smooth"] == 16
    assert run.table("samples")["status"].tolist() == ["ok"] * 16 + ["error"]
    units = run.layer_table("block2", "units")
    assert units["threshold"].notna().all()
    assert units["concept"].isin(COLOUR_TERMS + TEXTURES).any()


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="no kind of free concepts named 'colours'; did you mean colors"):
        FreeConcepts(ScenesDataset(1), ("colours",))
    with pytest.raises(UsageError, match="known: colors, textures"):
        FreeConcepts(ScenesDataset(1), ("shapes",))


def test_unreadable_samples_are_the_datasets_own(tmp_path: Path) -> None:
    root = street(tmp_path)
    save(root / "images" / "train" / "001.png", b"\x89PNG broken")
    view = FreeConcepts(FolderDataset(root), BOTH)
    for read in (view.read, view.read_labels):
        with pytest.raises(SampleError, match=r"train/001\.png"):
            read(1)
    assert view.read(2).planes.any()


def test_kinds_change_the_fingerprints_and_their_order_does_not(tmp_path: Path) -> None:
    folder = FolderDataset(street(tmp_path))
    views = [FreeConcepts(folder, kinds) for kinds in ((), ("colors",), ("textures",), BOTH)]
    assert len({view.fingerprint() for view in views}) == 4
    assert views[0].fingerprint() == folder.fingerprint()
    turned = FreeConcepts(folder, ("textures", "colors", "colors"))
    assert turned.fingerprint() == views[3].fingerprint()
    assert list(turned.concepts) == list(views[3].concepts)
    marks = [sample_fingerprints(view, 6) for view in views]
    assert all(mark is not None for mark in marks)
    assert len({tuple(mark.tolist()) for mark in marks if mark is not None}) == 4


def test_nothing_changes_without_kinds(tmp_path: Path) -> None:
    folder = FolderDataset(street(tmp_path))
    view = FreeConcepts(folder, ())
    assert list(view.concepts) == list(folder.concepts)
    np.testing.assert_array_equal(view.read(1).planes, folder.read(1).planes)


def test_colours_are_those_of_the_image_brought_to_the_grid() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    image = np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.uint8)
    labels = np.ones((1, 30, 40), np.uint16)
    view = FreeConcepts(Given(image, labels, (("car", "object"),), ("object",)), ("colors",))
    means = image.reshape(30, 3, 40, 3, 3).astype(np.float64).mean(axis=(1, 3))
    expected = name_colours(np.rint(means).astype(np.uint8))
    assert (view.read(0).planes[1] == expected + 1).mean() > 0.995
    assert pickle.loads(pickle.dumps(view)).fingerprint() == view.fingerprint()
