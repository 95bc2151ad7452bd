"""The samples that two runs have in common: the same key, and the same image under it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.storage.arrays import THUMBNAILS
from microtome.storage.errors import RunMismatchError
from microtome.storage.run import Run

LEAST_SHARE = 0.5
"""Of the smaller run's samples, so many have to be in the other."""
LEAST_SAMPLES = 10
_LOOKED_AT = 256
_ALIKE = 0.5
"""Images are others where thumbnails of one key differ more than this share of what those of different keys do."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Common:
    """a, b: (n,) int64, positions in each run of the n samples that both could read, ascending in `a`.

    count_a, count_b: samples that each could read; doubtful: those whose key a run has more than once, which are left
    out; resized: keys whose images have other sizes in the two, likewise; same_data: whether both runs were made of the
    very same data
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    count_a: int
    count_b: int
    doubtful: int
    resized: int
    same_data: bool

    def __len__(self) -> int:
        return len(self.a)

    @property
    def whole(self) -> bool:
        """Whether each run read the same samples, and no others."""
        return len(self) == self.count_a == self.count_b


def common_samples(a: Run, b: Run) -> Common:
    """The samples of both runs, matched by key. Raises RunMismatchError where the data are not the same."""
    same_data = a.info["data"]["fingerprint"] == b.info["data"]["fingerprint"]
    readable_a, readable_b = _readable(a), _readable(b)
    once_a, once_b = (frame.drop_duplicates("key", keep=False) for frame in (readable_a, readable_b))
    both = once_a.merge(once_b, on="key", suffixes=("_a", "_b"), validate="one_to_one")
    same_size = (both["height_a"] == both["height_b"]) & (both["width_a"] == both["width_b"])
    kept = both[same_size].sort_values("index_a")
    common = Common(
        a=kept["index_a"].to_numpy(np.int64),
        b=kept["index_b"].to_numpy(np.int64),
        count_a=len(readable_a),
        count_b=len(readable_b),
        doubtful=(len(readable_a) - len(once_a)) + (len(readable_b) - len(once_b)),
        resized=int((~same_size).sum()),
        same_data=same_data,
    )
    _refuse_few(a, b, common, readable_a, readable_b)
    if not same_data:
        _refuse_other_images(a, b, common)
    return common


def _readable(run: Run) -> pd.DataFrame:
    """Index, key, height and width of the samples that the run could read."""
    samples = run.table("samples")
    return samples.loc[samples["status"].astype(str) == "ok", ["index", "key", "height", "width"]]


def _refuse_few(a: Run, b: Run, common: Common, keys_a: pd.DataFrame, keys_b: pd.DataFrame) -> None:
    smaller = min(common.count_a, common.count_b)
    if len(common) >= max(LEAST_SHARE * smaller, LEAST_SAMPLES):
        return
    share = f"{100 * len(common) / smaller:.0f}% of the smaller run" if smaller else "of nothing"
    first_a, first_b = (", ".join(frame["key"].head(_NAMED).map(_short)) for frame in (keys_a, keys_b))
    reason = f"; {common.resized:,} more have images of other sizes" if common.resized else ""
    reason += f"; {common.doubtful:,} have a key that occurs more than once" if common.doubtful else ""
    raise RunMismatchError(
        f"{_where(a)} ({common.count_a:,} samples: {first_a}, ...) and {_where(b)} ({common.count_b:,} samples: "
        f"{first_b}, ...) have {len(common):,} samples in common, {share}{reason}; a comparison takes at least half of "
        f"it, and {LEAST_SAMPLES} samples: audit both models over the same data"
    )


def _refuse_other_images(a: Run, b: Run, common: Common) -> None:
    """Raise RunMismatchError where thumbnails say that the same keys stand for other images."""
    if not (a.keeps(THUMBNAILS) and b.keeps(THUMBNAILS)):
        return
    at = np.unique(np.linspace(0, len(common) - 1, _LOOKED_AT).astype(np.int64))
    left = [a.arrays.read(THUMBNAILS, index, index + 1)[0].astype(np.int16) for index in common.a[at].tolist()]
    right = [b.arrays.read(THUMBNAILS, index, index + 1)[0].astype(np.int16) for index in common.b[at].tolist()]
    same = np.median([np.abs(one - other).mean() for one, other in zip(left, right, strict=True)])
    others = np.median([np.abs(one - other).mean() for one, other in zip(left, right[1:] + right[:1], strict=True)])
    if same > _ALIKE * others:
        raise RunMismatchError(
            f"{_where(a)} and {_where(b)} have {len(common):,} keys in common, but other images under them (thumbnails "
            f"differ by {same:.0f} of 255, as different images do): audit both models over the same data"
        )


def _where(run: Run) -> str:
    return str(run.place.path or run.url)


def _short(key: str) -> str:
    return key if len(key) <= 40 else f"{key[:37]}..."
