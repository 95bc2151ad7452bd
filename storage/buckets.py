"""Runs in buckets: Amazon S3, Google Cloud Storage and Azure through obstore, and a bucket in memory.

Credentials and endpoints are those of the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_
CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME, ...). An object appears whole or not at all, so a write needs no temporary
name. obstore itself retries nothing: retries are ours (`storage/retry.py`), so that each of them is told.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

from microtome.storage import retry
from microtome.storage.errors import MicrotomeError, UsageError
from microtome.storage.places import out_of_space

if TYPE_CHECKING:
    from obstore import ObjectMeta, UpdateVersion
    from obstore.store import ClientConfig, ObjectStore
    from zarr.abc.store import Store

TIMEOUT = 120.0  # seconds of one request, its body included
FIRST_TIMEOUT = 10.0
AT_ONCE = 16
FEW = 64  # so many objects are asked for by name, more by listing
LISTED_AT_ONCE = 1000
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

T = TypeVar("T")

_MEMORY: dict[str, MemoryStore] = {}
_MEMORY_LOCK = threading.Lock()


class BucketPlace:
    """Everything below one prefix of a bucket. Threads may share it; it pickles as its URL."""

    def __init__(self, url: str, reached: bool = False) -> None:
        scheme, _, rest = url.partition("://")
        self._scheme = scheme.lower()
        self._bucket, _, prefix = rest.partition("/")
        self._prefix = prefix.strip("/")
        if not self._bucket:
            raise UsageError(f"{url} names no bucket; write {self._scheme}://BUCKET/PREFIX")
        self.url = f"{self._scheme}://{self._bucket}" + (f"/{self._prefix}" if self._prefix else "")
        self.path: Path | None = None
        self._reached = reached
        self._made: ObjectStore | None = None
        self._making = threading.Lock()

    def __repr__(self) -> str:
        return f"BucketPlace({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketPlace) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __reduce__(self) -> tuple[type[BucketPlace], tuple[str, bool]]:
        return BucketPlace, (self.url, self._reached)

    # Reading

    def read(self, key: str) -> bytes:
        """The content of the object."""
        return self._do("read", key, lambda: bytes(obstore.get(self.store, key).bytes()))

    def read_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The contents of those objects that are there."""

        def read(key: str) -> bytes | None:
            try:
                return self.read(key)
            except FileNotFoundError:
                return None

        wanted = tuple(keys)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="read") as pool:
            contents = pool.map(read, wanted)
            return {key: content for key, content in zip(wanted, contents, strict=True) if content is not None}

    def size(self, key: str) -> int | None:
        """Bytes of the object, None where there is none."""
        try:
            return self._do("look at", key, lambda: obstore.head(self.store, key)["size"])
        except FileNotFoundError:
            return None

    def sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """Bytes of those objects that are there: a few are asked for, many are looked up in listings."""
        wanted = set(keys)
        if len(wanted) <= FEW:
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="size") as pool:
                found = zip(wanted, pool.map(self.size, wanted), strict=True)
                return {key: size for key, size in found if size is not None}
        folders = {key.rpartition("/")[0].split("/")[0] for key in wanted}
        listed = [self.list(f"{folder}/" if folder else "") for folder in folders]
        return {key: size for listing in listed for key, size in listing if key in wanted}

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """(key, size) of every object below `prefix`."""
        inside = prefix.strip("/") or None
        last = None
        while True:
            found = self._do("list", prefix, partial(self._page, inside, last))
            yield from found
            if len(found) < LISTED_AT_ONCE:
                return
            last = found[-1][0]

    def _page(self, inside: str | None, after: str | None) -> Sequence[tuple[str, int]]:
        stream = obstore.list(self.store, inside, offset=after, chunk_size=LISTED_AT_ONCE)
        return [(meta["path"], meta["size"]) for meta in next(stream, [])]

    def checksum(self, key: str) -> tuple[int, int]:
        """Size and CRC-32, read back block by block."""

        def read() -> tuple[int, int]:
            size, crc = 0, 0
            for block in obstore.get(self.store, key).stream(min_chunk_size=1 << 20):
                size, crc = size + len(block), zlib.crc32(block, crc)
            return size, crc

        return self._do("read", key, read)

    # Writing

    def write(self, key: str, data: bytes) -> None:
        """Put the object."""
        self._do("write", key, lambda: self._put(key, data))

    def create(self, key: str, data: bytes) -> bool:
        """Put the object on the condition that there is none.

        Where an earlier attempt may have succeeded although its answer was lost, the content tells.
        """
        attempts = 0

        def create() -> bool:
            nonlocal attempts
            attempts += 1
            try:
                obstore.put(self.store, key, data, mode="create", attributes=_attributes(key))
            except AlreadyExistsError as error:
                if _CONFLICT in str(error):
                    raise
                return attempts > 1 and self.read(key) == data
            return True

        return self._do("create", key, create)

    def replace(self, key: str, old: bytes, new: bytes) -> bool:
        """Put the object on the condition that it still has the version that held `old`."""
        attempts = 0

        def replace() -> bool:
            nonlocal attempts
            attempts += 1
            try:
                found = obstore.get(self.store, key)
                content = bytes(found.bytes())
            except FileNotFoundError:
                return False
            if content != old:
                return attempts > 1 and content == new
            try:
                obstore.put(self.store, key, new, mode=_version(found.meta), attributes=_attributes(key))
            except (PreconditionError, AlreadyExistsError) as error:
                if _CONFLICT in str(error):
                    raise
                return False
            return True

        return self._do("replace", key, replace)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete the objects, many in one request."""
        todo = list(keys)
        for start in range(0, len(todo), LISTED_AT_ONCE):
            some = todo[start : start + LISTED_AT_ONCE]
            self._do("delete from", some[0], partial(self._delete, some))

    def _delete(self, keys: Sequence[str]) -> None:
        try:
            obstore.delete(self.store, keys)
        except FileNotFoundError:  # some services say so, and stop there
            for key in keys:
                try:
                    obstore.delete(self.store, key)
                except FileNotFoundError:
                    continue

    def flush(self, keys: Iterable[str]) -> None:
        """Nothing to do: an object that was put is durable."""

    def zarr_store(self, prefix: str) -> Store:
        """Zarr's view of what lies below `prefix`, with our retries."""
        from microtome.storage.stores import BucketStore

        return BucketStore(self, prefix)

    def publish(self, folder: Path, prefix: str) -> None:
        """Upload every file, index.html last, then delete the objects of before that have no successor."""
        files = {
            f"{prefix}/{file.relative_to(folder).as_posix()}": file for file in folder.rglob("*") if file.is_file()
        }
        before = {key for key, _ in self.list(f"{prefix}/")}
        last = [key for key in files if key == f"{prefix}/index.html"]
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="publish") as pool:
            list(pool.map(lambda key: self.write(key, files[key].read_bytes()), sorted(files.keys() - set(last))))
        for key in last:
            self.write(key, files[key].read_bytes())
        self.delete(sorted(before - files.keys()))

    def clean(self) -> int:
        """Nothing to do: what a killed writer left half sent never appears."""
        return 0

    # Reaching the bucket

    @property
    def store(self) -> ObjectStore:
        """obstore's view of the place. The first use finds out, within seconds, whether the bucket can be had."""
        if self._made is None:
            with self._making:
                if self._made is None:
                    if not self._reached:
                        self._reach()
                    self._made = self._make(_seconds("MICROTOME_TIMEOUT", TIMEOUT))
        return self._made

    def passing(self, error: Exception) -> str | None:
        """What an error of obstore's says where it will pass; raises a clearer one where it is known not to."""
        if not isinstance(error, BaseError | FileNotFoundError) or isinstance(error, MicrotomeError):
            return None
        text = str(error)
        if isinstance(error, FileNotFoundError):
            if "NoSuchBucket" in text or "ContainerNotFound" in text:
                raise UsageError(
                    f"{self.url}: there is no bucket {self._bucket}; create it, or mend the URL"
                ) from error
            return None
        status = _status(text)
        if status == 507 or "StorageFull" in text or "QuotaExceeded" in text:
            raise out_of_space(self.url, _short(text)) from error
        if isinstance(error, PermissionDeniedError | UnauthenticatedError) or status in (401, 403):
            if "RequestTimeTooSkewed" in text:
                raise UsageError(f"{self.url}: this machine's clock differs from the bucket's; set it") from error
            if "169.254.169.254" in text:
                raise self._no_credentials(text) from error
            raise UsageError(f"{self.url}: access denied ({_short(text)}); check {self._variables()}") from error
        if _TOKEN.search(text) and not self._reached:
            raise self._no_credentials(text) from error
        if status is not None:
            busy = status >= 500 or status in (408, 425, 429) or bool(_BUSY.search(text))
            return _short(text) if busy else None
        if "builder error" in text or "incorrectly configured region" in text:
            return None
        return _short(text) if _CUT.search(text) else None

    def _do(self, verb: str, key: str, do: Callable[[], T]) -> T:
        try:
            return retry.call(f"{verb} {self.url}/{key}".rstrip("/"), do, self.passing)
        except BaseError as error:
            raise self.refusal(verb, key, error) from error
        except FileNotFoundError as error:
            raise FileNotFoundError(errno.ENOENT, "no such object", f"{self.url}/{key}") from error

    def refusal(self, verb: str, key: str, error: Exception) -> MicrotomeError:
        """What to say of an error of obstore's that will not pass."""
        return UsageError(f"could not {verb} {self.url}/{key}: {_short(str(error))}; check {self._variables()}")

    def _reach(self) -> None:
        """Ask the bucket for the names at the place, with little patience."""

        def ask() -> None:
            store = self._make(min(FIRST_TIMEOUT, _seconds("MICROTOME_TIMEOUT", TIMEOUT)))
            next(obstore.list(store, chunk_size=1), [])

        try:
            retry.call(f"reach {self.url}", ask, self.passing, at_most=retry.FIRST_PATIENCE)
        except BaseError as error:
            text = str(error)
            if _status(text) == 404:
                raise UsageError(
                    f"{self.url}: there is no bucket {self._bucket}; create it, or mend the URL"
                ) from error
            if "Missing" in text or _TOKEN.search(text):
                raise self._no_credentials(text) from error
            raise self.refusal("reach", "", error) from error
        self._reached = True

    def _make(self, timeout: float) -> ObjectStore:
        if self._scheme == "memory":
            with _MEMORY_LOCK:
                return _MEMORY.setdefault(self.url, MemoryStore())
        client: ClientConfig = {"timeout": f"{timeout * 1000:.0f}ms", "connect_timeout": f"{min(timeout, 10):.0f}s"}
        common: dict[str, Any] = {"retry_config": {"max_retries": 0}, "client_options": client}
        if self._prefix:
            common["prefix"] = self._prefix
        if endpoint := self._endpoint():
            if endpoint.startswith("http://"):
                client["allow_http"] = True
            if self._scheme == "s3":
                common["endpoint"] = endpoint
        kinds: dict[str, Callable[..., ObjectStore]] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
        return kinds[self._scheme](self._bucket, **common)

    def _endpoint(self) -> str:
        names = {
            "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
            "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
        }
        return next((os.environ[name] for name in names.get(self._scheme, ()) if os.environ.get(name)), "")

    def _variables(self) -> str:
        return {
            "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL",
            "gs": "GOOGLE_APPLICATION_CREDENTIALS",
            "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        }.get(self._scheme, "the URL")

    def _no_bucket(self) -> UsageError:
        return UsageError(f"{self.url}: there is no bucket {self._bucket}; create it, or mend the URL")

    def _no_credentials(self, text: str) -> UsageError:
        return UsageError(f"{self.url}: no credentials ({_short(text)}); set {self._variables()} in the environment")

    def _put(self, key: str, data: bytes) -> None:
        obstore.put(self.store, key, data, attributes=_attributes(key))


_CONFLICT = "ConditionalRequestConflict"  # S3: two conditional writes at once, neither of them judged yet
_BUSY = re.compile(
    _CONFLICT + r"|SlowDown|Throttl|RequestTimeout|InternalError|ServiceUnavailable|OperationAborted|ServerBusy"
)
_CUT = re.compile(
    r"HTTP error|error sending request|body error|timed? ?out|connection|IncompleteMessage", re.IGNORECASE
)
_TOKEN = re.compile(r"169\.254\.169\.254|token request|metadata\.google")


def _status(text: str) -> int | None:
    found = re.search(r"non-2xx status code: (\d{3})", text)
    return int(found[1]) if found else None


def _short(text: str) -> str:
    """The telling part of obstore's message: a status and S3's code, or what went wrong with the connection."""
    first = text.partition("\n\nDebug source")[0]
    code = re.search(r"<Code>(\w+)</Code>", first)
    if status := re.search(r"non-2xx status code: ([^:<]+)", first):
        return status[1].strip() + (f", {code[1]}" if code else "")
    for sign, meaning in _MEANINGS.items():
        if sign in text:
            return meaning
    return first.partition("\n")[0].removeprefix("Generic ").strip()[-160:]


_MEANINGS = {
    "ConnectionRefused": "connection refused",
    "ConnectionReset": "connection reset",
    "TimedOut": "timed out",
    "IncompleteMessage": "connection cut",
    "IncompleteBody": "connection cut",
    "dns error": "host name not found",
}


def _version(meta: ObjectMeta) -> UpdateVersion:
    version: UpdateVersion = {}
    if meta["e_tag"] is not None:
        version["e_tag"] = meta["e_tag"]
    if meta["version"] is not None:
        version["version"] = meta["version"]
    return version


def _attributes(key: str) -> dict[str, str]:
    known = CONTENT_TYPES.get(os.path.splitext(key)[1].lower())
    return {"Content-Type": known} if known else {}


def _seconds(variable: str, otherwise: float) -> float:
    given = os.environ.get(variable, "")
    try:
        return max(0.05, float(given)) if given else otherwise
    except ValueError as error:
        raise UsageError(f"{variable} is {given!r}; give seconds, such as {otherwise:g}") from error
