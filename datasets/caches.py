"""Where what was found out about a dataset is kept from one start to the next: indexes that take long to build.

`$MICROTOME_CACHE`, else `~/.cache/microtome`. Everything there may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def cache_folder() -> Path:
    """The folder of all caches; it may not exist yet."""
    chosen = os.environ.get("MICROTOME_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "microtome"


def cached(kind: str, state: str, suffix: str, make: Callable[[Path], None]) -> Path:
    """The cached file for `state`, a text that says all that it depends on; `make(path)` writes it the first time.

    Written beside its place and renamed, so that nobody sees half of it. Where the cache cannot be written the file
    goes to a temporary folder, for this process alone.
    """
    name = f"{kind}-{hashlib.blake2b(state.encode('utf-8', 'surrogateescape'), digest_size=16).hexdigest()}{suffix}"
    path = cache_folder() / name
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{kind}-", suffix=suffix, dir=path.parent)
    except OSError:
        path = Path(tempfile.mkdtemp(prefix="microtome-")) / name
        handle, partial = tempfile.mkstemp(prefix=f".{kind}-", suffix=suffix, dir=path.parent)
    os.close(handle)
    try:
        make(Path(partial))
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise
    return path
