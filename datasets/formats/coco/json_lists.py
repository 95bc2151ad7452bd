"""The long lists in a large JSON file, element by element, with where in the file each stands.

A COCO annotation file is one object of a few lists, hundreds of megabytes long; only a window of it is in memory.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from microtome.datasets.listing import open_regular
from microtome.storage.errors import UsageError

_BLOCK = 1 << 22
_NEAR_THE_END = 64
_SPACE = re.compile(r"[ \t\n\r]*")
_ADVICE = "download or export the file again"


class JsonLists:
    """The elements of the `wanted` lists of the object in a JSON file, in the order of the file.

    found:  names of the lists met so far
    digest: a hash of the file's bytes, once all is read

    Raises UsageError, with the file and the byte, where it is no JSON, ends early or has something else than lists
    under the wanted names.
    """

    def __init__(self, path: Path, wanted: Collection[str]) -> None:
        self._path = path
        self._wanted = wanted
        self._hash = hashlib.blake2b(digest_size=16)
        self.found: set[str] = set()

    @property
    def digest(self) -> bytes:
        return self._hash.digest()

    def __iter__(self) -> Iterator[tuple[str, object, int, int]]:
        """(list, element, first byte, byte behind the last) of each element."""
        try:
            with open(self._path, "rb", opener=open_regular) as file:
                yield from self._elements(_Window(file, self._path, self._hash))
        except OSError as error:
            raise UsageError(f"{self._path} cannot be read: {error.strerror}") from error

    def _elements(self, window: _Window) -> Iterator[tuple[str, object, int, int]]:
        window.expect("{")
        while True:
            name, at, _ = window.value()
            if not isinstance(name, str):
                raise window.error("expected a name in quotes", at)
            window.expect(":")
            if window.peek() == "[":
                yield from self._list(name, window)
            elif name in self._wanted:
                raise window.error(f"{name!r} is not a list")
            else:
                window.value()
            if window.expect(",", "}") == "}":
                break
        if window.peek():
            raise window.error("something follows the end of the object")

    def _list(self, name: str, window: _Window) -> Iterator[tuple[str, object, int, int]]:
        self.found.add(name)
        window.expect("[")
        if window.peek() == "]":
            window.expect("]")
            return
        while True:
            value, start, end = window.value()
            if name in self._wanted:
                yield name, value, start, end
            if window.expect(",", "]") == "]":
                return


class _Window:
    """A part of a file as text of one character a byte: what is done with is dropped, more is read when needed."""

    def __init__(self, file: BinaryIO, path: Path, digest: hashlib.blake2b) -> None:
        self._file, self._path, self._hash = file, path, digest
        self._text, self._at, self._base, self._ended = "", 0, 0, False
        decoder: Any = json.JSONDecoder()
        self._scan: Callable[[str, int], tuple[object, int]] = decoder.scan_once
        self._more()
        if self._text.startswith("\xef\xbb\xbf"):
            self._at = 3

    def peek(self) -> str:
        """The next character that is no space; "" at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def expect(self, *characters: str) -> str:
        """Pass one of the characters."""
        found = self.peek()
        if found not in characters or not found:
            raise self.error("the file ends early" if not found else f"expected {' or '.join(characters)}")
        self._at += 1
        return found

    def value(self) -> tuple[object, int, int]:
        """Pass a value: (value, first byte, byte behind the last)."""
        self.peek()
        while True:
            problem, where = "", self._at
            try:
                found, end = self._scan(self._text, self._at)
            except StopIteration as stop:
                problem, where = "expected a value", int(stop.value)
            except json.JSONDecodeError as error:
                problem, where = error.msg, error.pos
            except (ValueError, RecursionError):
                problem = "a value that is too long or too deep"
            # A number may go on behind the window, which then ends with it or with up to two characters, as in "1e+".
            if not problem and (end + 2 < len(self._text) or self._ended):
                break
            if not problem or problem.startswith("Unterminated") or where > len(self._text) - _NEAR_THE_END:
                if self._more() or not problem:
                    continue
                raise self.error("the file ends early", len(self._text) + self._base)
            raise self.error(problem, where + self._base)
        start, self._at = self._at, end
        if not self._text.isascii() and not self._text[start:end].isascii():
            found = self._decoded(start, end)
        return found, self._base + start, self._base + end

    def error(self, problem: str, byte: int | None = None) -> UsageError:
        byte = self._base + self._at if byte is None else byte
        return UsageError(f"{self._path}, byte {byte:,}: not an annotation file in JSON ({problem}); {_ADVICE}")

    def _decoded(self, start: int, end: int) -> object:
        try:
            found: object = json.loads(self._text[start:end].encode("latin-1").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise self.error("not UTF-8 text", self._base + start + error.start) from error
        return found

    def _more(self) -> bool:
        """Read on; as much again where a value is longer than the window, so that long ones cost no more."""
        block = self._file.read(max(_BLOCK, len(self._text) - self._at))
        self._hash.update(block)
        self._ended = not block
        self._text = self._text[self._at :] + block.decode("latin-1")
        self._base += self._at
        self._at = 0
        return bool(block)
