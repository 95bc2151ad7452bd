"""The latents that an edit is measured on: fresh ones, unless others are named.

Units that were ranked on the latents of the run flatter themselves there; so what is measured begins far behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from microtome.dissect.generators.data import is_generated, parse_generated
from microtome.dissect.generators.generator import Generator
from microtome.storage.errors import UsageError
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
        return _inputs(run, len(generator.inputs), count)
    own = of_run(run)
    return _seeds(run, range(max(FRESH, own.stop), max(FRESH, own.stop) + count))


def named_seeds(run: Run, generator: Generator, spec: str, count: int | None) -> Seeds:
    """Those of a dataset spec, at most `count`. Raises UsageError for a spec that is none, or has fewer than 2."""
    asked = parse_generated(spec) if is_generated(spec) else None
    if asked is None or asked.folder or generator.inputs is not None:
        raise UsageError(f"--dataset {spec}: give latents of the generator, as in generated:500?seed={FRESH}")
    first, total = asked.first, asked.count if count is None else min(asked.count, count)
    if total < 2:
        raise UsageError(f"--dataset {spec}: give at least 2 latents, so that there is an interval")
    return _seeds(run, range(first, first + total))


def of_run(run: Run) -> range:
    """The seeds of the run's own samples."""
    first = parse_generated(run.info["data"]["spec"]).first
    return range(first, first + run.plan.samples)


def _seeds(run: Run, numbers: range) -> Seeds:
    own = of_run(run)
    apart = numbers.stop <= own.start or own.stop <= numbers.start
    return Seeds(tuple(numbers), f"generated:{len(numbers)}?seed={numbers.start}", apart)


def _inputs(run: Run, total: int, count: int) -> Seeds:
    used = run.plan.samples
    if total - used >= 2:
        numbers = range(used, min(total, used + count))
        return Seeds(tuple(numbers), f"inputs {numbers.start} to {numbers.stop - 1}, which the run left", True)
    numbers = range(min(total, count))
    return Seeds(tuple(numbers), f"the run's own inputs 0 to {numbers.stop - 1}", False)
