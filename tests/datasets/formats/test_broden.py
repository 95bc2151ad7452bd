"""`broden:PATH`: tables, maps in red and green, image-level labels; what is planted is read."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.formats.broden import (
    CATEGORIES,
    NAMES,
    Picture,
    drawn,
    encode_rg,
    pictures,
    write_broden,
)
from helpers.images import encode, photo, save
from helpers.readers import check_reader
from numpy.typing import NDArray
from PIL import Image

from microtome.datasets.formats.broden.reader import BrodenDataset
from microtome.datasets.specs import open_dataset
from microtome.dissect import AuditConfig, run_audit


@pytest.fixture
def broden(tmp_path: Path) -> Path:
    return write_broden(tmp_path / "broden", pictures())


def ids(dataset: BrodenDataset) -> dict[int, int]:
    """{number: concept id} by name."""
    of_name = {concept.name: concept.id for concept in dataset.concepts}
    return {number: of_name[name] for number, name in NAMES.items() if name in of_name} | {0: 0}


def translated(numbers: NDArray[np.uint16], concept: dict[int, int]) -> NDArray[np.uint16]:
    return np.vectorize(concept.__getitem__, otypes=[np.uint16])(numbers)


def test_it_keeps_the_contract(broden: Path) -> None:
    check_reader(BrodenDataset(broden), samples=12, same=BrodenDataset(broden))
    assert open_dataset(f"broden:{broden}").spec == f"broden:{broden}"


@pytest.mark.parametrize(("size", "grid"), [(224, 112), (227, 113), (384, 192)])
def test_it_reads_the_published_sizes(tmp_path: Path, size: int, grid: int) -> None:
    path = write_broden(tmp_path, pictures(4, size, grid))
    check_reader(BrodenDataset(path), same=BrodenDataset(path))
    sample = BrodenDataset(path).read(0)
    assert sample.image.shape == (size, size, 3)
    assert sample.planes.shape[1:] == (grid, grid)


def test_labels_are_those_planted(broden: Path) -> None:
    dataset, rows = BrodenDataset(broden), pictures()
    concept = ids(dataset)
    assert dataset.plane_names == ("color", "object", "part", "part 2", "part 3", "material")
    assert dataset.image_label_slots == 2
    assert len(dataset) == len(rows)
    for index, row in enumerate(rows):
        entry, sample = dataset.entry(index), dataset.read(index)
        assert (entry.key, entry.split, entry.label) == (row.name, row.split, None)
        expected = np.zeros((6, 56, 56), np.uint16)
        for category, cell in row.cells.items():
            for position, numbers in enumerate(cell):
                if isinstance(numbers, np.ndarray):
                    name = f"{category} {position + 1}" if position else category
                    expected[dataset.plane_names.index(name)] = translated(numbers, concept)
        for y, x in np.ndindex(56, 56):  # the same part twice at a pixel counts once
            for plane in range(6):
                if expected[plane, y, x] in expected[:plane, y, x]:
                    expected[plane, y, x] = 0
        np.testing.assert_array_equal(sample.planes, expected)
        of_image = [concept[entry] for cell in row.cells.values() for entry in cell if isinstance(entry, int)]
        assert sample.image_labels.tolist() == [*of_image, 0, 0][:2]
    assert dataset.unknown_ids() == {}
    assert list(dataset.remarks()) == []


def test_a_label_belongs_to_the_category_it_covers_most_of(broden: Path) -> None:
    """Fabric is an object in more images, and covers more of those in which it is a material."""
    assert ",fabric,object(4);material(3),7," in (broden / "label.csv").read_text(encoding="utf-8")
    categories = {concept.name: concept.category for concept in BrodenDataset(broden).concepts}
    assert categories["fabric"] == "material"
    assert categories["car"] == "object"
    for category in CATEGORIES:
        (broden / f"c_{category}.csv").unlink()
    without = BrodenDataset(broden)
    assert {concept.name: concept.category for concept in without.concepts}["fabric"] == "object"
    assert [(remark.text[:35], remark.examples) for remark in without.remarks()] == [
        ("labels in several categories withou", ("fabric",))
    ]


@pytest.mark.parametrize("last", ["object", "material"])
def test_of_categories_covered_alike_the_last_of_category_csv_counts(broden: Path, last: str) -> None:
    for category in ("object", "material"):
        (broden / f"c_{category}.csv").write_text("number,coverage\n7,0.25\n", encoding="utf-8")
    names = [*(name for name in CATEGORIES if name != last), last]
    (broden / "category.csv").write_text("\n".join(["name", *names]), encoding="utf-8")
    dataset = BrodenDataset(broden)
    assert {concept.name: concept.category for concept in dataset.concepts}["fabric"] == last
    assert "fabric" not in [name for remark in dataset.remarks() for name in remark.examples]


def test_numbers_and_maps_may_share_a_cell(tmp_path: Path) -> None:
    """0 is unlabelled; a label of the whole image is taken out of its planes and given once."""
    both = drawn(20, 3, (1, 1196))
    cells = {"color": [2, drawn(20, 1, (1,)), both], "texture": [0, 1197, 1196, 1197], "scene": [0]}
    plain = {"texture": [np.full((20, 20), 1197, np.uint16)]}
    rows = [
        Picture("dtd/a.jpg", "train", photo(40, 40), cells),
        Picture("dtd/b.jpg", "", photo(40, 40), plain),
        Picture("dtd/c.jpg", "val", photo(40, 40), {"scene": [0]}),
        Picture("dtd/d.jpg", "val", photo(40, 40)),
    ]
    path = write_broden(tmp_path, rows)
    (path / "category.csv").unlink()
    index = path / "index.csv"
    index.write_bytes(index.read_bytes().replace(b";1197;1196;1197", b";;1197;1196;1197;"))
    dataset = BrodenDataset(path)
    check_reader(dataset, same=BrodenDataset(path))
    concept = ids(dataset)
    assert dataset.plane_names == ("color", "color 2", "texture")
    assert dataset.image_label_slots == 4
    sample = dataset.read(0)
    assert sample.image_labels.tolist() == [concept[2], concept[1197], concept[1196], 0]
    np.testing.assert_array_equal(sample.planes[0], translated(drawn(20, 1, (1,)), concept))
    once = (both == 1) & (drawn(20, 1, (1,)) != 1)
    np.testing.assert_array_equal(sample.planes[1], np.where(once, concept[1], 0))
    assert not sample.planes[2].any()
    np.testing.assert_array_equal(dataset.read(1).planes[2], np.full((20, 20), concept[1197]))
    assert dataset.read(2).planes.shape == (3, 1, 1)
    assert [(remark.text, remark.count, remark.examples) for remark in dataset.remarks()] == [
        ("images without labels in any category", 2, ("dtd/c.jpg", "dtd/d.jpg"))
    ]


def test_a_label_counts_where_label_csv_does_not_expect_it(tmp_path: Path) -> None:
    """Fabric in a map of objects, once a pixel, although label.csv lists it as a material alone."""
    objects, materials = drawn(20, 1, (7, 9)), drawn(20, 2, (7, 301))
    materials[materials == 0] = 7
    cells = {"object": [objects], "material": [materials], "scene": [777]}
    row = Picture("ade20k/a.jpg", "train", photo(40, 40), cells)
    path = write_broden(tmp_path, [row, Picture("ade20k/b.jpg", "val", photo(40, 40), {**cells, "scene": [7]})])
    expected = BrodenDataset(path).read(0)
    table = path / "label.csv"
    table.write_bytes(re.sub(rb"7,fabric,[^,]*", b"7,fabric,material(1)", table.read_bytes()))
    dataset = BrodenDataset(path)
    check_reader(dataset)
    concept = ids(dataset)
    sample = dataset.read(0)
    np.testing.assert_array_equal(sample.planes, expected.planes)
    np.testing.assert_array_equal(sample.planes[0], translated(objects, concept))
    assert ((objects == 7) & (materials == 7)).any()
    np.testing.assert_array_equal(
        sample.planes[1], translated(np.where(objects == materials, 0, materials).astype(np.uint16), concept)
    )
    assert not (dataset.read(1).planes == concept[7]).any()
    assert dataset.unknown_ids() == {}


def test_category_csv_says_which_columns_count(broden: Path) -> None:
    table = broden / "category.csv"
    table.write_text("name,first,last,count,frequency\nobject,1,9,4,10\nscene,1,9,4,10\n", encoding="utf-8")
    dataset = BrodenDataset(broden)
    assert dataset.plane_names == ("object",)
    assert dataset.image_label_slots == 1
    assert [(remark.text[:20], remark.examples) for remark in dataset.remarks()] == [
        ("images without label", tuple(row.name for row in pictures() if row.name[0] in "do")[:5]),
        ("columns of index.csv", ("color", "material", "part", "texture")),
    ]
    table.unlink()
    assert len(BrodenDataset(broden).plane_names) == 6


def test_labels_may_lack_counts_and_share_a_name(broden: Path) -> None:
    """Categories without a number in brackets, columns in another order; one concept under two numbers."""
    text = "category,name,number\ncolor,black-c,1\nColor,black-c,2\nobject;part,car,9\nobject,-,0\n"
    (broden / "label.csv").write_text(text, encoding="utf-8")
    dataset = BrodenDataset(broden)
    assert [(concept.id, concept.name, concept.category) for concept in dataset.concepts] == [
        (1, "black-c", "color"),
        (2, "car", "object"),
    ]
    np.testing.assert_array_equal(dataset.read(0).planes[0], np.isin(drawn(56, 0, (1, 2, 3)), (1, 2)))


def test_a_change_shows_in_the_fingerprints(broden: Path) -> None:
    def state() -> tuple[str, list[int]]:
        dataset = BrodenDataset(broden)
        return dataset.fingerprint(), [dataset.sample_fingerprint(index) for index in range(len(dataset))]

    whole, samples = state()
    assert state() == (whole, samples)

    def changed(harm: Callable[[], object]) -> list[int]:
        nonlocal whole, samples
        before, old = whole, samples
        harm()
        whole, samples = state()
        assert whole != before
        return [index for index, (one, other) in enumerate(zip(old, samples, strict=True)) if one != other]

    index = broden / "index.csv"
    assert changed(lambda: save(broden / "images/ade20k/00004.jpg", encode(Image.fromarray(photo())))) == [4]
    assert changed(lambda: save(broden / "images/ade20k/00004_part_2.png", encode_rg(drawn(9, 1, (1,))))) == [4]
    assert changed(lambda: index.write_bytes(index.read_bytes().replace(b"1196;1197", b"1197", 1))) == [1]
    assert changed(lambda: (broden / "c_object.csv").unlink()) == list(range(12))


def test_a_number_without_a_name_is_unlabelled_and_counted(broden: Path) -> None:
    numbers = drawn(56, 1, (4, 6, 7, 9))
    numbers[numbers == 4] = 5000
    save(broden / "images/ade20k/00000_object.png", encode_rg(numbers))
    index = broden / "index.csv"
    index.write_bytes(index.read_bytes().replace(b"777", b"99999").replace(b",1196;1197", b",1196;1200"))
    dataset = BrodenDataset(broden)
    for _ in range(2):
        sample = dataset.read(0)
        for position in range(12):
            dataset.read_labels(position)
    np.testing.assert_array_equal(
        sample.planes[1], translated(np.where(numbers == 5000, 0, numbers).astype(np.uint16), ids(dataset))
    )
    assert dataset.unknown_ids() == {"object": {5000: 1}, "scene": {99999: 1}, "texture": {1200: 2}}


def test_it_is_audited_with_an_unreadable_sample(tmp_path: Path) -> None:
    """Concepts, counts and image-level labels of the run are those planted; the broken sample counts nowhere."""
    planted = pictures()
    path = write_broden(tmp_path / "broden", planted)
    save(path / "images/ade20k/00004_part_1.png", np.zeros((56, 56), np.uint8))
    found = run_audit(
        AuditConfig(model="builtin:scenes-cnn", dataset=f"broden:{path}", layers=("block2",), out=tmp_path / "run")
    )
    assert found.unreadable == 1
    samples = found.run.table("samples")
    assert samples["key"].tolist() == [row.name for row in planted]
    assert samples["split"].tolist() == [row.split for row in planted]
    assert samples["status"].tolist() == ["ok"] * 4 + ["error"] + ["ok"] * 7
    assert samples["error"][4].startswith("part map ade20k/00004_part_1.png: a PNG of kind grey")
    concepts = found.run.table("concepts")
    pixels, images = dict.fromkeys(NAMES.values(), 0), dict.fromkeys(NAMES.values(), 0)
    for row in planted[:4] + planted[5:]:
        entries = [entry for cell in row.cells.values() for entry in cell]
        for number, name in NAMES.items():
            here = np.any([np.broadcast_to(np.equal(entry, number), (56, 56)) for entry in entries], axis=0)
            pixels[name] += int(here.sum())
            images[name] += bool(here.any())
    assert dict(zip(concepts["name"], concepts["pixels"], strict=True)) == pixels
    assert dict(zip(concepts["name"], concepts["images"], strict=True)) == images
    assert set(concepts["category"]) == set(CATEGORIES)
    units = found.run.layer_table("block2", "units")
    assert units["threshold"].notna().all()
    assert units["concept"].notna().any()


def test_many_images_are_held_in_little_memory(tmp_path: Path) -> None:
    """What is held is about the bytes of index.csv, and no object an image."""
    path = write_broden(tmp_path, pictures(4))
    lines = (path / "index.csv").read_bytes().splitlines(keepends=True)
    with (path / "index.csv").open("wb") as file:
        file.write(lines[0])
        for number in range(20_000):
            file.write(lines[1 + number % 4].replace(b"/0000", b"/%07d" % number))
    dataset = BrodenDataset(path)
    assert len(dataset) == 20_000
    assert dataset.entry(19_999).key == "pascal/00199993.jpg"
    assert len(pickle.dumps(dataset)) < 2 * (path / "index.csv").stat().st_size
