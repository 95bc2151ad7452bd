"""Which layer and ranking are strongest for a concept: the best units of each are ablated on latents of the run.

Units of a layer that paints everything remove a concept with all else. So what goes of the concept, as a share of it,
counts less what changes beside it, as a share of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.audit.progress import progress
from microtome.dissect.generators.edits import ablation
from microtome.dissect.generators.effects import label_ids, paired, rivals_of, segmenter_of_run
from microtome.dissect.generators.generator import generator_of_run
from microtome.dissect.generators.layers import own_layer, own_layers
from microtome.dissect.generators.measuring import measure_causes
from microtome.dissect.generators.ranking import RANKINGS, computed, rankings
from microtome.dissect.generators.seeds import readable_of_run
from microtome.storage.errors import UsageError
from microtome.storage.run import Run

TRIED, TOP = 48, 20
"""Latents on which rankings are tried out, and how many units are ablated."""

AFFORDABLE = ("iou", "alpha")
"""Rankings that are tried where nobody asked for one. Those by ace take two passes a unit for every latent; they are
tried where the run holds them."""

LAYERS = 3
"""In so many layers, the best by the rankings that the run holds, alpha is optimised."""
BESIDE = 2.0
"""How much a share of the picture that changes besides weighs against a share of the concept."""

Candidate = tuple[str, str]


@dataclass(frozen=True)
class Strongest:
    """The layer and ranking that are strongest for a concept, and why, in a sentence."""

    layer: str
    by: str
    why: str


@dataclass(frozen=True)
class Tried:
    """What the best units of a candidate do: `removed`, the share of the concept's area that goes, and `beside`, the
    share of the picture that changes from one other label of the concept's category to another, at least."""

    removed: float
    beside: float

    @property
    def worth(self) -> float:
        """What candidates are compared by."""
        return self.removed - BESIDE * self.beside


def strongest(run: Run, concept: str, *, layer: str | None = None, by: str | None = None) -> Strongest:
    """Which layer and ranking remove most of `concept`; one that is given stays.

    Tried out on latents of the run, with the best units of each ranking ablated. The layer is the one that is best by
    the rankings that the run holds; there alpha is optimised where the run lacks it, or `by` computed. The caller holds
    the run's lock. Raises UnknownNameError.
    """
    layers = own_layers(run) if layer is None else [own_layer(run, layer)["name"]]
    known = [(name, ranking) for name in layers for ranking in ("iou", *computed(run, name, concept))]
    removed = dict(zip(known, tried(run, concept, known), strict=True)) if len(known) > 1 else {known[0]: Tried(0, 0)}
    best = list(dict.fromkeys(name for name, _ in sorted(removed, key=lambda one: -removed[one].worth)))[:LAYERS]
    wanted = [by] if by is not None else AFFORDABLE
    new = [(name, each) for name in best for each in wanted if each != "iou" and (name, each) not in removed]
    if new:
        for name in dict.fromkeys(name for name, _ in new):
            measure_causes(run, name, [concept], by=[each for at, each in new if at == name])
        again = new if len(removed) > 1 else [*known, *new]
        removed |= dict(zip(again, tried(run, concept, again), strict=True))
    left = {candidate: one.worth for candidate, one in removed.items() if by in (None, candidate[1])}
    name, ranking = max(left, key=left.__getitem__)
    return Strongest(name, ranking, _sentence(concept, (name, ranking), removed))


def tried(run: Run, concept: str, candidates: Sequence[Candidate]) -> list[Tried]:
    """What the best units of each candidate do to the concept and beside it, on latents of the run."""
    generator = generator_of_run(run)
    segmenter = segmenter_of_run(run, generator.device)
    label = label_ids(segmenter, concept)
    seeds = readable_of_run(run)[:TRIED]
    edits = []
    for layer, by in candidates:
        best = rankings(run, layer, concept, by)
        edits.append([ablation(layer, best[: min(TOP, max(1, len(best) // 4))].tolist())])
    with progress("rank", len(seeds) * (1 + len(edits)), "images") as shown, arithmetic("float32", generator.device):
        found = paired(generator, segmenter, seeds, edits, advance=shown.advance)
    if not found.before[:, label].any():
        raise UsageError(f"no {concept} in {len(seeds)} images of {run.url}, so that nothing can be ranked by it")
    rivals = rivals_of(segmenter, label)
    return [_tried(found.before, after, label, rivals) for after in found.after]


def _tried(
    before: NDArray[np.float64], after: NDArray[np.float64], concept: NDArray[np.int64], rivals: NDArray[np.int64]
) -> Tried:
    """From areas (n, K). What the concept gives up must go to others; what they change beyond that is beside it."""
    had, left = before[:, concept].sum(1), after[:, concept].sum(1)
    moved = np.abs(after[:, rivals] - before[:, rivals]).sum(1)
    unlabelled = np.abs((left - had) + (after[:, rivals] - before[:, rivals]).sum(1))
    beside = np.maximum(moved + unlabelled - np.abs(left - had), 0) / 2
    return Tried(1 - float(left.sum() / had.sum()), float(beside.mean()))


def _sentence(concept: str, chosen: Candidate, removed: dict[Candidate, Tried]) -> str:
    if len(removed) == 1:
        return f"layer {chosen[0]} by {RANKINGS[chosen[1]]}: there is no other"
    others = [
        f"{layer} by {by} {100 * one.removed:.0f} and {100 * one.beside:.0f} %"
        for (layer, by), one in removed.items()
        if (layer, by) != chosen
    ]
    best = removed[chosen]
    return (
        f"layer {chosen[0]} by {RANKINGS[chosen[1]]}: in {TRIED} images of the run its best {TOP} units remove "
        f"{100 * best.removed:.0f} % of {concept} and change {100 * best.beside:.0f} % of the picture besides "
        f"({', '.join(others)})"
    )
