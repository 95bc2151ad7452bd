"""Neighbours in a run: of samples, images and patches, by features and by pixels; and what cannot be asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.squares import audit_squares
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.specs import open_dataset
from microtome.dissect import neighbors
from microtome.dissect.embedding import spaces
from microtome.dissect.embedding.crops import Crops
from microtome.dissect.embedding.nearest import Found
from microtome.dissect.embedding.pca import PCA, moments
from microtome.dissect.embedding.spaces import index_of
from microtome.dissect.embedding.vectors import LayerVectors, in_memory
from microtome.storage.arrays import THUMBNAILS
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.run import Run

UNREADABLE, BLACK = 7, 11


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of squares, only to be read."""
    return audit_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(run, tmp_path / "run")


def image_of(run: Path, sample: int) -> NDArray[np.uint8]:
    return open_dataset(f"{run.parent}/squares.py:images").read(sample).image


def by_hand(run: Path, query: NDArray[np.floating], k: int, without: int | None = None) -> list[int]:
    """Samples by Euclidean distance of their means."""
    vectors = LayerVectors(Run.open(run), "units")
    apart = np.linalg.norm(in_memory(vectors).astype(np.float64) - query, axis=1)
    order = [int(vectors.samples[row]) for row in np.argsort(apart, kind="stable")]
    return [sample for sample in order if sample != without][:k]


def mean_of(run: Path, sample: int) -> NDArray[np.float32]:
    vectors = LayerVectors(Run.open(run), "units")
    return in_memory(vectors)[np.searchsorted(vectors.samples, sample)]


