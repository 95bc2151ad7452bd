"""Which layer and ranking are strongest for a concept: the best units of each are ablated on latents of the run."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.dissect.audit.precision import arithmetic
from microtome.dissect.audit.progress import progress
from microtome.dissect.generators.edits import ablation
from microtome.dissect.generators.effects import label_ids, paired, segmenter_of_run
from microtome.dissect.generators.generator import generator_of_run
from microtome.dissect.generators.ranking import RANKINGS, computed, rankings
from microtome.dissect.generators.seeds import of_run
from microtome.storage.errors import UsageError
from microtome.storage.run import Run

TRIED, TOP = 48, 20
"""Latents on which rankings are tried out, and how many units are ablated."""

AFFORDABLE = ("iou", "alpha")
"""Rankings that are tried where nobody asked for one. Those by ace take two passes a unit for every latent; they are
tried where the run holds them."""

Candidate = tuple[str, str]


def find_strongest(run: Run, concept: str, layer: str | None, by: str | None) -> tuple[str, str, str]:
    """Layer, ranking, and a sentence that says why."""
    layers = [layer] if layer is not None else layers_with_units(run)
    known = [(name, ranking) for name in layers for ranking in ("iou", *computed(run, name, concept))]
    removed = dict(zip(known, tried(run, concept, known), strict=True)) if len(known) > 1 else {known[0]: 0.0}
    best = max(removed, key=removed.__getitem__)[0]
    wanted = [by] if by is not None else AFFORDABLE
    missing = [ranking for ranking in wanted if ranking != "iou" and (best, ranking) not in removed]
    if missing:
        from microtome.dissect.generators.measuring import measure_causes

        measure_causes(run, best, [concept], by=missing)
        new = [(best, ranking) for ranking in missing]
        again = new if len(removed) > 1 else [*known, *new]
        removed |= dict(zip(again, tried(run, concept, again), strict=True))
    left = {candidate: share for candidate, share in removed.items() if by in (None, candidate[1])}
    name, ranking = max(left, key=left.__getitem__)
    return name, ranking, _sentence(run, concept, (name, ranking), removed)


def layers_with_units(run: Run) -> list[str]:
    """The layers whose units are the network's own. Raises UsageError where there is none."""
    names = [entry["name"] for entry in run.info["layers"] if entry.get("readout") is None]
    if not names:
        raise UsageError(f"{run.url}: all of its layers hold directions in others; audit the layers themselves")
    return names


def tried(run: Run, concept: str, candidates: Sequence[Candidate]) -> list[float]:
    """The share of the concept's area that goes with the best units of each candidate, on latents of the run."""
    generator = generator_of_run(run)
    segmenter = segmenter_of_run(run, generator.device)
    label = label_ids(segmenter, concept)
    seeds = of_run(run)[:TRIED]
    edits = []
    for layer, by in candidates:
        best = rankings(run, layer, concept, by)
        edits.append([ablation(layer, best[: min(TOP, max(1, len(best) // 4))].tolist())])
    with progress("rank", len(seeds) * (1 + len(edits)), "images") as shown, arithmetic("float32", generator.device):
        found = paired(generator, segmenter, seeds, edits, advance=shown.advance)
    before = float(found.before[:, label].sum())
    if before == 0:
        raise UsageError(f"no {concept} in {len(seeds)} images of {run.url}, so that nothing can be ranked by it")
    return [1 - float(after[:, label].sum()) / before for after in found.after]


def _sentence(run: Run, concept: str, chosen: Candidate, removed: dict[Candidate, float]) -> str:
    if len(removed) == 1:
        return f"layer {chosen[0]} by {RANKINGS[chosen[1]]}: there is no other"
    others = [f"{layer} by {by} {100 * share:.0f} %" for (layer, by), share in removed.items() if (layer, by) != chosen]
    return (
        f"layer {chosen[0]} by {RANKINGS[chosen[1]]}: its best {TOP} units remove {100 * removed[chosen]:.0f} % of "
        f"{concept} in {TRIED} images of the run ({', '.join(others)})"
    )
