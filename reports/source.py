"""What the pages read: the members of a finished run that a report needs, and nothing else.

`microtome.storage.Run` has them all; a test or another store can bring its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.storage.pictures import PictureBlock
from microtome.storage.schema import RunInfo
from microtome.storage.shards import ShardPlan

ReadImage: TypeAlias = Callable[[int], NDArray[np.uint8]]
"""Sample index -> its original upright image, (H, W, 3) uint8 RGB. May raise SampleError."""


@dataclass(frozen=True, slots=True)
class Together:
    """Images that are cheaper to read together, `count` at a time: while `open(samples)` is, a thread reads those."""

    open: Callable[[Sequence[int]], AbstractContextManager[None]]
    count: int


Progress: TypeAlias = Callable[[int, int], None]
"""Called with (samples drawn so far, samples to draw)."""


class SampleArrays(Protocol):
    """The arrays of a run that have a row for every sample. Safe to use from several threads."""

    def exists(self, name: str) -> bool:
        """Whether the run has array `name`."""
        ...

    def read_shard(self, name: str, shard: int) -> NDArray[Any]:
        """The rows of all samples of `shard`."""
        ...


class ReportRun(Protocol):
    """A finished run. Tables and their columns: docs/architecture.md."""

    @property
    def info(self) -> RunInfo: ...
    @property
    def plan(self) -> ShardPlan: ...
    @property
    def arrays(self) -> SampleArrays: ...
    @property
    def index_page(self) -> str: ...

    def report_folder(self) -> AbstractContextManager[Path]:
        """A new, empty local folder to build a report in, gone at the end."""
        ...

    def publish_report(self, folder: Path) -> None:
        """Have the report in `folder` take the place of the run's report."""
        ...

    def table(self, name: str) -> pd.DataFrame:
        """A table of the run: "samples" or "concepts"."""
        ...

    def layer_table(self, layer: str, name: str) -> pd.DataFrame:
        """A table of one layer: "units", "iou", "patches", "histogram", "thresholds"; "importance" where measured;
        "map", "components", "clusters" and "disagreements" where it has a map."""
        ...

    def has_layer_table(self, layer: str, name: str) -> bool:
        """Whether a table of one layer is there."""
        ...

    def picture_blocks(self, layer: str | None) -> Iterator[PictureBlock]:
        """The pictures that explain a layer's units, or classes (None), block by block."""
        ...

    def ablations(self) -> list[dict[str, Any]]:
        """The kept ablations, each with the name of its "file"; what could not be read has an "error" instead."""
        ...

    def ablation_picture(self, file: str) -> bytes | None:
        """The contact sheet beside a kept ablation, a PNG; None where there is none. file: as `ablations` names it."""
        ...

    def experiments(self, kind: str) -> list[dict[str, Any]]:
        """What a generator's run keeps of a kind, "rankings", "insertions" or "defects", in the form of `ablations`."""
        ...

    def experiment_picture(self, kind: str, file: str) -> bytes | None:
        """A picture beside them, None where there is none."""
        ...

    def activation_maps(self, layer: str, samples: NDArray[np.int64], units: NDArray[np.int64]) -> NDArray[np.float32]:
        """Activation map of unit `units[i]` for sample `samples[i]`, for all i: (n, h, w) float32, true values."""
        ...
