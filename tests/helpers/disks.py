"""A small disk that is really full: a file system of its own in a mount namespace of its own.

Nobody else sees the mount, and it is gone with the process that holds it, whatever becomes of the tests. As root it
is ext4 on a loop device; otherwise, where the system lets users have namespaces, a tmpfs of that size.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_EXT4 = "truncate -s {size} {image} && mkfs.ext4 -q -O ^has_journal -b 1024 -m 0 {image} && mount -o loop {image} {at}"
_TMPFS = "mount -t tmpfs -o size={size} tmpfs {at}"
_WAYS = (
    ("ext4 on a loop device", ["unshare", "--mount"], _EXT4),
    ("tmpfs", ["unshare", "--mount"], _TMPFS),
    ("tmpfs", ["unshare", "--mount", "--user", "--map-root-user"], _TMPFS),
)


class SmallDisk:
    """A file system of few bytes at `path`; `kind` says what it is."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind
        self._filler = path / "filler"

    @property
    def free(self) -> int:
        """Bytes that may still be written."""
        state = os.statvfs(self.path)
        return state.f_bavail * state.f_frsize

    def leave(self, count: int) -> None:
        """Fill it so that about `count` bytes are free."""
        self.make_room()
        with self._filler.open("wb", buffering=0) as filler:
            os.posix_fallocate(filler.fileno(), 0, max(1, self.free - max(count, 4096)))

    def make_room(self) -> None:
        """Delete what filled it."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk | None]:
    """A disk of `size` bytes; None where this system lets nobody mount one."""
    folder.mkdir(parents=True)
    for kind, unshare, mount in _WAYS:
        command = mount.format(size=size, image=folder / "image", at=folder)
        held = subprocess.Popen(
            [*unshare, "sh", "-c", f"({command}) >&2 && echo mounted && read _"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert held.stdout is not None
        try:
            if held.stdout.readline():
                yield SmallDisk(Path(f"/proc/{held.pid}/root{folder.absolute()}"), kind)
                return
        finally:
            held.communicate()
    yield None
