"""Which tar files a `webdataset:` path names, and the split of each.

    PATH/NAME.tar, PATH/SPLIT/NAME.tar       a folder: every .tar in it; the first folder below PATH is the split
    PATH/NAME.tar                            one tar
    PATH/NAME-{000..099}.tar, PATH/*.tar     a pattern: ranges {a..b}, alternatives {a,b}, wildcards * ? [...] **

In a pattern, PATH is what stands before the first folder or name with a pattern in it; splits are the folders below.
"""

from __future__ import annotations

import glob
import itertools
import math
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from microtome.datasets.listing import printable, walk_names
from microtome.storage.errors import UsageError

MOST_TARS = 1_000_000
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.lz4")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_LAYOUT = "expected a folder of .tar files, one .tar, or a pattern such as shards-{000..099}.tar"


@dataclass(frozen=True, slots=True)
class Shards:
    """The tars of a dataset in the order of their names.

    names: paths below `root`; states: (size in bytes, modification time in ns) of each when it was found
    """

    root: Path
    names: tuple[str, ...]
    states: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.names)

    def path(self, tar: int) -> str:
        """Where tar number `tar` is."""
        return os.path.join(self.root, self.names[tar])

    def split(self, tar: int) -> str:
        """The folder directly below the root that the tar lies in, "" where it lies in none."""
        folder, slash, _ = self.names[tar].partition("/")
        return folder if slash else ""


def find_shards(path: str) -> Shards:
    """The tars that `path` names. Raises UsageError where there are none, some are missing or are compressed."""
    if re.match(r"pipe:|[a-z0-9]+://", path):
        raise UsageError(f"webdataset {path!r} is not a path; tars are read at random and have to be files: {_LAYOUT}")
    text = os.path.expanduser(path)
    full = Path(os.path.abspath(text))
    try:
        if os.path.isdir(text):
            return _shards(full, [os.path.join(folder, name) for folder, names in walk_names(full) for name in names])
        if os.path.isfile(text):
            return _shards(full.parent, [full.name], single=True)
        if re.search(r"[{*?\[]", text):
            root = Path(os.path.abspath(os.path.dirname(re.split(r"[{*?\[]", text)[0])))
            return _shards(root, sorted(_matches(text, root)))
    except OSError as error:
        raise UsageError(f"webdataset {full} cannot be listed: {error.strerror} ({error.filename})") from error
    raise UsageError(f"webdataset {full} does not exist; {_LAYOUT}")


def expand_braces(pattern: str) -> list[str]:
    """Every name that a pattern with {000..099} and {a,b} stands for. Raises UsageError for other braces."""
    parts = _BRACES.split(pattern)  # text, inside of braces, text, ...
    if any("{" in text or "}" in text for text in parts[::2]):
        raise UsageError(f"webdataset {pattern!r}: braces within braces, or one without its other")
    choices = [_choices(part, pattern) if number % 2 else [part] for number, part in enumerate(parts)]
    _check_count(math.prod(map(len, choices)), pattern)
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def _choices(inside: str, pattern: str) -> list[str]:
    found = _RANGE.fullmatch(inside)
    if found is None:
        if "," in inside:
            return inside.split(",")
        raise UsageError(
            f"webdataset {pattern!r}: {{{inside}}} is neither a range such as {{000..099}} nor alternatives {{a,b}}"
        )
    first, last = found.groups()
    width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
    low, high = sorted((int(first), int(last)))
    _check_count(high - low + 1, pattern)
    return [f"{number:0{width}}" for number in range(low, high + 1)]


def _check_count(count: int, pattern: str) -> None:
    if count > MOST_TARS:
        raise UsageError(f"webdataset {pattern!r} stands for {count:,} tars; at most {MOST_TARS:,} are possible")


def _matches(pattern: str, root: Path) -> set[str]:
    """Paths below `root` of the files that a pattern names; those that it names without wildcards have to exist."""
    found: set[str] = set()
    missing = []
    for name in expand_braces(pattern):
        files = [match for match in glob.glob(name, recursive=True) if os.path.isfile(match)]
        if not files:
            missing.append(name)
        found.update(os.path.relpath(match, root) for match in files)
    if missing:
        more = f" and {len(missing) - 1} more of the pattern" if len(missing) > 1 else ""
        raise UsageError(f"webdataset {pattern!r}: there is no {missing[0]}{more}; name only tars that exist")
    outside = next((name for name in sorted(found) if name.startswith("../")), None)
    if outside is not None:
        raise UsageError(f"webdataset {pattern!r}: {outside} lies outside of {root}; write the pattern without '..'")
    return found


def _shards(root: Path, files: list[str], *, single: bool = False) -> Shards:
    """The tars among `files`, which are paths below `root` in their order."""
    compressed = [name for name in files if name.lower().endswith(_COMPRESSED)]
    if compressed:
        raise UsageError(
            f"{root / printable(compressed[0])} is compressed ({len(compressed)} such here), and the samples of a "
            "compressed tar cannot be read at random; unpack it to a plain .tar, or move it away"
        )
    names = tuple(files if single else [name for name in files if name.endswith(".tar")])
    if not names:
        raise UsageError(f"webdataset {root} holds no .tar; {_LAYOUT}")
    states = [os.stat(os.path.join(root, name)) for name in names]
    for name, state in zip(names, states, strict=True):
        if not stat.S_ISREG(state.st_mode):
            raise UsageError(f"{root / printable(name)} is not a regular file; samples of a tar are read at random")
    return Shards(root, names, tuple((state.st_size, state.st_mtime_ns) for state in states))
