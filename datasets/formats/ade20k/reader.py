"""`ade20k:PATH`: ADE20K as published, either release; see `parsing` and `full` for their layouts.

    ADEChallengeData2016       the scene parsing benchmark: 150 object classes, scenes
    ADE20K_2021_17_01          the full release: 3,000 object classes, parts and parts of parts, scenes

PATH is the release's folder, or the folder that holds it. See Zhou et al., "Semantic Understanding of Scenes through
the ADE20K Dataset", IJCV 2019.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from microtome.datasets.formats.ade20k.full import Ade20kFullDataset
from microtome.datasets.formats.ade20k.parsing import Ade20kParsingDataset
from microtome.datasets.listing import is_folder, is_junk
from microtome.storage.errors import UsageError

Ade20k = Ade20kFullDataset | Ade20kParsingDataset

_LAYOUT = (
    "expected ADEChallengeData2016 (images/, annotations/ and objectInfo150.txt) or ADE20K_2021_17_01 (images/ADE/)"
)


def open_ade20k(path: str | os.PathLike[str]) -> Ade20k:
    """The dataset at `path`, of whichever release lies there. Raises UsageError where neither does."""
    spec = f"ade20k:{os.fspath(path)}"
    root = Path(os.path.abspath(Path(path).expanduser()))
    if not root.is_dir():
        raise UsageError(f"ade20k {root} {'is not a folder' if root.exists() else 'does not exist'}; {_LAYOUT}")
    release = _release(root)
    if release:
        return release(root, spec)
    try:
        folders = sorted(e.path for e in os.scandir(root) if is_folder(e) and not is_junk(e.name))
    except OSError as error:
        raise UsageError(f"{root} cannot be listed: {error.strerror}") from error
    found = [(Path(folder), release) for folder in folders if (release := _release(Path(folder)))]
    if len(found) > 1:
        choices = " or ".join(f"ade20k:{folder}" for folder, _ in found)
        raise UsageError(f"ade20k {root} holds several releases; name one of them: {choices}")
    if not found:
        raise UsageError(f"ade20k {root} is no release of ADE20K; {_advice(root)}")
    folder, release = found[0]
    return release(folder, spec)


def _release(root: Path) -> Callable[[Path, str], Ade20k] | None:
    """Which release lies at `root`."""
    if (root / "images" / "ADE").is_dir():
        return Ade20kFullDataset
    parsing = (root / "objectInfo150.txt", root / "annotations/training", root / "annotations/validation")
    if any(path.exists() for path in parsing):
        return Ade20kParsingDataset
    return None


def _advice(root: Path) -> str:
    if (root / "index_ade20k.mat").exists():
        return (
            "this looks like the full release of 2016 (names in *_atr.txt), which is not read; get the release of "
            "2021, ADE20K_2021_17_01, which has the same images"
        )
    above = next((parent for parent in list(root.parents)[:3] if _release(parent)), None)
    return f"name the folder above it: ade20k:{above}" if above else _LAYOUT
