"""Whether the axes of a layer are special: its units beside read-outs of the same layer along other directions.

D. Bau, B. Zhou, A. Khosla, A. Oliva, A. Torralba: Network Dissection, CVPR 2017, section 3.2: a random rotation keeps
all that a layer can tell apart, so if its units were no more than any basis, as many unique detectors should remain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from microtome.reports.summaries import LayerSummary
from microtome.storage.schema import LayerEntry

ROTATED = "rotated"
_CLOSE = 0.1
"""A difference below this share of the larger count is none to speak of."""


def plain_name(entry: LayerEntry) -> str:
    """What a layer is called in a comparison: "block5 in PCA directions"; its name where it is no read-out."""
    readout = entry.get("readout")
    if readout is None:
        return entry["name"]
    base, kind, source = readout["base"], readout["kind"], readout["source"].rpartition("/")[2]
    if kind == "pca":
        fewer = entry["units"] < readout["inputs"]
        return f"{base} in its first {entry['units']} PCA directions" if fewer else f"{base} in PCA directions"
    if kind == ROTATED:
        return f"{base} in randomly rotated directions"
    return f"{base} in the directions of {source}" if kind == "matrix" else f"{base} as {source} encodes it"


def is_baseline(layer: LayerSummary, layers: Sequence[LayerSummary]) -> bool:
    """Whether a layer is there to be compared with, and its units are none of the network's: a rotation of another."""
    return is_rotation(layer.entry, {other.entry["name"] for other in layers})


def is_rotation(entry: LayerEntry, names: Set[str]) -> bool:
    """Whether a layer is a rotation of one of the layers `names`."""
    readout = entry.get("readout")
    return readout is not None and readout["kind"] == ROTATED and readout["base"] in names


def principal_components(layers: Sequence[LayerSummary]) -> set[str]:
    """The names of the layers whose units are principal components of another."""
    readouts = {layer.entry["name"]: layer.entry.get("readout") for layer in layers}
    return {name for name, readout in readouts.items() if readout is not None and readout["kind"] == "pca"}


def alignments(layers: Sequence[LayerSummary], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each layer with a rotated sibling: its own units, the rotated ones, and other read-outs of it.

    Compared at the smallest tau, since at a large one nearly every direction is a detector. rows: the layers as the
    index compares them, in the same order
    """
    found = []
    for number, layer in enumerate(layers):
        name = layer.entry["name"]
        kinds = {at: other.entry["readout"]["kind"] for at, other in enumerate(layers) if _base_of(other) == name}
        rotated = [at for at, kind in kinds.items() if kind == ROTATED]
        if not rotated:
            continue
        strictest = min(range(len(layer.labels)), key=lambda at: layer.labels[at].tau)
        chosen = [number, *rotated, *(at for at in kinds if at not in rotated)]
        counted = {at: rows[at]["taus"][strictest] for at in chosen}
        own, turned = counted[number]["unique"], counted[rotated[0]]["unique"]
        found.append(
            {
                "name": name,
                "tau": layer.labels[strictest].tau,
                "rows": [{**rows[at], **counted[at], "own": at == number} for at in chosen],
                "most_detectors": max(1, *(counts["detectors"] for counts in counted.values())),
                "most_unique": max(1, *(counts["unique"] for counts in counted.values())),
                "unique": own,
                "unique_rotated": turned,
                "words": comparison(own, turned),
                "rotations": len(rotated),
            }
        )
    return found


def comparison(own: int, rotated: int) -> str:
    """How many concepts axes stand for beside random directions, in words that fit before "random directions"."""
    if abs(own - rotated) <= _CLOSE * max(own, rotated):
        return "about as many concepts as"
    return "more concepts than" if own > rotated else "fewer concepts than"


def _base_of(layer: LayerSummary) -> str:
    """The layer that the units of `layer` are read out of, "" where they are its own."""
    readout = layer.entry.get("readout")
    return readout["base"] if readout else ""
