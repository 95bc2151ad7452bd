"""Tar shards as WebDataset's writers make them: `street_shards` writes a small dataset, `write_tar` any members."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from helpers.images import encode, photo, regions
from PIL import Image

CLASSES = "index,name,category,plane\n1,car,object,seg\n2,tree,object,\n3,house,object,seg\n1,wheel,part,parts\n"
"""Numbers 4, 5 and 6 of plane seg are not listed, nor are 3 and above of plane parts."""

Members = Iterable[tuple[str, bytes]]


def write_tar(path: Path, members: Members, *, form: int = tarfile.PAX_FORMAT, **options: str) -> Path:
    """A plain tar with these (name, content), all of mode 644 and time 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form, **options) as tar:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def png(pixels: np.ndarray | Image.Image) -> bytes:
    """The bytes of a PNG."""
    return encode(pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels))


def planted(number: int, height: int = 24, width: int = 32) -> dict[str, np.ndarray]:
    """What street_shards writes for sample `number`: its image and the numbers of its masks."""
    found = {"image": photo(height, width, number), "seg": regions(height, width, number)}
    if number % 2:
        found["parts"] = regions(height, width, number + 99, ids=4)
    return found


def street_members(numbers: Iterable[int], *size: int) -> list[tuple[str, bytes]]:
    """The members of these samples: image, masks (parts for odd numbers alone), class, and things to leave alone."""
    members = []
    for number in numbers:
        content = planted(number, *size)
        key = f"{number:06}"
        members.append((f"{key}.png", png(content["image"])))
        members.append((f"{key}.seg.png", png(content["seg"].astype(np.uint8))))
        if "parts" in content:
            members.append((f"{key}.parts.png", png(content["parts"].astype(np.uint8))))
        members += [(f"{key}.cls", str(number % 3).encode()), (f"{key}.json", b"{}"), (f"{key}.txt", b"a street")]
    return members


def street_shards(root: Path, *, form: int = tarfile.PAX_FORMAT, size: tuple[int, int] = (24, 32)) -> Path:
    """Splits train (samples 0 to 2 and 3 to 5 in two tars) and val (6 to 8), classes.csv and classes.txt."""
    for name, first in (("train/street-000000", 0), ("train/street-000001", 3), ("val/street-000000", 6)):
        write_tar(root / f"{name}.tar", street_members(range(first, first + 3), *size), form=form)
    (root / "classes.csv").write_text(CLASSES)
    (root / "classes.txt").write_text("town\nvillage\ncountry road\n")
    return root
