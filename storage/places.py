"""Where a run lives: a folder on a disk, or a prefix in a bucket, behind one small protocol.

    runs/first            a folder
    s3://BUCKET/PREFIX    Amazon S3 and what speaks its language   (AWS_* in the environment)
    gs://BUCKET/PREFIX    Google Cloud Storage                     (GOOGLE_*)
    az://CONTAINER/PREFIX Azure Blob Storage                       (AZURE_*)
    memory://NAME         this process's memory, for trying things out

Nothing above `storage` opens a run's files. Every write is whole or not at all, so whoever reads finds the old
content or the new, and every operation may be repeated.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from microtome.storage.errors import NotWritableError, OutOfSpaceError, UsageError
from microtome.storage.files import LEFTOVER_SUFFIX, checksum, fsync_file, remove_leftovers, write_bytes

if TYPE_CHECKING:
    from zarr.abc.store import Store

BUCKET_SCHEMES = ("s3", "gs", "az", "memory")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
SWAP_LOCK = ".swap.lock"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}


class Place(Protocol):
    """A folder of files, on a disk or in a bucket. Keys are relative POSIX paths, and no part begins with a dot."""

    @property
    def url(self) -> str:
        """The absolute path, or the URL: what opens this place from any process."""
        ...

    @property
    def path(self) -> Path | None:
        """The folder, as it was given, where the place is one."""
        ...

    def read(self, key: str) -> bytes:
        """The content of `key`. Raises FileNotFoundError where there is none."""
        ...

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The contents of those `keys` that are there; in a bucket many at once."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Make `data` the content of `key`, whole or not at all; durable on return."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write `key` unless it is there already; of all who try, exactly one is told True."""
        ...

    def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Write `new` where the content is still `old`, atomically; False where it is not, or absent."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes of `key`, None where there is none."""
        ...

    def sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """Bytes of those `keys` that are there; in a bucket far quicker than one by one."""
        ...

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """(key, size) of every file below `prefix` ("" or "commits/capture/"), in no promised order."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Delete `keys`; absent ones are fine."""
        ...

    def checksum(self, key: str) -> tuple[int, int]:
        """Size and CRC-32 of the content, read back. Raises FileNotFoundError."""
        ...

    def flush(self, keys: Iterable[str]) -> None:
        """Have what was written through `zarr_store` survive a power cut (in a bucket it does anyway)."""
        ...

    def zarr_store(self, prefix: str) -> Store:
        """What lies below `prefix` as a Zarr store."""
        ...

    def publish(self, folder: Path, prefix: str) -> None:
        """Have the files in `folder` (moved or copied) take the place of everything below `prefix`."""
        ...

    def clean(self) -> int:
        """Delete what killed writers left; returns how many files."""
        ...


def is_url(where: str) -> bool:
    """Whether `where` is a URL (s3://bucket/prefix) rather than a path."""
    return _SCHEME.match(where) is not None


def open_place(where: str | Path | Place) -> Place:
    """The place that a path or URL names; nothing is read or made yet. Raises UsageError for what is neither."""
    if isinstance(where, Path):
        if where.parts and where.parts[0].rstrip(":") in BUCKET_SCHEMES and where.parts[0].endswith(":"):
            raise UsageError(f"{where}: a URL that was made a Path has lost a slash; give it as text")
        return LocalPlace(where)
    if not isinstance(where, str):
        return where
    found = _SCHEME.match(where)
    if found is None:
        return LocalPlace(Path(where))
    scheme = found[1].lower()
    if scheme == "file":
        parts = urlsplit(where)
        if parts.netloc not in ("", "localhost"):
            raise UsageError(f"{where}: a file URL names no host; give file:///{parts.netloc}{parts.path}, or a path")
        return LocalPlace(Path(unquote(parts.path)))
    if scheme not in BUCKET_SCHEMES:
        raise UsageError(f"{where}: a run lives in a folder or at s3://, gs:// or az://, not at {found[0]}")
    from microtome.storage.buckets import BucketPlace

    return BucketPlace(where)


def name_of(place: Place, key: str) -> str:
    """A file of a place, as a user would write it."""
    return f"{place.url}/{key}" if place.path is None else str(place.path / key)


def where_of(text: str) -> Path | str:
    """What a user wrote for a place: a URL as it is, anything else as a path."""
    return text if is_url(text) else Path(text).expanduser()


