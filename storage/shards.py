"""Which samples make a shard: the atom of storage, of work and of recovery. Pure arithmetic.

A shard is a contiguous range of samples, the same range in every layer. Its size follows from three wishes:
a run has at least `MIN_SHARDS` shards, so that work divides and a crash loses little; no layer's shard exceeds
`MAX_BYTES` raw; and within these the size hardly grows with the number of samples, so that memory stays flat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MIN_SHARDS = 32
MAX_BYTES = 250_000_000
CHUNK_SAMPLES = 32
SMALLEST_CHUNK_CHANNELS = 16
CHUNK_BYTES = 256 * 1024
SMALLEST_SHARD = 32
SHARDS_BEFORE_GROWTH = 512


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """`samples` in all, `shard` in each shard (the last may be shorter), `chunk` in each chunk of a shard."""

    samples: int
    shard: int
    chunk: int

    def __post_init__(self) -> None:
        if self.samples < 1 or self.chunk < 1 or self.shard < 1 or self.shard % self.chunk:
            raise ValueError(f"a shard must hold whole chunks, and all must be at least 1: {self}")

    @property
    def count(self) -> int:
        """Number of shards."""
        return -(-self.samples // self.shard)

    def samples_of(self, index: int) -> range:
        """The samples of shard `index`."""
        if not 0 <= index < self.count:
            raise IndexError(f"shard {index} of {self.count}")
        return range(index * self.shard, min((index + 1) * self.shard, self.samples))

    def __iter__(self) -> Iterator[range]:
        return (self.samples_of(index) for index in range(self.count))


def plan_shards(samples: int, bytes_per_sample: int, shard_samples: int | None = None) -> ShardPlan:
    """Plan the shards of a run of `samples` images whose largest layer takes `bytes_per_sample` raw.

    `shard_samples` fixes the size by hand; it is rounded up to whole chunks of 32 where it exceeds one chunk.
    """
    if samples < 1:
        raise ValueError("a run needs at least one sample")
    if shard_samples is None:
        grown = max(SMALLEST_SHARD, -(-samples // SHARDS_BEFORE_GROWTH))
        wanted = min(grown, samples // MIN_SHARDS, MAX_BYTES // max(bytes_per_sample, 1))
        wanted = max(1, wanted)
        wanted -= wanted % CHUNK_SAMPLES if wanted > CHUNK_SAMPLES else 0
    else:
        if shard_samples < 1:
            raise ValueError("a shard holds at least one sample")
        wanted = min(shard_samples, samples)
        wanted += -wanted % CHUNK_SAMPLES if wanted > CHUNK_SAMPLES else 0
    return ShardPlan(samples=samples, shard=wanted, chunk=min(wanted, CHUNK_SAMPLES))


def chunk_channels(channels: int, map_bytes: int, chunk_samples: int) -> int:
    """How many of `channels` share a chunk: 16 where maps are large, more where they are small.

    map_bytes: of one channel of one sample. Reading one unit should not mean reading all, but a chunk far below
    256 KiB costs more in handling than in decompression.
    """
    return min(channels, max(SMALLEST_CHUNK_CHANNELS, CHUNK_BYTES // max(1, map_bytes * chunk_samples)))
