"""Which images are meant, and what their results are called: none is lost, none overwrites another."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.explaining import photo, write_photos
from PIL import Image

from microtome.dissect.attribution.explaining.sources import LONGEST_NAME, TAKEN, Source, find_sources, names_of
from microtome.dissect.attribution.methods import METHODS
from microtome.storage.errors import SampleError, UsageError


def source(path: str) -> Source:
    return Source(path, path, lambda: photo())


def names(*paths: str) -> list[str]:
    return names_of([source(path) for path in paths], METHODS)


def test_a_folder_gives_its_images_in_order(tmp_path: Path) -> None:
    write_photos(tmp_path / "in" / "b", 1)
    write_photos(tmp_path / "in", 2)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"x")
    found = find_sources([tmp_path / "in"])
    assert [each.path for each in found] == ["b/photo-0.png", "broken.jpg", "photo-0.png", "photo-1.png"]
    np.testing.assert_array_equal(found[3].read(), photo(1))
    with pytest.raises(SampleError):
        found[1].read()
    assert len(find_sources([tmp_path / "in"], limit=2)) == 2


def test_a_file_counts_once(tmp_path: Path) -> None:
    first, second = write_photos(tmp_path, 2)
    (tmp_path / "link.png").symlink_to(first)
    assert [each.path for each in find_sources([str(second), tmp_path, first])] == [str(second), "link.png"]


def test_results_are_no_images(tmp_path: Path) -> None:
    write_photos(tmp_path, 1)
    write_photos(tmp_path / "out" / "deep", 2)
    found = find_sources([tmp_path], leave_out=tmp_path / "out")
    assert [each.path for each in found] == ["photo-0.png"]
    assert len(find_sources([tmp_path / "out"], leave_out=tmp_path)) == 2, "results beside a folder of images"


def test_an_image_is_never_replaced_by_a_result(tmp_path: Path) -> None:
    (path,) = write_photos(tmp_path, 1)
    for given in (tmp_path, path):
        with pytest.raises(UsageError, match="might be replaced"):
            find_sources([given], leave_out=tmp_path)


def test_arrays_and_datasets() -> None:
    found = find_sources([photo(1), "scenes:2", photo(2)])
    assert [each.name for each in found] == ["image-0", "0-000000", "0-000001", "image-3"]
    np.testing.assert_array_equal(found[3].read(), photo(2))
    assert found[1].read().shape != found[0].read().shape
    assert not np.array_equal(found[1].read(), found[2].read())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere.png", "no file and no folder"),
        ("nowhere/", "no file and no folder"),
        ("http://somewhere/cat.png", "no file and no folder"),
        (np.zeros((4, 4), np.uint8), "array"),
        (np.zeros((4, 4, 3), np.float32), "array"),
    ],
)
def test_what_is_no_image_is_named(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_sources([given])


@pytest.mark.parametrize("given", ["x" * 300, "~no-such-user-here/cat.png", "a\0b.png"])
def test_paths_that_cannot_be(given: str) -> None:
    with pytest.raises(UsageError):
        find_sources([given])


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = find_sources([tmp_path])
    assert [each.path for each in found] == ["gone.png", "pipe.png"]
    for each in found:
        with pytest.raises(SampleError):
            each.read()


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image in the folder"):
        find_sources([tmp_path])


def test_names_are_stems_where_those_differ() -> None:
    assert names("cats/one.jpg", "two.png", "3.tar.png") == ["one", "two", "3.tar"]
    assert names("a/one.jpg", "b/one.jpg", "two.png") == ["a_one.jpg", "b_one.jpg", "two"]
    assert names("one.jpg", "one.png") == ["one.jpg", "one.png"]
    assert names("One.jpg", "one.png") == ["One.jpg", "one.png"]
    assert names("/x/../one.jpg", "../one.jpg", "one.jpg") == ["x_one.jpg", "one.jpg", "one.jpg-2"]


def test_no_name_is_that_of_something_else() -> None:
    assert names("sheet.png", "filters.jpg", "explain.gif") == ["sheet.png", "filters.jpg", "explain.gif"]
    assert names("cat.png", "cat.saliency.png")[1] != "cat.saliency"
    odd = names("a_b.png", "a/b.png", "b.png", "a_b.png.png", "sheet", "cat.grad-cam++", "cat.grad-cam++.jpg")
    every = [f"{name}{end}.png" for name in odd for end in ("", *(f".{method}" for method in METHODS))]
    assert len({each.casefold() for each in every} | {f"{name}.png" for name in TAKEN}) == len(every) + len(TAKEN)


@pytest.mark.parametrize("name", ["x" * 300, "é" * 200, "日" * 100, "a b'\"$`;\n\t.png", "...", "\udcff.png", "-rf"])
def test_any_name_becomes_one_that_can_be_written(tmp_path: Path, name: str) -> None:
    (made,) = names(name)
    assert 0 < len(made.encode()) <= LONGEST_NAME
    assert made.isprintable()
    assert not made.startswith(".")
    (tmp_path / f"{made}.integrated-gradients.npy").write_bytes(b"")


def test_long_names_stay_apart() -> None:
    assert len(set(names("x" * 300 + "1.png", "x" * 300 + "2.png"))) == 2


def test_every_kind_of_file_is_read_or_named(tmp_path: Path) -> None:
    grey = photo(3)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(photo(3)).quantize(16).save(tmp_path / "palette.gif")
    Image.fromarray(np.dstack([photo(3), grey])).save(tmp_path / "alpha.png")
    Image.fromarray(photo(3)[:1, :1]).save(tmp_path / "dot.png")
    Image.fromarray(photo(3)).save(tmp_path / "turned.jpg", exif=_turned())
    shapes = {each.path: each.read().shape for each in find_sources([tmp_path])}
    assert shapes == dict.fromkeys(("alpha.png", "deep.png", "grey.png", "palette.gif"), (40, 48, 3)) | {
        "dot.png": (1, 1, 3),
        "turned.jpg": (48, 40, 3),
    }


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif
