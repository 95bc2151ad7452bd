"""`cityscapes:PATH`: the Cityscapes street scenes as published, with fine, coarse or both annotations.

    PATH/leftImg8bit/{train,val,test,train_extra}/CITY/CITY_000000_000019_leftImg8bit.png
    PATH/gtFine/{train,val,test}/CITY/CITY_000000_000019_gtFine_labelIds.png               0 ... 33, 8-bit grey
    PATH/gtCoarse/{train,val,train_extra}/CITY/CITY_000000_000019_gtCoarse_labelIds.png

An image has its fine mask, else its coarse one; of each kind *_labelIds.png, else *_labelTrainIds.png (0 ... 18, 255
ignored). The labels of the group void (0 ... 6) are no concepts; so the published masks of the test split, which
hold nothing else, leave it unlabelled. Splits are the folders below leftImg8bit/. See Cordts et al., "The Cityscapes
Dataset for Semantic Urban Scene Understanding", CVPR 2016.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import Concept, Entry, Remark
from microtome.datasets.formats.masked import (
    IdTable,
    MaskedImages,
    MaskFile,
    Meaning,
    file_names,
    tree,
    unique_stems,
)
from microtome.datasets.listing import LeftOut, PathList, looks_like_image, printable
from microtome.storage.errors import UsageError

_NAMES = (
    "road, sidewalk, parking, rail track, building, wall, fence, guard rail, bridge, tunnel, pole, polegroup, "
    "traffic light, traffic sign, vegetation, terrain, sky, person, rider, car, truck, bus, caravan, trailer, train, "
    "motorcycle, bicycle"
)
LABELS = dict(enumerate(_NAMES.split(", "), 7))
"""The published names of the label ids that are no void."""

TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The label id of each train id 0 ... 18."""

VOID = (0, 1, 2, 3, 4, 5, 6, 255)
"""unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground; 255 = -1, license plate."""

_IMAGES = "leftImg8bit"
_ENDING = "_leftImg8bit"
_MASKS = (
    ("gtFine", "_gtFine_labelIds.png"),
    ("gtFine", "_gtFine_labelTrainIds.png"),
    ("gtCoarse", "_gtCoarse_labelIds.png"),
    ("gtCoarse", "_gtCoarse_labelTrainIds.png"),
)
"""Where masks lie and how they end, the better ones first."""
_COARSE, _NONE = 2, len(_MASKS)
_LAYOUT = (
    "expected PATH/leftImg8bit/SPLIT/CITY/CITY_000000_000019_leftImg8bit.png and "
    "PATH/gtFine/SPLIT/CITY/CITY_000000_000019_gtFine_labelIds.png, or the same with gtCoarse"
)


class CityscapesDataset(MaskedImages):
    """An ImageDataset over Cityscapes; see the module for its layout.

    Opening lists the files. Raises UsageError where the layout is not usable. Safe among threads; can be pickled.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        root = Path(os.path.abspath(Path(path).expanduser()))
        _check_layout(root)
        images, self._kinds, remarks = _list_images(root)
        _check_found(root, images, self._kinds)
        super().__init__(f"cityscapes:{os.fspath(path)}", root, images, _meaning(self._kinds), remarks)

    def entry(self, index: int) -> Entry:
        """Key (SPLIT/CITY/CITY_000000_000019) and split of sample `index`; there are no class labels."""
        stem = _stem(self._images[operator.index(index)])
        split, slash, _ = stem.partition("/")
        return Entry(key=printable(stem), split=printable(split) if slash else "")

    def _masks(self, index: int, path: str) -> Sequence[MaskFile]:
        kind = int(self._kinds[index])
        if kind == _NONE:
            return ()
        folder, ending = _MASKS[kind]
        return (MaskFile(0, f"{folder}/{_stem(path)}{ending}", table=kind % 2),)


def _stem(path: str) -> str:
    """SPLIT/CITY/NAME of an image's path, which both its key and its masks have."""
    return os.path.splitext(path)[0].partition("/")[2].removesuffix(_ENDING)


def _check_layout(root: Path) -> None:
    if not root.is_dir():
        raise UsageError(f"cityscapes {root} {'is not a folder' if root.exists() else 'does not exist'}; {_LAYOUT}")
    if (root / _IMAGES).is_dir():
        return
    advice = _LAYOUT
    if root.name in (_IMAGES, "gtFine", "gtCoarse"):
        advice = f"name the folder above it: cityscapes:{root.parent}"
    else:
        inside = sorted(folder.parent for folder in root.glob(f"*/{_IMAGES}") if folder.is_dir())
        if inside:
            advice = f"name the folder that has it: cityscapes:{inside[0]}"
    raise UsageError(f"cityscapes {root} has no folder leftImg8bit/; {advice}")


def _list_images(root: Path) -> tuple[PathList, NDArray[np.uint8], list[Remark]]:
    """Every image by path, which of _MASKS each one has, and what was noticed."""
    images = PathList()
    kinds: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)]
    bare = LeftOut("images without a mask: they are not annotated")
    orphans = LeftOut("masks without an image")
    left_out = LeftOut("images left out: their names do not end in _leftImg8bit")
    for folder, files in tree(root, _IMAGES):
        below = folder.partition("/")[2]
        found = [name for name in files if looks_like_image(name)]
        names = [name for name in found if os.path.splitext(name)[0].endswith(_ENDING)]
        frames = [stem.removesuffix(_ENDING) for stem in unique_stems(root / folder, names)]
        masks = _mask_kinds(root, below)
        which = np.array([masks.get(frame, _NONE) for frame in frames], np.uint8)
        images.append(folder, names)
        kinds.append(which)
        bare.note(below, [frames[at] for at in np.flatnonzero(which == _NONE).tolist()])
        orphans.note(below, sorted(masks.keys() - set(frames)))
        left_out.note(folder, sorted(set(found).difference(names)))
    best = np.concatenate(kinds)
    return images, best, [*bare.remarks(), *_coarse_for_fine(images, best), *orphans.remarks(), *left_out.remarks()]


def _coarse_for_fine(images: PathList, kinds: NDArray[np.uint8]) -> list[Remark]:
    """On images with a coarse mask alone, in splits in which others have a fine one."""
    splits = [_stem(images[index]).partition("/")[0] for index in range(len(images))]
    fine = {splits[index] for index in np.flatnonzero(kinds < _COARSE).tolist()}
    coarse = np.flatnonzero((kinds >= _COARSE) & (kinds != _NONE)).tolist()
    remark = LeftOut("images without a fine mask in a split that has them: their coarse mask is read")
    remark.note("", [_stem(images[index]) for index in coarse if splits[index] in fine])
    return remark.remarks()


def _mask_kinds(root: Path, folder: str) -> dict[str, int]:
    """The masks for the images of one folder: {stem: the best of _MASKS}."""
    kinds: dict[str, int] = {}
    for kind, (where, ending) in enumerate(_MASKS):
        for name in file_names(root / where / folder):
            if name.endswith(ending):
                kinds.setdefault(name.removesuffix(ending), kind)
    return kinds


def _check_found(root: Path, images: PathList, kinds: NDArray[np.uint8]) -> None:
    if not len(images):
        raise UsageError(f"{root / _IMAGES} holds no images called *_leftImg8bit.png; {_LAYOUT}")
    if (kinds == _NONE).all():
        raise UsageError(
            f"no mask in {root} belongs to an image: {images[0]} would have "
            f"gtFine/{_stem(images[0])}_gtFine_labelIds.png; for the images alone name images:{root / _IMAGES}"
        )


def _meaning(kinds: NDArray[np.uint8]) -> Meaning:
    """All labels that are no void; those with a train id alone, where all masks hold train ids."""
    full = bool(((kinds % 2 == 0) & (kinds != _NONE)).any())
    numbers = {label: number for number, label in enumerate(LABELS if full else TRAIN_IDS, 1)}
    concepts = tuple(Concept(number, LABELS[label], "object") for label, number in numbers.items())
    by_train_id = {train_id: numbers[label] for train_id, label in enumerate(TRAIN_IDS)}
    return Meaning(
        concepts,
        ("objects",),
        (IdTable.of(numbers if full else {}, VOID), IdTable.of(by_train_id, (255,))),
        ((0, 1),),
    )
