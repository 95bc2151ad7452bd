"""`microtome rank`: units ranked by cause, kept in the run, and what the rankings remove."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from microtome.dissect.ablation.subject import finished_run
from microtome.dissect.audit.pipeline import holding
from microtome.dissect.generators.comparing import DRAWS, Comparison, compare_rankings
from microtome.dissect.generators.measuring import SAMPLES, measure_causes
from microtome.dissect.generators.ranking import computed, rankings


def rank_units(
    path: Path | str,
    layer: str,
    concepts: Sequence[str],
    *,
    by: Sequence[str] = ("ace", "alpha"),
    effects: int = SAMPLES,
    keep: float | None = None,
    again: bool = False,
    samples: int | None = None,
    draws: int = DRAWS,
    workers: int | None = None,
) -> list[dict[str, Any]]:
    """Rank the units of `layer` for `concepts`, keep it in the run at `path`, and compare the rankings.

    effects: latents on which each unit is ablated and inserted; keep: weight of what changes beside a concept, None =
    that of the run's alphas; samples: fresh latents that rankings are compared on, None = not at all; workers: torch's
    threads. For each concept: units by ranking, best first, and `compared`.
    """
    finished_run(path)
    with holding(path, "rank") as stop, _threads(workers):
        run = finished_run(path)
        measure_causes(run, layer, concepts, by=by, samples=effects, keep=keep, again=again, stop=stop)
        compared: list[Comparison | None] = [None] * len(concepts)
        if samples is not None:
            shared = [name for name in ("ace", "alpha") if all(name in computed(run, layer, one) for one in concepts)]
            compared = [*compare_rankings(run, layer, concepts, ["iou", *shared], samples=samples, draws=draws)]
        return [
            {
                "concept": concept,
                "units": {
                    name: rankings(run, layer, concept, name).tolist()
                    for name in ("iou", *reversed(computed(run, layer, concept)))
                },
                "compared": None if one is None else one.result,
                "key": None if one is None else one.key,
                "plot": None if one is None else one.plot,
            }
            for concept, one in zip(concepts, compared, strict=True)
        ]


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
