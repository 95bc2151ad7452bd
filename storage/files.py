"""Small local files, written so that a reader finds the old content or the new, never half of either."""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

from microtome.storage.errors import UsageError

LEFTOVER_SUFFIX = ".partial"


class Written(NamedTuple):
    """A file that was written: its key within the run, size in bytes and CRC-32, as a commit vouches for it."""

    key: str
    size: int
    crc: int


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file beside `path`, flush it to disk, and rename it over `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=LEFTOVER_SUFFIX, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_asked(path: Path, data: bytes, advice: str = "give another --out") -> None:
    """`write_bytes` where somebody asked for it. Raises UsageError, which ends in `advice`, where that cannot be."""
    try:
        write_bytes(path, data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror or error}); {advice}") from error


def folder_asked(path: Path) -> None:
    """Make the folder `path` where it is not there. Raises UsageError where it cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {path} is no folder ({error.strerror or error}); give another") from error


def json_bytes(value: object) -> bytes:
    """`value` as indented JSON, keys in their given order. Raises ValueError for NaN, TypeError for no JSON."""
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def fsync_file(path: Path) -> None:
    """Force what was written to `path` onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checksum(path: Path) -> tuple[int, int]:
    """Size in bytes and CRC-32 of the file `path`, read in blocks of 1 MiB."""
    size, crc = 0, 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            crc = zlib.crc32(block, crc)
    return size, crc


def remove_leftovers(folder: Path) -> int:
    """Delete temporary files that a killed writer left anywhere below `folder`; returns how many."""
    found = [path for path in folder.rglob(f"*{LEFTOVER_SUFFIX}") if path.is_file()]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)
