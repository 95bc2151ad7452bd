"""Where the members of a tar lie, from its headers alone: ustar, GNU and pax archives, and those before them.

The layout of the headers is that of POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block", with GNU
tar's long names (types L and K) and its numbers in base 256. Nothing is ever unpacked: names are keys, not paths.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from microtome.datasets.listing import printable
from microtome.storage.errors import UsageError

BLOCK = 512
_WINDOW = 8192
_LONGEST_EXTENSION = 1 << 20
_LARGEST = (1 << 63) - 1
_LONGEST_SHOWN = 30
_ZEROS = bytes(BLOCK)
_SPACES = 8 * ord(" ")
_FILES = (b"0", b"\0", b"7")
_LINKS = (b"1", b"2")
_EXTENSIONS = (b"x", b"X", b"g", b"L", b"K")
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")
_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}

Member = tuple[bytes, int, int]
"""Name, offset of the content in the tar, size of the content, all as the headers say; the tar may end before."""


class _DamagedError(Exception):
    """The archive cannot be followed beyond this point; the text says why."""


class TarScan:
    """Goes once through the headers of an open tar.

    Iterating gives the regular files in their order. Afterwards: `damage` says where and why the scan stopped early
    ("" for a whole tar, which ends in two blocks of zeros, or in one at its very end), `links` are the names of links,
    whose content lies elsewhere, and `trailing` says whether there is anything behind the end mark.
    """

    def __init__(self, descriptor: int, size: int, path: str) -> None:
        self.damage = ""
        self.links: list[bytes] = []
        self.trailing = False
        self._descriptor = descriptor
        self._size = size
        self._path = path
        self._window = b""
        self._start = 0

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the tar, fewer where it ends before."""
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._window):
            self._window = os.pread(self._descriptor, max(size, _WINDOW), offset)
            self._start, begin = offset, 0
        return self._window[begin : begin + size]

    def __iter__(self) -> Iterator[Member]:
        """The regular files. Raises UsageError where this is no tar, or one with sparse members."""
        try:
            yield from self._members()
        except _DamagedError as error:
            self.damage = str(error)

    def _members(self) -> Iterator[Member]:
        at = 0
        name, size_in_pax = b"", -1
        while (header := self._header(at)) != _ZEROS:
            kind, size = header[156:157], _number(header[124:136], at)
            data = at + BLOCK
            if kind in _EXTENSIONS:
                name, size_in_pax = self._extension(kind, data, size, name, size_in_pax)
                at = data + _padded(size)
                continue
            size = size_in_pax if size_in_pax >= 0 else size
            name = name or _name(header)
            if kind == b"S":
                self._refuse_sparse(name)
            end = data if kind in _WITHOUT_DATA else data + _padded(size)
            if kind in _LINKS:
                self.links.append(name)
            elif kind in _FILES and not name.endswith(b"/"):
                yield name, data, size
            if data + size > self._size and end > data:
                raise _DamagedError(f"{self._cut()}, before the end of {_text(name)} at byte {data + size:,}")
            at, name, size_in_pax = end, b"", -1
        behind = os.pread(self._descriptor, 64 * BLOCK, at)
        if any(behind[BLOCK : 2 * BLOCK]):
            raise _DamagedError(f"is damaged at byte {at:,}: one block of zeros, where a header or two should be")
        self.trailing = behind.count(0) < len(behind)

    def _header(self, at: int) -> bytes:
        header = self.read(at, BLOCK)
        if len(header) < BLOCK:
            expected = "a header or the two blocks of zeros that end a tar"
            raise _DamagedError(f"{self._cut()}, where {expected} should be")
        if header != _ZEROS and not _is_header(header):
            if at:
                raise _DamagedError(f"is damaged at byte {at:,}, where a header should be")
            self._refuse(header)
        return header

    def _extension(self, kind: bytes, data: int, size: int, name: bytes, size_in_pax: int) -> tuple[bytes, int]:
        """Name and size ("" and -1: not said) that an extended header gives to the member after it."""
        if size > _LONGEST_EXTENSION:
            raise _DamagedError(f"is damaged at byte {data:,}: an extended header of {size:,} bytes")
        content = self.read(data, size)
        if len(content) < size:
            raise _DamagedError(f"{self._cut()}, in an extended header that goes to byte {data + size:,}")
        if kind == b"L":
            return content.partition(b"\0")[0], size_in_pax
        if kind not in (b"x", b"X"):
            return name, size_in_pax
        records = _pax_records(content, data)
        name = records.get(b"path", name)
        if any(record.startswith(b"GNU.sparse.") for record in records):
            self._refuse_sparse(records.get(b"GNU.sparse.name", name))
        return name, _decimal(records.get(b"size"), data)

    def _cut(self) -> str:
        return f"is cut short at byte {self._size:,}"

    def _refuse(self, header: bytes) -> None:
        form = next((form for magic, form in _COMPRESSIONS.items() if header.startswith(magic)), "")
        if form:
            raise UsageError(
                f"{self._path} is compressed with {form}, and its samples cannot be read at random; unpack it to a "
                "plain .tar"
            )
        raise UsageError(f"{self._path} is no tar: it does not begin with a tar header; expected a plain .tar")

    def _refuse_sparse(self, name: bytes) -> None:
        raise UsageError(
            f"{self._path} holds {_text(name)} as a sparse file, whose content does not lie in one piece; write the "
            "tar without --sparse"
        )


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _text(name: bytes) -> str:
    return printable(os.fsdecode(name))


def _is_header(block: bytes) -> bool:
    """Whether the checksum is right; some old tars summed signed bytes."""
    try:
        stored = int(block[148:156].split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return False
    unsigned = sum(block) - sum(block[148:156]) + _SPACES
    if stored == unsigned:
        return True
    high = sum(byte > 127 for byte in block[:148] + block[156:])
    return high > 0 and stored == unsigned - 256 * high


def _number(field: bytes, at: int) -> int:
    try:
        number = int.from_bytes(field[1:]) if field[0] == 0x80 else int(field.split(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        number = -1
    return _size(number, field, at)


def _decimal(field: bytes | None, at: int) -> int:
    if field is None:
        return -1
    short = field.isdigit() and len(field) <= len(str(_LARGEST))  # int() refuses numbers of thousands of digits
    return _size(int(field) if short else -1, field, at)


def _size(number: int, field: bytes, at: int) -> int:
    """`number`, which `field` says. Raises _DamagedError where no file has such a size."""
    if 0 <= number <= _LARGEST:
        return number
    raise _DamagedError(f"is damaged at byte {at:,}: the size of a member is {_text(field[:_LONGEST_SHOWN])!r}")


def _name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        return header[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _pax_records(content: bytes, at: int) -> dict[bytes, bytes]:
    """The records "LENGTH KEY=VALUE\\n" of a pax header."""
    records = {}
    position = 0
    while position < len(content) and content[position]:
        length, space, _ = content[position : position + 20].partition(b" ")
        end = position + int(length) if length.isdigit() else 0
        key, equals, value = content[position + len(length) + 1 : end - 1].partition(b"=")
        if not (space and equals and end <= len(content)):
            raise _DamagedError(f"is damaged at byte {at:,}: a pax header that cannot be read")
        records[key] = value
        position = end
    return records
