"""MATLAB files (version 5 to 7.2, little-endian) as label data sets publish them: numbers, texts and structs.

The layout is that of MathWorks' "MAT-File Format". Written here because what reads such files elsewhere can bring down
the process on a damaged one; here every length is checked, nothing but data is understood, and what is not asked for
is not decoded.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.listing import read_bytes
from microtome.storage.errors import SampleError

_HEADER = 128
_LARGEST = 1 << 30
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "utf-8", 2: "utf-8", 16: "utf-8", 4: "utf-16-le", 17: "utf-16-le", 18: "utf-32-le"}
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _CHAR = 2, 4
_NUMERIC = range(6, 16)
_COMPLEX = 0x0800


class Matrix:
    """One array of a MATLAB file, decoded when it is asked for. All methods raise ValueError for what is not there.

    name: of the variable, "" inside of structs; shape: (rows, columns, ...)
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.name, self.shape, self._kind, self._at = "", (0, 0), _NUMERIC[0], 0
        if len(data):
            _, flags, at = _element(data, 0)
            _, dimensions, at = _element(data, at)
            _, name, self._at = _element(data, at)
            word = int.from_bytes(flags[:4], "little")
            self._kind, self._complex = word & 0xFF, bool(word & _COMPLEX)
            self.shape = tuple(np.frombuffer(dimensions, "<i4").tolist())
            self.name = bytes(name).decode("ascii", "replace")
        if len(self.shape) < 2 or min(self.shape) < 0:
            raise ValueError("an array with wrong dimensions")

    def numbers(self) -> NDArray[np.generic]:
        """The numbers, in the type in which they are stored."""
        if self._kind not in _NUMERIC or self._complex:
            raise ValueError("no array of numbers")
        kind, payload, _ = _element(self._data, self._at)
        if kind not in _NUMBERS:
            raise ValueError("numbers of an unknown type")
        values = np.frombuffer(payload, f"<{_NUMBERS[kind]}")
        if values.size != math.prod(self.shape):
            raise ValueError(f"{values.size} numbers where {'x'.join(map(str, self.shape))} were expected")
        return values.reshape(self.shape, order="F")

    def text(self) -> str:
        """The text of one row of characters."""
        if self._kind != _CHAR or math.prod(self.shape) != self.shape[1]:
            raise ValueError("no text")
        kind, payload, _ = _element(self._data, self._at)
        if kind not in _TEXTS:
            raise ValueError("a text of an unknown type")
        return bytes(payload).decode(_TEXTS[kind])

    def records(self) -> Iterator[dict[str, Matrix]]:
        """The structs of an array of structs, by field; none for an empty matrix."""
        if self._kind != _STRUCT:
            if math.prod(self.shape):
                raise ValueError("no structs")
            return
        _, length, at = _element(self._data, self._at)
        _, text, at = _element(self._data, at)
        width = max(1, int.from_bytes(length, "little"))
        raw = bytes(text)
        names = [raw[i : i + width].split(b"\0")[0].decode("ascii", "replace") for i in range(0, len(raw), width)]
        for _ in range(math.prod(self.shape) if names else 0):
            record = {}
            for name in names:
                kind, payload, at = _element(self._data, at)
                if kind != _MATRIX:
                    raise ValueError("a field that is no array")
                record[name] = Matrix(payload)
            yield record


def load_variable(path: Path, name: str, key: str) -> Matrix:
    """The variable `name` of a MATLAB file.

    Raises SampleError for `key` where the file is missing, damaged, of another version or has no such variable.
    """
    try:
        found = _find(read_bytes(path), name)
    except FileNotFoundError as error:
        raise SampleError(key, "the file is missing") from error
    except (OSError, ValueError, zlib.error) as error:
        text = (error.strerror or "") if isinstance(error, OSError) else str(error)
        raise SampleError(key, f"the MATLAB file cannot be read ({text[:80]})") from error
    if found is None:
        raise SampleError(key, f"a MATLAB file without the variable {name}")
    return found


def _find(file: bytes, name: str) -> Matrix | None:
    if file[:10] == b"MATLAB 7.3":
        raise ValueError("version 7.3; expected one saved with -v7")
    if len(file) < _HEADER or file[126:128] != b"IM":
        raise ValueError("not of version 5 to 7.2, or of a big-endian machine")
    data, at = memoryview(file), _HEADER
    while at < len(data):
        kind, payload, after = _element(data, at)
        if kind == _COMPRESSED:
            after = at + 8 + len(payload)
            kind, payload, _ = _element(memoryview(_unpacked(payload)), 0)
        if kind == _MATRIX:
            matrix = Matrix(payload)
            if matrix.name == name:
                return matrix
        at = after
    return None


def _unpacked(payload: memoryview) -> bytes:
    stream = zlib.decompressobj()
    data = stream.decompress(payload, _LARGEST)
    if not stream.eof:
        raise ValueError("it ends too early")
    return data


def _element(data: memoryview, at: int) -> tuple[int, memoryview, int]:
    """Type and payload of the data element at `at`, and where the next one begins."""
    if at + 8 > len(data):
        raise ValueError("it ends too early")
    first = int.from_bytes(data[at : at + 4], "little")
    if first >> 16:
        kind, size, begin, after = first & 0xFFFF, first >> 16, at + 4, at + 8
        if size > 4:
            raise ValueError("an element of a wrong size")
    else:
        kind, size, begin = first, int.from_bytes(data[at + 4 : at + 8], "little"), at + 8
        after = begin + size + -size % 8
    if begin + size > len(data):
        raise ValueError("it ends too early")
    return kind, data[begin : begin + size], after