class LocalPlace:
    """A folder on a disk that this machine mounts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = str(path.absolute())

    def __repr__(self) -> str:
        return f"LocalPlace({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalPlace) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple[type[LocalPlace], tuple[Path]]:
        return LocalPlace, (Path(self.url),)

    def read(self, key: str) -> bytes:
        """The content of `key`."""
        return (self.path / key).read_bytes()

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The contents of those `keys` that are there."""
        found = {}
        for key in keys:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found[key] = self.read(key)
        return found

    def write(self, key: str, data: bytes) -> None:
        """Write to a temporary file, flush it to disk, rename it."""
        with writing_to(self.url):
            write_bytes(self.path / key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write to a temporary file, flush it, and link it to `key`, which fails where that exists."""
        target = self.path / key
        if target.exists():
            return False
        with writing_to(self.url):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=LEFTOVER_SUFFIX, dir=target.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(name, 0o644)
                try:
                    os.link(name, target)
                except FileExistsError:
                    return False
                except PermissionError:  # a file system without links: the next best is not whole, but exclusive
                    return _create_exclusively(target, data)
                return True
            finally:
                Path(name).unlink(missing_ok=True)

    def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Compare and write under a lock that the system lifts when its holder dies."""
        import fcntl

        if self.size(key) is None:
            return False
        with writing_to(self.url), (self.path / SWAP_LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                if self.read(key) != old:
                    return False
            except FileNotFoundError:
                return False
            self.write(key, new)
            return True

    def size(self, key: str) -> int | None:
        """Bytes of `key`, None where there is none."""
        target = self.path / key
        try:
            return target.stat().st_size if target.is_file() else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """Bytes of those `keys` that are there."""
        return {key: size for key in keys if (size := self.size(key)) is not None}

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """(key, size) of every file below `prefix`; what is hidden or half written is passed over."""
        root = str(self.path)
        for folder, folders, names in os.walk(os.path.join(root, prefix) if prefix else root):
            folders[:] = sorted(name for name in folders if not _is_internal(name))
            for name in sorted(names):
                if not _is_internal(name):
                    file = os.path.join(folder, name)
                    with contextlib.suppress(FileNotFoundError):  # gone since the folder was listed
                        yield Path(os.path.relpath(file, root)).as_posix(), os.stat(file).st_size

    def delete(self, keys: Iterable[str]) -> None:
        """Delete `keys`; absent ones are fine."""
        with writing_to(self.url):
            for key in keys:
                with contextlib.suppress(NotADirectoryError):
                    (self.path / key).unlink(missing_ok=True)

    def checksum(self, key: str) -> tuple[int, int]:
        """Size and CRC-32, read back from disk."""
        return checksum(self.path / key)

    def flush(self, keys: Iterable[str]) -> None:
        """Force the files `keys` onto the disk."""
        with writing_to(self.url):
            for key in keys:
                fsync_file(self.path / key)

    def zarr_store(self, prefix: str) -> Store:
        """Zarr's own local store."""
        from zarr.storage import LocalStore

        return LocalStore(self.path / prefix)

    def publish(self, folder: Path, prefix: str) -> None:
        """Swap `folder` for what is there by two renames; `folder` is gone afterwards."""
        final = self.path / prefix
        new, old = final.with_name(final.name + LEFTOVER_SUFFIX), final.with_name(final.name + ".old")
        with writing_to(self.url):
            final.parent.mkdir(parents=True, exist_ok=True)
            if folder != new:
                shutil.rmtree(new, ignore_errors=True)
                shutil.move(folder, new)
            shutil.rmtree(old, ignore_errors=True)
            if final.exists():
                final.rename(old)
            new.rename(final)
            shutil.rmtree(old, ignore_errors=True)

    def clean(self) -> int:
        """Delete temporary files of killed writers."""
        return remove_leftovers(self.path)


@contextlib.contextmanager
def writing_to(where: str) -> Iterator[None]:
    """A full disk or quota inside becomes an OutOfSpaceError that names `where`, a closed one a NotWritableError."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else ""
        if error.errno in _FULL:
            raise out_of_space(where, why) from error
        if error.errno in _CLOSED:
            raise NotWritableError(
                f"{where} cannot be written to ({why}); what is there is as it was: make it writable for this user, "
                "or give another place"
            ) from error
        raise


def out_of_space(where: str, why: str) -> OutOfSpaceError:
    """The error for a full place."""
    return OutOfSpaceError(
        f"{where} is full ({why}); what is committed is safe: make room and run the same command again"
    )


def _create_exclusively(target: Path, data: bytes) -> bool:
    try:
        with target.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    return True


def _is_internal(name: str) -> bool:
    return name.startswith(".") or name.endswith(LEFTOVER_SUFFIX)