def test_neighbours_of_a_sample(run: Path) -> None:
    found = neighbors(run, layer="units", sample=20, k=6)
    assert found.frame["sample"].tolist() == by_hand(run, mean_of(run, 20), 6, without=20)
    assert found.frame["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    first = found.frame.iloc[0]
    assert (first["sample"], first["key"], first["split"], first["distance"]) == (40, "image-40", "val", 0)
    exact = {"method": "exact", "recall": None, "recall_at": None}
    assert found.info == {"layer": "units", "metric": "euclidean", "whiten": False, **exact}
    assert found.pixels is None
    of_red = neighbors(run, key="image-6", k=8).frame
    assert set(of_red["class"]) == {"red"}
    assert set(of_red["concept"]) == {"red square"}


def test_neighbours_of_an_image_of_ones_own(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.png"
    Image.fromarray(image_of(run, 20)).save(file)
    for image in (file, str(file), image_of(run, 20)):
        found = neighbors(run, image=image, k=3)
        assert found.frame["sample"].tolist() == [20, 40, *by_hand(run, mean_of(run, 20), 3)[2:]]
        assert found.frame["distance"].tolist()[:2] == [0, 0]
        assert found.query.sample is None
    assert found.query.name == "image"


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_whitened_components_count_alike(run: Path, metric: str) -> None:
    vectors = LayerVectors(Run.open(run), "units")
    matrix = in_memory(vectors)
    pca = PCA.fit(moments(vectors))
    white = pca.transform(matrix, whiten=True).astype(np.float64)
    asked = white[np.searchsorted(vectors.samples, 3)]
    if metric == "cosine":
        white /= np.linalg.norm(white, axis=1, keepdims=True)
        asked = asked / np.linalg.norm(asked)
    order = np.argsort(np.linalg.norm(white - asked, axis=1), kind="stable")
    found = neighbors(run, sample=3, k=5, whiten=True, metric=metric)
    assert found.frame["sample"].tolist() == vectors.samples[order[1:6]].tolist()


@pytest.mark.parametrize("stored", [True, False])
def test_neighbours_by_pixels_beside(copied: Path, run: Path, stored: bool) -> None:
    if not stored:  # as runs of earlier versions
        shutil.rmtree(copied / "arrays.zarr" / THUMBNAILS)
    found = neighbors(copied, sample=20, k=4, pixels=True)
    assert found.pixels is not None
    images = {sample: image_of(run, sample).astype(float) for sample in range(45) if sample != UNREADABLE}
    big = {sample: np.kron(image, np.ones((2, 2, 1))) for sample, image in images.items()}
    apart = {sample: np.linalg.norm(image - big[20]) / 255 for sample, image in big.items() if sample != 20}
    nearest = sorted(apart, key=lambda sample: (apart[sample], sample))[:4]
    assert found.pixels["sample"].tolist() == nearest
    assert found.pixels["distance"].tolist() == pytest.approx([apart[sample] for sample in nearest], rel=0.05)
    own = neighbors(copied, image=image_of(run, 3), k=1, pixels=True)
    assert own.pixels is not None
    assert own.pixels["sample"].tolist() == [3]


def test_images_like_a_patch(run: Path) -> None:
    at = (2, 5)
    found = neighbors(run, sample=21, at=at, k=44)
    asked = image_of(run, 21)[at].astype(np.float64) / 255
    asked = np.append(asked, asked.prod())
    rows = []
    for sample in range(45):
        if sample not in (21, UNREADABLE):
            values = image_of(run, sample) / 255
            values = np.concatenate([values, values.prod(axis=2, keepdims=True)], axis=2)
            rows.append((np.linalg.norm(values - asked, axis=2).min(), sample))
    assert found.frame["sample"].tolist()[:5] == [sample for _, sample in sorted(rows)][:5]
    assert len(found.frame) == 43
    for row in found.frame.head(5).to_dict("records"):
        assert (row["top"], row["left"], row["bottom"], row["right"]) == (
            *(row["row"], row["column"]),
            *(row["row"] + 1, row["column"] + 1),
        )
    own = neighbors(run, image=image_of(run, 21), at=at, k=1).frame.iloc[0]
    assert (own["sample"], own["row"], own["column"], own["distance"]) == (21, *at, 0)


def test_images_like_a_top_patch(run: Path) -> None:
    patches = Run.open(run).layer_table("units", "patches")
    patch = patches[(patches["unit"] == 1) & (patches["rank"] == 2)].iloc[0]
    found = neighbors(run, unit=1, rank=2, k=3)
    assert (found.query.sample, found.query.at) == (patch["sample"], (patch["row"], patch["column"]))
    assert set(found.frame["class"]) == {"green"}


def test_more_than_there_are(run: Path) -> None:
    assert len(neighbors(run, sample=0, k=500).frame) == 43
    assert len(neighbors(run, image=image_of(run, 0), k=500).frame) == 44


def test_black_has_no_direction(run: Path) -> None:
    with pytest.raises(UsageError, match="no direction"):
        neighbors(run, sample=BLACK, metric="cosine")
    with pytest.raises(UsageError, match="no direction"):
        neighbors(run, sample=BLACK, at=(0, 0), metric="cosine")
    assert len(neighbors(run, sample=BLACK, k=3).frame) == 3
    far = neighbors(run, sample=0, k=100, metric="cosine").frame
    assert far[far["sample"] == BLACK]["distance"].tolist() == [1]


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({}, "nothing was given"),
        ({"sample": 1, "key": "image-1"}, "sample and key were given"),
        ({"sample": 99}, "samples 0 to 44"),
        ({"sample": -1}, "samples 0 to 44"),
        ({"sample": UNREADABLE}, "image-7.* could not be read .*: not an image"),
        ({"key": "image-99"}, "no sample of this run named 'image-99'"),
        ({"image": "nowhere.png"}, "no image file"),
        ({"image": np.zeros((4, 4))}, r"\(H, W, 3\) uint8"),
        ({"sample": 1, "layer": "united"}, "did you mean units"),
        ({"sample": 1, "metric": "l1"}, "no metric named 'l1'"),
        ({"sample": 1, "method": "fast"}, "no method named 'fast'"),
        ({"sample": 1, "k": 0}, "one neighbour or more"),
        ({"sample": 1, "at": (16, 0)}, "rows 0 to 15"),
        ({"unit": 4}, "units 0 to 3"),
        ({"unit": 1, "rank": 3}, "keeps 3 top patches"),
        ({"unit": 1, "at": (1, 1)}, "both name a position"),
        ({"sample": 1, "at": (1, 1), "pixels": True}, "--pixels: patches are compared exactly"),
        ({"sample": 1, "whiten": True, "method": "approximate"}, "leave out --approximate"),
    ],
)
def test_what_cannot_be_asked(run: Path, asked: dict[str, object], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        neighbors(run, **asked)  # type: ignore[arg-type]


def test_a_file_that_is_no_image(run: Path, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UsageError, match="cannot be read as an image"):
        neighbors(run, image=tmp_path / "text.png")


def test_another_model_is_refused(copied: Path, run: Path) -> None:
    opened = Run.open(copied)
    opened.info["config"]["model"] = f"{run.parent}/squares.py:other"
    opened.save()
    with pytest.raises(RunMismatchError, match="another model"):
        neighbors(copied, image=image_of(run, 0))


def test_without_activations_there_are_no_patches(tmp_path: Path) -> None:
    run = audit_squares(tmp_path, keep_activations=False)
    assert neighbors(run, sample=20, k=1).frame["sample"].tolist() == [40]
    with pytest.raises(UsageError, match="--keep-activations yes"):
        neighbors(run, sample=20, at=(1, 1))
    with pytest.raises(UsageError, match="--keep-activations yes"):
        neighbors(run, unit=0)


@pytest.fixture
def small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spaces, "SMALLEST_INDEX", 10)
    monkeypatch.setattr(spaces, "INDEX_ROWS", 40)


