"""Zarr's view of a bucket, with retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, TypeVar

from obstore.exceptions import BaseError
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from microtome.storage import retry
from microtome.storage.buckets import BucketPlace

T = TypeVar("T")


class BucketStore(Store):
    """What lies below `prefix` in a bucket. Zarr's ObjectStore does the work; what fails in passing is tried again."""

    def __init__(self, place: BucketPlace, prefix: str) -> None:
        super().__init__(read_only=False)
        self._place = place
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._objects: ObjectStore[Any] = ObjectStore(place.store)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketStore) and (self._place, self._prefix) == (other._place, other._prefix)

    def __str__(self) -> str:
        return f"{self._place.url}/{self._prefix}"

    @property
    def supports_writes(self) -> bool:
        """Yes."""
        return True

    @property
    def supports_deletes(self) -> bool:
        """Yes."""
        return True

    @property
    def supports_listing(self) -> bool:
        """Yes."""
        return True

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The object, or a range of it; None where there is none."""
        return await self._do("read", key, lambda: self._objects.get(self._prefix + key, prototype, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Ranges of objects, in the order asked for."""
        return list(await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return await self._do("look at", key, lambda: self._objects.exists(self._prefix + key))

    async def set(self, key: str, value: Buffer) -> None:
        """Put the object, whole."""
        await self._do("write", key, lambda: self._objects.set(self._prefix + key, value))

    async def delete(self, key: str) -> None:
        """Delete the object; an absent one is fine."""
        await self._do("delete", key, lambda: self._objects.delete(self._prefix + key))

    async def list(self) -> AsyncIterator[str]:
        """Every key."""
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Every key that begins with the folder `prefix`."""
        folder = (self._prefix + prefix).strip("/")

        async def listed() -> tuple[str, ...]:
            return tuple([key async for key in self._objects.list_prefix(folder)])

        for key in await self._do("list", prefix, listed):
            yield key.removeprefix(self._prefix)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly below `prefix`."""
        folder = (self._prefix + prefix).strip("/")

        async def listed() -> tuple[str, ...]:
            return tuple([name async for name in self._objects.list_dir(folder)])

        for name in await self._do("list", prefix, listed):
            yield name

    async def _do(self, verb: str, key: str, do: Callable[[], Awaitable[T]]) -> T:
        what = f"{verb} {self._place.url}/{self._prefix}{key}"
        try:
            return await retry.call_async(what, do, self._place.passing)
        except BaseError as error:
            raise self._place.refusal(verb, self._prefix + key, error) from error
