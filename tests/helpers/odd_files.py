"""What may stand where a file is due: links to themselves, and pipes, on which a reader would wait forever."""

from __future__ import annotations

import os
from pathlib import Path


def link_to_itself(path: Path) -> Path:
    """Put a link to itself in the place of `path`, which may exist."""
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)
    return path


def pipe(path: Path) -> Path:
    """Put a pipe that nobody writes to in the place of `path`, which may exist."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path