@pytest.mark.usefixtures("small_index")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_an_index_is_kept_and_used_again(copied: Path, metric: str, capsys: pytest.CaptureFixture[str]) -> None:
    exact = neighbors(copied, sample=20, k=4, method="exact", metric=metric)
    assert not list(copied.rglob("*.faiss"))
    first = neighbors(copied, sample=20, k=4, metric=metric)
    assert "is built and kept" in capsys.readouterr().err
    assert (first.info["method"], first.info["recall"], first.info["recall_at"]) == ("approximate", 1.0, 10)
    assert "approximate (recall@10 1.000)" in first._title
    assert first.frame.equals(exact.frame)
    again = neighbors(copied, sample=20, k=4, metric=metric)
    assert "is built" not in capsys.readouterr().err
    assert again.frame.equals(first.frame)
    assert [path.name for path in copied.rglob("*.faiss")] == [f"neighbors.{metric}.faiss"]


@pytest.mark.usefixtures("small_index")
def test_an_index_of_another_state_or_altered_is_made_anew(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    neighbors(copied, sample=20, k=4)
    file = next(copied.rglob("*.faiss"))
    good = file.read_bytes()
    file.write_bytes(good[:-5] + b"other")
    capsys.readouterr()
    assert neighbors(copied, sample=20, k=1).frame["sample"].tolist() == [40]
    assert "is built" in capsys.readouterr().err
    assert file.read_bytes() != good[:-5] + b"other"
    opened = Run.open(copied)
    opened.info["data"]["fingerprint"] = "grown"
    opened.save()
    neighbors(copied, sample=20, k=1)
    assert "is built" in capsys.readouterr().err


@pytest.mark.usefixtures("small_index")
def test_an_index_that_finds_too_little_is_not_used(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Run.open(copied)
    index = index_of(opened, "units", LayerVectors(opened, "units"), "euclidean", 1)
    assert index is not None
    monkeypatch.setattr("microtome.dissect.embedding.index.GOOD_RECALL", 1.1)
    assert neighbors(copied, sample=20, k=1).info["method"] == "exact"
    assert neighbors(copied, sample=20, k=1, method="approximate").info["method"] == "approximate"


@pytest.mark.usefixtures("small_index")
def test_an_index_is_not_asked_for_far_more_than_its_recall_is_known_of(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(spaces, "FARTHEST", 3)
    assert neighbors(copied, sample=20, k=30, method="approximate").info["method"] == "approximate"
    far = neighbors(copied, sample=20, k=31, method="approximate")
    assert (far.info["method"], len(far.frame)) == ("exact", 31)
    assert "not the 31 nearest" in capsys.readouterr().err
    assert neighbors(copied, sample=20, k=31).info["method"] == "exact"


def test_classes_without_a_name_have_a_number(copied: Path) -> None:
    opened = Run.open(copied)
    opened.info["data"]["class_names"] = ["red", "green"]
    opened.save()
    assert set(neighbors(copied, sample=20, k=43).frame["class"]) == {"red", "green", "class 2"}


def test_few_vectors_need_no_index(copied: Path) -> None:
    assert neighbors(copied, sample=20, k=1, method="approximate").info["method"] == "exact"
    assert not list(copied.rglob("*.faiss"))


def sheets(run: Path) -> list[Found]:
    return [neighbors(run, sample=20, k=3, pixels=True), neighbors(run, unit=0, k=12), neighbors(run, key="image-0")]


def test_sheets_have_room_for_all(run: Path) -> None:
    for found in sheets(run):
        picture = found.sheet()
        assert picture.mode == "RGB"
        assert picture.width > 160 * (min(len(found.frame), 10) + 1)
        assert found.crops.note == ""


def test_sheets_show_what_the_run_keeps_where_the_data_are_gone(copied: Path) -> None:
    opened = Run.open(copied)
    opened.info["config"]["dataset"] = "folder:/nowhere"
    opened.save()
    crops = Crops(opened)
    assert "not to be had" in crops.note
    small = crops.crop(20)
    assert small is not None
    assert small.shape == (32, 32, 3)
    assert neighbors(copied, sample=20, k=3, pixels=True).sheet().height > 300
