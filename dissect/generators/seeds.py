"""The latents that an edit is measured on: fresh ones, unless others are named.

Units that were ranked on the latents of the run flatter themselves there; so what is measured begins far behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset
from microtome.dissect.generators.data import LARGEST_SEED, is_generated, parse_generated
from microtome.dissect.generators.generator import Generator
from microtome.storage.errors import SampleError, UsageError
from microtome.storage.order import read_order
from microtome.storage.run import Run

FRESH = 100_000
"""The first fresh seed, where the run has none there."""


@dataclass(frozen=True)
class Seeds:
    """numbers: the seeds; spec: in words of a dataset; fresh: whether none of them is the run's."""

    numbers: tuple[int, ...]
    spec: str
    fresh: bool

    @property
    def told(self) -> dict[str, Any]:
        """What a result says of them."""
        return {"data": self.spec, "fresh": self.fresh, "samples": len(self.numbers)}


def fresh_seeds(run: Run, generator: Generator, count: int) -> Seeds:
    """So many that the run does not have; of an image-to-image network those inputs that it left, or else its own."""
    if generator.inputs is not None:
        return _inputs(run, generator.inputs, count)
    first = max(FRESH, of_run(run)[-1] + 1)
    if first + count > LARGEST_SEED:
        raise UsageError(f"{run.url} ends with seed {first - 1}: no fresh ones are left behind it; audit lower seeds")
    return _seeds(run, range(first, first + count))


def named_seeds(run: Run, generator: Generator, spec: str, count: int | None) -> Seeds:
    """Those of a dataset spec, at most `count`. Raises UsageError for a spec that is none, or has fewer than 2."""
    asked = parse_generated(spec) if is_generated(spec) else None
    if asked is None or asked.folder or generator.inputs is not None:
        raise UsageError(f"--dataset {spec}: give latents of the generator, as in generated:500?seed={FRESH}")
    first, total = asked.first, asked.count if count is None else min(asked.count, count)
    if total < 2:
        raise UsageError(f"--dataset {spec}: give at least 2 latents, so that there is an interval")
    return _seeds(run, range(first, first + total))


def of_run(run: Run) -> Sequence[int]:
    """The seeds of the run's own samples, in their order; of an image-to-image network the numbers of its inputs."""
    digest = run.info["data"].get("order")
    if digest is not None:
        numbers: list[int] = read_order(run.place, digest).tolist()
        return numbers
    first = parse_generated(run.info["data"]["spec"]).first
    return range(first, first + run.plan.samples)


def readable_samples(run: Run) -> NDArray[np.int64]:
    """The run's samples that could be read, ascending: of an image-to-image network not all may be."""
    table = run.table("samples")
    return np.sort(table.loc[table["status"] == "ok", "index"].to_numpy(np.int64))


def readable_of_run(run: Run) -> list[int]:
    """The seeds of the `readable_samples`."""
    own = of_run(run)
    return [own[sample] for sample in readable_samples(run).tolist()]


def _seeds(run: Run, numbers: range) -> Seeds:
    own = of_run(run)
    apart = numbers.stop <= own[0] or own[-1] < numbers.start
    return Seeds(tuple(numbers), f"generated:{len(numbers)}?seed={numbers.start}", apart)


def _inputs(run: Run, inputs: ImageDataset, count: int) -> Seeds:
    own = set(of_run(run))
    left = (number for number in range(len(inputs)) if number not in own and _can_be_read(inputs, number))
    numbers = tuple(islice(left, count))
    if len(numbers) >= 2:
        return Seeds(numbers, f"inputs {numbers[0]} to {numbers[-1]}, which the run left", True)
    numbers = tuple(sorted(readable_of_run(run))[:count])
    if not numbers:
        raise UsageError(f"{run.url}: none of its inputs can be read; look at microtome status {run.url}")
    return Seeds(numbers, f"the run's own inputs {numbers[0]} to {numbers[-1]}", False)


def _can_be_read(inputs: ImageDataset, number: int) -> bool:
    try:
        inputs.read(number)
    except SampleError:
        return False
    return True
