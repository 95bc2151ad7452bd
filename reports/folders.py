"""Folders for pages that stand alone: made where there is none, replaced part by part where there is an older page."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from microtome.storage.errors import UsageError

_BUILDING = ".building-"


def claim_folder(folder: Path, ours: Sequence[str]) -> Path:
    """Make sure that a page, whose files and folders are `ours`, may be written to `folder`, and make that folder.

    Raises UsageError where it holds anything but an older page, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise UsageError(f"{folder} cannot be a folder for the page: {error.strerror}; name another one") from error
    others = [name for name in names if name not in ours and not name.startswith(_BUILDING)]
    if others:
        raise UsageError(f"{folder} holds other things ({others[0]}, ...); name a new or empty folder for the page")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder} may not be written to; name another folder for the page")
    return folder


@contextmanager
def building_in(folder: Path, ours: Sequence[str]) -> Iterator[Path]:
    """An empty folder to build a page in; at the end its parts, `ours`, take the place of those in `folder`.

    The older page stays where building fails. Raises UsageError as `claim_folder` does.
    """
    claim_folder(folder, ours)
    for left_over in folder.glob(f"{_BUILDING}*"):
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(prefix=_BUILDING, dir=folder) as name:
        building = Path(name)
        yield building
        for part in ours:
            if (folder / part).is_dir():
                shutil.rmtree(folder / part)
            if (building / part).exists():
                os.replace(building / part, folder / part)
            else:
                (folder / part).unlink(missing_ok=True)
