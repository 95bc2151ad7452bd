"""VOCdevkit, Pascal-Context and Pascal-Part as they are published, with labels to be recomputed from the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from helpers.images import photo, regions, save
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

HEIGHT, WIDTH = 24, 32
TRAIN, VAL = ("2007_000032", "2007_000039", "2008_000008"), ("2007_000033", "2008_000002")
CONTEXT_LABELS = "1: accordion\n2: aeroplane\n31: unknown\n44: bird\n360: sky\n"
CONTEXT_NUMBERS = np.array([0, 1, 2, 31, 44, 360, 0], np.uint16)

Parts = Sequence[tuple[str, Sequence[tuple[str, NDArray[np.bool_]]]]]


def palette(count: int = 256) -> bytes:
    """VOC's palette by the published recipe, one bit at a time."""
    colours = []
    for number in range(count):
        red = green = blue = 0
        left = number
        for shift in range(7, -1, -1):
            red |= (left & 1) << shift
            green |= (left >> 1 & 1) << shift
            blue |= (left >> 2 & 1) << shift
            left >>= 3
        colours += [red, green, blue]
    return bytes(colours)


def indexed(numbers: NDArray[np.integer], colours: bytes = b"") -> Image.Image:
    """A mask as VOC publishes it: an indexed image with VOC's palette, or with the one given."""
    image = Image.fromarray(numbers.astype(np.uint8), "L").convert("L")
    found = Image.frombytes("P", image.size, image.tobytes())
    found.putpalette(colours or palette())
    return found


def object_numbers(name: str) -> NDArray[np.uint16]:
    """What SegmentationClass/NAME.png holds: some of the classes, with borders."""
    chosen = np.array([0, 1, 3, 7, 15, 20, 255], np.uint16)
    return chosen[regions(HEIGHT, WIDTH, _seed(name))]


def context_numbers(name: str) -> NDArray[np.uint16]:
    """What trainval/NAME.mat of Pascal-Context holds."""
    return CONTEXT_NUMBERS[regions(HEIGHT, WIDTH, _seed(name) + 1)]


def planted_parts() -> Parts:
    """Two cars and a person whose parts overlap, and a bird without parts."""

    def box(top: int, left: int, bottom: int, right: int) -> NDArray[np.bool_]:
        mask = np.zeros((HEIGHT, WIDTH), np.bool_)
        mask[top:bottom, left:right] = True
        return mask

    return (
        ("car", (("wheel_1", box(2, 2, 4, 4)), ("frontside", box(0, 0, 10, 10)), ("wheel_2", box(2, 6, 4, 8)))),
        ("person", (("lear", box(5, 8, 8, 12)), ("head", box(4, 6, 14, 20)))),
        ("car", (("wheel_1", box(20, 20, 24, 24)),)),
        ("bird", ()),
    )


def voc(root: Path, *, train: Sequence[str] = TRAIN, val: Sequence[str] = VAL) -> Path:
    """VOCdevkit/VOC2012 below `root`, without Context and Part; returns the path of the year."""
    year = root / "VOCdevkit" / "VOC2012"
    for number, name in enumerate((*train, *val)):
        save(year / "JPEGImages" / f"{name}.jpg", photo(HEIGHT, WIDTH, number))
        save(year / "SegmentationClass" / f"{name}.png", indexed(object_numbers(name)))
    write_list(year, "train", train)
    write_list(year, "val", val)
    write_list(year, "trainval", sorted((*train, *val)))
    return year


def write_list(year: Path, split: str, names: Sequence[str], *, task: str = "Segmentation") -> None:
    folder = year / "ImageSets" / task
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def add_context(year: Path, names: Sequence[str]) -> None:
    """trainval/NAME.mat and labels.txt, as trainval.tar.gz of Pascal-Context unpacks."""
    (year / "trainval").mkdir(exist_ok=True)
    (year / "labels.txt").write_text(CONTEXT_LABELS)
    for name in names:
        write_mat(year / "trainval" / f"{name}.mat", {"LabelMap": context_numbers(name)})


def add_parts(year: Path, parts: Mapping[str, Parts], *, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """Annotations_Part/NAME.mat for some images."""
    for name, found in parts.items():
        (year / "Annotations_Part").mkdir(exist_ok=True)
        write_mat(year / "Annotations_Part" / f"{name}.mat", {"anno": anno(name, found, shape)})


def anno(name: str, things: Parts, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> NDArray[np.void]:
    """The struct `anno` as MATLAB saves it: 1x1, in it objects 1xN, in these parts 1xM, or an empty matrix."""
    objects = [
        (
            kind,
            1 + number,
            np.ones(shape, np.uint8),
            _struct(("part_name", "mask"), [(part, mask.astype(np.uint8)) for part, mask in parts]),
        )
        for number, (kind, parts) in enumerate(things)
    ]
    return _struct(("imname", "objects"), [(name, _struct(("class", "class_ind", "mask", "parts"), objects))])


def write_mat(path: Path, variables: Mapping[str, NDArray[np.generic]]) -> None:
    savemat(path, dict(variables), do_compression=True)


def _struct(fields: Sequence[str], rows: Sequence[tuple[object, ...]]) -> NDArray[np.void]:
    if not rows:
        return np.zeros((0, 0))  # type: ignore[return-value]
    made = np.zeros((1, len(rows)), dtype=[(name, object) for name in fields])
    for place, row in enumerate(rows):
        made[0, place] = row
    return made


def _seed(name: str) -> int:
    return int(name.replace("_", "")) % 1000
