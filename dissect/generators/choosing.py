"""Which units of a generator to ablate or insert: those named, or the first ones of a ranking for a concept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.ablation.choice import name_of, ranges
from microtome.dissect.ablation.subject import chosen_units
from microtome.dissect.generators.layers import own_layer
from microtome.dissect.generators.ranking import RANKINGS, rankings
from microtome.dissect.generators.trying import strongest
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run
from microtome.storage.schema import LayerEntry

MOST_DOSED = 64
"""The dose curve ends at so many units."""


@dataclass(frozen=True, eq=False)
class Choice:
    """Units to edit. units: best first, or as named; ranked: all of the layer's, best first, None where units were
    named; name: short, for files; words: how they were chosen; rank: "iou", "ace" or "alpha", or None; why: of layer
    and ranking, where nobody asked for them, else empty; concept: what they are about, or None."""

    layer: LayerEntry
    units: NDArray[np.int64]
    ranked: NDArray[np.int64] | None
    name: str
    words: str
    rank: str | None
    why: str
    concept: str | None

    def doses(self) -> list[int]:
        """How many units the dose curve removes; none where units were named."""
        return [] if self.ranked is None else doses_of(len(self.ranked))

    def named(self, settings: Mapping[str, bool]) -> str:
        """The name of what is done to these units: the layer, the choice, and those of `settings` that are told."""
        return "-".join([self.layer["name"], self.name, *(text for text, is_told in settings.items() if is_told)])


def doses_of(units: int) -> list[int]:
    """How many of a layer's units are removed, best first: 1, 2, 4, ... 64, at most half of them, so that random ones
    can be others."""
    most = min(MOST_DOSED, max(1, units // 2))
    return [2**power for power in range(most.bit_length())]


def choose(
    run: Run,
    *,
    layer: str | None = None,
    units: Sequence[str] = (),
    concept: str | None = None,
    top: int = 20,
    rank: str | None = None,
) -> Choice:
    """The units that are asked for. Named `units` need a `layer`; a `concept` beside them is only looked at.

    Without a layer or rank, those that are strongest for the concept, as `trying.strongest` has it. Raises UsageError
    and UnknownNameError for what the run does not have.
    """
    if rank is not None and rank not in RANKINGS:
        raise UnknownNameError("ranking", rank, RANKINGS)
    if units:
        return _named(run, layer, units, concept, rank)
    if concept is None:
        raise UsageError("say which units to remove: --units 3,17 with --layer, or --concept tree")
    return _ranked(run, layer, concept, top, rank)


def _named(run: Run, layer: str | None, units: Sequence[str], concept: str | None, rank: str | None) -> Choice:
    if layer is None:
        raise UsageError(f"--units: name their layer, as in --layer {run.layer_names[0]}")
    if rank is not None:
        raise UsageError("--units: --rank orders the units of a --concept; units that are named need none")
    entry = own_layer(run, layer)
    found = np.array(list(dict.fromkeys(chain(*(chosen_units([part], entry) for part in units)))), np.int64)
    return Choice(entry, found, None, name_of(np.sort(found)), f"units {ranges(np.sort(found))}", None, "", concept)


def _ranked(run: Run, layer: str | None, concept: str, top: int, rank: str | None) -> Choice:
    why = ""
    if layer is None or rank is None:
        best = strongest(run, concept, layer=layer, by=rank)
        layer, rank, why = best.layer, best.by, best.why
    entry = own_layer(run, layer)
    if not 0 < top <= entry["units"]:
        raise UsageError(f"--top {top}: layer {layer} has {entry['units']} units")
    ranked = rankings(run, layer, concept, by=rank, compute=True)
    found = ranked[:top]
    which = "unit" if top == 1 else f"{top} units"
    words = f"the {which} of highest {RANKINGS[rank]} for {concept}"
    return Choice(entry, found, ranked, f"concept-{concept}-{top}", words, rank, why, concept)
